import base64
import io
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from auricle.data import shard_index
from auricle.data.shards import ShardSet, ShardWriter, safe_key
from auricle.data.tar_members import is_safe_name
from auricle.errors import DataError, OutputError


def tone(num_samples=800, seed=0):
    return (np.random.default_rng(seed).integers(-9000, 9000, num_samples) / 32768).astype(np.float32)


def fill(folder, count=20, name="set", **options):
    with ShardWriter(folder, name, **options) as writer:
        for i in range(count):
            writer.write(f"clip-{i}", tone(500 + 37 * i, i), {"text": f"né {i}", "age": i})
    return ShardSet(folder)


def test_clips_come_back_exactly(tmp_path):
    shards = fill(tmp_path, 20, max_bytes=12_000)
    assert len(shards) == 20
    assert len(shards.shards) > 2
    assert shards.keys() == [f"clip-{i}" for i in range(20)]
    assert shards.num_samples.tolist() == [500 + 37 * i for i in range(20)]
    for i in (19, 0, 7):
        record = shards.read(i)
        assert (record.key, record.meta) == (f"clip-{i}", {"text": f"né {i}", "age": i})
        assert record.waveform.dtype == np.float32
        assert np.array_equal(record.waveform, tone(500 + 37 * i, i))
        assert shards.read_meta(i) == record.meta
    with pytest.raises(IndexError):
        shards.read(20)
    with pytest.raises(IndexError):
        shards.read(-1)


def test_shards_keep_their_size(tmp_path):
    fill(tmp_path, 30, max_bytes=20_000)
    sizes = [path.stat().st_size for path in tmp_path.glob("*.tar")]
    assert len(sizes) > 2
    assert max(sizes) <= 20_000 + tarfile.RECORDSIZE


def test_the_same_clips_give_the_same_bytes(tmp_path):
    one, two = fill(tmp_path / "a"), fill(tmp_path / "b")
    assert (tmp_path / "a/set-000000.tar").read_bytes() == (tmp_path / "b/set-000000.tar").read_bytes()
    assert one.manifest_hash == two.manifest_hash
    assert fill(tmp_path / "c", max_bytes=12_000).manifest_hash == one.manifest_hash
    assert fill(tmp_path / "d", 19).manifest_hash != one.manifest_hash


def test_plain_tar_readers_understand_the_shards(tmp_path):
    fill(tmp_path, 3)
    with tarfile.open(tmp_path / "set-000000.tar", "r:") as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [
            f"clip-{i}.{kind}" for i in range(3) for kind in ("flac", "json")
        ]
        assert all((member.mtime, member.uid, member.uname) == (0, 0, "") for member in members)
        waveform, rate = soundfile.read(tar.extractfile("clip-1.flac"), dtype="float32")
        assert rate == 16_000
        assert np.array_equal(waveform, tone(537, 1))
        assert json.load(tar.extractfile("clip-1.json")) == {"age": 1, "text": "né 1"}


WEBDATASET = """
import base64, json, sys, webdataset
for sample in webdataset.WebDataset(sys.argv[1], shardshuffle=False):
    print(json.dumps([sample["__key__"], sample["json"].decode(), base64.b64encode(sample["flac"]).decode()]))
"""


def test_webdataset_reads_the_shards(tmp_path):
    pytest.importorskip("webdataset")
    fill(tmp_path, 3)
    command = [sys.executable, "-c", WEBDATASET, str(tmp_path / "set-000000.tar")]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    keys, facts, files = zip(*map(json.loads, lines), strict=True)
    assert keys == ("clip-0", "clip-1", "clip-2")
    assert json.loads(facts[2]) == {"age": 2, "text": "né 2"}
    waveform, _ = soundfile.read(io.BytesIO(base64.b64decode(files[2])), dtype="float32")
    assert np.array_equal(waveform, tone(574, 2))


