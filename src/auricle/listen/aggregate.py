"""Replies about the windows of a source → one result for all of it, with a receipt that states the rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import ConfigError
from auricle.listen.options import best, pool_odds
from auricle.listen.outputs import Answer, Choice, Description, Segment, Transcript
from auricle.listen.stitching import Stitcher, join_words
from auricle.metrics.tags import plain

if TYPE_CHECKING:
    from auricle.encode.receipt import TokenGrid
    from auricle.listen.long_audio import Recording

Aggregation: TypeAlias = Literal["auto", "distinct", "majority", "any", "summary"]

# True of the whole recording as soon as they are true of one window.
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
_MOST_TIMES = 8  # spans named in one note, which is read by people


def describe(recording: Recording, config: TokenGrid, *, dense: bool) -> Description:
    """Join the distinct captions in order; with ``dense`` neighbours with the same caption are one segment."""
    segments = recording.segments()
    caption = " ".join(dict.fromkeys(segment.text for segment in segments if segment.text))
    return Description(
        text=caption,
        segments=merge_equal(segments) if dense else tuple(segments),
        receipt=recording.receipt(config, _notes(recording)),
    )


def transcribe(recording: Recording, config: TokenGrid) -> Transcript:
    """Join the transcripts; words in the overlap of two windows are written once.

    Speech that the model was not trained to write down has no words in the text, but in `Transcript.raw_text`.
    """
    parts, overlaps, notes = recording.parts(), recording.overlaps(), _notes(recording)
    stitcher = Stitcher()
    segments = [each for window in map(stitcher.add, parts, overlaps) for each in window] + stitcher.end()
    if any(overlaps):
        notes.append(
            f"{sum(overlaps)} of {len(overlaps) - 1} cuts fall outside pauses: both windows hold the audio around "
            "them, and their transcripts were stitched where they agree"
        )
    replies = [recording.replies[index, 0] for index in range(len(recording.spans))]
    is_open = any(reply.open_speech for reply in replies)
    withheld = [
        each
        for reply, window in zip(replies, parts, strict=True)
        for each in window
        if each.no_speech_logprob is not None and not each.text and not reply.open_speech
    ]
    if withheld:
        spans = [(each.start_s, each.stop_s) for each in withheld]
        notes.append(f"words were withheld, because the model rates it likely that nobody speaks: {_times(spans)}")
    for what in dict.fromkeys(reply.open_speech for reply in replies if reply.open_speech):
        spans = [recording.seconds(index) for index, reply in enumerate(replies) if reply.open_speech == what]
        notes.append(f"{what}, which the model was not trained to write down: {_times(spans)}")
    language, probability = _language(recording)
    return Transcript(
        text=join_words([segment.text for segment in segments]),
        segments=tuple(segments),
        receipt=recording.receipt(config, notes),
        language=language,
        language_probability=probability,
        open_speech=is_open,
        raw_text=join_words([reply.withheld or reply.text for reply in replies]) if is_open else None,
    )


def answer(
    recording: Recording, config: TokenGrid, prompt: int, how: Aggregation, summarise: Callable[[str], str]
) -> Answer:
    """Aggregate the answers to the question of index ``prompt``, see `aggregate_answers`."""
    segments = recording.segments(prompt)
    text, rule = aggregate_answers(recording.prompts[prompt], segments, how, summarise)
    notes = _notes(recording) + ([f"one answer from {len(segments)}: {rule}"] if rule else [])
    return Answer(text=text, segments=tuple(segments), receipt=recording.receipt(config, notes))


def choose(recording: Recording, config: TokenGrid, question: str, *, per_token: bool) -> Choice:
    """Pool the odds of all windows.

    A question for something that is present takes the odds of the window with the highest probability of "yes", any
    other question the mean over the time.
    """
    segments, notes = recording.segments(), _notes(recording)
    parts = [(each.stop_s - each.start_s, recording.replies[index, 0].odds) for index, each in enumerate(segments)]
    odds = pool_odds(parts)
    if len(parts) > 1:
        yes = next((i for i, each in enumerate(odds) if each.text.casefold() == "yes"), None)
        if yes is not None and asks_existence(question):
            odds = max((each for _, each in parts), key=lambda each: each[yes].probability)
            notes.append(f"one choice from {len(parts)}: that of the window with the highest probability of yes")
        else:
            notes.append(f"one choice from {len(parts)}: by the mean log-probability over the time")
    return Choice(
        text=best(odds, per_token=per_token).text,
        odds=odds,
        segments=tuple(segments),
        receipt=recording.receipt(config, notes),
    )


def check_aggregation(how: str) -> None:
    """Refuse an unknown rule.

    Raises:
        ConfigError: it is none of `Aggregation`.
    """
    if how not in get_args(Aggregation):
        raise ConfigError(f"reduce is {how!r}; expected one of {', '.join(get_args(Aggregation))}")


def aggregate_answers(
    question: str, segments: Sequence[Segment], how: Aggregation, summarise: Callable[[str], str]
) -> tuple[str, str]:
    """Give one answer for all segments, and state the rule it follows from.

    ``auto`` takes answers that agree as they are; yes and no by ``any`` where the question is whether something is
    present, else by ``majority`` of the time; anything else is given as the ``distinct`` answers in order. Only
    ``summary`` asks the model again, with the answers alone: it is for models that follow such a prompt.

    Args:
        question: about each segment.
        segments: at least one, in order, with their answers.
        how: the rule.
        summarise: asks the model a question without audio.

    Returns:
        The answer, and the name of the rule with what it counted; no rule where there is one segment.
    """
    texts = [segment.text for segment in segments if segment.text]
    kinds = {(plain(text) or text) for text in texts}
    if len(segments) == 1 or not texts:
        return (texts[0] if texts else ""), ""
    if how == "auto":
        how = _fitting(question, kinds)
    if how == "summary":
        return summarise(SUMMARY_PROMPT.format(question=question, answers=_listed(segments))), "summary by the model"
    if len(kinds) == 1:
        return texts[0], "all agree"
    if how == "any":
        positive = [text for text in texts if (plain(text) or text).split()[:1] == ["yes"]]
        counted = f"yes where one window answers yes; {len(positive)} of {len(segments)} do"
        return (positive[0] if positive else texts[0]), f"any ({counted})"
    if how == "majority":
        return _majority(segments)
    return "; ".join(dict.fromkeys(texts)), "distinct answers in order"


def asks_existence(question: str) -> bool:
    """Whether a question (in English) asks for something that is present, so that one "yes" settles it."""
    return _EXISTS.match(question.strip()) is not None


def merge_equal(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Join neighbours with the same text; their log-probability is the mean over the time."""
    merger = _Merger()
    return (*merger.add(segments, overlaps=False), *merger.end())


