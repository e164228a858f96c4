"""What is known of a scene: its parts and their facts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from auricle.data.mixing import Waveform
from auricle.errors import DataError

Kind = Literal["speech", "sound", "music"]
Arrangement = Literal["single", "over", "then"]

KINDS: tuple[Kind, ...] = ("speech", "sound", "music")
CHILD_AGE = 12  # years; speakers up to this age are children
DIGITS = frozenset("zero one two three four five six seven eight nine".split())


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The facts of one part of a scene; None or empty where unknown or not applicable."""

    kind: Kind
    text: str | None = None  # lower-case words; None if they are not to be transcribed
    language: str | None = None  # ISO 639 code as espeak-ng names it
    gender: str | None = None  # "m" or "f"
    age: int | None = None  # years
    speaker: str | None = None
    event: str | None = None
    instruments: tuple[str, ...] = ()
    tempo: str | None = None  # "slow", "medium", "fast"
    mode: str | None = None  # "major", "minor"
    texture: str | None = None  # "melody", "chords", ...
    command: str | None = None  # what a spoken keyword means, in English
    slots: tuple[tuple[str, str], ...] = ()  # of a spoken order, such as ("size", "large")
    is_open: bool = False  # speech whose words a model of few words is not to write down
    count: int | None = None  # how often a short sound occurs
    loudness: Literal["quiet", "loud"] | None = None  # of a part behind another, where it is far weaker, or as strong
    place: Literal["start", "middle", "end"] | None = None  # of a short part in a longer scene
    foreground: bool = True

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> "Part":
        """The part that a clip's facts describe.

        Raises:
            DataError: `kind` is not speech, sound or music, or a sound has no `event`.
        """
        kind = meta.get("kind")
        if kind not in KINDS or (kind == "sound" and not meta.get("event")):
            raise DataError(f"clip facts need a kind of {KINDS} and an event for sounds, got {dict(meta)}")
        names = ("text", "language", "gender", "age", "speaker", "event", "tempo", "mode", "texture", "command")
        known = {name: meta[name] for name in names if meta.get(name) is not None}
        slots = tuple((str(name), str(value)) for name, value in (meta.get("slots") or {}).items())
        return cls(kind=kind, instruments=tuple(meta.get("instruments") or ()), slots=slots, **known)

    @property
    def is_child(self) -> bool | None:
        """Whether the speaker is a child; None if the age is unknown."""
        return None if self.age is None else self.age <= CHILD_AGE


@dataclass(frozen=True, slots=True)
class Scene:
    """A waveform (float32, 16 kHz) and its parts, in order of prominence or of time."""

    waveform: Waveform
    parts: tuple[Part, ...]
    category: str
    arrangement: Arrangement = "single"

    def of_kind(self, kind: Kind) -> tuple[Part, ...]:
        """The parts of one kind."""
        return tuple(part for part in self.parts if part.kind == kind)
