"""How much a score depends on the words of the prompt, or on the order of the choices.

The same items are scored under every variant, so what differs between variants is due to the prompt alone; each single
score still has the interval of its items.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple, TypeAlias

from auricle import __version__
from auricle.errors import ConfigError, DataError
from auricle.evaluate.prompt_variants import Variant, right_places
from auricle.evaluate.run import Evaluation, Evaluator
from auricle.evaluate.scores import Rule
from auricle.metrics.closed_qa import LETTERS, choice_of
from auricle.metrics.intervals import Score, plain_score, wilson_interval
from auricle.metrics.paired import LOWER_IS_BETTER

FORMAT = "auricle-prompts/1"
Kind: TypeAlias = Literal["prompts", "choices"]


class VariantScore(NamedTuple):
    """One variant and its score."""

    name: str
    score: Score
    failed: int  # questions without an answer
    partial: int  # answers about clips that were processed in part


class Place(NamedTuple):
    """A letter among the choices, over all variants."""

    letter: str
    accuracy: Score  # where the right answer has this letter
    chosen: float  # share of all questions answered with it
    offered: float  # that share if answers were random


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSensitivity:
    """A task under several variants."""

    identity: Mapping[str, Any]  # see `Evaluator.identity`
    rule: Rule
    metric: str
    kind: Kind
    questions: int
    variants: tuple[VariantScore, ...]
    mean: float  # of the scores
    deviation: float  # of the scores, standard, of a sample
    low: float
    high: float
    best: int  # of `variants`
    worst: int
    same_verdict: float | None  # share of items right, or wrong, under all variants; None: items are neither
    always: int | None  # items right under all variants; None: nothing is right or wrong
    never: int | None
    same_answer: float  # share of questions with one answer under all variants, case and spaces apart
    item_range: float  # mean over items of their highest minus their lowest value
    places: tuple[Place, ...] = ()  # of moved choices
    unread: float | None = None  # of moved choices: share of answers that name no choice, or several
    version: str = __version__

    def to_json(self) -> str:
        """Text of a file."""
        content = {
            "format": FORMAT,
            **self.identity,
            "rule": asdict(self.rule),
            "metric": self.metric,
            "lower_is_better": self.metric in LOWER_IS_BETTER,
            "kind": self.kind,
            "questions": self.questions,
            "asked": [{**each._asdict(), "score": plain_score(each.score)} for each in self.variants],
            **{
                name: getattr(self, name)
                for name in ("mean", "deviation", "low", "high", "best", "worst", "same_verdict", "always", "never")
            },
            "spread": self.high - self.low,
            "same_answer": self.same_answer,
            "item_range": self.item_range,
            "unread": self.unread,
            "places": [{**each._asdict(), "accuracy": plain_score(each.accuracy)} for each in self.places],
            "version": self.version,
        }
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def prompt_sensitivity(
    evaluator: Evaluator,
    variants: Sequence[Variant],
    kind: Kind = "prompts",
    *,
    on_variant: Callable[[str], None] | None = None,
) -> PromptSensitivity:
    """Measure a model on two or more variants of the questions of a task, which differ in ``kind``.

    Raises:
        ConfigError: fewer than two variants.
        DataError: answers that cannot be scored; the variant is named.
    """
    if len(variants) < 2:
        raise ConfigError(f"found {len(variants)} variant, expected at least 2 to compare")
    runs = []
    for variant in variants:
        if on_variant:
            on_variant(variant.name)
        try:
            runs.append(evaluator.evaluate(variant.questions))
        except DataError as error:
            raise DataError(f"variant {variant.name!r}: {error}") from None
    metric = runs[0].measured.metric
    scores = [run.measured.score for run in runs]
    values = [score.value for score in scores]
    order = sorted(range(len(values)), key=lambda at: values[at], reverse=metric not in LOWER_IS_BETTER)
    return PromptSensitivity(
        identity=evaluator.identity(),
        rule=runs[0].scored.rule,
        metric=metric,
        kind=kind,
        questions=len(variants[0].questions),
        variants=tuple(
            VariantScore(variant.name, run.measured.score, run.failed, run.partial)
            for variant, run in zip(variants, runs, strict=True)
        ),
        mean=fmean(values),
        deviation=stdev(values),
        low=min(values),
        high=max(values),
        best=order[0],
        worst=order[-1],
        same_answer=fmean(_same_answers(variants, runs, kind)),
        **(_places(variants, runs) if kind == "choices" else {}),
        **_agreement(metric, _item_values(runs)),
    )


_Values: TypeAlias = list[list[tuple[float, float] | None]]  # by item, then variant; None: a rule leaves it out


def _item_values(runs: Sequence[Evaluation]) -> _Values:
    """Values of items; they are matched by question, as names may hold the prompt."""
    if runs[0].scored.kind == "mecat":
        keys = [(part, item) for part, own in runs[0].measured.parts.items() for item in own.items]
        return [[run.measured.parts[part].items.get(item) for run in runs] for part, item in keys]
    columns = []
    for run in runs:
        (part,) = run.measured.parts.values()
        columns.append([part.items.get(name) for name in run.items])
    return [list(row) for row in zip(*columns, strict=True)]


def _agreement(metric: str, items: _Values) -> dict[str, Any]:
    rates = [[pair[0] / pair[1] for pair in row if pair is not None and pair[1] > 0] for row in items]
    ranges = [max(row) - min(row) for row in rates if row]
    found: dict[str, Any] = {"item_range": fmean(ranges) if ranges else 0.0}
    has_verdicts = metric in ("accuracy", "error_rate")
    same = fmean(len(set(row)) == 1 for row in items) if has_verdicts and items else None
    always = never = None
    if metric == "accuracy":
        always = sum(all(pair == (1.0, 1.0) for pair in row) for row in items)
        never = sum(all(pair == (0.0, 1.0) for pair in row) for row in items)
    return {**found, "same_verdict": same, "always": always, "never": never}


def _same_answers(variants: Sequence[Variant], runs: Sequence[Evaluation], kind: Kind) -> list[bool]:
    """By question; of moved choices the chosen texts are compared, not the letters."""
    answers = []
    for variant, run in zip(variants, runs, strict=True):
        texts = [" ".join((reply.text or "").lower().split()) for reply in run.replies]
        if kind == "choices":
            for at, question in enumerate(variant.questions):
                chosen = choice_of(run.replies[at].text or "", question.row["choices"])
                texts[at] = "" if chosen is None else question.row["choices"][chosen]
        answers.append(texts)
    return [len(set(each)) == 1 for each in zip(*answers, strict=True)]


def _places(variants: Sequence[Variant], runs: Sequence[Evaluation]) -> dict[str, Any]:
    """The fields that only moved choices have."""
    hits: dict[int, list[bool]] = {}
    chosen: Counter[int | None] = Counter()
    offered: dict[int, float] = {}
    for variant, run in zip(variants, runs, strict=True):
        rights = right_places(variant.questions)
        for question, right, reply in zip(variant.questions, rights, run.replies, strict=True):
            choices = question.row["choices"]
            named = choice_of(reply.text or "", choices)
            hits.setdefault(right, []).append(named == right)
            chosen[named] += 1
            for place in range(len(choices)):
                offered[place] = offered.get(place, 0.0) + 1 / len(choices)
    total = sum(chosen.values())
    places = tuple(
        Place(LETTERS[at], wilson_interval(hits.get(at, [])), chosen[at] / total, offered[at] / total)
        for at in sorted(offered)
    )
    return {"places": places, "unread": chosen[None] / total}
