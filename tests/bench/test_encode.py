import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from auricle.bench import encode as embeddings
from auricle.bench.encode import cut, embed_clips
from auricle.bench.store import Store
from auricle.encode.encoder import load_encoder
from auricle.errors import AuricleError, ClipTooShort, ConfigError, DataError
from auricle.metrics.scoring_rule import ScoringRule


class Clip(NamedTuple):
    id: str
    held: bytes | Path

    def source(self) -> bytes | Path:
        return self.held


class Counting:
    """Frames of 1,000 samples: their mean and their number; notes their lengths."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.encoded: list[int] = []
        self.dies_after = dies_after

    def __call__(self, waveforms: list[np.ndarray]) -> Iterator[torch.Tensor | AuricleError]:
        for waveform in waveforms:
            if self.dies_after is not None and len(self.encoded) >= self.dies_after:
                raise KeyboardInterrupt
            self.encoded.append(len(waveform))
            if len(waveform) < 1000:
                yield ClipTooShort("too short")
                continue
            parts = torch.from_numpy(waveform[: len(waveform) // 1000 * 1000]).view(-1, 1000)
            yield torch.stack([parts.mean(1), torch.arange(len(parts)).float()], 1)


def wav(num_samples: int, seed: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)
    soundfile.write(buffer, noise, 16_000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def clips(*lengths: int) -> list[Clip]:
    return [Clip(f"s{number}", wav(length, number)) for number, length in enumerate(lengths)]


def test_every_clip_is_encoded_once_and_kept(tmp_path: Path) -> None:
    given = [*clips(4000, 2500, 9000), Clip("again", wav(2500, 1))]
    encoder = Counting()
    first = embed_clips(encoder, given, Store(tmp_path, "e", "t"))
    assert encoder.encoded == [2500, 4000, 9000] and (first.encoded, first.reused) == (3, 1)
    rows, owners = first.pooled()
    assert rows.shape == (4, 2) and owners.tolist() == [0, 1, 2, 3] and torch.equal(rows[1], rows[3])
    assert rows[2, 1] == 4.0 and first.pieces[2].lengths.tolist() == [9]
    second = embed_clips(encoder, given, Store(tmp_path, "e", "t"))
    assert len(encoder.encoded) == 3 and (second.encoded, second.reused) == (0, 4)
    assert torch.equal(second.pooled()[0], rows)


@pytest.mark.parametrize("other", [("e2", "t"), ("e", "t2")])
def test_another_encoder_or_transform_is_another_embedding(tmp_path: Path, other: tuple[str, str]) -> None:
    embed_clips(Counting(), clips(4000), Store(tmp_path, "e", "t"))
    again = Counting()
    embed_clips(again, clips(4000), Store(tmp_path, *other))
    assert again.encoded == [4000]


def test_crops_are_pieces_of_their_clip(tmp_path: Path) -> None:
    def equal_crops(waveform: np.ndarray) -> list[np.ndarray]:
        return [waveform[i : i + 2000] for i in range(0, len(waveform) - 1999, 2000)]

    found = embed_clips(Counting(), clips(*[10_000] * 32), Store(tmp_path, "e", "crop"), crop=equal_crops)
    rows, owners = found.pooled()
    assert len(rows) == 160 and owners.bincount().tolist() == [5] * 32
    assert len(rows.unique(dim=0)) == 160


def test_a_kill_costs_one_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "WINDOW_CLIPS", 2)
    given = clips(*[4000] * 6)
    with pytest.raises(KeyboardInterrupt):
        embed_clips(Counting(dies_after=3), given, Store(tmp_path, "e", "t"))
    (tmp_path / "x").mkdir()
    rest = Counting()
    found = embed_clips(rest, given, Store(tmp_path, "e", "t"))
    whole = embed_clips(Counting(), given, Store(tmp_path / "x", "e", "t"))
    assert len(rest.encoded) == 4 and torch.equal(found.pooled()[0], whole.pooled()[0])


def test_long_files_make_windows_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "WINDOW_BYTES", 20_000)
    store = Store(tmp_path, "e", "t")
    embed_clips(Counting(), clips(4000, 4000, 30_000, 4000), store)
    assert len(list(store.folder.glob("*.safetensors"))) == 3


def test_a_half_written_segment_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path, "e", "t")
    half = store.folder / ".abc.1-00000000.auricle-tmp"  # what a kill leaves
    half.mkdir()
    (half / "abc.safetensors").write_bytes(b"half")
    assert len(Store(tmp_path, "e", "t")) == 0
    (store.folder / "abc.safetensors").write_bytes(b"half")
    with pytest.raises(DataError, match="delete it"):
        Store(tmp_path, "e", "t")


@pytest.mark.parametrize("frames", [False, True])
@given(place=st.integers(0, 2**20), bit=st.integers(0, 7))
@settings(max_examples=60)
def test_a_changed_bit_is_found_and_its_clip_encoded_anew(
    tmp_path_factory: pytest.TempPathFactory, frames: bool, place: int, bit: int
) -> None:
    root, given_clips = tmp_path_factory.mktemp("store"), clips(4000, 3000)
    before = embed_clips(Counting(), given_clips, Store(root, "e", "t", frames=frames))
    (segment,) = root.rglob("*.safetensors")
    content = bytearray(segment.read_bytes())
    content[place % len(content)] ^= 1 << bit
    segment.write_bytes(content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = Counting()
        try:
            after = embed_clips(again, given_clips, Store(root, "e", "t", frames=frames))
        except DataError as error:
            assert re.search(rf"{segment.name}: no readable segment .* delete it", str(error))
            return
        assert embed_clips(Counting(), given_clips, Store(root, "e", "t", frames=frames)).reused == 2
    assert torch.equal(after.pooled()[0], before.pooled()[0])
    assert not frames or torch.equal(after.all_frames()[0], before.all_frames()[0])
    reports = [str(each.message) for each in said]
    assert bool(again.encoded) == bool(reports)
    assert all(re.search(r"[12] embeddings are damaged; their clips are encoded anew", each) for each in reports)


@pytest.mark.parametrize("change", ["counts", "digests", "lengths", "pooled"])
def test_a_segment_that_contradicts_itself_is_reported(tmp_path: Path, change: str) -> None:
    embed_clips(Counting(), clips(4000, 3000), Store(tmp_path, "e", "t"))
    (segment,) = tmp_path.rglob("*.safetensors")
    tensors = load_file(segment)
    tensors[change] = tensors[change][:1]
    save_file(tensors, segment)
    with pytest.raises(DataError, match=r"no readable segment .* delete it"):
        Store(tmp_path, "e", "t")


def test_failures_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    given = [*clips(4000, 500), Clip("noise", b"no audio at all"), Clip("gone", tmp_path / "gone.wav")]
    with pytest.raises(DataError, match=r"gone: cannot be read"):
        embed_clips(Counting(), given, Store(tmp_path, "e", "t"))
    with pytest.raises(DataError, match=r"2 of 3 clips .*(s1: too short|noise: ).*(s1: too short|noise: )"):
        embed_clips(Counting(), given[:3], Store(tmp_path, "e", "t"))
    again = Counting()
    embed_clips(again, given[:1], Store(tmp_path, "e", "t"))
    assert not again.encoded


def test_nothing_to_embed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clips"):
        embed_clips(Counting(), [], Store(tmp_path, "e", "t"))


def test_frames_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    class Broken(Counting):
        def __call__(self, waveforms: list[np.ndarray]) -> Iterator[torch.Tensor | AuricleError]:
            for result in super().__call__(waveforms):
                assert isinstance(result, torch.Tensor)
                result[0, 0] = float("nan")
                yield result

    with pytest.raises(DataError, match=r"no finite frames for 0\.25 s"):
        embed_clips(Broken(), clips(4000), Store(tmp_path, "e", "t"))


@given(lengths=st.lists(st.integers(1000, 9000), min_size=1, max_size=6))
def test_frames_come_back_in_order(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    root = tmp_path_factory.mktemp("store")
    embed_clips(Counting(), clips(*lengths), Store(root, "e", "t", frames=True))
    silent = Counting()
    found = embed_clips(silent, clips(*lengths), Store(root, "e", "t", frames=True))
    assert not silent.encoded
    for length, piece in zip(lengths, found.pieces, strict=True):
        assert piece.frames is not None
        assert piece.frames[0].dtype == torch.float16
        assert piece.frames[0][:, 1].tolist() == list(range(length // 1000))
        assert piece.pooled[0] == pytest.approx(piece.frames[0].float().mean(0), abs=1e-3)


def test_a_store_without_frames_does_not_pretend_to_have_them(tmp_path: Path) -> None:
    embed_clips(Counting(), clips(4000), Store(tmp_path, "e", "t"))
    again = Counting()
    found = embed_clips(again, clips(4000), Store(tmp_path, "e", "t", frames=True))
    assert again.encoded == [4000] and found.pieces[0].frames is not None
    assert embed_clips(again, clips(4000), Store(tmp_path, "e", "t")).reused == 1


@pytest.mark.parametrize(
    "name", ["auricle-tiny-encoder", "random:wav2vec2-tiny", "random:whisper-tiny", "random:ast-tiny"]
)
def test_a_short_clip_beside_a_long_one_is_embedded_as_if_alone(tmp_path: Path, name: str) -> None:
    encoder = load_encoder(name)

    def encode(waveforms: list[np.ndarray]) -> Iterator[torch.Tensor]:
        return (result.values for result in encoder.embed_many(waveforms, frames=True))  # type: ignore[union-attr]

    short, long = clips(16_000, 80_000)
    beside = embed_clips(encode, [long, short], Store(tmp_path / "beside", "e", "t")).pooled()[0]
    alone = embed_clips(encode, [short], Store(tmp_path / "alone", "e", "t")).pooled()[0]
    assert round(float(torch.cosine_similarity(beside[1:], alone)), 4) == 1.0
    assert torch.allclose(beside[1:], alone, atol=1e-4)


def noise(seed: int = 0, num_samples: int = 1600) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, num_samples).astype(np.float32)


def test_no_crop_is_lost() -> None:
    clips = [noise(i, 80_000) for i in range(32)]
    for scoring_rule in get_args(ScoringRule):
        assert sum(len(cut(clip, 1.0, scoring_rule)) for clip in clips) == 160


def test_strict_crops() -> None:
    assert [len(crop) for crop in cut(noise(0, 40_000), 1.0, "strict")] == [16_000, 16_000, 8_000]
    assert [len(crop) for crop in cut(noise(0, 39_999), 1.0, "strict")] == [16_000, 16_000]
    assert [len(crop) for crop in cut(noise(0, 100), 1.0, "strict")] == [100]
    assert [len(crop) for crop in cut(noise(0, 100), 1.0, "compat")] == [16_000]
    assert [len(crop) for crop in cut(noise(0, 100), None, "compat")] == [100]
    with pytest.raises(ConfigError, match="expected 'compat' or 'strict'"):
        cut(noise(), 1.0, "loose")  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.integers(1, 5_000), st.integers(1, 1_000), st.sampled_from(["compat", "strict"]))
def test_crops_are_the_clip_in_order(num_samples: int, size: int, scoring_rule: ScoringRule) -> None:
    clip = np.arange(1, num_samples + 1, dtype=np.float32)
    crops = cut(clip, size / 1000, scoring_rule, sample_rate=1000)
    joined = np.concatenate(crops)
    kept = min(len(joined), num_samples)
    assert np.array_equal(joined[:kept], clip[:kept]) and not joined[kept:].any()
    assert all(len(crop) == len(crops[0]) for crop in crops[:-1])
    assert num_samples - kept < len(crops[0])
    if scoring_rule == "strict":
        assert len(joined) <= num_samples and 2 * (num_samples - kept) < max(len(crops[0]), 1)
