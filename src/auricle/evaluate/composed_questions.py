"""References composed of the facts of a clip: captions, labels, and closed questions with their choices.

Facts are those of packed shards (see `auricle.data.recipes`). The words are those that `auricle.data` teaches a model.
Everything depends on the facts and names of the clips alone, not on their order.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from auricle.data import prompts
from auricle.data.parts import KINDS, Part, Scene
from auricle.data.recipes import DIGITS
from auricle.data.wording import caption, event_name
from auricle.errors import DataError
from auricle.metrics.closed_qa import LETTERS
from auricle.metrics.tags import plain

MIN_REFERENCES = 3  # captions of a clip
_MAX_REFERENCES = 5
_SAMPLES = 64  # of wordings; those that are not among them are rare
_MAX_CHOICES = 4
_KIND = "What kind of audio is it?"  # of `prompts.CATEGORY`; most others name the kinds themselves
_TOPICS = ("event", "digit", "gender", "kind")  # in the order of a clip's questions
_GENDERS = {"m": "male", "f": "female"}


class ClosedQuestion(NamedTuple):
    """A question with choices and the letter of the right one."""

    question: str
    choices: tuple[str, ...]
    answer: str


class _Topic(NamedTuple):
    question: str
    right: str
    others: Sequence[str]  # other values, from which wrong choices are taken


def event_label(facts: Mapping[str, Any]) -> str | None:
    """The name that answers give the event of a clip; None where none is known."""
    event = facts.get("event")
    return event_name(event) if isinstance(event, str) and plain(event) else None


def caption_references(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Three to five captions that are true of a clip, always the same and in the same order.

    Raises:
        DataError: the facts are of no kind of clip, or leave no choice of words, as a single spoken word does, which
            is quoted.
    """
    kind = facts.get("kind", "sound" if "event" in facts else None)
    part = Part.from_meta({**facts, "kind": kind})
    scene = Scene(np.zeros(0, np.float32), (part,), f"pure_{part.kind}")
    sampled = (caption(scene, np.random.default_rng(seed)) for seed in range(_SAMPLES))
    found = tuple(dict.fromkeys(sampled))[:_MAX_REFERENCES]
    if len(found) < MIN_REFERENCES:
        raise DataError(
            f"facts {dict(facts)} have {len(found)} wordings, expected {MIN_REFERENCES}; leave out short "
            "utterances whose words are quoted"
        )
    return found


def closed_questions(clips: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[ClosedQuestion, ...]]:
    """Closed questions on each clip: its event, the spoken digit, the speaker's gender, its kind, as far as known.

    Wrong choices are events of the other clips, digits, or the other genders and kinds. Of each of these topics every
    letter is right equally often, give or take one, so a constant answer is right by chance only.

    Returns:
        Questions by name, in the order of ``clips``; none where no fact makes one.
    """
    events = sorted({name for name in map(event_label, clips.values()) if name})
    topics: dict[str, dict[str, _Topic]] = {topic: {} for topic in _TOPICS}
    for key, facts in clips.items():
        for topic, each in _topics(facts, events):
            topics[topic][key] = each
    found: dict[str, list[ClosedQuestion]] = {key: [] for key in clips}
    for topic, own in topics.items():
        # By rank of a hash: exactly balanced, and not predictable from neighbouring clips.
        ranked = sorted((_hash(topic, key), key) for key in own)
        for rank, (_, key) in enumerate(ranked):
            found[key].append(_closed(own[key], rank, (topic, key)))
    return {key: tuple(each) for key, each in found.items()}


def _topics(facts: Mapping[str, Any], events: Sequence[str]) -> Iterator[tuple[str, _Topic]]:
    event, kind, text, gender = event_label(facts), facts.get("kind"), facts.get("text"), facts.get("gender")
    if event and len(events) > 1:
        yield "event", _Topic(prompts.EVENT[0], event, events)
    if text in DIGITS:
        yield "digit", _Topic(prompts.DIGIT[0], str(text), DIGITS)
    if gender in _GENDERS:
        yield "gender", _Topic(prompts.GENDER[0], _GENDERS[str(gender)], tuple(_GENDERS.values()))
    if kind in KINDS:
        yield "kind", _Topic(_KIND, str(kind), KINDS)


def _closed(topic: _Topic, rank: int, names: tuple[str, str]) -> ClosedQuestion:
    wrong = sorted({each for each in topic.others if each != topic.right}, key=lambda each: _hash(*names, each))
    choices = wrong[: _MAX_CHOICES - 1]
    place = rank % (len(choices) + 1)
    choices.insert(place, topic.right)
    return ClosedQuestion(topic.question, tuple(choices), LETTERS[place])


def _hash(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
