import io
import json
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auricle.data.label_tars import Refused, find_tars, read_label_tar, stream_label_tars
from auricle.errors import DataError


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
    assert [(sound.key, sound.label, sound.audio.read()) for sound in found.sounds] == [
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
    assert [sound.key for sound in found.sounds] == ["a"]
    wanted = {(getattr(name, "name", name), reason) for name, _, reason in bad}
    assert {(refused.member, refused.reason) for refused in found.refused} == wanted


def test_a_label_that_is_none(tmp_path):
    path = write(tmp_path / "x.tar", [("a.flac", b"A"), ("a.json", b"{"), ("b.flac", b"B"), ("b.json", b"[" * 100_000)])
    found = read_label_tar(path)
    assert not found.sounds
    assert [refused.member for refused in found.refused] == ["a.flac", "b.flac"]
    assert all("no valid JSON" in refused.reason for refused in found.refused)


def test_a_label_too_large(tmp_path):
    path = write(tmp_path / "x.tar", [("a.flac", b"A"), ("a.json", b" " * (1 << 20) + b"1")])
    found = read_label_tar(path)
    assert found.refused == (
        Refused(path, "a.json", "too large"),
        Refused(path, "a.flac", "audio without a label"),
    )


def test_a_tar_that_is_none_or_cut(tmp_path):
    with pytest.raises(DataError, match="no tar at"):
        read_label_tar(tmp_path / "x.tar")
    path = write(tmp_path / "x.tar", [("a.json", b"1"), ("a.flac", b"A" * 3000)])
    sound = read_label_tar(path).sounds[0]
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="damaged or forged"):
        read_label_tar(path)
    with pytest.raises(DataError, match=r"a\.flac has .* of 3000 bytes"):
        sound.audio.read()
    path.unlink()
    with pytest.raises(DataError, match="was the tar moved"):
        sound.audio.read()


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
    assert [sound.label for sound in found.sounds] == labels
    assert [sound.audio.read() for sound in found.sounds] == [bytes([n]) * n for n in range(len(labels))]
