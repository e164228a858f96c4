from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.curate import random_pairs
from auricle.curate.pairs import PairTable
from auricle.curate.random_pairs import random_partners, rank_captions, sample_scores, score_pairs
from auricle.errors import DataError


def table(
    captions: list[list[int]], clips: list[int] | None = None, groups: list[tuple[str, str]] | None = None
) -> PairTable:
    """Pairs whose vectors are axes: a score is 100 where clip and caption have the same number, else 0."""
    count = 1 + max(map(max, captions))
    eye = np.eye(max(count, len(captions)), dtype=np.float32)
    width = max(map(len, captions))
    return PairTable(
        lines=Path(),
        audio=eye[[own[0] for own in captions]],
        text=eye[:count],
        audio_rows=np.arange(len(captions)) if clips is None else np.array(clips),
        text_rows=np.array([own + [-1] * (width - len(own)) for own in captions]),
        wordings=np.arange(count),
        groups=groups or [("", "")] * len(captions),
        encoded=(0, 0),
    )


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@given(size=st.integers(1, 40), rounds=st.integers(0, 60), seed=st.integers(0, 99))
def test_no_item_has_itself_or_a_partner_twice(size: int, rounds: int, seed: int) -> None:
    partners_of = list(random_partners(size, rounds, np.random.default_rng(seed)))
    assert len(partners_of) == min(rounds, size - 1)
    met: list[set[int]] = [{item} for item in range(size)]
    for partners in partners_of:
        assert sorted(partners.tolist()) == list(range(size))
        for item, partner in enumerate(partners.tolist()):
            assert partner not in met[item]
            met[item].add(partner)


def test_pairs_of_the_same_words_are_no_random_pairs() -> None:
    pairs = table([[i % 3] for i in range(60)])
    for scores in sample_scores(pairs, np.arange(60), rng()):
        assert len(scores) > 500 and (scores == 0).all()
    better, beside = rank_captions(pairs, np.arange(60), np.arange(60), 10, rng())
    assert not better.any() and (beside == 10).all()


def test_captions_that_share_one_text_are_no_random_pairs() -> None:
    pairs = table([[i, 30] if i % 2 else [i] for i in range(30)])
    odd = np.arange(1, 30, 2)
    assert pairs.are_alike(odd[:-1], odd[1:]).all() and not pairs.are_alike(odd - 1, odd).any()
    assert all(len(scores) == 0 for scores in sample_scores(pairs, odd, rng()))
    assert rank_captions(pairs, odd, odd, 5, rng())[1].tolist() == [0] * 15


def test_the_same_clip_is_no_random_clip() -> None:
    pairs = table([[i] for i in range(30)], clips=[i // 2 for i in range(30)])
    first = np.arange(0, 30, 2)
    assert pairs.are_alike(first, first + 1).all() and not pairs.are_alike(first[1:], first[:-1]).any()


def test_captions_that_mean_nearly_the_same_can_be_left_out() -> None:
    pairs = table([[i] for i in range(30)])
    pairs.text[1] = 0.95 * pairs.text[0] + np.sqrt(1 - 0.95**2) * pairs.text[1]
    one, other = np.array([0, 0]), np.array([1, 2])
    assert pairs.are_alike(one, other).tolist() == [False, False]
    assert pairs.are_alike(one, other, 0.9).tolist() == [True, False]
    assert pairs.are_alike(one, other, 0.96).tolist() == [False, False]


def test_several_captions_count_as_their_mean() -> None:
    pairs = table([[0, 1], [2], [3, 0]])
    assert pairs.scores(np.arange(3), np.arange(3)).tolist() == [50, 100, 50]
    assert pairs.scores(np.array([0]), np.array([2])).tolist() == [50]
    assert pairs.caption_scores(0) == [100, 0]


def test_ranks_count_the_captions_that_fit_as_well() -> None:
    pairs = table([[i] for i in range(40)])
    pairs.audio[7] = pairs.audio[8]  # its own caption scores 0, as all others but one do
    better, beside = rank_captions(pairs, np.array([6, 7]), np.arange(40), 39, rng())
    assert beside.tolist() == [39, 39] and better.tolist() == [0, 39]


def test_small_groups_are_compared_with_larger_ones() -> None:
    groups = [("speech", "en")] * 60 + [("speech", "de")] * 4 + [("music", "")] * 60 + [("bells", "fr")] * 3
    pairs = table([[i] for i in range(127)], groups=groups)
    evidence = score_pairs(pairs, p=0.01, num_captions=10)
    names = [evidence.calibrations[number].name for number in evidence.group]
    assert names == ["speech / en"] * 60 + ["speech"] * 4 + ["music"] * 60 + ["all"] * 3
    sizes = {calibration.name: len(calibration.real) for calibration in evidence.calibrations}
    assert sizes == {"speech / en": 60, "speech": 64, "music": 60, "all": 127}
    assert (evidence.p < 0.01).all() and (evidence.better == 0).all() and (evidence.beside == 10).all()
    assert (evidence.score == 100).all()


def test_too_few_pairs_for_the_threshold_are_an_error() -> None:
    with pytest.raises(DataError, match=r"give 36 random pairs, at least 1000 are needed; .* or a larger p"):
        score_pairs(table([[i] for i in range(12)]), p=0.001, num_captions=5)
    with pytest.raises(DataError, match="give 0 random pairs"):
        score_pairs(table([[0]] * 100), p=0.01, num_captions=5)


def test_large_groups_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_pairs, "RANDOM_PAIRS", 50)
    pairs = table([[i] for i in range(200)])
    assert [len(scores) for scores in sample_scores(pairs, np.arange(200), rng(), count=50)] == [50, 50, 50]


def test_pairs_without_audio_or_a_caption_are_not_scored() -> None:
    pairs = table([[i] for i in range(60)])
    pairs.audio_rows[3], pairs.text_rows[4] = -1, -1
    evidence = score_pairs(pairs, p=0.01, num_captions=5)
    assert np.flatnonzero(evidence.group < 0).tolist() == [3, 4] and np.isnan(evidence.p[[3, 4]]).all()
    assert len(evidence.calibrations[0].real) == 58