class Growing(Protocol):
    """Segments of a result whose windows are answered one after the other."""

    def add(self, segments: Sequence[Segment], overlaps: bool) -> list[Segment]:
        """Take the segments of the next window, and give those that it makes final."""

    def end(self) -> list[Segment]:
        """Give the rest."""


class _Merger:
    """Joins neighbours with the same text, see `merge_equal`."""

    def __init__(self) -> None:
        self._held: list[Segment] = []

    def add(self, segments: Sequence[Segment], overlaps: bool) -> list[Segment]:
        final: list[Segment] = []
        for segment in segments:
            before, self._held = self._held, [segment]
            if before and before[0].text == segment.text and _by_rule(before[0]) == _by_rule(segment):
                mean = _mean(before[0], segment)
                self._held = [replace(segment, start_s=before[0].start_s, mean_logprob=mean, no_speech_logprob=None)]
            else:
                final += before
        return final

    def end(self) -> list[Segment]:
        return self._held


def growing_captions() -> Growing:
    """The segments of a dense description."""
    return _Merger()


def growing_transcript() -> Growing:
    """The segments of a transcript."""
    return Stitcher()


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
            kind = plain(segment.text) or segment.text
            seconds[kind] = seconds.get(kind, 0.0) + segment.stop_s - segment.start_s
            wording.setdefault(kind, segment.text)
    most = max(seconds, key=lambda kind: seconds[kind])
    return wording[most], f"majority ({seconds[most]:.1f} s of {sum(seconds.values()):.1f} s)"


def _listed(segments: Sequence[Segment]) -> str:
    return "\n".join(f"{s.start_s:g}-{s.stop_s:g} s: {s.text}" for s in segments if s.text)


def _by_rule(segment: Segment) -> bool:
    return segment.mean_logprob is None


def _mean(before: Segment, after: Segment) -> float | None:
    if before.mean_logprob is None or after.mean_logprob is None:
        return None
    first, second = before.stop_s - before.start_s, after.stop_s - after.start_s
    return round((before.mean_logprob * first + after.mean_logprob * second) / max(first + second, 1e-9), 4)


def _notes(recording: Recording) -> list[str]:
    """What was done to the source: cut into windows, answered by rule."""
    count, notes = len(recording.windows), []
    if count > 1:
        longest = max(stop - start for start, stop in recording.windows) / SAMPLE_RATE
        how = "in one prompt" if len(recording.spans) == 1 else "one prompt each"
        notes.append(f"longer than the longest window: processed in {count} windows of up to {longest:g} s, {how}")
    said = {what: [recording.seconds(index) for index in where] for what, where in recording.remarks.items()}
    for (index, prompt), reply in sorted(recording.replies.items()):
        if reply.rule and prompt == 0:  # a rule holds for all prompts
            said.setdefault(f"answered by rule, without the model, because {reply.rule}", []).append(
                recording.seconds(index)
            )
        if reply.remark:
            said.setdefault(reply.remark, []).append(recording.seconds(index))
    languages = dict.fromkeys(reply.language for reply in recording.replies.values() if reply.language and reply.text)
    for language in languages if len(languages) > 1 else ():
        said[f"transcribed in the language {language}"] = [
            recording.seconds(index)
            for (index, _), reply in sorted(recording.replies.items())
            if reply.language == language
        ]
    return notes + [f"{what}: {_times(spans)}" for what, spans in said.items()]


def _language(recording: Recording) -> tuple[str | None, float | None]:
    """The language that most of the words were written in, by the time, and its mean probability where detected."""
    seconds: dict[str, float] = {}
    likely: dict[str, float] = {}
    whole = 0.0
    for (index, _), reply in recording.replies.items():
        if reply.language is None or not (reply.text or reply.open_speech):
            continue
        start_s, stop_s = recording.seconds(index)
        seconds[reply.language] = seconds.get(reply.language, 0.0) + stop_s - start_s
        if reply.languages is not None:
            whole += stop_s - start_s
            for language, probability in reply.languages.items():
                likely[language] = likely.get(language, 0.0) + probability * (stop_s - start_s)
    if not seconds:
        return None, None
    language = max(seconds, key=lambda each: seconds[each])
    return language, round(likely.get(language, 0.0) / whole, 4) if whole else None


def _times(spans: Sequence[tuple[float, float]]) -> str:
    joined: list[tuple[float, float]] = []
    for start, stop in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    named = [f"{start:g}-{stop:g} s" for start, stop in joined[:_MOST_TIMES]]
    return ", ".join(named) + (f" and {len(joined) - _MOST_TIMES} more" if len(joined) > _MOST_TIMES else "")
