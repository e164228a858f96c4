from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from auricle.errors import DataError
from auricle.metrics import date, soft_tfidf
from auricle.metrics.date import (
    date_ceiling,
    date_of_matrix,
    date_scores,
    expected_date,
    mean_references,
    weighted_embeddings,
)

from .cases_date import reference_soft_tfidf


def unit(rows: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_blocks_give_what_the_whole_matrix_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    captions, references = unit(37), mean_references(unit(111, seed=1), [3] * 37)
    factors = np.where(np.arange(37) % 5, 1.0, 0.1)
    whole = date_of_matrix((captions @ references.t()) * torch.tensor(factors, dtype=torch.float32)[:, None], 0.2)
    monkeypatch.setattr(date, "_CELLS", 37 * 4)  # ten blocks
    blocks = date_scores(captions, references, delta=0.2, factors=factors)
    for ours, theirs in zip(blocks, whole, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("number", [1, 2, 5, 50])
def test_perfect_captions_among_few_clips(number: int) -> None:
    vectors = torch.eye(number)
    released = date_scores(vectors, vectors, delta=0.1)
    assert released.date.mean() == pytest.approx(date_ceiling(number))
    if number > 1:
        strict = date_scores(vectors, vectors, delta=0.1, scoring_rule="strict")
        assert (strict.date == 1).all() and (strict.discrimination == 1).all()
    else:
        with pytest.raises(DataError, match="two clips or more"):
            date_scores(vectors, vectors, delta=0.1, scoring_rule="strict")


def test_known_ceilings() -> None:
    assert [round(date_ceiling(n), 3) for n in (1, 2, 5, 50, 300)] == [0.0, 0.667, 0.889, 0.990, 0.998]


def test_a_constant_caption_discriminates_nothing() -> None:
    vectors = unit(40)
    same = F.normalize(vectors.mean(0, keepdim=True), dim=1).expand(40, -1)
    assert date_scores(same, vectors, delta=0.3, scoring_rule="strict").date.mean() < 0.35


def test_clips_of_equal_references_are_not_counted_as_confused() -> None:
    vectors = torch.eye(4)[[0, 0, 1, 2]]  # the first two clips have the same references
    released = date_scores(vectors, vectors, delta=0.1)
    assert released.discrimination.tolist() == [0.5, 0.5, 0.75, 0.75]
    strict = date_scores(vectors, vectors, delta=0.1, same=[7, 7, 1, 2], scoring_rule="strict")
    assert strict.discrimination.tolist() == [1.0] * 4


def test_a_penalty_lowers_similarity_not_discrimination() -> None:
    vectors, factors = torch.eye(6), [0.1, *[1.0] * 5]
    released = date_scores(vectors, vectors, delta=0.3, factors=factors)
    strict = date_scores(vectors, vectors, delta=0.3, factors=factors, scoring_rule="strict")
    assert released.date[0] == 0 and released.date[1] > 0.9  # all of its scores are within delta
    assert strict.similarity[0] == pytest.approx(0.1) and strict.discrimination[0] == 1


def test_a_negative_similarity_is_no_score() -> None:
    found = date_scores(-torch.eye(3), torch.eye(3), delta=0.1, scoring_rule="strict")
    assert (found.date == 0).all() and (found.similarity == 0).all()


def test_the_expected_score_among_fewer_clips() -> None:
    captions = F.normalize(unit(60) + 0.8 * unit(60, seed=3), dim=1)
    whole = date_scores(captions, unit(60), delta=0.2)
    assert expected_date(whole, 60) == pytest.approx(whole.date.mean())
    rng = np.random.default_rng(0)
    sampled = []
    for _ in range(300):
        few = rng.permutation(60)[:20]
        sampled.append(date_scores(captions[few], unit(60)[few], delta=0.2).date.mean())
    # The mean of harmonic means is a little below the harmonic mean of means.
    assert 0 <= expected_date(whole, 20) - np.mean(sampled) < 0.01


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"expected the same \(N, D\)"):
        date_scores(unit(3), unit(4), delta=0.1)


def test_weights_of_tokens_follow_the_formulas_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(1)
    documents = [[0, *rng.integers(2, 30, length).tolist(), 1] for length in (3, 6, 6, 1, 9, 0, 3)]
    expected = reference_soft_tfidf(documents, table)
    for limits in ({}, {"_COLUMNS": 4, "_DOCUMENTS": 2, "_PAIRS": 1}):
        for name, value in limits.items():
            monkeypatch.setattr(soft_tfidf, name, value)
        weights = soft_tfidf.soft_tfidf(documents, table, opening=0, closing=1)
        for ours, theirs in zip(weights, expected, strict=True):
            assert ours.tolist() == pytest.approx(theirs, abs=1e-5)


class Words:
    """A sentence encoder whose tokens are letters: 0 opens, 1 closes, "a" is 2."""

    special = (0, 1)
    word_table = torch.eye(30)

    def __init__(self) -> None:
        self.encoded: list[list[int]] = []

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [[0, *(ord(letter) - ord("a") + 2 for letter in text), 1] for text in texts]

    def encode_tokens(
        self, token_ids: Sequence[Sequence[int]], weights: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        assert weights is not None
        self.encoded += [list(ids) for ids in token_ids]
        rows = [
            (self.word_table[list(ids)] * own[:, None]).mean(0) for ids, own in zip(token_ids, weights, strict=True)
        ]
        return F.normalize(torch.stack(rows), dim=1)


def test_sentences_are_encoded_once_with_the_weights_of_their_words() -> None:
    encoder = Words()
    found = weighted_embeddings(encoder, ["ab", "a", "ab"])
    assert encoder.encoded == encoder.token_ids(["ab", "a"]) and torch.equal(found[0], found[2])
    # Of three documents "a" is in all and "b" in two, so b is the rarer and heavier one.
    assert found[0, 3] > found[0, 2] > 0 and found[1, 3] == 0
