import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from auricle.data.label_tars import read_label_tar
from auricle.data.shard_index import from_rows, load, save
from auricle.data.shards import ShardSet, build_index
from auricle.data.tar_members import TarMember, described_by, member_objection, split_member_name, tar_members
from auricle.errors import DataError


def tone(num_samples=800, seed=0):
    return (np.random.default_rng(seed).integers(-9000, 9000, num_samples) / 32768).astype(np.float32)


def encoded(waveform, rate=16_000, kind="FLAC"):
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=kind)
    return file.getvalue()


def write_tar(path, members, kind="w:", **options):
    """A tar of (name or TarInfo, contents) pairs."""
    with tarfile.open(path, kind, **options) as tar:
        for name, contents in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents))
    return path


@pytest.mark.parametrize("options", [{"format": tarfile.GNU_FORMAT}, {"format": tarfile.PAX_FORMAT}])
def test_tars_of_others(tmp_path, options):
    long = "deep/" * 30 + "é" * 40
    write_tar(
        tmp_path / "x.tar",
        [
            ("./a.flac", encoded(tone(900))),
            ("./a.json", b'{"text": "one"}'),
            ("b.v2.WAV", encoded(tone(8000), 8000, "WAV")),
            ("b.v2.txt", b" zwei\n"),
            ("c.json", b'{"text": "before"}'),
            ("c.ogg", encoded(np.zeros(44_100, np.float32), 44_100, "OGG")),
            (f"{long}.flac", encoded(tone(700, 1))),
        ],
        **options,
    )
    shards = ShardSet(tmp_path / "x.tar")
    assert shards.keys() == ["a", "b.v2", "c", long]
    assert shards.num_samples.tolist() == [900, 16_000, 16_000, 700]
    records = [shards.read(i) for i in range(4)]
    assert [record.meta for record in records] == [{"text": "one"}, {"text": "zwei"}, {"text": "before"}, {}]
    assert [len(record.waveform) for record in records] == [900, 16_000, 16_000, 700]
    assert not shards.ignored


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_hostile_members_are_left_out_and_counted(tmp_path):
    good = encoded(tone())
    lying = bytearray(good)
    lying[21:26] = b"\x0f" + b"\xff" * 4  # 2^36 samples
    path = write_tar(
        tmp_path / "x.tar",
        [
            ("good.flac", good),
            ("evil.pkl", pickle.dumps(Bomb(tmp_path / "was-run"))),
            ("good.pth", pickle.dumps(Bomb(tmp_path / "was-run"))),
            ("../climb.flac", good),
            ("/etc/passwd.flac", good),
            ("a/../../b.flac", good),
            ("line\nbreak.flac", good),
            (special("link.flac", tarfile.SYMTYPE, "/etc/passwd"), b""),
            (special("hard.flac", tarfile.LNKTYPE, "good.flac"), b""),
            (special("device.flac", tarfile.CHRTYPE), b""),
            (special("pipe.flac", tarfile.FIFOTYPE), b""),
            (special("folder.flac", tarfile.DIRTYPE), b""),
            ("good.flac", good),
            ("noise.flac", b"fLaC" + b"\0" * 500),
            ("empty.wav", b""),
            ("huge.flac", bytes(lying)),
            ("list.flac", good),
            ("list.json", b"[1]"),
            ("deep.flac", good),
            ("deep.json", b"[" * 200_000),
            ("big.json", b" " * ((1 << 20) + 1)),
            ("orphan.json", b"{}"),
        ],
    )
    index = build_index(path)
    assert index.keys() == ["good"]
    counts = index.ignored
    assert counts["no audio, JSON or text"] == 2
    assert counts["unsafe name"] == 4
    assert counts["no plain file"] == 5
    assert counts["second member of the same name"] == 1
    assert counts["too large"] == 1
    assert counts["description without audio"] == 1
    assert sum(counts.values()) == 19
    assert not (tmp_path / "was-run").exists()
    with pytest.warns(UserWarning, match=r"19 members are left out \(.*unsafe name: 4\)"):
        assert len(ShardSet(path).read(0).waveform) == 800


