"""What is known of a clip when its captions are written: facts with their experts, and measures in words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from auricle.curate.factory.experts import Fact, Value

Field: TypeAlias = Literal["long", "short", "speech", "music", "sound", "environment"]
FIELDS: tuple[Field, ...] = ("long", "short", "speech", "music", "sound", "environment")  # as in MECAT
PHRASINGS = 3  # of each field

_QUIET_LUFS, _LOUD_LUFS = -36.0, -15.0
_CLEAN_DB, _NOISY_DB = 25.0, 10.0
_TELEPHONE_HZ, _LIMITED_HZ = 4300.0, 6500.0  # telephone speech ends at 3.4 kHz, at 4 kHz where sampled at 8 kHz
_DRY_S, _LIVE_S = 0.35, 0.7  # times of rooms with much damping, and of halls
_CLIPPED = 5e-4  # share of samples


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


class Grades(NamedTuple):
    """The acoustics of a clip in words."""

    level: str  # "quiet", "loud" or nothing
    clauses: Sequence[Sequence[str]]  # behind "with"; each in several forms
    evidence: tuple[Evidence, ...]
    noise: str  # "clean", "some", "noisy" or unknown
    band: str  # "telephone", "limited", "full" or unknown
    room: str  # "dry", "room", "reverberant" or unknown
    is_clipped: bool


def grades(sheet: Sheet) -> Grades:
    """The words for a clip's measures; noise is graded beside speech and music only, reverberation of speech only.

    A steady sound, such as rain, would be its own noise, and a sound that fades makes its own decay.
    """
    used: list[Evidence] = []
    clauses: list[Sequence[str]] = []
    level = noise = band = room = ""
    if (lufs := _used(sheet, "loudness", used)) is not None:
        level = "quiet" if lufs < _QUIET_LUFS else "loud" if lufs > _LOUD_LUFS else ""
    if set("SM") & set(sheet.code) and (ratio := _used(sheet, "snr", used)) is not None:
        noise = "clean" if ratio >= _CLEAN_DB else "noisy" if ratio < _NOISY_DB else "some"
        clauses.append(_NOISE[noise])
    if (hertz := _used(sheet, "bandwidth", used)) is not None:
        band = "telephone" if hertz < _TELEPHONE_HZ else "limited" if hertz < _LIMITED_HZ else "full"
        clauses.append(_BAND[band])
    if "S" in sheet.code and (time := _used(sheet, "reverberation", used)) is not None:
        room = "dry" if time < _DRY_S else "reverberant" if time > _LIVE_S else "room"
        clauses.append(_ROOM[room])
    is_clipped = (sheet.number("clipped") or 0.0) > _CLIPPED
    if is_clipped:
        _used(sheet, "clipped", used)
        clauses.append(("clipped peaks", "audible clipping"))
    return Grades(level, clauses, tuple(used), noise, band, room, is_clipped)


_NOISE = {
    "clean": ("little background noise", "hardly any noise behind it", "a clean background"),
    "some": ("some background noise", "a noticeable noise floor", "moderate background noise"),
    "noisy": ("strong background noise", "much steady noise", "a loud noise floor"),
}
_BAND = {
    "telephone": ("a narrow, telephone-like band", "a band limited as on a telephone"),
    "limited": ("a limited frequency range", "dull treble"),
    "full": ("a full frequency range", "clear treble", "a wide band"),
}
_ROOM = {
    "dry": ("hardly any reverberation", "a dry sound"),
    "room": ("the reverberation of a room", "moderate reverberation"),
    "reverberant": ("long reverberation", "the reverberation of a large room"),
}


def _used(sheet: Sheet, name: str, used: list[Evidence]) -> float | None:
    found = sheet.best(name)
    if found is None or not isinstance(found.value, int | float):
        return None
    used.append(found)
    return float(found.value)
