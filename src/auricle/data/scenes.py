"""Training scenes: single or mixed clips of shards, with the facts that are true of the result.

A scene is pure or mixed speech, sound and music ("mixed X" has X in front of another kind), two sound events, two
speakers in turn, steady noise or a tone alone, or (nearly) silence. Facts that augmentation makes untrue are removed:
the words of speech that was cut or is in the background, the gender of a voice whose pitch was changed a lot.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from auricle.data import codecs, mixing
from auricle.data.mixing import SAMPLE_RATE, Waveform
from auricle.data.parts import DIGITS, KINDS, Kind, Part, Scene
from auricle.errors import ConfigError, DataError

CATEGORIES = (
    "pure_speech",
    "pure_sound",
    "pure_music",
    "mixed_speech",
    "mixed_sound",
    "mixed_music",
    "two_sounds",
    "two_speakers",
    "silence",
    "steady",
)
QUIET_DB, LOUD_DB = 11.0, 0.5  # a background this far below the foreground is quiet; loud if it is no further below
LONGEST_PLACED_S = 1.5  # seconds of a sound that has a place in a longer scene
COMMON = 30  # clips of an instrument that is sampled as often as any; rarer ones less often
MIN_COMMANDS = 20  # clips of a command that has a label of its own


class Clips(Protocol):
    """The part of a data set that scenes need, such as `auricle.data.shards.ShardSet`."""

    def __len__(self) -> int: ...

    def read_meta(self, i: int, /) -> Mapping[str, Any]:
        """The facts of a clip."""

    def read(self, i: int, /) -> Any:
        """The record of a clip, with its `.waveform` (float32, 16 kHz)."""


def _default_shares() -> dict[str, float]:
    shares = (0.30, 0.24, 0.08, 0.17, 0.04, 0.04, 0.03, 0.04, 0.04, 0.02)
    return dict(zip(CATEGORIES, shares, strict=True))


def _default_set_weights() -> dict[str, float]:
    return {"speechocean762": 0.45, "fsdd": 0.25, "espeak": 0.30, "procedural": 0.3}


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """How scenes are sampled; lengths in seconds, levels in decibels."""

    shares: Mapping[str, float] = field(default_factory=_default_shares)  # of the categories
    set_weights: Mapping[str, float] = field(default_factory=_default_set_weights)  # 1 for other sets
    max_s: float = 10.0
    min_s: float = 0.3
    snr_db: tuple[float, float] = (-2.0, 15.0)  # foreground over background
    sequence_share: float = 0.4  # of single digits, which become several digits of the same speaker
    event_weights: Mapping[str, float] = field(default_factory=dict)  # factors of how often an event is sampled
    open_sets: Sequence[str] = ()  # of these, only digits and commands are to be transcribed
    detail_share: float = 0.0  # of scenes with repeated sounds, a third part behind two, a place in time
    codec_share: float = 0.0  # of scenes that went through Opus or MP3
    augment: bool = True

    def __post_init__(self) -> None:
        unknown = set(self.shares) - set(CATEGORIES)
        if unknown or not sum(self.shares.values()) > 0 or min(self.shares.values()) < 0:
            raise ConfigError(f"shares must be of {CATEGORIES}, not negative and not all zero, got {dict(self.shares)}")
        if not 0 < self.min_s < self.max_s:
            raise ConfigError(f"0 < min_s < max_s expected, got {self.min_s} and {self.max_s}")


class Pools:
    """Clip numbers by kind and, within a kind, by the group that sampling is balanced over.

    Speech is balanced over sets (by `set_weights`) and uniform within a set; sounds are balanced over events, with the
    largest weight of the sets that have the event; music over first instruments, rare ones less often.
    """

    def __init__(
        self,
        clips: Clips,
        set_weights: Mapping[str, float] | None = None,
        event_weights: Mapping[str, float] | None = None,
    ) -> None:
        """Sort the clips by their facts; the audio is not read.

        Args:
            clips: with facts.
            set_weights: by `set`, 1 for others; None: those of `SceneConfig`.
            event_weights: factors, by event.

        Raises:
            DataError: a clip has no kind of audio, or a sound has no event.
        """
        self.clips = clips
        weights = _default_set_weights() if set_weights is None else set_weights
        groups: dict[str, dict[str, list[int]]] = {kind: defaultdict(list) for kind in KINDS}
        heaviest: dict[tuple[str, str], float] = defaultdict(float)
        self._digits: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.metas = [clips.read_meta(index) for index in range(len(clips))]
        for index, meta in enumerate(self.metas):
            part = Part.from_meta(meta)
            name = str(meta.get("set", ""))
            group = {"speech": name, "sound": part.event or "", "music": (part.instruments or ("",))[0]}[part.kind]
            groups[part.kind][group].append(index)
            weight = 1.0 if part.kind == "music" else float(weights.get(name, 1.0))
            weight *= (event_weights or {}).get(part.event or "", 1.0)
            heaviest[part.kind, group] = max(heaviest[part.kind, group], weight)
            if part.text in DIGITS and part.speaker is not None:
                self._digits[name, part.speaker].append(index)
        self._groups = {kind: [np.asarray(ids) for ids in named.values()] for kind, named in groups.items()}
        self.events = tuple(groups["sound"])
        self.labels = _labels(self.metas)
        self._weights: dict[str, np.ndarray] = {}
        for kind, named in groups.items():
            shares = np.asarray([heaviest[kind, group] for group in named])
            if kind == "music":
                shares = shares * np.minimum([len(ids) for ids in named.values()], COMMON)
            self._weights[kind] = np.cumsum(shares / shares.sum()) if shares.sum() > 0 else np.zeros(0)

    def has(self, kind: Kind) -> bool:
        """Whether there are clips of this kind."""
        return self._weights[kind].size > 0

    def sample(self, kind: Kind, rng: np.random.Generator) -> int:
        """The number of a random clip of this kind.

        Raises:
            DataError: there is none.
        """
        if not self.has(kind):
            raise DataError(f"no {kind} clips; pack some or set the shares of {kind} scenes to 0")
        group = min(int(np.searchsorted(self._weights[kind], rng.random(), side="right")), len(self._groups[kind]) - 1)
        return int(rng.choice(self._groups[kind][group]))

    def read(self, index: int) -> tuple[Waveform, Part, str]:
        """Waveform, facts and set name of a clip."""
        meta = self.metas[index]
        waveform = np.asarray(self.clips.read(index).waveform, np.float32)
        return waveform, Part.from_meta(meta), str(meta.get("set", ""))

    def events_like(self, part: Part) -> np.ndarray:
        """Clips of the same sound event, including the part's own."""
        return self._groups["sound"][self.events.index(part.event or "")]

    def digits_like(self, index: int) -> Sequence[int]:
        """Clips of single digits by the same speaker, including the clip itself; empty if it is not a digit."""
        meta = self.metas[index]
        if meta.get("text") not in DIGITS:
            return ()
        return self._digits.get((str(meta.get("set", "")), str(meta.get("speaker"))), ())