def test_a_lost_index_is_built_anew_and_equal(tmp_path):
    shards = fill(tmp_path, 12, max_bytes=8_000)
    kept = {index.tar: index for index in shards.shards}
    for path in tmp_path.glob("*.index.safetensors"):
        path.unlink()
    again = ShardSet(tmp_path)
    assert again.manifest_hash == shards.manifest_hash
    for index in again.shards:
        for name, column in index.columns.items():
            assert np.array_equal(column, kept[index.tar].columns[name]), name
    assert len(list(tmp_path.glob("*.index.safetensors"))) == len(kept)


def test_the_tars_of_a_folder_are_all_that_is_not_hidden(tmp_path):
    fill(tmp_path, 12, max_bytes=8_000)
    assert {path.suffix for path in tmp_path.iterdir() if not path.name.startswith((".", "_"))} == {".tar"}


def test_an_index_that_is_not_hidden_is_read_and_replaced(tmp_path):
    shards = fill(tmp_path, 3)
    hidden = shard_index.index_path(tmp_path / "set-000000.tar")
    before = hidden.rename(tmp_path / "set-000000.index.safetensors")
    assert ShardSet(tmp_path).manifest_hash == shards.manifest_hash
    assert not hidden.exists()  # the one that is there was used
    before.write_bytes(b"garbage")
    with pytest.raises(DataError, match="not a usable shard index"):
        ShardSet(tmp_path)


def test_nothing_appears_after_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path, "set", max_bytes=5000) as writer:
        for i in range(10):
            writer.write(f"c{i}", tone(), {})
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_shards_and_can_start_again(tmp_path):
    code = (
        "import sys, os, numpy as np\n"
        "from auricle.data.shards import ShardWriter\n"
        "writer = ShardWriter(sys.argv[1], 'set', max_bytes=5000)\n"
        "for i in range(10): writer.write(f'c{i}', np.zeros(4000, np.float32), {})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    with pytest.raises(DataError, match=r"no \.tar files"):
        ShardSet(tmp_path)
    assert len(fill(tmp_path)) == 20
    assert not list(tmp_path.glob(".*tmp"))


def test_a_writer_refuses_to_overwrite(tmp_path):
    fill(tmp_path, 2)
    with pytest.raises(DataError, match="exists already"):
        ShardWriter(tmp_path, "set")
    fill(tmp_path, 2, name="other")
    assert len(ShardSet(tmp_path)) == 4


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match=r"set: cannot be written \(No space left on device"):
        with ShardWriter(tmp_path / "set", "a") as writer:
            writer.write("a", tone(), {})
            writer._tar.fileobj.close()
            writer._tar.fileobj = open("/dev/full", "wb", buffering=0)  # takes not even the end of the tar
            writer.write("b", tone(), {})
    assert list((tmp_path / "set").iterdir()) == []


def test_two_writers_do_not_write_one_set(tmp_path):
    with ShardWriter(tmp_path, "set") as writer:
        writer.write("a", tone(), {})
        with pytest.raises(OutputError, match=r"set: another run is writing here \(process \d+"):
            ShardWriter(tmp_path, "set")
        fill(tmp_path, 3, name="set-10")  # a name that begins alike is another set
    fill(tmp_path, 2, name="set-10-000000")
    assert len(ShardSet(tmp_path)) == 6
    assert all(path.name.endswith(".index.safetensors") for path in tmp_path.glob(".*"))


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "../a", "é", "a b", "x" * 91])
def test_bad_keys_are_refused(tmp_path, key):
    with ShardWriter(tmp_path, "set") as writer, pytest.raises(DataError, match="keys are unique"):
        writer.write(key, tone(), {})


@given(st.text(max_size=200), st.text(max_size=200))
def test_safe_keys_are_safe_and_differ(one, two):
    assert is_safe_name(safe_key(one))
    assert safe_key(safe_key(one)) == safe_key(one)
    assert 1 <= len(safe_key(one)) <= 90
    assert (safe_key(one) == safe_key(two)) == (one == two)


