"""A look at a pickle before torch's restricted unpickler runs it: what that one lets pass must also stay small.

Thirty-five bytes can ask for a ``bytearray`` of gigabytes, and a list that is copied once for each two bytes of a
pickle grows with the square of its size. The stack is followed without making any object.
"""

import copy
import functools
import io
import pickletools
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from auricle.errors import UnsafeWeights

MAX_PICKLE_BYTES = 2**26  # without the tensors: one of 100,000 tensors has 20 MB
_MAX_COPIED = 2**27  # bytes of the pickle that stand for what is copied again
_MAX_NESTED = 10**6  # parts of a tuple with all tuples in it, each as often as it occurs
_LEGACY = 5  # pickles at the start of a file that is no archive

# What may be called: parts of tensors, and containers. The settings of a reader come on top.
_TENSORS = frozenset(
    f"torch._utils._rebuild_{name}"
    for name in ("tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state")
)
_OF_TYPE = "torch._tensor._rebuild_from_type_v2"  # calls its first argument
_PLAIN = frozenset(("torch.Size", "torch.device", "torch.serialization._get_layout", "builtins.complex", _OF_TYPE))
_SCALARS = frozenset(f"builtins.{name}" for name in ("int", "float", "str", "bool"))
_COPIES = frozenset(f"builtins.{name}" for name in ("set", "list", "tuple", "dict")) | {
    "collections.OrderedDict",
    "collections.defaultdict",
    "_codecs.encode",
}
_POPS = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}  # and leave what is below


class _Item:
    """An object that would be made; not changed after it is."""

    __slots__ = ("is_plain", "is_shared", "name", "parts", "size")

    def __init__(self, name: str = "", parts: Collection["_Item"] | None = None) -> None:
        self.name = name  # of a global
        self.parts = parts  # of a tuple
        self.size: int = 1 + sum(part.size for part in parts or ())
        self.is_shared = False  # it was taken from the memo: what copies it does so again
        self.is_plain = not name and parts is None


# One of each for the millions that a large pickle pushes.
_VALUE, _CONTAINER = _Item(), _Item("", ())


def check_pickles(path: Path, extra: Collection[str] = ()) -> None:
    """Refuse a checkpoint whose pickles would allocate much more than they hold.

    Args:
        path: of an archive as torch writes it, or of its older form.
        extra: names of further classes that may be called.

    Raises:
        UnsafeWeights: it asks for that, or is damaged.
    """
    allowed = _TENSORS | _PLAIN | _COPIES | _SCALARS | {"torch.nn.parameter.Parameter"} | frozenset(extra)
    try:
        if zipfile.is_zipfile(path):
            _scan(io.BytesIO(_data_of(path)), allowed)
            return
        with path.open("rb") as file:
            head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
        for _ in range(_LEGACY):
            _scan(head, allowed)
    except _Refused as error:
        raise UnsafeWeights(
            f"{path}: the pickle {error}, expected tensors and settings; it was not run. Convert the file to "
            "safetensors where you trust it"
        ) from None
    except Exception as error:  # the libraries raise many kinds
        raise UnsafeWeights(
            f"{path}: no readable checkpoint of torch ({str(error) or type(error).__name__:.200}); it was not run. "
            "Download it again"
        ) from error


class _Refused(Exception):
    """What a pickle does that it must not."""


def _data_of(path: Path) -> bytes:
    """The pickle of an archive, by the reader that torch uses; two readers may see two files in one archive."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise _Refused("is in a compressed archive")
    if len({entry.filename for entry in entries}) < len(entries):
        raise _Refused("is in an archive with two files of one name")
    if any(entry.file_size > MAX_PICKLE_BYTES for entry in entries if entry.filename.endswith("data.pkl")):
        raise _Refused(f"has more than {MAX_PICKLE_BYTES} bytes without the tensors")
    content: bytes = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
    return content


def _scan(file: BinaryIO, allowed: Collection[str]) -> None:
    start = file.tell()
    length = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    stack: list[_Item] = []
    marks: list[list[_Item]] = []
    memo: dict[int, _Item] = {}
    copied = 0
    for name, argument in _operations(file):
        if name == "MARK":
            marks.append(stack)
            stack = []
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            items, stack = stack, marks.pop()
            if name == "TUPLE":
                stack.append(_tuple(items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [_tuple(stack[-count:])]
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            copied += length * _copies(function, arguments, allowed)
            stack.append(_CONTAINER)
        elif name in _POPS:
            popped = [stack.pop() for _ in range(_POPS[name])]
            copied += length * (name == "BUILD" and popped[0].is_shared)
        elif name == "BINPERSID":
            stack[-1] = _CONTAINER
        elif name.endswith("PUT"):
            memo[argument] = _shared(stack[-1])
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_Item(_global_name(argument)))
        elif name.startswith("EMPTY"):
            stack.append(_CONTAINER)
        elif name not in ("PROTO", "STOP"):
            stack.append(_VALUE)
        if len(stack) > _MAX_NESTED:
            raise _Refused("holds millions of parts at once")
        if copied > _MAX_COPIED:
            raise _Refused("copies what it holds again and again")


def _operations(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    known = _known_operations()
    for operation, argument, _ in pickletools.genops(file):
        if operation.name not in known:
            raise _Refused(f"uses the operation {operation.name}")
        yield operation.name, argument


@functools.cache
def _known_operations() -> frozenset[str]:
    """Operations of torch's restricted unpickler."""
    return frozenset(
        "PROTO STOP GLOBAL NEWOBJ REDUCE BUILD APPEND APPENDS SETITEM SETITEMS MARK TUPLE TUPLE1 TUPLE2 TUPLE3 NONE "
        "NEWFALSE NEWTRUE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET BININT BININT1 BININT2 BINFLOAT BINUNICODE "
        "SHORT_BINSTRING BINPERSID BINGET LONG_BINGET BINPUT LONG_BINPUT LONG1".split()
    )


def _copies(function: _Item, arguments: _Item, allowed: Collection[str]) -> int:
    """How many objects a call copies that are held elsewhere, too."""
    called = [function.name]
    parts = list(arguments.parts or ())
    if function.name == _OF_TYPE:
        called.append(parts[0].name if parts else "")
    if wrong := [name for name in called if name not in allowed]:
        raise _Refused(f"needs code ({wrong[0] or 'an object that is called'})")
    if function.name in _SCALARS and not all(part.is_plain for part in parts):
        raise _Refused(f"makes {function.name.removeprefix('builtins.')} of an object")
    is_copy = function.name in _COPIES or function.name.startswith("pathlib.")
    return sum(part.is_shared for part in parts) if is_copy else 0


def _tuple(items: list[_Item]) -> _Item:
    found = _Item("", items)
    if found.size > _MAX_NESTED:
        raise _Refused("nests tuples that would have millions of parts")
    return found


def _shared(item: _Item) -> _Item:
    found = copy.copy(item)
    found.is_shared = True
    return found


def _global_name(argument: str) -> str:
    """The name of a class today, as torch maps those of Python 2."""
    import _compat_pickle

    module, _, name = argument.partition(" ")
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[module, name]
    else:
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    return f"{module}.{name}"
