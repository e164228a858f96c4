from math import comb

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from auricle.metrics.retrieval import (
    METRICS,
    chance_scores,
    rank_candidates,
    recall_at_1,
    retrieval_estimates,
    retrieval_scores,
)


def plain(owners: Tensor) -> Tensor:
    """Pairs of captions that belong to one clip each."""
    return torch.stack([owners, torch.arange(len(owners))], 1)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=15), st.integers(0, 999), st.booleans())
@settings(max_examples=60)
def test_captions_of_one_clip_each_score_as_retrieval_scores_does(counts: list[int], seed: int, coarse: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    audio, text = torch.randn(len(counts), 5, generator=generator), torch.randn(len(owners), 5, generator=generator)
    if coarse:  # many equal similarities
        audio, text = F.one_hot(audio.argmax(1), 5).float(), F.one_hot(text.argmax(1), 5).float()
    found = retrieval_estimates(audio, text, plain(owners), rounds=20)
    for ours, expected in zip(found[1:3], retrieval_scores(audio, text, owners), strict=True):
        assert {name: ours[name].value for name in METRICS} == pytest.approx(expected._asdict())
        assert all(estimate.low <= estimate.high for estimate in ours.values())
    assert found.recall.value == pytest.approx((found.audio_to_text["r1"].value + found.text_to_audio["r1"].value) / 2)
    if len(set(counts)) == 1:
        assert float(found.clips.mean()) == pytest.approx(found.recall.value)


def test_a_caption_is_relevant_to_all_its_clips() -> None:
    audio = torch.eye(3)[[0, 0, 1, 2]]  # two dogs, rain, a siren
    text = torch.eye(3)  # dog, rain, siren
    pairs = torch.tensor([[0, 0], [1, 0], [2, 1], [3, 2]])
    found = retrieval_estimates(audio, text, pairs, rounds=20)
    assert found.recall.value == 1.0 and found.text_to_audio["map10"].value == 1.0
    # As captions of their own the two dogs would hide each other: equal and wrong ones come first.
    apart = retrieval_estimates(audio, text[[0, 0, 1, 2]], plain(torch.arange(4)), rounds=20)
    assert apart.recall.value == 0.5 and apart.audio_to_text["mean_rank"].value == 1.5


def test_average_precision_is_of_the_first_ten() -> None:
    candidates = torch.linspace(0, 1, 30)[:, None] * torch.tensor([0.0, 1.0]) + torch.tensor([1.0, 0.0])
    query = torch.tensor([[1.0, 0.0]])  # candidate i has rank i + 1
    found = rank_candidates(query, candidates, [torch.tensor([20, 1, 3])])
    assert found.first.tolist() == [2] and found.average_precision.item() == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert rank_candidates(query, candidates, [torch.arange(15)]).average_precision.item() == pytest.approx(1.0)
    assert rank_candidates(query, candidates, [torch.tensor([10])]).average_precision.item() == 0.0


def test_an_interval_holds_the_truth_of_the_many() -> None:
    """Of 60 sets of 60 pairs about 57 hold it."""
    rng = np.random.default_rng(0)
    held, widths = 0, []
    for _ in range(60):
        hits = rng.random(60) < 0.4
        # A pair that is found has an axis to itself; the other captions are orthogonal to all clips.
        audio = torch.eye(120)[:60]
        text = torch.where(torch.tensor(hits)[:, None], audio, torch.eye(120)[60:])
        recall = retrieval_estimates(audio, text, plain(torch.arange(60)), rounds=100).recall
        held += recall.low <= 0.4 <= recall.high
        widths.append(recall.high - recall.low)
    assert held >= 52 and np.mean(widths) == pytest.approx(4 * (0.4 * 0.6 / 60) ** 0.5, rel=0.1)


def test_intervals_shrink_and_resample_whole_clips() -> None:
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(400, 8, generator=generator)
    owners = torch.arange(400).repeat_interleave(3)
    text = audio[owners] + 1.2 * torch.randn(1200, 8, generator=generator)

    def width(count: int, captions: int) -> float:
        rows = (owners < count) & (torch.arange(1200) % 3 < captions)
        found = retrieval_estimates(audio[:count], text[rows], plain(owners[rows]), rounds=400).text_to_audio["r10"]
        assert found.low < found.value < found.high
        return found.high - found.low

    assert width(400, 3) < width(50, 3)
    # Three equal captions count as one: clips are resampled, not captions.
    same = retrieval_estimates(audio[:50], text[:150:3], plain(torch.arange(50)), rounds=400).text_to_audio
    thrice = retrieval_estimates(
        audio[:50], text[:150:3].repeat_interleave(3, 0), plain(owners[:150]), rounds=400
    ).text_to_audio
    assert thrice["r10"] == pytest.approx(same["r10"]) and thrice["mean_rank"] == pytest.approx(same["mean_rank"])


def test_runs_are_repeated_by_their_seed() -> None:
    audio, text = torch.randn(30, 4), torch.randn(30, 4)
    one, same, other = (retrieval_estimates(audio, text, plain(torch.arange(30)), seed=seed) for seed in (1, 1, 2))
    assert one.recall == same.recall and one.audio_to_text == same.audio_to_text
    assert one.audio_to_text["mean_rank"] != other.audio_to_text["mean_rank"]


@pytest.mark.parametrize(("right", "candidates"), [(1, 40), (1, 3), (5, 40), (15, 40), (3, 3)])
def test_chance_is_what_random_orders_give(right: int, candidates: int) -> None:
    expected = chance_scores(torch.full((7,), right), candidates)
    misses = comb(candidates - right, 5) / comb(candidates, 5) if candidates >= 5 else 0.0
    assert expected["r5"] == pytest.approx(1 - misses)
    generator = torch.Generator().manual_seed(0)
    orders = torch.stack([torch.randperm(candidates, generator=generator) for _ in range(4000)])
    # Query i sees candidate c at place orders[i, c].
    places = (orders < right).nonzero()[:, 1].view(4000, right).double() + 1
    best = places.min(1).values
    within = (torch.arange(1, right + 1) / places * (places <= 10)).sum(1) / min(right, 10)
    seen = [*((best <= k).double().mean() for k in (1, 5, 10)), best.mean(), best.median(), within.mean()]
    for name, value in zip(METRICS, seen, strict=True):
        tolerance = 1.0 if name == "median_rank" else 0.5 if name == "mean_rank" else 0.03
        assert expected[name] == pytest.approx(float(value), abs=tolerance), name


def test_chance_of_mixed_queries_is_their_mean() -> None:
    mixed = chance_scores(torch.tensor([1, 1, 4]), 20)
    one, four = chance_scores(torch.tensor([1]), 20), chance_scores(torch.tensor([4]), 20)
    for name in ("r1", "r5", "r10", "mean_rank", "map10"):
        assert mixed[name] == pytest.approx((2 * one[name] + four[name]) / 3)
    assert four["median_rank"] < mixed["median_rank"] < one["median_rank"]


def test_perfect_and_collapsed_retrieval() -> None:
    clips = torch.eye(6)
    owners = torch.arange(6).repeat_interleave(3)
    for way in retrieval_scores(clips, clips[owners], owners):
        assert way[:5] == (1.0, 1.0, 1.0, 1.0, 1.0)
    for way in retrieval_scores(torch.ones(6, 4), torch.ones(18, 4), owners):
        assert way.r1 == 0.0


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_captions_may_come_in_any_order(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    audio, text = torch.randn(8, 5, generator=generator), torch.randn(24, 5, generator=generator)
    owners = torch.arange(8).repeat_interleave(3)
    order = torch.randperm(24, generator=generator)
    expected = retrieval_scores(audio, text, owners)
    for found, way in zip(retrieval_scores(audio, text[order], owners[order]), expected, strict=True):
        assert found == pytest.approx(way, abs=1e-12)
    repeated = recall_at_1(audio[owners], text, captions=3)
    assert repeated == pytest.approx((expected[0].r1 + expected[1].r1) / 2)
