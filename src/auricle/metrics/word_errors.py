"""Error rates of transcripts: of words (WER), characters (CER), or both in one text (MER).

========  ==========================================================================================================
compat    as published: a row whose reference or hypothesis is empty does not count, which can only lower the rate
strict    every row counts: an empty hypothesis is deletions, words where the reference is empty are insertions
========  ==========================================================================================================
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from auricle.errors import DataError
from auricle.metrics.intervals import ROUNDS, Score, bootstrap_sums, ratio
from auricle.metrics.normalisers import Unit, own_unit, tokens
from auricle.metrics.scoring_rule import ScoringRule


def edit_distance(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein).

    Computed over bit vectors, one addition of len(reference) bits for each item of the hypothesis.

    >>> edit_distance("the cat sat".split(), "a cat sat down".split())
    2

    Source: Hyyrö 2003, "A bit-vector algorithm for computing Levenshtein and Damerau edit distances".
    """
    if not reference:
        return len(hypothesis)
    positions: dict[Hashable, int] = {}
    for at, item in enumerate(reference):
        positions[item] = positions.get(item, 0) | 1 << at
    all_ones, top = (1 << len(reference)) - 1, 1 << (len(reference) - 1)
    # Bits of the columns where the distance grows (more) or shrinks (less) down the reference.
    more, less, distance = all_ones, 0, len(reference)
    for item in hypothesis:
        equal = positions.get(item, 0)
        same = ((((equal & more) + more) ^ more) | equal | less) & all_ones
        grown, shrunk = (less | ~(same | more)) & all_ones, more & same
        distance += bool(grown & top) - bool(shrunk & top)
        grown, shrunk = (grown << 1 | 1) & all_ones, (shrunk << 1) & all_ones
        more, less = (shrunk | ~(same | grown)) & all_ones, grown & same
    return distance


def count_word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Edit distance and words of the reference, in lower case, words split at white space, punctuation included.

    >>> count_word_errors("The cat sat.", "the cat sat")
    (1, 3)
    """
    expected = reference.lower().split()
    return edit_distance(expected, hypothesis.lower().split()), len(expected)


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Σ edit distances / Σ words of the references, over the whole corpus, in [0, ∞); words as `count_word_errors`.

    Raises:
        DataError: the lists differ in length, or the references have no words.

    >>> word_error_rate(["a b c d", "e"], ["a b c d", ""])
    0.2

    Source: jiwer `wer` of lower-case texts.
    """
    if len(references) != len(hypotheses):
        raise DataError(f"{len(references)} references and {len(hypotheses)} hypotheses; expected one for each")
    counts = [count_word_errors(*pair) for pair in zip(references, hypotheses, strict=True)]
    total = sum(words for _, words in counts)
    if not total:
        raise DataError("the reference transcripts have no words, so no error rate exists; check the field of the text")
    return sum(errors for errors, _ in counts) / total


def wer_inv(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """max(0, 1 − `word_error_rate`), in [0, 1]; errors as there.

    Source: X-ARES `metrics.py`, WER_inv.
    """
    return max(0.0, 1.0 - word_error_rate(references, hypotheses))


class TranscriptPair(NamedTuple):
    """Reference and hypothesis of a clip, and the language of both."""

    reference: str
    hypothesis: str
    language: str  # see `auricle.metrics.languages.language_code`


class RowErrors(NamedTuple):
    """Counts of one transcript."""

    errors: int  # insertions, deletions and substitutions
    length: int  # tokens of the reference
    found: int  # tokens of the hypothesis
    counts: bool  # False: the rule leaves the row out


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorRates:
    """Rates of a corpus: errors over tokens of the references, both summed over rows."""

    total: Score
    languages: Mapping[str, Score]
    units: Mapping[str, Unit]  # by language
    rows: tuple[RowErrors, ...]
    empty: int  # hypotheses without tokens where the reference has some
    left_out: int


def count_errors(
    transcript: TranscriptPair, *, scoring_rule: ScoringRule = "strict", unit: Unit | None = None
) -> RowErrors:
    """Errors and tokens of one transcript; ``unit`` and errors as in `normalisers.tokens`.

    >>> count_errors(TranscriptPair("Selamat pagi!", "selamat", "id"))
    RowErrors(errors=1, length=2, found=1, counts=True)
    """
    expected = tokens(transcript.reference, transcript.language, scoring_rule=scoring_rule, unit=unit)
    found = tokens(transcript.hypothesis, transcript.language, scoring_rule=scoring_rule, unit=unit)
    counts = scoring_rule == "strict" or bool(expected and found)
    return RowErrors(edit_distance(expected, found), len(expected), len(found), counts)


def error_rates(
    transcripts: Sequence[TranscriptPair],
    *,
    scoring_rule: ScoringRule = "strict",
    unit: Unit | None = None,
    groups: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> ErrorRates:
    """Error rates of a corpus and of each language in it, with 95 % intervals over rows or ``groups`` of them.

    Args:
        transcripts: at least one.
        scoring_rule: see above.
        unit: that the strict rule counts; None: by language.
        groups: (n,) names, as of speakers; rows of one name are resampled together.
        rounds: resamples.
        seed: of the resampling.

    Raises:
        DataError: no row counts, or the references have no tokens, so no rate exists; or a row has no language.
        MissingExtra: a normaliser is not installed.

    Source: of compat, `wer/compute_wer.py` of github.com/xiaomi-research/dasheng-lm.
    """
    rows = tuple(count_errors(each, scoring_rule=scoring_rule, unit=unit) for each in transcripts)
    counted = [at for at, row in enumerate(rows) if row.counts]
    if not sum(rows[at].length for at in counted):
        raise DataError(
            f"of {len(rows)} rows none has words in its reference that count, so no error rate exists; check the "
            "fields text and model_output"
        )

    def score(members: Sequence[int]) -> Score:
        columns = np.array([rows[at][:2] for at in members], np.float64)
        names = None if groups is None else [groups[at] for at in members]
        return bootstrap_sums(columns, ratio, groups=names, rounds=rounds, seed=seed)

    by_language: dict[str, list[int]] = {}
    for at in counted:
        by_language.setdefault(transcripts[at].language, []).append(at)
    return ErrorRates(
        total=score(counted),
        languages={name: score(members) for name, members in sorted(by_language.items())},
        units={name: _unit(name, scoring_rule, unit) for name in sorted(by_language)},
        rows=rows,
        empty=sum(row.length > 0 and not row.found for row in rows),
        left_out=len(rows) - len(counted),
    )


def _unit(language: str, scoring_rule: ScoringRule, unit: Unit | None) -> Unit:
    if scoring_rule == "compat":
        return "character" if language in ("zh", "yue") else "word"
    return unit or own_unit(language)
