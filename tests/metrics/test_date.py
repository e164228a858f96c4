import numpy as np
import pytest
import torch
import torch.nn.functional as F

from auricle.errors import DataError
from auricle.metrics import date, soft_tfidf
from auricle.metrics.date import date_ceiling, date_of_matrix, date_scores, expected_date, mean_references


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
        strict = date_scores(vectors, vectors, delta=0.1, rule="strict")
        assert (strict.date == 1).all() and (strict.discrimination == 1).all()
    else:
        with pytest.raises(DataError, match="two clips or more"):
            date_scores(vectors, vectors, delta=0.1, rule="strict")


def test_known_ceilings() -> None:
    assert [round(date_ceiling(n), 3) for n in (1, 2, 5, 50, 300)] == [0.0, 0.667, 0.889, 0.990, 0.998]


def test_a_constant_caption_tells_nothing_apart() -> None:
    vectors = unit(40)
    same = F.normalize(vectors.mean(0, keepdim=True), dim=1).expand(40, -1)
    assert date_scores(same, vectors, delta=0.3, rule="strict").date.mean() < 0.35


def test_twins_are_not_counted_as_confusions() -> None:
    vectors = torch.eye(4)[[0, 0, 1, 2]]  # the first two clips have the same references
    released = date_scores(vectors, vectors, delta=0.1)
    assert released.discrimination.tolist() == [0.5, 0.5, 0.75, 0.75]
    strict = date_scores(vectors, vectors, delta=0.1, same=[7, 7, 1, 2], rule="strict")
    assert strict.discrimination.tolist() == [1.0] * 4


def test_a_penalty_costs_similarity_not_discrimination() -> None:
    vectors, factors = torch.eye(6), [0.1, *[1.0] * 5]
    released = date_scores(vectors, vectors, delta=0.3, factors=factors)
    strict = date_scores(vectors, vectors, delta=0.3, factors=factors, rule="strict")
    assert released.date[0] == 0 and released.date[1] > 0.9  # all of its scores are within delta
    assert strict.similarity[0] == pytest.approx(0.1) and strict.discrimination[0] == 1


def test_a_negative_similarity_is_no_score() -> None:
    found = date_scores(-torch.eye(3), torch.eye(3), delta=0.1, rule="strict")
    assert (found.date == 0).all() and (found.similarity == 0).all()


def test_the_score_among_fewer_clips_is_foretold() -> None:
    captions = F.normalize(unit(60) + 0.8 * unit(60, seed=3), dim=1)
    whole = date_scores(captions, unit(60), delta=0.2)
    assert expected_date(whole, 60) == pytest.approx(whole.date.mean())
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(300):
        few = rng.permutation(60)[:20]
        drawn.append(date_scores(captions[few], unit(60)[few], delta=0.2).date.mean())
    # The mean of a harmonic mean is below that of its mean, by little.
    assert 0 <= expected_date(whole, 20) - np.mean(drawn) < 0.01


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"expected the same \(N, D\)"):
        date_scores(unit(3), unit(4), delta=0.1)


def by_the_formulas(documents: list[list[int]], table: torch.Tensor) -> list[list[float]]:
    units = F.normalize(table.double(), dim=1)
    contents = [[token for token in ids if token > 1] for ids in documents]

    def tf(word: int, content: list[int]) -> float:
        return sum(float(units[word] @ units[other]) ** 2 for other in content)

    found = []
    for ids, content in zip(documents, contents, strict=True):
        idf = {
            word: np.log((len(documents) + 1) / (sum(min(1.0, tf(word, each)) for each in contents) + 1)) + 1
            for word in content
        }
        own = [tf(word, content) * idf[word] for word in content]
        own = [value / np.mean(own) for value in own]
        heavy, light = (max(1, *own), min(1, *own)) if own else (1, 1)
        rest = iter(own)
        found.append([heavy if token == 0 else light if token == 1 else next(rest) for token in ids])
    return found


def test_weights_of_tokens_follow_the_formulas_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(1)
    documents = [[0, *rng.integers(2, 30, length).tolist(), 1] for length in (3, 6, 6, 1, 9, 0, 3)]
    expected = by_the_formulas(documents, table)
    for limits in ({}, {"_COLUMNS": 4, "_DOCUMENTS": 2, "_PAIRS": 1}):
        for name, value in limits.items():
            monkeypatch.setattr(soft_tfidf, name, value)
        weights = soft_tfidf.soft_tfidf(documents, table, opening=0, closing=1)
        for ours, theirs in zip(weights, expected, strict=True):
            assert ours.tolist() == pytest.approx(theirs, abs=1e-5)
