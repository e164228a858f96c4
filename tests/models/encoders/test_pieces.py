"""What all encoders that cut clips into pieces share: packing, pooling, windows, times, sizes."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.errors import ClipTooShort, ConfigError
from auricle.models.encoders.atst import Atst, AtstConfig
from auricle.models.encoders.audiomae import AudioMae, AudioMaeConfig
from auricle.models.encoders.beats import Beats, BeatsConfig
from auricle.models.encoders.best_rq import BestRq, BestRqConfig
from auricle.models.encoders.ced import Ced, CedConfig
from auricle.models.encoders.data2vec2 import Data2Vec2, Data2Vec2Config
from auricle.models.encoders.eat import Eat, EatConfig
from auricle.models.encoders.msm_mae import MsmMae, MsmMaeConfig
from auricle.models.encoders.pieces import PieceFrames, cut, heads_of, run_pieces, to_patches
from auricle.models.frame_model import content_hash, count_parameters
from auricle.weights.catalog import entries
from auricle.weights.construct import on_meta

from .tiny_encoders import COMPAT, NETWORKS, noise, tiny

LARGE: dict[str, Any] = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
PUBLISHED: dict[str, tuple[Any, Any]] = {
    "beats-iter3": (Beats, BeatsConfig()),
    "openbeats-large": (Beats, BeatsConfig(**LARGE, ffn_dim=4096)),
    "eat-base": (Eat, EatConfig()),
    "eat-large": (Eat, EatConfig(**LARGE)),
    "audiomae": (AudioMae, AudioMaeConfig()),
    "ced-tiny": (Ced, CedConfig(embed_dim=192, num_heads=3)),
    "ced-mini": (Ced, CedConfig(embed_dim=256, num_heads=4)),
    "ced-small": (Ced, CedConfig(embed_dim=384, num_heads=6)),
    "ced-base": (Ced, CedConfig()),
    "atst-frame-small": (Atst, AtstConfig(embed_dim=384, num_heads=6)),
    "atst-frame-base": (Atst, AtstConfig()),
    "data2vec2-base": (Data2Vec2, Data2Vec2Config()),
    "data2vec2-large": (Data2Vec2, Data2Vec2Config(**LARGE)),
    "msm-mae": (MsmMae, MsmMaeConfig()),
    "best-rq": (BestRq, BestRqConfig()),
}
SAME = {"openbeats-base": "beats-iter3", "eat-base-as2m": "eat-base", "eat-large-as2m": "eat-large"}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    entry = next(entry for entry in entries() if entry.name == name)
    kind, config = PUBLISHED[name]
    with on_meta():
        network = kind(config)
    # The authors count a token that hides patches in training.
    left_out = config.embed_dim if entry.family == "atst" else 0
    assert count_parameters(network) + left_out == entry.parameters
    assert PieceFrames(network, pool="mean").hop_size_in_ms == 1000 / (entry.frame_hz or 0)


def test_every_entry_of_a_family_is_checked() -> None:
    known = {entry.name: entry for entry in entries() if entry.family}
    assert known.keys() == PUBLISHED.keys() | SAME.keys()
    assert all(known[name].parameters == known[other].parameters for name, other in SAME.items())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_changes_nothing(name: str) -> None:
    model = tiny(name)
    clips = [noise(1.0, 1), noise(0.3, 2, 0.5), noise(10.6, 3), noise(1.0, 4, 0.001)]
    for together, waveform in zip(model.frames(clips), clips, strict=True):
        assert torch.allclose(together, model.frames([waveform])[0], atol=1e-5)


@pytest.mark.parametrize("name", COMPAT)
def test_compat_depends_on_its_batch(name: str) -> None:
    model, clips = tiny(name, compat=True), [noise(1.0, 1), noise(4.0, 2, 0.5)]
    together, alone = model.frames(clips)[0], model.frames(clips[:1])[0]
    shared = min(len(together), len(alone))
    assert (together[:shared] - alone[:shared]).abs().max() > 1e-3
    assert content_hash(model) != content_hash(tiny(name))


@pytest.mark.parametrize("name", COMPAT)
def test_compat_alone_is_exact(name: str) -> None:
    assert torch.allclose(
        tiny(name, compat=True).frames([noise(2.0)])[0], tiny(name).frames([noise(2.0)])[0], atol=1e-5
    )


@given(num_samples=st.integers(6_400, 40_000), name=st.sampled_from(list(NETWORKS)))
@settings(max_examples=12)
def test_frames_keep_the_clock(num_samples: int, name: str) -> None:
    model = tiny(name)
    count = len(model.frames([noise(num_samples / 16_000)])[0])
    assert count >= 1 and abs(count - num_samples / 16 / model.hop_size_in_ms) <= 1.5


@pytest.mark.parametrize("name", ["beats", "eat", "audiomae", "ced", "atst", "data2vec2", "msm_mae", "best_rq"])
def test_windows_lose_no_time(name: str) -> None:
    model = tiny(name)
    assert model.window_s is not None
    per_window = round(1000 * model.window_s / model.hop_size_in_ms)
    assert per_window * model.hop_size_in_ms == pytest.approx(1000 * model.window_s)
    pieces = model.network.pieces([noise(2.5 * model.window_s)])[0]
    assert [piece.frames for piece in pieces[:-1]] == [per_window] * 2
    assert pieces[-1].frames == pytest.approx(0.5 * per_window, abs=1.5)


def test_windows_do_not_see_each_other() -> None:
    model = tiny("beats")
    window = 1_024 * 160
    one, other = (torch.cat([noise(10.5)[: window + 240], noise(3.0, seed)]) for seed in (8, 9))
    assert torch.equal(model.frames([one])[0][:64], model.frames([other])[0][:64])
    assert not torch.equal(model.frames([one])[0][64:], model.frames([other])[0][64:])
    whole = tiny("beats", window_frames=None)
    assert whole.window_s is None
    assert not torch.allclose(whole.frames([one])[0][:64], whole.frames([other])[0][:64], atol=1e-4)


@pytest.mark.parametrize("name", ["beats", "eat", "audiomae", "ced", "msm_mae"])
def test_pooling_of_frequency_patches(name: str) -> None:
    mean, side_by_side, single = (tiny(name, pool=pool) for pool in ("mean", "concat", "none"))
    bands = mean.network.num_bands
    waveform = noise(1.3)
    each = single.frames([waveform])[0].unflatten(0, (-1, bands))
    assert torch.allclose(each.mean(1), mean.frames([waveform])[0], atol=1e-6)
    assert torch.equal(each.flatten(1), side_by_side.frames([waveform])[0])
    assert (mean.output_dim, side_by_side.output_dim, single.output_dim) == (32, 32 * bands, 32)
    assert mean.hop_size_in_ms == side_by_side.hop_size_in_ms == bands * single.hop_size_in_ms == 160
    assert len({content_hash(model) for model in (mean, side_by_side, single)}) == 3
    assert tiny(name).pool == ("concat" if name == "msm_mae" else "mean")
    with pytest.raises(ConfigError, match="expected one of mean, concat, none"):
        tiny(name, pool="max")


@pytest.mark.parametrize("name", ["ced", "msm_mae"])
def test_frequency_major_patches_come_in_time_order(name: str) -> None:
    quiet_then_loud = torch.cat([noise(1.0, 1, 1e-4), noise(1.0, 2, 0.3)])
    frames = tiny(name, pool="concat", depth=0).frames([quiet_then_loud])[0]
    jumps = torch.tensor([float((after - before).norm()) for before, after in pairwise(frames)])
    assert int(jumps.argmax()) in (5, 6)  # 1 s is in the patch from 0.96 s on


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_outputs_of_blocks(name: str) -> None:
    waveform = noise(1.0)
    network = tiny(name).network
    states = run_pieces(network, network.pieces([waveform])[0], [0, 1])
    assert all(len(each) == 2 for each in states)
    first, both = tiny(name, layers=[0]).frames([waveform])[0], tiny(name, layers=[0, 1]).frames([waveform])[0]
    second = tiny(name, layers=[1]).frames([waveform])[0]
    assert torch.allclose((first + second) / 2, both, atol=1e-5)
    with pytest.raises(ConfigError, match="layer is 2"):
        tiny(name, layers=[2])


@pytest.mark.parametrize("name", NETWORKS)
def test_shortest_clips(name: str) -> None:
    model = tiny(name)
    shortest = noise(1.0)[: model.min_samples]
    assert len(model.frames([shortest])[0]) == 1
    if model.min_samples > 1:
        with pytest.raises(ClipTooShort, match=f"clip has {model.min_samples - 1} samples"):
            model.frames([shortest[:-1]])


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_is_near(name: str) -> None:
    model = tiny(name)
    exact = model.frames([noise(2.0)])[0]
    model.move(torch.device("cpu"), torch.bfloat16)
    coarse = model.frames([noise(2.0)])[0]
    assert coarse.dtype == torch.float32 and not torch.equal(exact, coarse)
    assert torch.cosine_similarity(exact.mean(0), coarse.mean(0), dim=0) > 0.99


def test_silence_is_finite() -> None:
    for name in NETWORKS:
        assert torch.isfinite(tiny(name).frames([torch.zeros(16_000)])[0]).all(), name


@given(frames=st.integers(1, 400), each=st.integers(1, 8))
@settings(max_examples=30)
def test_cut_covers_all_time_patches(frames: int, each: int) -> None:
    features, count = torch.arange(frames)[:, None].float(), max(1, (frames + 8) // 16)
    pieces = cut(features, 16 * each, count)
    assert sum(piece.frames for piece in pieces) == count
    assert all(piece.frames == each for piece in pieces[:-1])
    assert torch.equal(torch.cat([piece.features for piece in pieces])[:frames], features[: 16 * each * len(pieces)])


def test_patches_are_those_of_a_convolution() -> None:
    features, weight = torch.randn(50, 32), torch.randn(3, 1, 16, 16)
    expected = torch.nn.functional.conv2d(features[None, None], weight, stride=16)[0]  # (3, T, F)
    assert torch.allclose(to_patches(features) @ weight.flatten(1).t(), expected.flatten(1).t(), atol=1e-4)


def test_heads_are_detected_known_or_requested() -> None:
    assert heads_of(768, {}, "x") == 12
    assert heads_of(48, {"num_heads": 3}, "x") == 3
    assert heads_of(576, {"nhead": 4}, "x", {576: 8}) == 4
    assert heads_of(576, {}, "x", {576: 8}) == 8
    for width, stated, known in ((48, {}, None), (64, {}, {576: 8}), (48, {"num_heads": 5}, None)):
        with pytest.raises(ConfigError, match=r"config\.json beside them"):
            heads_of(width, stated, "x", known)
