"""Files with false headers, files that hold code, files that are cut short: refused, and never run."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.errors import AuricleError, LayoutMismatch, UnsafeWeights, WeightsError
from auricle.weights import safe

SOME = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}


class Bomb:
    """Its unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin"])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("wrap", [lambda bomb: {"model": bomb}, lambda bomb: {"model": SOME, "config": bomb}, list])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, name: str, old: bool, wrap) -> None:  # type: ignore[no-untyped-def]
    mark, file = tmp_path / "ran", tmp_path / name
    content = wrap(Bomb(mark)) if wrap is not list else [Bomb(mark)]
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    with pytest.raises(UnsafeWeights, match=r"not\s+run") as caught:
        safe.read_tensors(file)
    assert not mark.exists()
    assert "safetensors" in str(caught.value)
    if not old:
        assert "mkdir" in str(caught.value)


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "model.pt"
    torch.save({"model": Bomb(mark)}, file)
    unpickle = torch.load
    unpickle(file, weights_only=False)
    assert mark.is_dir()


@pytest.mark.parametrize("old", [False, True])
def test_torch_checkpoints(tmp_path: Path, old: bool) -> None:
    file = tmp_path / "model.pt"
    for content in (SOME, {"model": SOME, "config": {"depth": 1}}, {"state_dict": SOME}):
        torch.save(content, file, _use_new_zipfile_serialization=not old)
        assert same(safe.read_tensors(file), SOME)
    torch.save({"epoch": 1}, file)
    with pytest.raises(LayoutMismatch, match="no tensors; its entries are epoch"):
        safe.read_tensors(file)
    torch.save([torch.zeros(1)], file)
    with pytest.raises(LayoutMismatch, match="holds a list"):
        safe.read_tensors(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"garbage" * 50, b"\x80\x02." * 3])
def test_broken_pickles(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(content)
    with pytest.raises(UnsafeWeights, match=r"model\.pt"):
        safe.read_tensors(file)


def test_safetensors_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    safe.write_tensors(file, SOME, {"config": "{}"})
    assert same(safe.read_tensors(file), SOME)
    assert safe.read_metadata(file) == {"format": "pt", "config": "{}"}
    assert file.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    assert safe.sha256(file) == safe.sha256(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    safe.write_tensors(file, SOME)
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError):
        safe.write_tensors(file, {"p": shared, "q": shared})
    assert same(safe.read_tensors(file), SOME)
    assert len(list(tmp_path.iterdir())) == 1


def test_weights_in_use_survive_being_replaced(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    safe.write_tensors(file, SOME)
    held = safe.read_tensors(file)
    safe.write_tensors(file, {"a": torch.zeros(2, 3), "b": torch.tensor(0)})
    assert same(held, SOME)
    held["a"].add_(1)  # changes memory, not the file
    assert safe.read_tensors(file)["a"].sum() == 0


def corrupt(header: dict | bytes, length: int | None = None, body: bytes = b"\0" * 8) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x02",
        corrupt({}, length=2**62),
        corrupt({}, length=0),
        corrupt(b"{" * 64),
        corrupt({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        corrupt({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}),
        corrupt({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}),
        corrupt({"a": {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]}}),
    ],
)
def test_lying_headers(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(UnsafeWeights, match=r"x\.safetensors"):
        safe.read_tensors(file)


@settings(max_examples=40)
@given(st.data())
def test_any_damage_is_an_error_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    safe.write_tensors(file, SOME)
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    try:
        safe.read_tensors(file)
    except AuricleError as error:
        assert str(file) in str(error)


def shards(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {f"t{i}": torch.full((10,), float(i)) for i in range(5)}
    written = safe.write_folder(folder, tensors, max_shard_bytes=85)
    assert [p.name for p in written] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        safe.INDEX,
    ]
    return tensors


def test_shards(tmp_path: Path) -> None:
    tensors = shards(tmp_path)
    assert same(safe.read_tensors(tmp_path), tensors)
    assert json.loads((tmp_path / safe.INDEX).read_text())["metadata"] == {"total_size": 200}
    whole = safe.sha256(tmp_path)
    safe.write_folder(tmp_path, tensors)
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors"}
    assert same(safe.read_tensors(tmp_path), tensors)
    assert safe.sha256(tmp_path) != whole


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "", "a\\b", 5, None]
)
def test_hostile_shard_names(tmp_path: Path, name: object) -> None:
    shards(tmp_path)
    (tmp_path / safe.INDEX).write_text(json.dumps({"weight_map": {"t0": name}}))
    with pytest.raises(UnsafeWeights, match="plain name"):
        safe.read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "error", "message"),
    [
        ({}, LayoutMismatch, "no weight_map"),
        ([], LayoutMismatch, "no weight_map"),
        ({"t0": "code.py"}, UnsafeWeights, "expected a .safetensors shard"),
        ({"t0": "model-00009-of-00009.safetensors"}, WeightsError, "1 of 1 shards are absent"),
        ({"t0": "model-00001-of-00003.safetensors"}, LayoutMismatch, "disagree on 1 tensors, e.g. t1"),
    ],
)
def test_wrong_indexes(tmp_path: Path, weight_map: object, error: type[Exception], message: str) -> None:
    shards(tmp_path)
    (tmp_path / safe.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(error, match=message):
        safe.read_tensors(tmp_path)


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, "\ud800"])
def test_wrong_json(tmp_path: Path, content: str) -> None:
    (tmp_path / safe.INDEX).write_text(content, errors="surrogatepass")
    with pytest.raises(WeightsError, match="index"):
        safe.read_tensors(tmp_path)


