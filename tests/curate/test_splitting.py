import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.curate.decision import NAMES
from auricle.curate.splitting import Split, output_names, restore_tars, split_tars
from auricle.data import shard_index
from auricle.data.shards import ShardSet, ShardWriter
from auricle.errors import DataError


def wav(seed: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(seed).standard_normal(800), 8000, format="WAV")
    return file.getvalue()


def foreign_tar(path: Path, count: int, kind: int = tarfile.PAX_FORMAT, junk: bytes = b"") -> Path:
    """A tar of another writer: owners, times, long names, links, members of other kinds, bytes behind its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:

        def add(name: str, content: bytes, **more: object) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(content), 1_600_000_000, "someone"
            for key, value in more.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))

        add("about.md", b"read me")
        for i in range(count):
            key = f"{'deep/' * 30}clip {i} é" if i % 2 else f"clip{i}"
            add(f"{key}.json" if i % 3 else f"{key}.txt", json.dumps({"caption": f"c {i}"}).encode())
            add(f"{key}.wav", wav(i))
            add(f"{key}.cls", b"x" * (700 * i))
            if i == 1:
                add("link", b"", type=tarfile.SYMTYPE, linkname="about.md")
                add("empty.json", b"")
    path.write_bytes(path.read_bytes() + junk)
    return path


def split(shards: ShardSet, out: Path, verdicts: list[int], run: str = "r") -> None:
    out.mkdir(exist_ok=True)
    names, start, splits = output_names([index.tar for index in shards.shards]), 0, []
    for index, name in zip(shards.shards, names, strict=True):
        splits.append(Split(index, name, verdicts[start : start + len(index)]))
        start += len(index)
    assert list(split_tars(splits, out, run)) == [index.tar for index in shards.shards]


def members(shards: ShardSet) -> dict[str, tuple[bytes, dict[str, object]]]:
    return {shards.keys()[i]: (shards.read(i).waveform.tobytes(), shards.read(i).meta) for i in range(len(shards))}


@given(
    verdicts=st.lists(st.integers(0, 2), min_size=6, max_size=6),
    kind=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    junk=st.sampled_from([b"", b"behind the end", bytes(5000)]),
)
@settings(max_examples=25)
def test_any_tar_is_split_and_restored(
    tmp_path_factory: pytest.TempPathFactory, verdicts: list[int], kind: int, junk: bytes
) -> None:
    root = tmp_path_factory.mktemp("split")
    tar = foreign_tar(root / "in" / "a.tar", 6, kind, junk)
    content, mtime, shards = tar.read_bytes(), tar.stat().st_mtime_ns, ShardSet(tar)
    assert len(shards) == 6
    whole, keys = members(shards), shards.keys()
    split(shards, root / "out", verdicts)
    assert tar.read_bytes() == content
    found: dict[str, tuple[bytes, dict[str, object]]] = {}
    for place, name in enumerate(NAMES):
        part = root / "out" / name
        assert (part / "a.tar").exists() == (place in verdicts)
        if place in verdicts:
            given_index = ShardSet(part)
            assert given_index.keys() == [key for key, verdict in zip(keys, verdicts, strict=True) if verdict == place]
            found |= members(given_index)
            with tarfile.open(part / "a.tar", "r:") as opened:
                assert {"wav", "cls"} <= {member.name.rpartition(".")[2] for member in opened}
                assert all(member.uname == "someone" for member in opened)
            shard_index.index_path(part / "a.tar").unlink()
            assert ShardSet(part).manifest_hash == given_index.manifest_hash
    assert found == whole
    assert list(restore_tars(root / "out")) == [(tar, True)]
    tar.unlink()
    assert list(restore_tars(root / "out")) == [(tar, False)]
    assert tar.read_bytes() == content and tar.stat().st_mtime_ns == mtime
    assert list(restore_tars(root / "out", root / "new")) == [(root / "new" / "a.tar", False)]
    assert (root / "new" / "a.tar").read_bytes() == content


def our_shards(folder: Path, count: int = 8) -> ShardSet:
    with ShardWriter(folder, "set", max_bytes=6000) as writer:
        for i in range(count):
            writer.write(f"k{i}", 0.1 * np.random.default_rng(i).standard_normal(1000), {"caption": str(i)})
    return ShardSet(folder)


def test_sets_of_shards_stay_whole_sets(tmp_path: Path) -> None:
    shards = our_shards(tmp_path / "in")
    assert len(shards.shards) > 2
    verdicts = [0] * 4 + [2] * 4
    split(shards, tmp_path / "out", verdicts)
    kept = ShardSet(tmp_path / "out" / "keep")
    assert kept.keys() == ["k0", "k1", "k2", "k3"] and kept.shards[0].set_size == len(kept.shards)
    kept.shards[-1].tar.unlink()
    shard_index.index_path(kept.shards[-1].tar).unlink()
    with pytest.raises(DataError, match=r"holds \d of the \d shards of 'set'; download the others"):
        ShardSet(tmp_path / "out" / "keep")


def test_tars_of_the_same_name_stay_apart(tmp_path: Path) -> None:
    tars = [foreign_tar(tmp_path / folder / "x.tar", count) for folder, count in (("a", 3), ("b", 4))]
    contents = [tar.read_bytes() for tar in tars]
    shards = ShardSet(tars)
    split(shards, tmp_path / "out", [0, 1, 2, 0, 0, 1, 2])
    assert sorted(path.name for path in (tmp_path / "out" / "keep").glob("*.tar")) == ["0000-x.tar", "0001-x.tar"]
    for tar in tars:
        tar.unlink()
    assert [tar for tar, _ in restore_tars(tmp_path / "out")] == tars
    assert [tar.read_bytes() for tar in tars] == contents


def test_another_run_replaces_what_was_split_and_the_same_run_does_not(tmp_path: Path) -> None:
    shards, out = our_shards(tmp_path / "in"), tmp_path / "out"
    split(shards, out, [0] * 8)
    first = {path: path.stat().st_ino for path in out.rglob("*.tar")}
    split(shards, out, [0] * 8)
    assert {path: path.stat().st_ino for path in out.rglob("*.tar")} == first
    split(shards, out, [2] * 8, run="other")
    assert not list((out / "keep").iterdir()) and len(ShardSet(out / "drop")) == 8
    next((out / "drop").glob("*.tar")).unlink()
    split(shards, out, [2] * 8, run="other")
    assert len(ShardSet(out / "drop")) == 8


def test_output_that_changed_is_reported_and_nothing_is_overwritten(tmp_path: Path) -> None:
    tar = foreign_tar(tmp_path / "in" / "a.tar", 4)
    split(ShardSet(tar), tmp_path / "out", [0, 1, 2, 0])
    content = tar.read_bytes()
    tar.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"a\.tar exists and is not what the filter read"):
        list(restore_tars(tmp_path / "out"))
    assert tar.read_bytes() == b"something else"
    tar.unlink()
    kept = tmp_path / "out" / "keep" / "a.tar"
    whole = kept.read_bytes()
    for damaged, message in ((whole[:900] + b"!" + whole[901:], "keep/a.tar changed"), (whole[:700], "too early")):
        kept.write_bytes(damaged)
        with pytest.raises(DataError, match=message):
            list(restore_tars(tmp_path / "out"))
    kept.unlink()
    with pytest.raises(DataError, match=r"keep/a\.tar cannot be read"):
        list(restore_tars(tmp_path / "out"))
    assert not list(tar.parent.glob("*.tar*")) or not tar.exists()
    assert not list(tar.parent.glob(".*tmp"))
    kept.write_bytes(whole)
    assert [was for _, was in restore_tars(tmp_path / "out")] == [False]
    assert tar.read_bytes() == content


@pytest.mark.parametrize(
    "change", [{"name": "../../evil.tar"}, {"tar": "/etc/profile"}, {"pieces": [["../x", 3]]}, {"pieces": 7}]
)
def test_an_untrusted_list_cannot_name_other_places(tmp_path: Path, change: dict[str, object]) -> None:
    split(ShardSet(foreign_tar(tmp_path / "in" / "a.tar", 2)), tmp_path / "out", [0, 1])
    path = tmp_path / "out" / "undo" / "a.tar.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match="no list of pieces"):
        list(restore_tars(tmp_path / "out", tmp_path / "new"))


def test_tars_are_restored_near_the_output_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "work" / "out"
    out.mkdir(parents=True)
    split(ShardSet(foreign_tar(tmp_path / "in" / "a.tar", 2)), out, [0, 1])
    (tmp_path / "in" / "a.tar").unlink()
    path = out / "undo" / "a.tar.json"
    (tmp_path / "work" / "link").symlink_to(tmp_path / "in")
    for place in (tmp_path / "in" / "a.tar", tmp_path / "work" / "link" / "a.tar", tmp_path / "work/../in/a.tar"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "tar": str(place)}))
        with pytest.raises(DataError, match="name the folder for it with -o"):
            list(restore_tars(out))
    assert not (tmp_path / "in" / "a.tar").exists()
    monkeypatch.chdir(tmp_path)
    assert [was for _, was in restore_tars(out)] == [False]


def test_a_tar_that_grows_while_it_is_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from auricle.curate import splitting

    tar = foreign_tar(tmp_path / "in" / "a.tar", 2)
    shards, pieces = ShardSet(tar), splitting._pieces

    def late(split: Split) -> list[object]:
        found = list(pieces(split))
        tar.write_bytes(tar.read_bytes() + b"more")
        return found

    monkeypatch.setattr(splitting, "_pieces", late)
    with pytest.raises(DataError, match="changed while it was read"):
        split(shards, tmp_path / "out", [0, 1])
    assert not list((tmp_path / "out" / "undo").glob("*.json"))
