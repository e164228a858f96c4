"""What is known of a clip when its captions are written: facts with the experts that gave them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from auricle.curate.factory.experts import Fact, Value

Field: TypeAlias = Literal["long", "short", "speech", "music", "sound", "environment"]
FIELDS: tuple[Field, ...] = ("long", "short", "speech", "music", "sound", "environment")  # as in MECAT
PHRASINGS = 3  # of each field


class Evidence(NamedTuple):
    """A fact and who stated it."""

    expert: str  # name@version
    name: str
    value: Value
    confidence: float | None
    start_s: float
    stop_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """A text of one or two sentences, and what supports it."""

    text: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question about a clip with its answer, in the terms of MECAT."""

    category: str
    difficulty: Literal["basic", "intermediate", "advanced", "complex"]
    question: str
    answer: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Captions and questions of a clip."""

    writer: str  # name@version
    fields: dict[Field, tuple[Sentence, ...]]  # three of each
    questions: tuple[Question, ...]
    confidence: float  # 0 to 1
    dropped: tuple[str, ...] = ()  # clauses that nothing supports, with the reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """All facts of a clip."""

    clip_hash: str
    seconds: float
    code: str  # of the domain
    evidence: tuple[Evidence, ...]

    def all(self, name: str, least: float = 0.0) -> list[Evidence]:
        """Every fact of a name that is sure enough, in the order of experts and of time."""
        return [
            each
            for each in self.evidence
            if each.name == name and (each.confidence is None or each.confidence >= least)
        ]

    def best(self, name: str, least: float = 0.0) -> Evidence | None:
        """The surest fact of a name."""
        found = self.all(name, least)
        return max(found, key=lambda each: 1.0 if each.confidence is None else each.confidence) if found else None

    def number(self, name: str) -> float | None:
        """The value of a measure."""
        found = self.best(name)
        return float(found.value) if found is not None and isinstance(found.value, int | float) else None


def sheet_of(clip_hash: str, seconds: float, code: str, facts: Iterable[tuple[str, Sequence[Fact]]]) -> Sheet:
    """A sheet from the facts of each expert."""
    evidence = tuple(
        Evidence(expert, fact.name, fact.value, fact.confidence, fact.start_s, fact.stop_s)
        for expert, stated in facts
        for fact in stated
    )
    return Sheet(clip_hash=clip_hash, seconds=seconds, code=code, evidence=evidence)
