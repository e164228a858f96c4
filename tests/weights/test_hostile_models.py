"""Model folders with one thing wrong each: read as they are, or refused with an error of ours; never anything else.

Nothing of theirs is executed, and none takes a minute or 4 GB. A few of all changes are tried by default; with
``AURICLE_HOSTILE=all`` every one is.
"""

import copy
import json
import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from auricle import load_encoder
from auricle.errors import AuricleError
from auricle.listen.loading import load
from auricle.weights import convert
from auricle.weights.adapters import write_adapter

ALL = os.environ.get("AURICLE_HOSTILE") == "all"
MOST_S = 60
MOST_BYTES = 4 * 10**9  # resident, and of private memory that can be written; torch reserves more addresses than that
VALUES: list[Any] = [
    *(None, True, 0, 1, -1, 2, 3, 2**31, 2**63, 10**9, 10**30, 0.5, -0.5, 1e-300, 1e300, float("nan"), float("inf")),
    *("", "x", "\x1b[2J", "../../etc/passwd", "os:system", "\ud800", "x" * 10_000),
    *([], [1], [[]], ["x"], {}, {"a": 1}, {"type": "x"}, [0] * 1000),
]
JSON_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")
RAW: list[bytes] = [
    *(b"", b"\0", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe{}", b"\x80\x04.", b"{}", b"PK\x03\x04", b"NaN"),
    *(b"[" * 100_000, b'{"a":' * 100_000, b'{"model_type": "midashenglm"}', b"#!/bin/sh\ntouch mark\n", b" " * 2**20),
    b"9" * 10_000,
]
CLIP = (0.1 * np.random.default_rng(0).standard_normal(8_000)).astype(np.float32)


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of a JSON document; of long containers a few."""
    yield path
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for number, (key, value) in enumerate(parts):
        if number < 60:
            yield from leaves(value, (*path, key))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


Change = tuple[str, Callable[[Path], None]]


def changes(model: Path) -> Iterator[Change]:
    """Names of changes, and functions that make them in a folder."""
    for name in JSON_FILES:
        content = json.loads((model / name).read_text()) if (model / name).is_file() else {}
        for path in leaves(content):
            if len(path) > 3 and name == "tokenizer.json":
                continue
            for value in VALUES:
                yield f"{name} {path} {value!r:.30}", partial(rewrite, name, content, path, value)
    for name in (*JSON_FILES, "chat_template.jinja", "model.safetensors", "vocab.json", "model.safetensors.index.json"):
        for raw in RAW:
            yield f"{name} {raw[:20]!r}", lambda folder, n=name, r=raw: replace(folder / n, r)
        yield f"{name} pipe", lambda folder, n=name: (replace(folder / n, None), os.mkfifo(folder / n))[0]
        for target in ("/dev/zero", "/dev/null", "/nowhere", ".", "config.json"):
            yield f"{name} -> {target}", lambda folder, n=name, t=target: link(folder / n, t)
    for fault in (*TENSOR_FAULTS, *TEMPLATE_FAULTS):
        yield f"{fault}", {**TENSOR_FAULTS, **TEMPLATE_FAULTS}[fault]


def rewrite(name: str, content: Any, path: tuple[Any, ...], value: Any, folder: Path) -> None:
    replace(folder / name, json.dumps(changed(content, path, value)).encode())


def replace(file: Path, content: bytes | None) -> None:
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_bytes(content)


def link(file: Path, target: str) -> None:
    replace(file, None)
    file.symlink_to(target)


def tensors(change: Callable[[dict[str, torch.Tensor], str], None], part: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        found = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
        change(found, next(name for name in found if part in name))
        save_file(found, folder / "model.safetensors")

    return make


PARTS = (
    "embed_tokens",
    "q_proj.weight",
    "norm.weight",
    "patch_embed",
    "time_pos_embed",
    "init_bn.running_var",
    "net.0.weight",
)
KINDS: dict[str, Callable[[dict[str, torch.Tensor], str], Any]] = {
    "absent": lambda found, name: found.pop(name),
    "nan": lambda found, name: found[name].fill_(float("nan")),
    "infinite": lambda found, name: found[name].fill_(float("inf")),
    "empty": lambda found, name: found.update({name: torch.zeros(0)}),
    "scalar": lambda found, name: found.update({name: torch.zeros(())}),
    "integer": lambda found, name: found.update({name: found[name].to(torch.int32)}),
    "int8": lambda found, name: found.update({name: found[name].char(), f"{name}.row_scale": torch.ones(1).half()}),
    "boolean": lambda found, name: found.update({name: found[name] != 0}),
    "complex": lambda found, name: found.update({name: found[name].to(torch.complex64)}),
    "float8": lambda found, name: found.update({name: found[name].float().to(torch.float8_e4m3fn)}),
    "transposed": lambda found, name: found.update({name: found[name].flatten()[None].contiguous()}),
    "renamed": lambda found, name: found.update({f"\x1b[31m{name}": found.pop(name)}),
    "more": lambda found, name: found.update({f"{name}.more": torch.zeros(1)}),
    "deeper": lambda found, name: found.update({f"audio_encoder.blocks.{10**8}.{name}": torch.zeros(1)}),
}  # fmt: skip
TENSOR_FAULTS = {f"{kind} {part}": tensors(make, part) for kind, make in KINDS.items() for part in PARTS}
TEMPLATE_FAULTS: dict[str, Callable[[Path], None]] = {
    f"template {source[:20]}": lambda folder, s=source: replace(folder / "chat_template.jinja", s.encode())
    for source in (
        *("{{ 1/0 }}", "{% for %}", "{{ messages.x.y }}", "{{ raise_exception('no') }}", "", "{{ ''|center(9**9) }}"),
        *("{% include 'x' %}", "{{ ''.__class__ }}", "<|AUDIO|>" * 50, "{% for m in messages %}{{ m }}{% endfor %}"),
    )
}  # fmt: skip


def use(folder: Path) -> None:
    """What a user does with a model."""
    model = load(str(folder))
    assert isinstance(model.describe(CLIP, max_new_tokens=3).caption, str)
    model.ask(CLIP, "What?", choices=["dog", "cat"])


@pytest.fixture(scope="module")
def all_changes(model_folder: Path) -> list[Change]:
    return list(changes(model_folder))


@pytest.fixture(scope="module")
def model_folder() -> Path:
    return Path(__file__).resolve().parents[1] / "fixtures" / "midashenglm" / "model"


STARTS = ("subprocess.Popen", "os.posix_spawn")  # of this interpreter, for what is to be kept apart
EXECUTES = ("os.system", "os.exec", "os.spawn", "pty.spawn", "pickle.find_class", "socket.connect", "ctypes.dlopen")
executed: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def watched() -> Iterator[None]:
    """An audit hook cannot be removed; it is at rest before and after."""
    is_at_work = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if is_at_work and (event in EXECUTES or (event in STARTS and arguments[0] != sys.executable)):
            executed.append(f"{event} {arguments}")

    sys.addaudithook(hook)
    yield
    is_at_work = False


@contextmanager
def limited() -> Iterator[None]:
    """An allocation beyond the limit fails rather than the machine; the peak of resident memory begins anew."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (private_bytes() + MOST_BYTES, before[1]))
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def private_bytes() -> int:
    """Private memory that this process can write, and has from earlier tests."""
    found = [
        line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")
    ]
    return 1024 * int(found[0])


def peak_bytes() -> int:
    """Of this process since `limited` began, where the system tells; else since it started."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    own = [1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return own[0] if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fault(model: Path, folder: Path, change: Callable[[Path], None], using: Callable[[Path], None]) -> str:
    """What went wrong in another way than it may; empty: nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    change(folder)
    executed.clear()
    start = time.monotonic()
    try:
        with limited():
            using(folder)
    except AuricleError as error:
        if not str(error) or "\n" in str(error):
            return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    duration, peak = time.monotonic() - start, peak_bytes()
    print(f"{duration:.2f} s, {peak / 1e6:.0f} MB")
    is_small = duration < MOST_S and peak < MOST_BYTES
    return "" if is_small and not executed else f"{duration:.0f} s, {peak / 1e6:.0f} MB, executed: {executed}"


@pytest.mark.parametrize("part", range(8))
def test_language_models(model_folder: Path, all_changes: list[Change], tmp_path: Path, part: int) -> None:
    assert len(all_changes) > 1000
    chosen = all_changes[part::8] if ALL else random.Random(part).sample(all_changes, 10)
    found = {name: fault(model_folder, tmp_path / "model", change, use) for name, change in chosen}
    assert {name: why for name, why in found.items() if why} == {}


READERS: dict[str, Callable[[Path], Any]] = {
    "encoder": lambda folder: load_encoder(str(folder))(CLIP),
    "convert": lambda folder: convert(folder, folder / "new"),
}


@pytest.mark.parametrize("name", sorted({**TENSOR_FAULTS, **TEMPLATE_FAULTS}) if ALL else ["nan q_proj.weight"])
@pytest.mark.parametrize("reader", READERS)
def test_other_readers(model_folder: Path, tmp_path: Path, name: str, reader: str) -> None:
    change = {**TENSOR_FAULTS, **TEMPLATE_FAULTS}[name]
    assert fault(model_folder, tmp_path / "model", change, READERS[reader]) == ""


def use_adapter(folder: Path) -> None:
    load(str(folder), adapter=str(folder / "adapter"))


@pytest.mark.parametrize("part", range(4))
def test_adapters(model_folder: Path, tmp_path: Path, part: int) -> None:
    adapter = tmp_path / "adapter"
    update = {"decoder.model.layers.0.self_attn.q_proj": (torch.zeros(2, 128), torch.zeros(128, 2))}
    write_adapter(adapter, update, alpha=4)
    content = json.loads((adapter / "adapter_config.json").read_text())
    every = [(path, value) for path in leaves(content) for value in VALUES]
    every += [((key,), value) for key in ("modules_to_save", "exclude_modules", "bias", "new") for value in VALUES]

    def add(folder: Path) -> None:
        shutil.copytree(adapter, folder / "adapter")

    found = {}
    for path, value in every[part::4] if ALL else random.Random(part).sample(every, 8):
        rewrite("adapter_config.json", content, path, value, adapter)
        name = f"{path} {value!r:.30}"
        found[name] = fault(
            model_folder, tmp_path / "m", lambda _: None, lambda folder: load(str(folder), adapter=str(adapter))
        )
    assert {name: why for name, why in found.items() if why} == {}
