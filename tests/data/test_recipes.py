import json

import numpy as np
import pytest
import soundfile

from auricle.data.manifest import Entry, write_manifest
from auricle.data.recipes import DIGITS, esc50, from_manifest, fsdd, pack, speechocean762
from auricle.data.shards import ShardSet
from auricle.errors import DataError


def write_wave(path, rate=16_000, seconds=0.25, channels=1, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = np.random.default_rng(seed).uniform(-0.3, 0.3, (int(rate * seconds), channels))
    soundfile.write(path, waveform, rate)
    return path


@pytest.fixture
def esc(tmp_path):
    (tmp_path / "meta").mkdir()
    rows = ["1-1-A-0.wav,1,0,dog,True,1,A", "2-2-A-38.wav,2,38,clock_tick,True,2,A", "3-3-A-0.wav,3,0,dog,True,3,A"]
    (tmp_path / "meta/esc50.csv").write_text(
        "filename,fold,target,category,esc10,src_file,take\n" + "\n".join(rows) + "\n"
    )
    write_wave(tmp_path / "audio/1-1-A-0.wav", 44_100)
    write_wave(tmp_path / "audio/2-2-A-38.flac", 44_100)
    return tmp_path


def test_esc50(esc):
    entries = esc50(esc)
    assert entries[1] == Entry(
        "2-2-A-38",
        esc / "audio" / "2-2-A-38.flac",
        {"kind": "sound", "event": "clock_tick", "fold": 2, "set": "esc50"},
    )
    assert [entry.id for entry in esc50(esc, folds=(1, 3))] == ["1-1-A-0", "3-3-A-0"]
    with pytest.raises(DataError, match=r"no fold \['7'\]; found \['1', '2', '3'\]"):
        esc50(esc, folds=[1, 7])
    (esc / "meta/esc50.csv").write_text("filename\na.wav\n")
    with pytest.raises(DataError, match="no fold or no category"):
        esc50(esc)


def test_fsdd(tmp_path):
    for name in ("7_george_0.wav", "0_ann_12.flac", "notes.txt", "7_george.wav"):
        (tmp_path / "recordings").mkdir(exist_ok=True)
        (tmp_path / "recordings" / name).touch()
    known = {"kind": "speech", "language": "en", "set": "fsdd"}
    assert fsdd(tmp_path) == [
        Entry("0_ann_12", tmp_path / "recordings/0_ann_12.flac", {**known, "text": "zero", "speaker": "ann"}),
        Entry(
            "7_george_0",
            tmp_path / "recordings/7_george_0.wav",
            {**known, "text": "seven", "speaker": "george", "gender": "m"},
        ),
    ]
    assert [entry.id for entry in fsdd(tmp_path, speakers=["ann"])] == ["0_ann_12"]
    with pytest.raises(DataError, match=r"no speaker \['bob'\]"):
        fsdd(tmp_path, speakers={"bob"})
    with pytest.raises(DataError, match="expected layout"):
        fsdd(tmp_path / "recordings")
    assert len(DIGITS) == 10


def test_speechocean762(tmp_path):
    row = {"id": "01", "audio": "a/01.ogg", "text": "WE CALL IT", "speaker": "0001", "gender": "f", "age": 6}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    facts = {"kind": "speech", "text": "we call it", "language": "en", "set": "speechocean762"}
    assert speechocean762(tmp_path, split="test") == [
        Entry("01", tmp_path / "a/01.ogg", {**facts, "gender": "f", "age": 6, "speaker": "0001"})
    ]
    with pytest.raises(DataError, match="no manifest"):
        speechocean762(tmp_path, split="train")
    with pytest.raises(DataError, match="splits"):
        speechocean762(tmp_path, split="../x")
    (tmp_path / "train.jsonl").write_text('{"audio": "a.ogg", "text": "A"}\n')
    with pytest.raises(DataError, match="lacks"):
        speechocean762(tmp_path, split="train")


def test_pack_reports_what_it_leaves_out(esc, tmp_path):
    (esc / "audio/bad.wav").write_bytes(b"RIFFgarbage")
    entries = [*esc50(esc), Entry("bad", esc / "audio/bad.wav"), Entry("1-1-A-0", esc / "audio/1-1-A-0.wav")]
    calls = []
    report = pack(entries, tmp_path / "out", "esc", progress=lambda done, failed: calls.append((done, failed)))
    assert report.written == 2
    assert report.audio_s == pytest.approx(0.5, abs=0.01)
    assert [name for name, _ in report.failed] == ["3-3-A-0", "bad", "1-1-A-0"]
    assert "no such file" in report.failed[0][1]
    assert "written before" in report.failed[2][1]
    assert calls == [(1, 0), (2, 0), (3, 1), (4, 2), (5, 3)]
    shards = ShardSet(tmp_path / "out")
    assert shards.manifest_hash == report.manifest_hash
    assert shards.keys() == ["1-1-A-0", "2-2-A-38"]
    assert abs(shards.num_samples - 4000).max() <= 1
    assert shards.read(1).meta["event"] == "clock_tick"


def test_pack_names_flawed_sources(tmp_path):
    path = write_wave(tmp_path / "cut.wav", seconds=2)
    path.write_bytes(path.read_bytes()[:-20_000])
    report = pack([Entry("cut", path)], tmp_path / "out", "set")
    assert report.written == 1
    assert report.flawed == [("cut", "truncated")]


def test_pack_gives_the_same_bytes_for_any_number_of_workers(tmp_path):
    entries = [Entry(f"dir/e{i}", write_wave(tmp_path / f"{i}.wav", 8000, 0.1 + 0.01 * i, 2, i)) for i in range(12)]
    write_manifest(tmp_path / "m.csv", entries)
    reports = [pack(from_manifest(tmp_path / "m.csv"), tmp_path / f"w{w}", "set", workers=w) for w in (1, 4)]
    assert reports[0].manifest_hash == reports[1].manifest_hash
    one, four = ((tmp_path / name / "set-000000.tar").read_bytes() for name in ("w1", "w4"))
    assert one == four
    assert ShardSet(tmp_path / "w1").read(3).meta == {"id": "dir/e3"}


def test_pack_of_nothing_readable_writes_nothing(tmp_path):
    report = pack([Entry("a", tmp_path / "a.wav")], tmp_path / "out", "set")
    assert (report.written, len(report.failed), report.manifest_hash) == (0, 1, None)
    assert list((tmp_path / "out").iterdir()) == []


def test_pack_does_not_open_what_is_no_regular_file(tmp_path):
    report = pack([Entry("zero", tmp_path.__class__("/dev/zero"))], tmp_path / "out", "set")
    assert "not a regular file" in report.failed[0][1]


def test_pack_passes_on_a_manifest_error_and_leaves_no_shards(tmp_path):
    write_wave(tmp_path / "a.wav")
    (tmp_path / "m.jsonl").write_text('{"audio": "a.wav"}\nnonsense\n')
    with pytest.raises(DataError, match="line 2"):
        pack(from_manifest(tmp_path / "m.jsonl"), tmp_path / "out", "set")
    assert list((tmp_path / "out").iterdir()) == []
