import io
import json
import subprocess
import tarfile

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auricle.data import label_tars
from auricle.data.label_tars import (
    LabelledFile,
    Refused,
    find_tars,
    read_label_tar,
    stream_label_tars,
    write_label_tars,
)
from auricle.errors import AudioError, DataError, OutputError
from auricle.files import locked


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def write(path, rows, **options):
    with tarfile.open(path, "w:", **options) as tar:
        for name, contents in rows:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents))
    return path


def test_samples_are_read_where_they_lie(tmp_path):
    rows = [
        ("./a.flac", b"AA"),
        ("./a.json", b'{"label": 3}'),
        ("b/c.1.json", b'[{"onset": 0}]'),
        ("b/c.1.WAV", b"C" * 900),
    ]
    found = read_label_tar(write(tmp_path / "x.tar", rows))
    assert [(clip.key, clip.label, clip.audio.read()) for clip in found.clips] == [
        ("a", {"label": 3}, b"AA"),
        ("b/c.1", [{"onset": 0}], b"C" * 900),
    ]
    assert len(found) == 2 and not found.refused


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_is_hostile_is_refused_by_name(tmp_path, format):
    good = [("a.flac", b"A"), ("a.json", b"1")]
    bad = [
        ("/etc/b.flac", b"B", "unsafe name"),
        ("../c.wav", b"C", "unsafe name"),
        ("d/../../d.ogg", b"D", "unsafe name"),
        (member("e.flac", tarfile.SYMTYPE, "/etc/passwd"), b"", "no plain file"),
        (member("f.flac", tarfile.LNKTYPE, "a.flac"), b"", "no plain file"),
        (member("g.flac", tarfile.CHRTYPE), b"", "no plain file"),
        (member("h", tarfile.DIRTYPE), b"", "no plain file"),
        ("i.pkl", b"I", "no audio, JSON or text"),
        ("j.txt", b"J", "no audio, JSON or text"),
        ("a.wav", b"again", "second member of the same name"),
        ("k.mp3", b"K", "audio without a label"),
        ("l.json", b"{}", "a label without audio"),
    ]
    path = write(tmp_path / "x.tar", [*good, *((name, contents) for name, contents, _ in bad)], format=format)
    found = read_label_tar(path)
    assert [clip.key for clip in found.clips] == ["a"]
    wanted = {(getattr(name, "name", name), reason) for name, _, reason in bad}
    assert {(refused.member, refused.reason) for refused in found.refused} == wanted


def test_a_label_that_is_none(tmp_path):
    path = write(tmp_path / "x.tar", [("a.flac", b"A"), ("a.json", b"{"), ("b.flac", b"B"), ("b.json", b"[" * 100_000)])
    found = read_label_tar(path)
    assert not found.clips
    assert [refused.member for refused in found.refused] == ["a.flac", "b.flac"]
    assert all("not valid JSON" in refused.reason for refused in found.refused)


def test_a_label_too_large(tmp_path):
    path = write(tmp_path / "x.tar", [("a.flac", b"A"), ("a.json", b" " * (8 << 20) + b"1")])
    found = read_label_tar(path)
    assert found.refused == (
        Refused(path, "a.json", "too large"),
        Refused(path, "a.flac", "audio without a label"),
    )


def test_a_tar_that_is_none_or_cut(tmp_path):
    with pytest.raises(DataError, match="no tar at"):
        read_label_tar(tmp_path / "x.tar")
    path = write(tmp_path / "x.tar", [("a.json", b"1"), ("a.flac", b"A" * 3000)])
    clip = read_label_tar(path).clips[0]
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="damaged or forged"):
        read_label_tar(path)
    with pytest.raises(DataError, match=r"a\.flac has .* of 3000 bytes"):
        clip.audio.read()
    path.unlink()
    with pytest.raises(DataError, match="was the tar moved"):
        clip.audio.read()


def test_streams_run_over_all_tars_of_a_pattern(tmp_path):
    for number in (1, 0):
        rows = [(f"k{number}.ogg", b"K"), (f"k{number}.json", b"1"), ("spare.json", b"2")]
        write(tmp_path / f"train-{number:06d}.tar", rows)
    write(tmp_path / "valid-000000.tar", [("v.ogg", b"V"), ("v.json", b"1")])
    found = list(stream_label_tars(tmp_path, "train*.tar"))
    assert [item.key if hasattr(item, "key") else item.member for item in found] == [
        "k0",
        "spare.json",
        "k1",
        "spare.json",
    ]
    with pytest.raises(DataError, match=r"no tar test\*\.tar in .*; found train-000000\.tar"):
        find_tars(tmp_path, "test*.tar")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=st.lists(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4), max_size=6))
