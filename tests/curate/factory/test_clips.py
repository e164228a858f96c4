from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle.curate.factory.clips import Piece, Source, cut, read_piece, sources_of, sources_of_shards, unique_keys
from auricle.data.manifest import Entry
from auricle.data.shards import ShardSet, ShardWriter
from auricle.errors import DataError

from .signals import RATE, noise


def write(path: Path, waveform: np.ndarray) -> Source:
    soundfile.write(path, waveform, RATE, "FLOAT")
    return Source(id=path.stem, audio=str(path), meta={"license": "CC0-1.0"})


def test_a_short_file_is_one_clip(tmp_path: Path) -> None:
    wave = noise(2)
    (piece,) = cut(write(tmp_path / "a.wav", wave))
    assert (piece.key, piece.start, piece.stop, piece.is_whole) == ("a", 0, len(wave), True)
    np.testing.assert_array_equal(read_piece(piece), wave)


def test_a_long_file_is_cut_and_nothing_is_lost(tmp_path: Path) -> None:
    wave = noise(24.4)
    pieces = cut(write(tmp_path / "a.wav", wave), 10.0)
    assert [piece.key for piece in pieces] == ["a_0_00_10_00", "a_10_00_20_00", "a_20_00_24_40"]
    np.testing.assert_array_equal(np.concatenate([read_piece(piece) for piece in pieces]), wave)
    assert len({piece.clip_hash for piece in pieces}) == 3


def test_a_last_piece_that_is_too_short_joins_the_one_before(tmp_path: Path) -> None:
    pieces = cut(write(tmp_path / "a.wav", noise(20.5)), 10.0)
    assert [piece.seconds for piece in pieces] == [10.0, 10.5]


@pytest.mark.parametrize("content", [b"", b"RIFF and nothing else", None])
def test_what_cannot_be_read_has_its_reason(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    (piece,) = cut(Source(id="bad", audio=str(path)))
    assert piece.error and not piece.clip_hash


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    (piece,) = cut(write(tmp_path / "a.wav", noise(1)))
    write(tmp_path / "a.wav", noise(1, 5))
    with pytest.raises(DataError, match="changed"):
        read_piece(piece)


def test_the_same_audio_has_the_same_hash_in_any_container(tmp_path: Path) -> None:
    wave = np.rint(noise(1) * 32768) / 32768
    soundfile.write(tmp_path / "a.wav", wave, RATE, "PCM_16")
    soundfile.write(tmp_path / "b.flac", wave, RATE, "PCM_16")
    one, other = (cut(Source(id=name, audio=str(tmp_path / name)))[0] for name in ("a.wav", "b.flac"))
    assert one.clip_hash == other.clip_hash


def test_shards_are_sources(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "in") as writer:
        for name in "ab":
            writer.write(name, noise(1, ord(name)), {"license": "CC BY", "caption": "hidden"})
    sources = sources_of_shards(ShardSet(tmp_path))
    assert [source.id for source in sources] == ["a", "b"]
    assert sources[0].meta["license"] == "CC BY"
    pieces = [piece for source in sources for piece in cut(source)]
    assert all(len(read_piece(piece)) == RATE for piece in pieces)


def test_pieces_survive_json() -> None:
    (source,) = sources_of([Entry("ü", Path("/x/ü.wav"), {"license": "CC0", "year": 2020})])
    piece = Piece(key="k", source=source, clip_hash="ab", start=3, stop=9, is_whole=False)
    assert Piece.from_json(piece.to_json()) == piece


def test_keys_are_unique() -> None:
    piece = Piece(key="a", source=Source(id="a", audio="a.wav"))
    keys = [each.key for each in unique_keys([piece, piece, replace(piece, key="b"), piece])]
    assert len(set(keys)) == 4 and keys[0] == "a"