def _labels(metas: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Events, languages, instruments and frequent commands of the clips as (fact, value), in order."""
    found: Counter[tuple[str, str]] = Counter()
    for meta in metas:
        found.update((fact, str(meta[fact])) for fact in ("event", "language", "command") if meta.get(fact) is not None)
        found.update(("instrument", str(name)) for name in meta.get("instruments") or ())
    return tuple(sorted(label for label, count in found.items() if label[0] != "command" or count >= MIN_COMMANDS))


def _chance(rng: np.random.Generator, share: float) -> bool:
    return bool(rng.random() < share)


def _vary_voice(waveform: Waveform, part: Part, rng: np.random.Generator) -> tuple[Waveform, Part]:
    """Change speed and pitch, more for digits, which have few speakers; a large change removes gender and age."""
    if _chance(rng, 0.4):
        return waveform, part
    spread = 0.1 if part.text is not None and set(part.text.split()) <= DIGITS else 0.06
    factor = float(np.clip(rng.normal(1.0, spread), 0.82, 1.22))
    if not 0.92 < factor < 1.09:
        part = replace(part, gender=None, age=None)
    return mixing.change_speed(waveform, factor), part


def _speech(pools: Pools, rng: np.random.Generator, config: SceneConfig) -> tuple[Waveform, Part]:
    index = pools.sample("speech", rng)
    waveform, part, name = pools.read(index)
    is_digit = part.text is not None and set(part.text.split()) <= DIGITS
    part = replace(part, is_open=name in config.open_sets and not is_digit and not part.command)
    others = pools.digits_like(index)
    if len(others) > 1 and _chance(rng, config.sequence_share):
        count = int(rng.integers(1, 5))
        picked = [pools.read(int(other)) for other in rng.choice(np.asarray(others), size=count)]
        gaps = [int(gap) for gap in rng.integers(400, 5600, size=count)]
        waveform = mixing.join([waveform, *(mixing.fade(other) for other, _, _ in picked)], gaps)
        part = replace(part, text=" ".join([part.text or "", *(other.text or "" for _, other, _ in picked)]))
    if config.augment:
        waveform, part = _vary_voice(waveform, part, rng)
    longest = int(config.max_s * SAMPLE_RATE)
    if waveform.size > longest:
        waveform, part = waveform[:longest], replace(part, text=None, command=None, slots=())
    return waveform, part


def _pad_around(waveform: Waveform, rng: np.random.Generator, config: SceneConfig) -> Waveform:
    """Add, at random, a little silence before and after, up to `max_s`."""
    room = int(config.max_s * SAMPLE_RATE) - waveform.size
    before, after = (int(value) for value in rng.uniform(0, 0.8, size=2) * SAMPLE_RATE)
    if not config.augment or room < before + after or _chance(rng, 0.6):
        return waveform
    return mixing.place(waveform, before, before + waveform.size + after)


def _repeated(waveform: Waveform, rng: np.random.Generator) -> tuple[Waveform, int]:
    """A short sound two to four times, hardly changed, with pauses in which it is not heard."""
    count = int(rng.integers(2, 5))
    gaps = [int(gap) for gap in rng.uniform(0.35, 1.0, size=count - 1) * SAMPLE_RATE]
    levels = rng.uniform(-3, 0, size=count)
    return mixing.join([mixing.gain(mixing.fade(waveform), float(level)) for level in levels], gaps), count


def _can_repeat(waveform: Waveform, config: SceneConfig) -> bool:
    """Whether repetitions can be counted: one short burst, four of which fit a scene."""
    longest = min(1.2, config.max_s / 4 - 0.75)
    return waveform.size < longest * SAMPLE_RATE and mixing.count_bursts(waveform) == 1


def _sound(pools: Pools, rng: np.random.Generator, config: SceneConfig) -> tuple[Waveform, Part]:
    waveform, part, _ = pools.read(pools.sample("sound", rng))
    if config.detail_share and _chance(rng, config.detail_share):
        short = mixing.trim(waveform)
        if _can_repeat(short, config):
            waveform, count = _repeated(short, rng)
            return waveform, replace(part, count=count)
        if short.size < LONGEST_PLACED_S * SAMPLE_RATE:
            return short, part
    if config.augment:
        if _chance(rng, 0.5):
            waveform = mixing.change_speed(waveform, float(np.exp(rng.uniform(np.log(0.8), np.log(1.25)))))
        if _chance(rng, 0.6):
            length = int(rng.uniform(1.2, 4.5) * SAMPLE_RATE)
            waveform = mixing.fade(mixing.crop_energetic(waveform, rng, length))
        if _chance(rng, 0.25):  # two dogs are still the event "dog"
            other, _, _ = pools.read(int(rng.choice(pools.events_like(part))))
            other = mixing.crop_energetic(other, rng, waveform.size)
            waveform = mixing.mix(waveform, other, float(rng.uniform(-3, 9)))
    return waveform[: int(config.max_s * SAMPLE_RATE)], part


def _music(pools: Pools, rng: np.random.Generator, config: SceneConfig) -> tuple[Waveform, Part]:
    waveform, part, _ = pools.read(pools.sample("music", rng))
    if config.augment:
        if _chance(rng, 0.5):
            waveform = mixing.change_speed(waveform, float(rng.uniform(0.94, 1.06)))
        if _chance(rng, 0.5):
            waveform = mixing.crop_energetic(waveform, rng, int(rng.uniform(2.0, 6.0) * SAMPLE_RATE), tries=2)
    return mixing.fade(waveform[: int(config.max_s * SAMPLE_RATE)]), part


_SOURCES: dict[Kind, Callable[[Pools, np.random.Generator, SceneConfig], tuple[Waveform, Part]]] = {
    "speech": _speech,
    "sound": _sound,
    "music": _music,
}


def _coded(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """After Opus of 6 to 64 or MP3 of 16 to 64 kbit/s."""
    if _chance(rng, 0.6):
        return codecs.opus(waveform, float(np.exp(rng.uniform(np.log(6), np.log(64)))))
    return codecs.mp3(waveform, float(rng.choice([16, 24, 32, 48, 64])))


def _finish(waveform: Waveform, rng: np.random.Generator, config: SceneConfig, *, strength: float) -> Waveform:
    """Recording conditions of the whole scene; most scenes keep those of their recordings."""
    if config.augment:
        if _chance(rng, strength):
            waveform = mixing.recolour(waveform, rng)
        if _chance(rng, strength):
            waveform = mixing.add_noise_floor(waveform, rng, float(rng.uniform(15, 45)))
        if config.codec_share and waveform.size and _chance(rng, config.codec_share):
            waveform = _coded(mixing.limit_peak(waveform), rng)
        if _chance(rng, 0.5):
            waveform = mixing.to_level(waveform, float(rng.uniform(-38, -14)))
        else:
            waveform = mixing.gain(waveform, float(rng.uniform(-6, 3)))
    shortest = int(config.min_s * SAMPLE_RATE)
    if waveform.size < shortest:
        waveform = mixing.place(waveform, 0, shortest)
    return mixing.limit_peak(waveform).astype(np.float32, copy=False)


def _silence(rng: np.random.Generator, config: SceneConfig) -> Scene:
    num_samples = int(rng.uniform(max(0.5, config.min_s), min(4.0, config.max_s)) * SAMPLE_RATE)
    if _chance(rng, 0.2):
        return Scene(np.zeros(num_samples, np.float32), (), "silence")
    floor = mixing.noise(num_samples, rng, float(rng.choice([0.0, 0.5, 1.0, 1.5, 2.0])))
    return Scene(mixing.gain(floor, float(rng.uniform(-85, -58))), (), "silence")


def _steady(rng: np.random.Generator, config: SceneConfig) -> Scene:
    """Noise of any colour or band, mains hum or a tone alone, at any level: nothing else is to be named in these."""
    num_samples = int(rng.uniform(max(0.5, config.min_s), min(8.0, config.max_s)) * SAMPLE_RATE)
    event = ("noise", "noise", "noise", "hum", "tone", "tone")[int(rng.integers(6))]
    if event == "tone":
        hz = float(np.exp(rng.uniform(np.log(60), np.log(7000))))
        waveform = mixing.tone(num_samples, rng, hz, int(rng.choice([1, 1, 2, 20])))
    elif event == "hum":
        floor = mixing.gain(mixing.noise(num_samples, rng, 1.0), float(rng.uniform(-60, -25)))
        hz, harmonics = float(rng.choice([50, 60, 100, 120])), int(rng.integers(2, 12))
        waveform = mixing.tone(num_samples, rng, hz, harmonics) + floor
    else:
        waveform = mixing.noise(num_samples, rng, float(rng.choice([0.0, 0.0, 0.5, 1.0, 1.5, 2.0])))
        if _chance(rng, 0.3):
            low = float(np.exp(rng.uniform(np.log(60), np.log(3000))))
            waveform = mixing.colour(waveform, band_hz=(low, low * float(rng.uniform(2, 8))))
    waveform = mixing.to_level(waveform, float(rng.uniform(-55, -12)))
    return Scene(mixing.limit_peak(waveform), (Part(kind="sound", event=event),), "steady")


def _placed(waveform: Waveform, rng: np.random.Generator) -> tuple[Waveform, Literal["start", "middle", "end"]]:
    """A short sound at the start, in the middle or at the end of a scene four times as long or more."""
    length = int(rng.uniform(3.5, 6.0) * waveform.size + SAMPLE_RATE)
    spare = length - waveform.size
    places: tuple[tuple[Literal["start", "middle", "end"], float, float], ...] = (
        ("start", 0.0, 0.2),
        ("middle", 0.45, 0.55),
        ("end", 0.8, 1.0),
    )
    place, low, high = places[int(rng.integers(3))]
    return mixing.place(waveform, int(rng.uniform(low, high) * spare), length), place


def _mixture(front: Kind, back: Kind, pools: Pools, rng: np.random.Generator, config: SceneConfig) -> Scene:
    waveform, part = _SOURCES[front](pools, rng, config)
    background, other = _SOURCES[back](pools, rng, config)
    if front == "speech":
        shortest = int(rng.uniform(1.5, 4.0) * SAMPLE_RATE)
        if waveform.size < shortest:
            start = int(rng.integers(0, shortest - waveform.size + 1))
            waveform = mixing.place(waveform, start, shortest)
    if front == "sound" and waveform.size < LONGEST_PLACED_S * SAMPLE_RATE and _chance(rng, config.detail_share):
        waveform, place = _placed(waveform, rng)
        part = replace(part, place=place)
    low, high = config.snr_db
    if front != "speech" or back == "speech":
        low = max(low, 1.0)  # a speaker or tune "in the background" must be the weaker part
    if background.size > waveform.size:
        background = mixing.crop_energetic(background, rng, waveform.size, tries=12)
    elif back == "speech":
        background = mixing.place(background, int(rng.integers(0, waveform.size - background.size + 1)), waveform.size)
    snr_db = float(rng.uniform(low, high))
    mixed = mixing.mix(waveform, background, snr_db)
    # Speech in the background is mentioned, not transcribed.
    other = replace(other, text=None, command=None, slots=(), count=None, foreground=False)
    if config.detail_share:
        other = replace(other, loudness="quiet" if snr_db > QUIET_DB else "loud" if snr_db < LOUD_DB else None)
    scene = Scene(mixed, (part, other), f"mixed_{front}", "over")
    third: list[Kind] = [kind for kind in ("sound", "music") if kind != back]
    return _with_third(scene, third, 0.5, pools, rng, config) if front == "speech" else scene


def _with_third(
    scene: Scene, kinds: Sequence[Kind], share: float, pools: Pools, rng: np.random.Generator, config: SceneConfig
) -> Scene:
    """In a share of the scenes with details, a weaker part of one of these kinds behind two others."""
    kinds = [kind for kind in kinds if pools.has(kind)]
    if not kinds or not _chance(rng, share * config.detail_share):
        return scene
    waveform, part = _SOURCES[kinds[int(rng.integers(len(kinds)))]](pools, rng, config)
    mixed = mixing.mix(scene.waveform, waveform, float(rng.uniform(4.0, QUIET_DB)))
    part = replace(part, text=None, command=None, slots=(), count=None, foreground=False)
    return replace(scene, waveform=mixed, parts=(*scene.parts, part))


def _two_sounds(pools: Pools, rng: np.random.Generator, config: SceneConfig) -> Scene:
    (first, one), (second, two) = _sound(pools, rng, config), _sound(pools, rng, config)
    if one.event == two.event:
        return Scene(first, (one,), "pure_sound")
    half = int(config.max_s / 2 * SAMPLE_RATE)
    if _chance(rng, 0.5):
        level = 0.5 * (mixing.active_rms(first) + mixing.active_rms(second))
        pieces = [
            mixing.to_level(mixing.crop_energetic(each, rng, half), 20 * np.log10(max(level, 1e-4)))
            for each in (first, second)
        ]
        one, two = replace(one, count=None), replace(two, count=None)
        scene = Scene(mixing.join(pieces, [0]), (one, two), "two_sounds", "then")
        return _with_third(scene, ("speech", "music"), 1.0, pools, rng, config)
    mixed = mixing.mix(first, mixing.crop_energetic(second, rng, first.size), float(rng.uniform(-3, 6)))
    return Scene(mixed, (replace(one, count=None), replace(two, count=None)), "two_sounds", "over")


def _two_speakers(pools: Pools, rng: np.random.Generator, config: SceneConfig) -> Scene:
    (first, one), (second, two) = _speech(pools, rng, config), _speech(pools, rng, config)
    same = one.speaker is not None and one.speaker == two.speaker
    gap = int(rng.uniform(0.15, 0.8) * SAMPLE_RATE)
    if same or first.size + gap + second.size > config.max_s * SAMPLE_RATE:
        return Scene(first, (one,), "pure_speech")
    second = mixing.to_level(second, 20 * np.log10(max(mixing.active_rms(first), 1e-4)) + float(rng.uniform(-4, 4)))
    return Scene(mixing.join([first, second], [gap]), (one, two), "two_speakers", "then")


_BEHIND: dict[str, tuple[tuple[Kind, float], ...]] = {
    "mixed_speech": (("sound", 0.7), ("music", 0.3)),
    "mixed_sound": (("music", 0.5), ("speech", 0.5)),
    "mixed_music": (("sound", 0.5), ("speech", 0.5)),
}
# The kinds of clips without which a category is left out; the background of a mixture is optional.
_NEEDS: dict[str, tuple[Kind, ...]] = {name: tuple(kind for kind in KINDS if kind in name) for name in CATEGORIES}
_NEEDS["two_speakers"] = ("speech",)


def _compose(category: str, pools: Pools, rng: np.random.Generator, config: SceneConfig) -> Scene:
    if category in ("silence", "steady"):
        return (_silence if category == "silence" else _steady)(rng, config)
    if category == "two_sounds":
        return _two_sounds(pools, rng, config)
    if category == "two_speakers":
        return _two_speakers(pools, rng, config)
    front = _NEEDS[category][0]
    if behind := [(kind, share) for kind, share in _BEHIND.get(category, ()) if pools.has(kind)]:
        shares = np.asarray([share for _, share in behind])
        back = behind[int(rng.choice(len(behind), p=shares / shares.sum()))][0]
        return _mixture(front, back, pools, rng, config)
    waveform, part = _SOURCES[front](pools, rng, config)
    if front == "speech":
        waveform = _pad_around(waveform, rng, config)
    return Scene(waveform, (part,), f"pure_{front}")


def make_scene(pools: Pools, rng: np.random.Generator, config: SceneConfig | None = None) -> Scene:
    """Sample a scene; the same pools, generator state and config give the same scene.

    Categories without clips in the pools are left out.

    Raises:
        DataError: the pools have clips for no category with a positive share.
    """
    config = SceneConfig() if config is None else config
    possible = [name for name in CATEGORIES if all(pools.has(kind) for kind in _NEEDS[name])]
    shares = np.asarray([config.shares.get(name, 0.0) for name in possible])
    if not shares.sum() > 0:
        raise DataError(f"none of the scenes {dict(config.shares)} can be made of these clips")
    scene = _compose(possible[int(rng.choice(len(possible), p=shares / shares.sum()))], pools, rng, config)
    if scene.category in ("silence", "steady"):
        return scene
    strength = 0.5 if len(scene.parts) == 1 else 0.3
    return replace(scene, waveform=_finish(scene.waveform, rng, config, strength=strength))