@pytest.mark.parametrize(
    ("waveform", "meta"),
    [
        (np.zeros(0, np.float32), {}),
        (np.zeros((2, 10), np.float32), {}),
        (np.zeros(10, np.int16), {}),
        (np.array([0, np.nan], np.float32), {}),
        (np.array([0, 3000.0], np.float32), {}),
        (np.zeros(10, np.float32), {"x": object()}),
        (np.zeros(10, np.float32), {"x": float("nan")}),
        (np.zeros(10, np.float32), {"x": "y" * (1 << 20)}),
    ],
)
def test_what_a_shard_cannot_hold_is_refused(tmp_path, waveform, meta):
    with ShardWriter(tmp_path, "set") as writer:
        with pytest.raises(DataError, match="'a'"):
            writer.write("a", waveform, meta)
        writer.write("a", tone(), {})
        with pytest.raises(DataError, match="written before"):
            writer.write("a", tone(), {})
    assert ShardSet(tmp_path).keys() == ["a"]


def test_overshoot_is_clipped(tmp_path):
    with ShardWriter(tmp_path, "set") as writer:
        writer.write("a", np.array([1.5, -1.5, 0.5], np.float32), {})
    assert ShardSet(tmp_path).read(0).waveform.tolist() == [32767 / 32768, -1.0, 0.5]


def test_threads_and_forks_share_a_set(tmp_path):
    shards = fill(tmp_path, 20)
    wanted = [tone(500 + 37 * i, i).tolist() for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(range(20)) * 20
        assert all(
            record.waveform.tolist() == wanted[i]
            for i, record in zip(numbers, pool.map(shards.read, numbers), strict=True)
        )
    assert pickle.loads(pickle.dumps(shards)).read(3).waveform.tolist() == wanted[3]  # noqa: S301 - our own bytes
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        assert [record.waveform.tolist() for record in processes.map(shards.read, [2, 5])] == [wanted[2], wanted[5]]


def test_a_changed_tar_is_noticed(tmp_path):
    fill(tmp_path, 5)
    path = tmp_path / "set-000000.tar"
    contents = bytearray(path.read_bytes())
    contents[600] ^= 1
    path.write_bytes(contents)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="has changed since its index"):
        ShardSet(tmp_path)


def test_a_copied_tar_with_a_new_time_is_accepted(tmp_path):
    shards = fill(tmp_path, 5)
    os.utime(tmp_path / "set-000000.tar", ns=(1, 1))
    assert ShardSet(tmp_path).manifest_hash == shards.manifest_hash


def test_damage_behind_the_index_is_found_when_the_clip_is_read(tmp_path):
    shards = fill(tmp_path, 5)
    place = int(shards.shards[0].columns["audio_offset"][3]) + 100
    with (tmp_path / "set-000000.tar").open("r+b") as file:
        file.seek(place)
        file.write(b"\xff\x00\xff")
    assert shards.read(2).key == "clip-2"
    with pytest.raises(DataError, match=r"set-000000\.tar: clip 'clip-3' is not what the index states"):
        shards.read(3)


def test_a_missing_shard_of_a_set_is_noticed(tmp_path):
    shards = fill(tmp_path, 20, max_bytes=12_000)
    total, last = len(shards.shards), shards.shards[-1].tar
    last.unlink()
    with pytest.raises(DataError, match=f"holds {total - 1} of the {total} shards"):
        ShardSet(tmp_path)
    some = ShardSet([index.tar for index in shards.shards[:2]])
    assert some.read(0).key == "clip-0"
    last.with_name("gone").mkdir()
    for nothing in (last.with_name("gone"), last, []):
        with pytest.raises(DataError):
            ShardSet(nothing)


