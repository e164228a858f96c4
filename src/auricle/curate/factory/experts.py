"""The contract of experts, and the table of those that can be named.

An expert is a versioned function from clips to facts: the same clip gives the same facts, alone and beside others. It
states its stage, the domains it is for, its device and what it costs, so that a run can be planned, and so that what
it said is found again by the hash of the clip, its name and its version.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Literal, TypeAlias

from auricle.audio.facts import Samples
from auricle.errors import AuricleError, ConfigError

Phase: TypeAlias = Literal["tag", "speech", "music", "acoustics"]
PHASES: tuple[Phase, ...] = ("tag", "speech", "music", "acoustics")  # in the order in which they run
LETTERS = {"speech": "S", "music": "M", "sound": "A"}  # of domain codes, see `auricle.evaluate.mecat.DOMAINS`
LEAST = 0.3  # probability of a tag that counts
PLUG_INS = "auricle.experts"  # group of entry points of installed packages: name → function of settings
MODEL_SEPARATOR = ":"

Value: TypeAlias = str | float | int | bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One statement about a span of a clip."""

    name: str  # such as "event", "gender", "loudness"
    value: Value
    confidence: float | None = None  # probability that it is true, 0 to 1; None: the expert gives none
    start_s: float = 0.0  # from the start of the clip
    stop_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertInput:
    """A clip as experts see it."""

    key: str
    clip_hash: str
    waveform: Samples  # (N,) float32 mono at 16 kHz

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.waveform) / 16_000


Run: TypeAlias = Callable[[Sequence[ExpertInput]], Sequence[Sequence[Fact] | AuricleError]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expert:
    """A plug-in of the factory."""

    name: str
    version: str  # another version's facts are others: of code and weights
    phase: Phase
    gives: tuple[str, ...]  # names of facts
    run: Run = field(repr=False)  # one entry for each clip, in order: its facts, or why there are none
    letters: str = ""  # runs on clips whose domain code has one of these; empty: on all
    device: str = "cpu"
    cost: float = 0.01  # declared, s of computing for each s of audio; a plan takes what was measured instead

    def __post_init__(self) -> None:
        """Refuse what the pipeline could not place."""
        if self.phase not in PHASES or not self.name or not self.version or not self.gives:
            raise ConfigError(f"expert {self.name!r} needs a name, a version, facts and a phase of {', '.join(PHASES)}")

    @property
    def identity(self) -> str:
        """Name and version, as evidence states it."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertSettings:
    """What is handed to the functions that make experts."""

    model: str = "auricle-tiny"  # audio language model of those that use one
    device: str = "auto"
    argument: str = ""  # what stands behind the name: ``base`` of ``whisper:base``


Maker: TypeAlias = Callable[[ExpertSettings], Expert]


def shipped() -> Mapping[str, Maker]:
    """Experts of this package by name."""
    from auricle.curate.factory import extras, models, signal_experts

    return {
        "tags": models.tags,
        "voice": models.voice,
        "music": models.music,
        **signal_experts.MAKERS,
        "silero-vad": extras.voice_activity,
        "whisper": extras.whisper,
        "transformers": extras.audio_classifier,
    }


DEFAULT = ("tags", "voice", "music", "level", "noise", "bandwidth", "reverberation", "tempo", "key")


def make_experts(names: Sequence[str], settings: ExpertSettings, more: Sequence[Expert] = ()) -> list[Expert]:
    """The experts of a run, sorted by phase; at least one gives tags.

    Args:
        names: of `shipped`, or of the entry points ``auricle.experts`` of installed packages; behind a colon, what the
            expert is to use: ``whisper:base``, ``transformers:FOLDER``.
        settings: of all of them.
        more: experts that are made already.

    Raises:
        ConfigError: an unknown name, one given twice, or no expert that tags.
        MissingExtra: one needs a package that is not installed.
    """
    made = list(more)
    known = shipped()
    for name in names:
        first, _, argument = name.partition(MODEL_SEPARATOR)
        maker = known.get(first) or _plug_in(first, known)
        made.append(maker(_with(settings, argument)))
    doubled = {each.name for each in made if sum(other.name == each.name for other in made) > 1}
    if doubled:
        raise ConfigError(f"experts {', '.join(sorted(doubled))} are named twice; name each once")
    if not any(expert.phase == "tag" for expert in made):
        raise ConfigError(f"none of the experts {', '.join(each.name for each in made)} tags clips; add 'tags'")
    return sorted(made, key=lambda each: PHASES.index(each.phase))


def _with(settings: ExpertSettings, argument: str) -> ExpertSettings:
    return ExpertSettings(model=settings.model, device=settings.device, argument=argument)


def _plug_in(name: str, known: Mapping[str, Any]) -> Maker:
    found = [each for each in entry_points(group=PLUG_INS) if each.name == name]
    if not found:
        raise ConfigError(
            f"no expert {name!r}; expected one of {', '.join(known)}, or an installed package's in the entry points "
            f"{PLUG_INS!r}"
        )
    maker: Maker = found[0].load()
    return maker


def run_expert(expert: Expert, clips: Sequence[ExpertInput]) -> list[list[Fact] | AuricleError]:
    """The facts of each clip, or its error; a fault of one clip in a batch leaves the others theirs."""
    try:
        found = list(expert.run(clips))
        if len(found) != len(clips):
            raise ConfigError(f"expert {expert.name} gave {len(found)} results for {len(clips)} clips")
        return [each if isinstance(each, AuricleError) else list(each) for each in found]
    except Exception as error:
        if len(clips) > 1:
            return [each for clip in clips for each in run_expert(expert, [clip])]
        if isinstance(error, AuricleError):
            return [error]
        return [AuricleError(f"expert {expert.name} failed: {type(error).__name__}: {error}")]


def domain_code(facts: Iterable[Fact], least: float = LEAST) -> str:
    """The code of a clip, such as ``S0A``; ``000`` where no tag is sure enough.

    Args:
        facts: of the experts that tag: ``tag`` with ``speech``, ``music`` or ``sound``.
        least: probability of a tag that counts.
    """
    tags = (fact for fact in facts if fact.name == "tag")
    found = {fact.value for fact in tags if fact.confidence is None or fact.confidence >= least}
    return "".join(letter if kind in found else "0" for kind, letter in LETTERS.items())


def route(experts: Sequence[Expert], code: str) -> list[Expert]:
    """The experts for clips of a domain."""
    return [expert for expert in experts if not expert.letters or set(expert.letters) & set(code)]
