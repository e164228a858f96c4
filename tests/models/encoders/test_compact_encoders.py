"""The parts of BEATs, EAT, AudioMAE, CED, ATST, data2vec 2.0, MSM-MAE and BEST-RQ against plain formulas."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import ConfigError
from auricle.models.blocks import Spans
from auricle.models.encoders.atst import AtstConfig
from auricle.models.encoders.audiomae import AudioMaeConfig
from auricle.models.encoders.beats import BeatsConfig, GatedAttention, reference_patches, relative_buckets
from auricle.models.encoders.best_rq import (
    BestRqConfig,
    RelativeAttention,
    relative_positions,
    shift,
    symmetric_filterbank,
)
from auricle.models.encoders.ced import CedConfig
from auricle.models.encoders.data2vec2 import BiasedAttention, Data2Vec2Config, alibi_slopes
from auricle.models.encoders.eat import EatConfig, centred_patches, grid_positions
from auricle.models.encoders.msm_mae import MsmMaeConfig, msm_log_mel

from .tiny_encoders import noise, tiny

LENGTH, WIDTH, HEADS = 7, 24, 3
SPANS = [Spans(2, LENGTH, 4), Spans(1, LENGTH, LENGTH)]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(-2, -3)


def mixed(logits: Tensor, value: Tensor) -> Tensor:
    return (logits.softmax(-1) @ value).transpose(-2, -3).flatten(-2)


def spoilt(network: nn.Module) -> Any:
    """No two parameters alike."""
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.5)
    return network


def test_buckets_of_distances() -> None:
    distances = torch.arange(-1_200, 1_201)
    buckets = relative_buckets(distances, 320, 800)
    behind, before = buckets[1_201:], buckets[:1_200].flip(0)
    assert torch.equal(behind, before + 160) and buckets[1_200] == 0
    assert torch.equal(before[:79], torch.arange(1, 80))  # exact below half of the half
    assert (before.diff() >= 0).all() and before[-1] == 159
    # 80 buckets for 80 … 800, each as wide as the others in the logarithm.
    assert before[252].item() == 80 + int(math.log(253 / 80) / math.log(10) * 80)
    assert (before[798:] == 159).all()


def test_gated_attention_is_its_formula() -> None:
    attention = spoilt(GatedAttention(WIDTH, HEADS))
    x, bias = torch.randn(3, LENGTH, WIDTH), torch.randn(HEADS, LENGTH, LENGTH)
    query, key, value = (heads(project(x)) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
    first, second = torch.sigmoid(attention.grep_linear(query).view(3, HEADS, LENGTH, 2, 4).sum(-1)).unbind(-1)
    gate = first * (second * attention.grep_a[..., 0] - 1) + 2
    logits = query @ key.transpose(-1, -2) / (WIDTH / HEADS) ** 0.5 + gate[..., None] * bias
    logits[:2, ..., 4:] = -torch.inf
    expected = attention.out_proj(mixed(logits, value))
    assert torch.allclose(attention(x.flatten(0, 1), SPANS, [bias, bias]), expected.flatten(0, 1), atol=1e-5)


def test_border_of_the_authors_mask_drifts() -> None:
    assert reference_patches(32_000, 80_000, 498) == 100  # 96 lie in the clip
    assert reference_patches(80_000, 80_000, 498) == 248


def test_biased_attention_is_its_formula() -> None:
    attention = spoilt(BiasedAttention(WIDTH, HEADS))
    x, bias = torch.randn(3, LENGTH, WIDTH), torch.randn(HEADS, LENGTH, LENGTH)
    query, key, value = (heads(part) for part in attention.qkv(x).chunk(3, -1))
    logits = query @ key.transpose(-1, -2) / (WIDTH / HEADS) ** 0.5 + bias
    logits[:2, ..., 4:] = -torch.inf
    expected = attention.proj(mixed(logits, value))
    assert torch.allclose(attention(x.flatten(0, 1), SPANS, [bias, bias]), expected.flatten(0, 1), atol=1e-5)


def test_slopes_of_alibi() -> None:
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(12) == [*alibi_slopes(8), 2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]
    network: Any = tiny("data2vec2").network
    network.alibi_scale.data = torch.tensor([2.0, -1.0])
    bias = network.distance_bias(4)
    assert torch.allclose(bias[0], -2.0 * alibi_slopes(2)[0] * (torch.arange(4) - torch.arange(4)[:, None]).abs())
    assert not bias[1].any()  # a negative factor counts as 0


def test_relative_attention_is_its_formula() -> None:
    attention = spoilt(RelativeAttention(WIDTH, HEADS))
    x, table = torch.randn(3, LENGTH, WIDTH), relative_positions(LENGTH, WIDTH)
    query, key, value = heads(attention.qkv(x)).chunk(3, -1)
    places = attention.linear_pos(table).view(2 * LENGTH - 1, HEADS, -1)
    logits = torch.empty(3, HEADS, LENGTH, LENGTH)
    for i in range(LENGTH):
        for j in range(LENGTH):
            content = ((query[:, :, i] + attention.pos_bias_u) * key[:, :, j]).sum(-1)
            place = ((query[:, :, i] + attention.pos_bias_v) * places[LENGTH - 1 - i + j]).sum(-1)
            logits[:, :, i, j] = (content + place) / WIDTH**0.5
    logits[:2, ..., 4:] = -torch.inf
    expected = attention.out_proj(mixed(logits, value))
    assert torch.allclose(attention(x.flatten(0, 1), SPANS, [table, table]), expected.flatten(0, 1), atol=1e-5)


def test_shift_gives_each_pair_its_distance() -> None:
    distances = torch.arange(4, -5, -1).float().expand(5, 9)  # 4 … -4
    assert torch.equal(shift(distances), torch.arange(5.0)[:, None] - torch.arange(5.0))


def test_symmetric_triangles() -> None:
    bank = symmetric_filterbank()
    assert bank.shape == (201, 80) and bank.min() == 0 and 0.9 < bank.max() <= 1
    assert (bank.argmax(0).diff() >= 0).all()


def test_targets_are_nearest_codes() -> None:
    network: Any = tiny("best_rq").network
    projection, codes = torch.randn(320, 4), F.normalize(torch.randn(16, 4), dim=1)
    found = network.targets(noise(1.0), projection, codes)
    features = network.pieces([noise(1.0)])[0][0].features.reshape(-1, 320)
    assert torch.equal(found, (F.normalize(features @ projection, dim=1) @ codes.t()).argmax(1))


def test_grid_positions_and_centres() -> None:
    table = grid_positions(5, 3, 16)
    assert torch.equal(table[0], torch.tensor([0.0] * 4 + [1.0] * 4).repeat(2))
    assert torch.allclose(table[2 * 3 + 1, :8], grid_positions(1, 3, 16)[1, :8])  # band 1 at any time
    assert torch.allclose(table[4 * 3, 8], torch.tensor(4.0).sin())
    assert [centred_patches(frames) for frames in (1, 16, 23, 24, 998)] == [1, 1, 1, 2, 62]


def test_log_mel_of_a_tone() -> None:
    tone = torch.sin(2 * torch.pi * 1_000 * torch.arange(8_000) / 16_000)
    mel = msm_log_mel(tone)
    assert mel.shape == (80, 51)
    # Slaney's scale has 15 mels up to 1 kHz and about 45.2 in all; 50 Hz is at 0.75.
    assert abs(int(mel.mean(1).argmax()) - ((15 - 0.75) / (45.245 - 0.75) * 81 - 1)) <= 1


def test_tags_of_ced_and_audiomae() -> None:
    clips = [noise(1.0), noise(23.0)]
    ced: Any = tiny("ced").network
    scores = ced.probabilities(clips)
    assert scores.shape == (2, 5) and (scores > 0).all() and (scores < 1).all()
    assert torch.allclose(scores[1:], ced.probabilities(clips[1:]), atol=1e-6)
    exactly = noise(30.36)[: 3 * 1_012 * 160 - 160]  # three whole chunks, of which the authors leave out the last
    theirs: Any = tiny("ced", compat=True).network
    assert not torch.allclose(theirs.probabilities([exactly]), ced.probabilities([exactly]), atol=1e-6)
    tuned: Any = tiny("audiomae-tuned").network
    assert tuned.logits(clips).shape == (2, 5)
    plain: Any = tiny("audiomae").network
    with pytest.raises(ConfigError, match="no tagging head"):
        plain.logits(clips)
    with pytest.raises(ConfigError, match="no tagging head"):
        tiny("ced", num_classes=0).network.probabilities(clips)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (BeatsConfig, {"embed_dim": 770}, "no multiple"),
        (BeatsConfig, {"window_frames": 1_000}, "multiple of 16"),
        (EatConfig, {"embed_dim": 770}, "no multiple"),
        (EatConfig, {"max_length": 32}, "up to 512"),
        (AudioMaeConfig, {"num_heads": 7}, "no multiple"),
        (CedConfig, {"num_heads": 7}, "no multiple"),
        (CedConfig, {"chunk_frames": 1_100}, "63 learned positions"),
        (AtstConfig, {"num_heads": 7}, "no multiple"),
        (AtstConfig, {"chunk_frames": 1_004}, "250 learned positions"),
        (Data2Vec2Config, {"pos_groups": 5}, "no multiple"),
        (MsmMaeConfig, {"num_heads": 7}, "no multiple"),
        (MsmMaeConfig, {"patch_mels": 32}, "divisor of 80"),
        (BestRqConfig, {"conv_kernel": 30}, "odd"),
    ],
)
def test_impossible_geometries(config: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)