def test_a_vanished_shard_is_a_data_error(tmp_path):
    shards = fill(tmp_path, 2)
    (tmp_path / "set-000000.tar").unlink()
    with pytest.raises(DataError, match="cannot read"):
        shards.read(0)


@pytest.mark.parametrize("damage", ["garbage", "cut", "beyond", "negative", "format"])
def test_a_forged_index_is_refused(tmp_path, damage):
    from safetensors.numpy import load_file, save_file

    fill(tmp_path, 3)
    path = shard_index.index_path(tmp_path / "set-000000.tar")
    columns = load_file(path)
    if damage == "garbage":
        path.write_bytes(b"\xff" * 100)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "format":
        save_file(columns, path, {"format": "other"})
    else:
        columns["audio_size"] = columns["audio_size"].copy()
        columns["audio_size"][1] = {"beyond": 1 << 50, "negative": -5}[damage]
        save_file(columns, path, {"format": "auricle-shard-index-1", "ignored": "{}"})
    with pytest.raises(DataError, match="not a usable shard index"):
        ShardSet(tmp_path)


def test_audio_files_lie_as_they_were_stored(tmp_path):
    shards = fill(tmp_path, 3)
    stored = [shards.read_audio(i) for i in range(3)]
    for i, sound in enumerate(stored):
        assert np.array_equal(soundfile.read(io.BytesIO(sound), dtype="float32")[0], tone(500 + 37 * i, i))
    with tarfile.open(tmp_path / "set-000000.tar") as tar:
        assert tar.extractfile("clip-1.flac").read() == stored[1]
    with pytest.raises(IndexError):
        shards.read_audio(3)
    tar = tmp_path / "set-000000.tar"
    content = tar.read_bytes()
    place = content.index(stored[1]) + len(stored[1]) - 4
    status = tar.stat()
    tar.write_bytes(content[:place] + b"\0\1\2\3" + content[place + 4 :])
    os.utime(tar, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"clip 'clip-1' is not what the index states"):
        shards.read_audio(1)


KILLED = """
import os, signal, sys
import numpy as np
from auricle import files
from auricle.data.shards import ShardWriter

moved = 0
def replace(*paths, before=os.replace):
    global moved
    moved += 1
    if moved > int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    before(*paths)

os.replace = replace
with ShardWriter(sys.argv[1], "s", max_bytes=1) as writer:
    for at in range(3):
        writer.write(f"old{at}", np.full(400, 0.1, np.float32), {})
"""


@pytest.mark.parametrize("moved", [0, 1, 4])
def test_a_run_after_a_kill_while_publishing_goes_on(tmp_path, warm_python, moved):
    assert subprocess.run([warm_python, "-c", KILLED, str(tmp_path), str(moved)]).returncode == -9
    assert not (tmp_path / "s-000000.tar").exists()
    with ShardWriter(tmp_path, "s", max_bytes=1) as writer:
        for at in range(2):
            writer.write(f"new{at}", tone(), {})
    assert ShardSet(tmp_path).keys() == ["new0", "new1"]
    assert len(list(tmp_path.iterdir())) == 4


def test_shards_of_a_set_without_its_first_are_not_deleted(tmp_path):
    with ShardWriter(tmp_path, "s", max_bytes=1) as writer:
        for at in range(2):
            writer.write(f"k{at}", tone(), {})
    (tmp_path / "s-000000.tar").unlink()
    with pytest.raises(DataError, match=r"s-000001\.tar exists already"):
        ShardWriter(tmp_path, "s")


def test_sets_whose_names_start_alike_do_not_touch_each_other(tmp_path):
    with ShardWriter(tmp_path, "esc-10") as one:
        one.write("k1", tone(), {})
        with ShardWriter(tmp_path, "esc") as other:
            other.write("k2", tone(), {})
    assert ShardSet(tmp_path / "esc-000000.tar").keys() == ["k2"] and ShardSet(tmp_path).keys() == ["k2", "k1"]
