"""Answers about the windows of a long sound → one answer about all of it, by a rule that the receipt names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

from auricle.errors import ConfigError
from auricle.listen.outputs import Segment

Aggregation: TypeAlias = Literal["auto", "distinct", "majority", "any", "summary"]

# Asked of a part, these are true of the whole as soon as they are true of one part.
_EXISTS = re.compile(
    r"(?:(?:please|listen)\b\W*)?"
    r"(?:is there|are there|do you hear|can you hear|does (?:the|this) \w+ contain|does any(?:one|body)|"
    r"(?:is|can) (?:any|some)(?:one|body|thing)|(?:is|are|can) .* (?:in the audio|in this|be heard|audible|present))\b",
    re.IGNORECASE,
)
SUMMARY_PROMPT = (
    "Consecutive parts of one recording were each asked: {question}\n{answers}\n"
    "Answer the question for the whole recording in one short sentence: {question}"
)


def check_reduction(how: str) -> None:
    """Refuse an unknown rule.

    Raises:
        ConfigError: it is none of `Aggregation`.
    """
    if how not in get_args(Aggregation):
        raise ConfigError(f"reduce is {how!r}; expected one of {', '.join(get_args(Aggregation))}")


def reduce_answers(
    question: str, segments: Sequence[Segment], how: Aggregation, summarise: Callable[[str], str]
) -> tuple[str, str]:
    """Give one answer for all segments, and say how it came about.

    ``auto`` takes answers that agree as they are; yes and no by ``any`` where the question is whether something is
    there, else by ``majority`` of the time; anything else is given as the ``distinct`` answers in order. Only
    ``summary`` asks the model again, with the answers alone: it is for models that follow such a prompt.

    Args:
        question: what each segment was asked.
        segments: at least one, in order, with their answers.
        how: the rule.
        summarise: asks the model a question without audio.

    Returns:
        The answer, and the name of the rule with what it counted; no rule where there is one segment.
    """
    texts = [segment.text for segment in segments if segment.text]
    kinds = {_plain(text) for text in texts}
    if len(segments) == 1 or not texts:
        return (texts[0] if texts else ""), ""
    if how == "auto":
        how = _fitting(question, kinds)
    if how == "summary":
        return summarise(SUMMARY_PROMPT.format(question=question, answers=_listed(segments))), "summary by the model"
    if len(kinds) == 1:
        return texts[0], "all agree"
    if how == "any":
        positive = [text for text in texts if _plain(text).split()[:1] == ["yes"]]
        said = f"yes as soon as one says so; {len(positive)} of {len(segments)} did"
        return (positive[0] if positive else texts[0]), f"any ({said})"
    if how == "majority":
        return _majority(segments)
    return "; ".join(dict.fromkeys(texts)), "distinct answers in order"


def asks_existence(question: str) -> bool:
    """Whether a question (in English) is for something that is there, so that one "yes" settles it."""
    return _EXISTS.match(question.strip()) is not None


def merge_alike(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Join neighbours with the same text; their log-probability is the mean over the time."""
    merged: list[Segment] = []
    for segment in segments:
        before = merged[-1] if merged else None
        if before is None or before.text != segment.text or _is_ruled(before) != _is_ruled(segment):
            merged.append(segment)
            continue
        merged[-1] = Segment(
            start_s=before.start_s, stop_s=segment.stop_s, text=segment.text, mean_logprob=_mean(before, segment)
        )
    return tuple(merged)


def _fitting(question: str, kinds: set[str]) -> Aggregation:
    if {kind.split()[0] for kind in kinds if kind} <= {"yes", "no"}:
        return "any" if asks_existence(question) else "majority"
    return "distinct"


def _majority(segments: Sequence[Segment]) -> tuple[str, str]:
    """The answer that holds for most of the time; of equals the first."""
    seconds: dict[str, float] = {}
    wording: dict[str, str] = {}
    for segment in segments:
        if segment.text:
            kind = _plain(segment.text)
            seconds[kind] = seconds.get(kind, 0.0) + segment.stop_s - segment.start_s
            wording.setdefault(kind, segment.text)
    best = max(seconds, key=lambda kind: seconds[kind])
    return wording[best], f"majority ({seconds[best]:.1f} s of {sum(seconds.values()):.1f} s)"


def _listed(segments: Sequence[Segment]) -> str:
    return "\n".join(f"{s.start_s:g}-{s.stop_s:g} s: {s.text}" for s in segments if s.text)


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split()) or text


def _is_ruled(segment: Segment) -> bool:
    return segment.mean_logprob is None


def _mean(before: Segment, after: Segment) -> float | None:
    if before.mean_logprob is None or after.mean_logprob is None:
        return None
    first, second = before.stop_s - before.start_s, after.stop_s - after.start_s
    return round((before.mean_logprob * first + after.mean_logprob * second) / max(first + second, 1e-9), 4)
