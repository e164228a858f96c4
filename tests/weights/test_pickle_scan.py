"""Pickles of a few bytes that would take gigabytes or hours: refused before anything is made of them."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from auricle.errors import UnsafeWeights
from auricle.weights import safe
from auricle.weights.encoder_layouts import read_encoder

ONE = b"K\x01"
SOME = b"(" + ONE * 50_000 + b"t"  # a tuple


def name_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def put(number: int) -> bytes:
    return b"r" + struct.pack("<I", number)


def get(number: int) -> bytes:
    return b"j" + struct.pack("<I", number)


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return name_of(module, name) + b"(" + b"".join(arguments) + b"tR"


def integer(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def doubled(times: int) -> bytes:
    """A tuple of two tuples of two tuples …; to hash or print it takes 2 ** times steps."""
    start = ONE + put(0)
    return start + b"".join(get(level) + get(level) + b"\x86" + put(level + 1) for level in range(times))


def copies(module: str, name: str, content: bytes) -> bytes:
    """A list of many copies of one object."""
    return content + put(0) + b"0](" + call(module, name, get(0)) * 20_000 + b"e"


BOMBS = {
    "bytearray": call("builtins", "bytearray", integer(6 * 2**30)),
    "bytearray of Python 2": call("__builtin__", "bytearray", integer(6 * 2**30)),
    "list of bytearray": call("builtins", "list", call("builtins", "bytearray", integer(10**9))),
    "storage": call("torch.storage", "UntypedStorage", integer(6 * 2**30)),
    "tensor": call("torch", "Tensor", integer(2**31)),
    "new tensor": name_of("torch", "FloatTensor") + b"(" + integer(2**31) + b"t\x81",
    "through a rebuilder": call(
        "torch._tensor",
        "_rebuild_from_type_v2",
        name_of("builtins", "bytearray"),
        name_of("torch", "Tensor"),
        b"(" + integer(6 * 2**30) + b"t",
        b"}",
    ),
    "sets": copies("builtins", "set", SOME),
    "dictionaries": copies("collections", "OrderedDict", b"](" + b"K\x01K\x02\x86" * 20_000 + b"e"),
    "texts": copies("_codecs", "encode", b"X" + struct.pack("<I", 10**6) + b"x" * 10**6),
    "lists": copies("builtins", "list", SOME),
    "one path": call("pathlib", "PosixPath", b"X" + struct.pack("<I", 10**5) + b"x" * 10**5 + put(0) + get(0) * 50_000),
    "attributes": b"}(" + b"".join(integer(i) + ONE for i in range(20_000)) + b"u" + put(0) + b"0]("
    + (name_of("collections", "OrderedDict") + b")R" + get(0) + b"b") * 20_000 + b"e",
    "hash": b"}" + doubled(60) + ONE + b"s",
    "set of a tuple": call("builtins", "set", b"](" + doubled(60) + b"e"),
    "text of a list": call("builtins", "str", b"]" + put(0) + b"(" + ONE * 99 + b"e"),
    "long operations": b"\x8b" + struct.pack("<i", 10**6) + b"\x01" * 10**6,
    "unknown operation": b"\x95" + struct.pack("<Q", 2**40),
    "nothing": b"",
}  # fmt: skip


def write(path: Path, body: bytes, old: bool) -> Path:
    """A checkpoint of the old form, or an archive, whose pickle is ``body``."""
    content = b"\x80\x02" + body + b"."
    if old:
        path.write_bytes(content)
        return path
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, stored in entries.items():
            archive.writestr(name, content if name.endswith("data.pkl") else stored)
    return path


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("read", [safe.read_tensors, read_encoder])
def test_bombs_are_refused(tmp_path: Path, bomb: str, old: bool, read: Any) -> None:
    file = write(tmp_path / "model.pt", BOMBS[bomb], old)
    with pytest.raises(UnsafeWeights, match="not run"):
        read(file)


def test_a_pickle_that_is_cut_short(tmp_path: Path) -> None:
    whole = pickle.dumps({"a": [1, 2, (3, 4)]}, protocol=2)
    for end in range(len(whole)):
        (tmp_path / "model.pt").write_bytes(whole[:end])
        with pytest.raises(UnsafeWeights):
            safe.read_tensors(tmp_path / "model.pt")


@pytest.mark.parametrize("old", [False, True])
def test_what_checkpoints_hold_passes(tmp_path: Path, old: bool) -> None:
    shared = torch.arange(6.0)
    content = {
        "model": OrderedDict(
            a=shared, b=shared[2:4], c=torch.nn.Parameter(shared.view(2, 3).t()), d=torch.zeros(0), e=shared.bfloat16()
        ),
        "args": {"path": tmp_path, "names": {"x", "y"}, "bytes": b"\x00\xff", "size": shared.shape, "more": (1, [2.5])},
        "state": {"dtype": torch.float16, "device": torch.device("cpu"), "flags": defaultdict(dict)},
    }
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=not old)
    found = safe.read_pickled(tmp_path / "model.pt", [defaultdict, dict])
    assert found["args"]["names"] == {"x", "y"} and found["args"]["bytes"] == b"\x00\xff"
    model = safe.tensors_of(found, "model.pt")
    assert model.keys() == content["model"].keys()
    assert all(torch.equal(model[name], content["model"][name]) for name in model)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**9),
        torch.zeros(4).as_strided((10**5, 4), (0, 1)),
        torch.sparse_coo_tensor([[0]], [1.0], (10**9,), check_invariants=True),
        torch.empty(10**9, device="meta"),
    ],
    ids=["expanded", "strided", "sparse", "meta"],
)
def test_tensors_that_stand_for_more_than_is_there(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save({"x": tensor}, tmp_path / "model.pt")
    with pytest.raises(UnsafeWeights):
        safe.read_tensors(tmp_path / "model.pt")


def test_many_views_of_one_tensor(tmp_path: Path) -> None:
    whole = torch.zeros(1000)
    torch.save({f"{i}": whole.view(-1) for i in range(9)}, tmp_path / "model.pt")
    with pytest.raises(UnsafeWeights, match="again and again"):
        safe.read_tensors(tmp_path / "model.pt")
    torch.save({f"{i}": whole for i in range(2)}, tmp_path / "model.pt")
    assert len(safe.read_tensors(tmp_path / "model.pt")) == 2


def test_archives_that_two_readers_see_differently(tmp_path: Path) -> None:
    file = write(tmp_path / "model.pt", b"}", old=False)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning):
        archive.writestr(archive.namelist()[0], b"\x80\x02}.")
    with pytest.raises(UnsafeWeights, match="two files of one name"):
        safe.read_tensors(file)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + b"\0" * 2**24)
    file.write_bytes(packed.getvalue())
    with pytest.raises(UnsafeWeights, match="compressed"):
        safe.read_tensors(file)
