"""Replies about the windows of a sound → the result a user gets, and a receipt that says how it was put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from auricle.audio.resample import SAMPLE_RATE
from auricle.listen.aggregate import Aggregation, asks_existence, merge_alike, reduce_answers
from auricle.listen.hearing import Heard, Hearing
from auricle.listen.options import best, pool_odds
from auricle.listen.outputs import Answer, Choice, Description, Transcript
from auricle.listen.stitching import join_words, stitch

_MOST_TIMES = 8  # stretches named in one note; a note is read by people


def describe_heard(heard: Heard, hearing: Hearing, *, dense: bool) -> Description:
    """Put captions together: the distinct ones in order; with ``dense`` neighbours with the same are one segment."""
    segments = heard.segments()
    caption = " ".join(dict.fromkeys(segment.text for segment in segments if segment.text))
    receipt = hearing.receipt(heard, _notes(heard))
    return Description(caption=caption, segments=merge_alike(segments) if dense else tuple(segments), receipt=receipt)


def transcribe_heard(heard: Heard, hearing: Hearing) -> Transcript:
    """Put transcripts together: what two windows both heard is written once, all else as often as it was said."""
    coverage, segments = heard.coverage, heard.segments()
    overlaps = [coverage.overlaps(index) for index in range(len(segments))]
    texts = stitch([segment.text for segment in segments], overlaps)
    segments = [replace(segment, text=text) for segment, text in zip(segments, texts, strict=True)]
    notes = _notes(heard)
    if any(overlaps):
        notes.append(
            f"{sum(overlaps)} of {len(overlaps) - 1} cuts fall into sound: both windows heard what lies around them, "
            "and their transcripts were stitched where they agree"
        )
    denied = [
        heard.spans[place]
        for place in range(len(heard.spans))
        if heard.replies[place, 0].no_speech_logprob is not None and not heard.replies[place, 0].text
    ]
    if denied:
        notes.append(
            f"words were withheld, because the model holds it likely that nobody speaks: {_times(heard, denied)}"
        )
    return Transcript(text=join_words(texts), segments=tuple(segments), receipt=hearing.receipt(heard, notes))


def answer_heard(
    heard: Heard, hearing: Hearing, number: int, question: str, how: Aggregation, summarise: Callable[[str], str]
) -> Answer:
    """Put the answers to one of the questions together, see `reduce_answers`."""
    segments = heard.segments(number)
    text, rule = reduce_answers(question, segments, how, summarise)
    notes = _notes(heard) + ([f"one answer from {len(segments)}: {rule}"] if rule else [])
    return Answer(text=text, segments=tuple(segments), receipt=hearing.receipt(heard, notes))


def choose_heard(heard: Heard, hearing: Hearing, question: str, *, per_token: bool) -> Choice:
    """Pool the odds of all windows.

    What is asked to be there is there if one window has it: the odds are those of the window surest of "yes". Else they
    are the mean over the time.
    """
    segments, notes = heard.segments(), _notes(heard)
    parts = [(segment.stop_s - segment.start_s, heard.replies[place, 0].odds) for place, segment in enumerate(segments)]
    odds = pool_odds(parts)
    if len(parts) > 1:
        place = next((i for i, each in enumerate(odds) if each.text.casefold() == "yes"), None)
        if place is not None and asks_existence(question):
            odds = max((each for _, each in parts), key=lambda each: each[place].probability)
            notes.append(f"one choice from {len(parts)}: that of the window surest of yes")
        else:
            notes.append(f"one choice from {len(parts)}: by the mean log-probability over the time")
    return Choice(
        answer=best(odds, per_token=per_token).text,
        odds=odds,
        segments=tuple(segments),
        receipt=hearing.receipt(heard, notes),
    )


def _notes(heard: Heard) -> list[str]:
    count, notes = len(heard.coverage.windows), []
    if count > 1:
        longest = max(stop - start for start, stop in heard.coverage.windows) / SAMPLE_RATE
        way = "in one prompt" if len(heard.spans) == 1 else "each on its own"
        notes.append(f"longer than the model is given at once: heard in {count} windows of up to {longest:g} s, {way}")
    reasons: dict[str, list[tuple[int, int]]] = {}
    for span, reason in heard.ruled():
        reasons.setdefault(reason, []).append(span)
    notes += [
        f"answered by rule, without the model, because {reason}: {_times(heard, spans)}"
        for reason, spans in reasons.items()
    ]
    return notes


def _times(heard: Heard, spans: list[tuple[int, int]]) -> str:
    joined: list[tuple[int, int]] = []
    for start, stop in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    origin = heard.facts.start_s
    named = [f"{origin + a / SAMPLE_RATE:g}-{origin + b / SAMPLE_RATE:g} s" for a, b in joined[:_MOST_TIMES]]
    return ", ".join(named) + (f" and {len(joined) - _MOST_TIMES} more" if len(joined) > _MOST_TIMES else "")