def test_folders_without_or_with_too_many_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        safe.read_tensors(tmp_path / "absent")
    with pytest.raises(WeightsError, match="found none"):
        safe.read_tensors(tmp_path)
    safe.write_tensors(tmp_path / "x.safetensors", SOME)
    assert same(safe.read_tensors(tmp_path), SOME)
    torch.save(SOME, tmp_path / "y.pt")
    with pytest.raises(WeightsError, match=r"found x\.safetensors, y\.pt"):
        safe.read_tensors(tmp_path)
    (tmp_path / "z.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match="unknown weights file"):
        safe.read_tensors(tmp_path / "z.gguf")


def test_checksums(tmp_path: Path) -> None:
    safe.write_tensors(tmp_path / "model.safetensors", SOME)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnsafeWeights, match="no SHA256SUMS"):
        safe.verify_checksums(tmp_path)
    safe.write_checksums(tmp_path)
    safe.verify_checksums(tmp_path)
    (tmp_path / "config.json").write_text("{ }")
    with pytest.raises(UnsafeWeights, match=r"config\.json: SHA-256 is"):
        safe.verify_checksums(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UnsafeWeights, match="SHA-256 is nothing"):
        safe.verify_checksums(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "extra.json").write_text("{}")
    with pytest.raises(UnsafeWeights, match=r"extra\.json.*expected no such file"):
        safe.verify_checksums(tmp_path)
    (tmp_path / safe.SUMS).write_text("00  ../../etc/passwd\n")
    with pytest.raises(UnsafeWeights, match="plain name"):
        safe.verify_checksums(tmp_path)


def test_shards_without_their_index_are_no_model(tmp_path: Path) -> None:
    tensors = {f"t{at}": torch.zeros(50) for at in range(4)}
    safe.write_folder(tmp_path, tensors, max_shard_bytes=400)
    with pytest.raises(
        WeightsError, match=r"model-00001-of-00002.safetensors is one of 2 shards, .* name their folder"
    ):
        safe.read_tensors(tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / safe.INDEX).unlink()
    message = rf"index missing: .* expected {safe.INDEX} .* hf download REPOSITORY {safe.INDEX} --local-dir {tmp_path}"
    for source in (tmp_path, tmp_path / "model-00002-of-00002.safetensors"):
        with pytest.raises(WeightsError, match=message):
            safe.read_tensors(source)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()  # as a kill while a folder is written leaves it
    with pytest.raises(WeightsError, match="index missing"):
        safe.read_tensors(tmp_path)


def test_a_link_to_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    with pytest.raises(WeightsError, match=r"model.safetensors: is a link to .*blob, which is not there"):
        safe.read_tensors(tmp_path)