def test_any_labels_come_back_in_order(tmp_path, labels):
    rows = []
    for number, label in enumerate(labels):
        rows += [(f"{number}.flac", bytes([number]) * number), (f"{number}.json", json.dumps(label).encode())]
    found = read_label_tar(write(tmp_path / "x.tar", rows))
    assert [clip.label for clip in found.clips] == labels
    assert [clip.audio.read() for clip in found.clips] == [bytes([n]) * n for n in range(len(labels))]


def labelled_files(folder, count, size=900, label=None):
    """Sounds of noise bytes, labelled by their number."""
    folder.mkdir(exist_ok=True)
    made = []
    for number in range(count):
        path = folder / f"{number}.FLAC"
        path.write_bytes(bytes([number]) * size)
        made.append(LabelledFile(f"k{number}", path, {"label": number} if label is None else label))
    return made


def test_written_tars_are_read_back(tmp_path):
    given = labelled_files(tmp_path / "in", 5)
    made = write_label_tars(tmp_path / "out", {"a-*.tar": given[:3], "b*.tar": given[3:4], "c_0.tar": given[4:]})
    assert [path.name for path in made] == ["a-000000.tar", "b-000000.tar", "c_0.tar"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in made)
    found = [clip for path in made for clip in read_label_tar(path).clips]
    assert [(clip.key, clip.label) for clip in found] == [(f"k{number}", {"label": number}) for number in range(5)]
    assert [clip.audio.read() for clip in found] == [clip.path.read_bytes() for clip in given]
    assert [clip.audio.name for clip in found] == [f"k{number}.flac" for number in range(5)]
    with tarfile.open(made[0]) as tar:
        assert {(member.mtime, member.uname, member.uid) for member in tar} == {(0, "", 0)}


def test_the_same_clips_give_the_same_tars(tmp_path):
    given = labelled_files(tmp_path / "in", 4)
    one, two = (write_label_tars(tmp_path / name, {"a-*.tar": given}) for name in ("one", "two"))
    assert one[0].read_bytes() == two[0].read_bytes()


def test_tars_are_closed_before_they_outgrow_the_limit(tmp_path):
    given = labelled_files(tmp_path / "in", 7, size=10_000)
    seen = []
    made = write_label_tars(tmp_path / "out", {"a-*.tar": given}, max_bytes=40_000, progress=seen.append)
    assert [path.name for path in made] == [f"a-{number:06d}.tar" for number in range(4)]
    assert all(path.stat().st_size <= 40_000 for path in made)
    assert [len(read_label_tar(path)) for path in made] == [2, 2, 2, 1]
    assert seen == [1] * 7
    large = write_label_tars(tmp_path / "large", {"a-*.tar": given}, max_bytes=1)
    assert len(large) == 7
    (single,) = write_label_tars(tmp_path / "single", {"a.tar": given}, max_bytes=1)
    assert len(read_label_tar(single)) == 7


def test_what_is_no_audio_of_a_tar_becomes_flac_sample_for_sample(tmp_path):
    rng = np.random.default_rng(0)
    for subtype, dtype in (("PCM_16", "int16"), ("PCM_24", "int32"), ("ULAW", "int16")):
        waveform = rng.uniform(-0.9, 0.9, (700, 2))
        soundfile.write(tmp_path / f"{subtype}.au", waveform, 22_050, subtype=subtype)
        stored, _ = soundfile.read(tmp_path / f"{subtype}.au", dtype=dtype)
        (tar,) = write_label_tars(tmp_path / subtype, {"a.tar": [LabelledFile("k", tmp_path / f"{subtype}.au", 1)]})
        (clip,) = read_label_tar(tar).clips
        assert clip.audio.name == "k.flac"
        found, rate = soundfile.read(io.BytesIO(clip.audio.read()), dtype=dtype)
        assert rate == 22_050 and np.array_equal(found, stored)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s._replace(key="k0"), DataError, "'k0' of .* is taken"),
        (lambda s: s._replace(key="a/b"), DataError, "other characters"),
        (lambda s: s._replace(key="../a"), DataError, "other characters"),
        (lambda s: s._replace(path=s.path.with_name("gone.wav")), DataError, r"cannot read .*gone\.wav"),
        (lambda s: s._replace(label=float("nan")), DataError, "cannot be stored as JSON"),
        (lambda s: s._replace(label={1, 2}), DataError, "cannot be stored as JSON"),
        (lambda s: s._replace(label="x" * (8 << 20)), DataError, "at most 8,388,608 are read"),
        (lambda s: s._replace(path=s.path.with_name("empty.wav")), DataError, "has 0 bytes"),
        (lambda s: s._replace(path=s.path.with_name("text.aiff")), AudioError, "cannot be read as audio"),
        (lambda s: s._replace(path=s.path.with_name("text.au")), AudioError, "is RAW"),
        (lambda s: s._replace(path=s.path.with_name("float.au")), AudioError, "which FLAC cannot hold"),
    ],
)
def test_a_set_with_a_fault_leaves_nothing(tmp_path, change, error, message):
    given = labelled_files(tmp_path / "in", 2)
    (tmp_path / "in/empty.wav").touch()
    for name in ("text.au", "text.aiff"):
        (tmp_path / "in" / name).write_text("no sound")
    soundfile.write(tmp_path / "in/float.au", np.zeros(10), 8_000, subtype="FLOAT")
    with pytest.raises(error, match=message):
        write_label_tars(tmp_path / "out", {"a-*.tar": given[:1], "b-*.tar": [given[0], change(given[1])]})
    assert not (tmp_path / "out").exists() and list(tmp_path.glob(".*")) == []


