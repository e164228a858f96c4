"""Encoders side by side: names, clocks and independence of the batch."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from auricle import load_encoder
from auricle.encode.names import Part, parse_name
from auricle.errors import ConfigError, UnknownModel, WeightsError
from auricle.models.encoders.random_encoders import random_encoder
from auricle.models.fusion import FusedFrames, align


def noise(seconds: float, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(int(seconds * 16_000), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("dasheng-base", [Part("dasheng-base")]),
        ("dasheng-base@3", [Part("dasheng-base", (3,))]),
        ("a/b@0,6,9+whisper-base", [Part("a/b", (0, 6, 9)), Part("whisper-base")]),
        ("random:ast-tiny+mfcc+log-mel", [Part("random:ast-tiny"), Part("mfcc"), Part("log-mel")]),
        ("name@main", [Part("name@main")]),
        ("name@3,", [Part("name@3,")]),
    ],
)
def test_names_are_read(name: str, parts: list[Part]) -> None:
    assert parse_name(name) == parts


@pytest.mark.parametrize("name", ["a+", "+a", "a++b"])
def test_empty_parts_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="empty part"):
        parse_name(name)


def test_a_path_that_exists_is_taken_literally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my+model@3").mkdir()
    (tmp_path / "other@6").mkdir()
    assert parse_name("my+model@3") == [Part("my+model@3")]
    assert parse_name("other@6+mfcc") == [Part("other@6"), Part("mfcc")]


def ramp(length: int) -> Tensor:
    return torch.arange(float(length))[:, None]


@pytest.mark.parametrize(
    ("given_ms", "target_ms", "num", "length", "expected"),
    [
        (20.0, 40.0, 8, 4, [0.5, 2.5, 4.5, 6.5]),
        (20.0, 40.0, 7, 4, [0.5, 2.5, 4.5, 6.0]),  # the last stretch is half filled
        (20.0, 40.0, 6, 4, [0.5, 2.5, 4.5, 5.0]),  # and here empty: the nearest stands in
        (20.0, 40.0, 9, 4, [0.5, 2.5, 4.5, 6.5]),  # behind the slowest encoder's end
        (10.0, 100.0, 20, 2, [4.5, 14.5]),
        (40.0, 40.0, 5, 3, [0.0, 1.0, 2.0]),
        (40.0, 40.0, 2, 3, [0.0, 1.0, 1.0]),
        (20.0, 50.0, 10, 4, [0.5, 3.0, 5.5, 8.0]),  # centres 10, 30 | 50, 70, 90 | 110, 130 | 150, 170, 190 ms
    ],
)
def test_alignment(given_ms: float, target_ms: float, num: int, length: int, expected: list[float]) -> None:
    assert align(ramp(num), given_ms, target_ms, length)[:, 0].tolist() == pytest.approx(expected)


@given(
    hop=st.floats(5, 100),
    ratio=st.floats(1, 12),
    num=st.integers(1, 80),
    length=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_alignment_averages_what_is_there(hop: float, ratio: float, num: int, length: int, seed: int) -> None:
    frames = torch.randn(num, 3, generator=torch.Generator().manual_seed(seed))
    aligned = align(frames, hop, hop * ratio, length)
    assert aligned.shape == (length, 3)
    assert (aligned <= frames.amax(0) + 1e-5).all() and (aligned >= frames.amin(0) - 1e-5).all()
    assert torch.allclose(align(torch.ones(num, 2), hop, hop * ratio, length), torch.ones(length, 2))
    # Time goes on: a rising line never falls.
    assert (align(ramp(num), hop, hop * ratio, length).diff(dim=0) >= -1e-4).all()


def test_fused_encoders_are_their_parts() -> None:
    names = ["random:dasheng-tiny@2", "random:wav2vec2-tiny", "log-mel"]
    fused, parts = load_encoder("+".join(names)), [load_encoder(name) for name in names]
    assert fused.name == "+".join(names)
    assert (fused.hop_size_in_ms, fused.output_dim) == (40.0, 256 + 64 + 64)
    clip = noise(2.02)
    (frames,), (slow, middle, fast) = fused(clip), (part(clip)[0] for part in parts)
    assert frames.shape == (len(slow), 384)
    assert torch.allclose(frames[:, :256], slow, atol=1e-5)
    assert torch.allclose(frames[:-1, 256:320], (middle[0:-1:2] + middle[1::2])[: len(slow) - 1] / 2, atol=1e-5)
    assert torch.allclose(frames[3, 320:], fast[12:16].mean(0), atol=1e-4)
    assert fused.fingerprint not in {part.fingerprint for part in parts}


def test_a_clip_depends_on_itself_alone() -> None:
    fused = load_encoder("random:wav2vec2-layer-tiny@0,1+random:ast-tiny+mfcc")
    clips = [noise(seconds, i) for i, seconds in enumerate((0.02, 1.0, 3.1, 1.0))]
    frames, lengths = fused.encode(clips)
    assert lengths.tolist() == [1, 10, 31, 10]
    for row, length, clip in zip(frames, lengths, clips, strict=True):
        assert (row[:length] - fused.encode([clip])[0][0]).abs().max() <= 5e-5


def test_what_cannot_be_fused_is_refused() -> None:
    with pytest.raises(ConfigError, match="two or more"):
        FusedFrames([random_encoder("dasheng-tiny")])
    other = random_encoder("dasheng-tiny")
    other.sampling_rate = 8_000
    with pytest.raises(ConfigError, match="8000"):
        FusedFrames([random_encoder("dasheng-tiny"), other])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mfcc+log-mel", {"layer": 1}, "are ambiguous"),
        ("mfcc+log-mel", {"revision": "main"}, "are ambiguous"),
        ("random:hubert-tiny@1", {"layer": 1}, "names its layers"),
        ("random:hubert-tiny", {"layer": -1}, "counted from 0"),
        ("random:hubert-tiny", {"layer": 2}, "blocks 0 to 1"),
        ("random:dasheng-tiny@0,6", {}, "blocks 0 to 5"),
        ("log-mel@1", {}, "no known blocks"),
        ("random:hubert-tiny", {"device": "abacus"}, "abacus"),
        ("random:hubert-tiny", {"dtype": "int4"}, "int4"),
    ],
)
def test_wrong_wishes_are_refused(name: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_encoder(name, **arguments)  # type: ignore[arg-type]


def test_unknown_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UnknownModel, match="whisper-base"):
        load_encoder("log-mel+whisper-bas")
    with pytest.raises(UnknownModel, match="hubert-tiny"):
        load_encoder("random:hubert")
    with pytest.raises(WeightsError, match="not in the local cache"):
        load_encoder("log-mel+whisper-base")


def test_layers_are_a_mean_and_layer_is_short_for_one() -> None:
    clip = noise(1.0)
    one, other, both = (load_encoder(f"random:dasheng-tiny@{layers}") for layers in ("1", "4", "4,1"))
    assert torch.allclose(both(clip), (one(clip) + other(clip)) / 2, atol=1e-5)
    short = load_encoder("random:dasheng-tiny", layer=4)
    assert torch.equal(short(clip), other(clip))
    assert short.model.layers == other.model.layers == (4,)  # type: ignore[attr-defined]
    assert short.fingerprint == other.fingerprint != one.fingerprint