def forged(change):
    """A tar whose second header went through `change` and got a right checksum again."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("a.flac", "b.flac"):
            info = tarfile.TarInfo(name)
            contents = encoded(tone())
            info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents))
    contents = bytearray(file.getvalue())
    start = 512 + -(-len(encoded(tone())) // 512) * 512
    change(header := contents[start : start + 512])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    contents[start : start + 512] = header
    return bytes(contents)


def set_size(field):
    def change(header):
        header[124:136] = field

    return change


def set_type(kind):
    def change(header):
        header[156:157] = kind

    return change


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"no tar at all" * 100,
        forged(set_size(b"77777777777\0")),
        forged(set_size(b"\x80" + b"\xff" * 11)),
        forged(set_size(b"\xff" * 10 + b"\xf8\x00")),
        forged(set_size(b"99999999999\0")),
        forged(set_type(tarfile.SYMTYPE)),
        forged(set_type(tarfile.GNUTYPE_SPARSE)),
        forged(lambda header: None)[:2048],
        forged(lambda header: None)[: -tarfile.RECORDSIZE],
    ],
    ids=["empty", "text", "huge", "huge binary", "negative", "no octal", "link", "sparse", "cut", "unclosed"],
)
def test_damaged_and_forged_tars_are_refused(tmp_path, contents):
    (tmp_path / "x.tar").write_bytes(contents)
    with pytest.raises(DataError, match=r"x\.tar"):
        build_index(tmp_path / "x.tar")


@pytest.mark.parametrize(
    "headers", [{"size": "-512"}, {"size": "9" * 30}, {"path": "../x.flac"}, {"GNU.sparse.major": "1"}]
)
def test_hostile_extended_headers(tmp_path, headers):
    info = tarfile.TarInfo("a.flac")
    info.pax_headers = headers
    path = write_tar(tmp_path / "x.tar", [(info, encoded(tone()))], format=tarfile.PAX_FORMAT)
    if "size" in headers:
        with pytest.raises(DataError):
            build_index(path)
    else:
        assert sum(build_index(path).ignored.values()) == 1


def test_a_giant_extended_header_is_refused(tmp_path):
    info = tarfile.TarInfo("a.flac")
    info.pax_headers = {"comment": "x" * (2 << 20)}
    path = write_tar(tmp_path / "x.tar", [(info, encoded(tone()))], format=tarfile.PAX_FORMAT)
    with pytest.raises(DataError, match="extended header"):
        build_index(path)


def test_compressed_tars_are_refused(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.flac", encoded(tone()))], "w:gz")
    with pytest.raises(DataError, match="plain, uncompressed"):
        build_index(path)


@pytest.mark.filterwarnings("ignore:.*members are left out")
@given(data=st.data())
def test_random_damage_never_escapes_as_another_error(tmp_path_factory, data):
    contents = bytearray(forged(lambda header: None))
    for _ in range(data.draw(st.integers(1, 8))):
        contents[data.draw(st.integers(0, 4600))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    path.write_bytes(contents)
    try:
        shards = ShardSet(path)
        for i in range(len(shards)):
            shards.read(i)
    except DataError:
        pass


def test_members_lie_where_they_are_said_to(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.wav", b"AA"), (tarfile.TarInfo("b/c.json"), b"{}" * 400), ("d", b"")])
    members = list(tar_members(path))
    assert [(member.name, member.size, member.is_file) for member in members] == [
        ("a.wav", 2, True),
        ("b/c.json", 800, True),
        ("d", 0, True),
    ]
    stored = path.read_bytes()
    assert [stored[m.offset : m.offset + m.size] for m in members] == [b"AA", b"{}" * 400, b""]
    path.write_bytes(stored[:2000])  # in the midst of the second member
    with pytest.raises(DataError, match="damaged or forged"):
        list(tar_members(path))


@pytest.mark.parametrize(
    ("name", "parts"),
    [("a.flac", ("a", "flac")), ("./a/b.c.FLAC", ("a/b.c", "flac")), ("a", ("", "a")), (".json", ("", "json"))],
)
def test_names_of_members_are_split(name, parts):
    assert split_member_name(name) == parts


def test_why_a_member_is_left_out():
    good = TarMember("a.flac", 512, 9, is_file=True)
    assert member_objection(good, {}) is None
    assert member_objection(good._replace(is_file=False), {}) == "no plain file"
    assert member_objection(good._replace(name="../a.flac"), {}) == "unsafe name"
    assert member_objection(good, None) == "no audio, JSON or text"
    assert member_objection(good, {"a": good}) == "second member of the same name"
    label = TarMember("a.json", 512, (1 << 20) + 1, is_file=True)
    assert member_objection(label, {}) == "too large"
    assert member_objection(label, {}, max_label_bytes=2 << 20) is None
    assert member_objection(good._replace(size=(1 << 30) + 1), {}, max_label_bytes=1 << 40) == "too large"


NAMES = [
    "می\u200cخواهم",
    "Recording 10.04\u202fAM",
    "日本\u3000語",
    "👩\u200d🚒",
    "\u200eabc\u200f",
    "cafe\u0301",
    "plain",
]


def test_names_of_all_languages_are_kept(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"{name}.flac", encoded(tone(900, at))) for at, name in enumerate(NAMES)])
    shards = ShardSet(tmp_path / "x.tar")
    assert shards.keys() == NAMES and not shards.ignored


@given(st.characters(categories=["Cc", "Cs", "Zl", "Zp"]) | st.sampled_from("\u202d\u202e"))
def test_control_characters_and_turned_directions_are_not(character):
    member = TarMember(f"a{character}b.flac", 0, 9, True)
    assert member_objection(member, {}) == "unsafe name"


def test_tars_one_behind_the_other_are_one(tmp_path):
    parts = [
        write_tar(tmp_path / f"{name}.tar", [(f"{name}.flac", encoded(tone(900))), (f"{name}.json", b'{"n": 1}')])
        for name in "abc"
    ]
    whole = tmp_path / "whole.tar"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    shards = ShardSet(whole)
    assert shards.keys() == ["a", "b", "c"] and [shards.read(at).meta for at in range(3)] == [{"n": 1}] * 3
    whole.write_bytes(parts[0].read_bytes() + bytes(3 << 20) + parts[1].read_bytes() + b"no header" * 99)
    assert build_index(whole).keys() == ["a", "b"]


@pytest.mark.parametrize(
    ("audio", "described", "found"),
    [
        (["1.speech"], ["1"], {"1.speech": "1"}),
        (["1.speech.v2"], ["1", "1.speech"], {"1.speech.v2": "1.speech"}),
        (["1.left", "1.right"], ["1"], {"1.left": "1", "1.right": "1"}),
        (["1", "1.v2"], ["1"], {"1": "1"}),  # the description of another clip
        (["d.x/1.speech"], ["d", "d.x/1"], {"d.x/1.speech": "d.x/1"}),
        (["d.x/1"], ["d"], {}),
        ([".a"], [""], {}),
    ],
)
def test_a_description_is_of_the_longest_start_of_a_name(audio, described, found):
    assert described_by(audio, described) == found


def test_descriptions_of_names_with_several_suffixes(tmp_path):
    write_tar(
        tmp_path / "x.tar",
        [
            ("1.speech.flac", encoded(tone(900))),
            ("1.json", b'{"text": "one"}'),
            ("2.flac", encoded(tone(900))),
            ("2.json", b'{"text": "two"}'),
            ("2.txt", b"zwei"),
            ("3.json", b"{}"),
        ],
    )
    with pytest.warns(UserWarning, match=r"1 members are left out \(description without audio: 1\)"):
        shards = ShardSet(tmp_path / "x.tar")
    assert [shards.read(at).meta for at in range(2)] == [{"text": "one"}, {"text": "two"}]
    assert ShardSet(tmp_path / "x.tar").keys() == ["1.speech", "2"]  # said once, when it is indexed
    assert shards.ignored == {"description without audio": 2 - 1}
    labels = read_label_tar(tmp_path / "x.tar")
    assert [clip.label for clip in labels.clips] == [{"text": "one"}, {"text": "two"}]
    assert [each.member for each in labels.refused] == ["2.txt", "3.json"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["../../x", "b"], "the key '../../x'"),
        (["/etc/x", "b"], "the key '/etc/x'"),
        (["a/../../b", "b"], "the key"),
        (["a\x1b[2J", "b"], "the key"),
        (["", "b"], "without a key"),
        (["x" * 600, "b"], "the key"),
        (["b", "b"], "two clips of one key"),
    ],
)
def test_keys_of_an_index_are_checked(tmp_path, keys, message):
    tar = write_tar(tmp_path / "a.tar", [("a.flac", encoded(tone())), ("b.flac", encoded(tone(seed=1)))])
    index = build_index(tar)
    rows = [index.row(number)._replace(key=key) for number, key in enumerate(keys)]
    save(from_rows(tar, rows, {}))
    with pytest.raises(DataError, match=message):
        load(tar)