def test_old_tars_are_not_touched(tmp_path):
    given = labelled_files(tmp_path / "in", 1)
    (old,) = write_label_tars(tmp_path, {"a-*.tar": given})
    before = old.read_bytes()
    with pytest.raises(DataError, match=r"a-000000\.tar exists already"):
        write_label_tars(tmp_path, {"b-*.tar": given, "a-*.tar": given})
    assert old.read_bytes() == before and not list(tmp_path.glob("b-*"))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"out: cannot be written \(Not a directory"):
        write_label_tars(tmp_path / "file" / "out", {"a-*.tar": []})


def test_a_clip_too_large_to_be_read_again_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(label_tars, "CLIP_LIMITS", label_tars.CLIP_LIMITS.__class__(max_bytes=10))
    with pytest.raises(DataError, match="has 900 bytes, expected 1 … 10"):
        write_label_tars(tmp_path / "out", {"a-*.tar": labelled_files(tmp_path / "in", 1)})


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=2000), st.text(max_size=9)), min_size=1), st.integers(1, 9_000)
)
def test_any_clips_come_back_in_order(tmp_path_factory, given_clips, max_bytes):
    folder = tmp_path_factory.mktemp("any")
    given_files = []
    for number, (audio, label) in enumerate(given_clips):
        (folder / f"{number}.wav").write_bytes(audio)
        given_files.append(LabelledFile(f"k{number}", folder / f"{number}.wav", label))
    write_label_tars(folder / "out", {"a-*.tar": given_files}, max_bytes=max_bytes)
    found = list(stream_label_tars(folder / "out", "a-*.tar"))
    assert [(clip.audio.read(), clip.label) for clip in found] == given_clips


KILLED = """
import os, signal, sys
from pathlib import Path
from auricle.data.label_tars import LabelledFile, write_label_tars

def kill(*paths):
    os.kill(os.getpid(), signal.SIGKILL)

out, clip = map(Path, sys.argv[1:])
out.mkdir()
calls = iter([os.replace])
os.replace = lambda *paths: next(calls, kill)(*paths)
write_label_tars(out, {"a-*.tar": [LabelledFile("old", clip, 1)], "b-*.tar": [LabelledFile("other", clip, 2)]})
"""


def test_a_run_after_a_kill_while_publishing_goes_on(tmp_path, warm_python):
    (clip,) = labelled_files(tmp_path / "in", 1)
    out = tmp_path / "out"
    assert subprocess.run([warm_python, "-c", KILLED, str(out), str(clip.path)]).returncode == -9
    assert [path.name for path in out.glob("*.tar")] == ["b-000000.tar"]
    write_label_tars(out, {"a-*.tar": [clip], "b-*.tar": [clip]})
    assert [[each.key for each in read_label_tar(out / f"{name}-000000.tar").clips] for name in "ab"] == [
        ["k0"],
        ["k0"],
    ]


def test_two_runs_do_not_write_tars_of_one_folder(tmp_path):
    (clip,) = labelled_files(tmp_path / "in", 1)
    with locked(tmp_path / "out"), pytest.raises(OutputError, match="another run is writing here"):
        write_label_tars(tmp_path / "out", {"a-*.tar": [clip]})
