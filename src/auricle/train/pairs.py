"""Pairs of a clip and a caption, for alignment: from captioned shards, or from scenes that are worded.

A pair is a function of (seed, step, place in the batch) alone. Its keys state which pairs of a batch are no negatives
of each other, see `auricle.train.alignment_losses`.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

from auricle.data import wording
from auricle.data.cache import CachedClips
from auricle.data.mixing import Waveform
from auricle.data.order import Permutation
from auricle.data.parts import Scene
from auricle.data.scenes import Pools, SceneConfig, make_scene
from auricle.data.shards import ShardSet
from auricle.data.vocabulary import event_name, event_words
from auricle.errors import ConfigError, DataError
from auricle.train.config import RunConfig

SAMPLE_RATE = 16_000
CAPTION_FACTS = ("caption", "captions", "text")  # the first that exists counts; GLAP's data pipeline
TRANSLATION = "caption_"  # followed by a language
MAX_CHARACTERS = 180  # of a translation, and with rule "compat" of any caption; GLAP's training configuration
MAX_REPEATS = 4  # of any four bytes of a translation; GLAP's training configuration
COMPAT_PEAK = 0.99  # clips that reach it are dropped with rule "compat"; GLAP's training configuration
_TRIES = 1000  # clips looked at for one pair


class Pair(NamedTuple):
    """One clip with its caption."""

    waveform: Waveform  # (num_samples,) float32, 16 kHz; of a scene that was encoded before (0,)
    text: str
    keys: tuple[int, int]  # of the audio, of the text
    scene: int = -1  # its number, where scenes are repeated


class ShardPairs:
    """Captions of packed clips, each with a random crop.

    Every folder is a source, and sources take turns: each gives the same number of pairs, and one that is through
    starts again in another order. A source without any usable pair is an error, so nothing waits for it.
    """

    def __init__(self, config: RunConfig, *, num_tokens: Callable[[str], int], max_tokens: int) -> None:
        """List the captions; the audio is not read.

        Args:
            config: ``data``, ``seed`` and ``align``.
            num_tokens: how long a caption is for the text tower.
            max_tokens: what the tower takes.

        Raises:
            DataError: a folder without a usable pair; the message states what was left out and why.
        """
        self.config, self.settings = config, config.align
        self.clips = CachedClips(ShardSet(config.data))
        self.left_out: Counter[str] = Counter()
        self._lock = threading.Lock()  # batches are made in several threads
        self._limit = (num_tokens, max_tokens)
        self._sources: list[np.ndarray] = []
        first = 0
        for folder in config.data:
            count = len(ShardSet(folder))
            self._sources.append(self._list(folder, range(first, first + count)))
            first += count

    @property
    def manifest_hash(self) -> str:
        """That of the shards."""
        return self.clips.manifest_hash

    def sample(self, step: int, place: int) -> Pair:
        """The pair at ``place`` of the batch of ``step``.

        Raises:
            DataError: no clip of the source passes the rule.
        """
        rng = np.random.default_rng((self.config.seed, step, place))
        turn, source = divmod(step * self.config.batch_size + place, len(self._sources))
        table = self._sources[source]
        epoch, position = divmod(turn, len(table))
        row = int(Permutation(len(table), self.config.seed + source, epoch).ids(position))
        for _ in range(_TRIES):
            clip, number = (int(value) for value in table[row])
            record = self.clips.read(clip)
            if self.settings.rule == "strict" or np.abs(record.waveform).max() < COMPAT_PEAK:
                captions = captions_of(record.meta)
                text = self._translate(record.meta, number, rng) or captions[number]
                return Pair(self._crop(record.waveform, rng), text, (clip, key_of(captions[number])))
            self._leave_out("peak of 0.99 or more")
            row = int(rng.integers(len(table)))
        raise DataError(
            f"{_TRIES} clips of {self.config.data[source]} in a row peak at {COMPAT_PEAK} or more; align.rule=strict "
            "takes them"
        )

    def _list(self, folder: str, clips: range) -> np.ndarray:
        """(pairs, 2) clip and number of its caption."""
        found = []
        before = self.left_out.copy()
        for clip in clips:
            captions = captions_of(self.clips.read_meta(clip))
            if not captions:
                self._leave_out("no caption")
            elif self.clips.clips.num_samples[clip] < self.settings.min_s * SAMPLE_RATE:
                self._leave_out(f"shorter than {self.settings.min_s} s")
            else:
                found += [(clip, number) for number, text in enumerate(captions) if self._takes(text)]
        if not found:
            raise DataError(f"{folder} holds no pair to train on; left out: {dict(self.left_out - before)}")
        return np.asarray(found, dtype=np.int64)

    def _takes(self, text: str) -> bool:
        if not text:
            self._leave_out("blank caption")
            return False
        if self.settings.rule == "compat" and len(text) > MAX_CHARACTERS:
            self._leave_out(f"caption over {MAX_CHARACTERS} characters")
            return False
        measure, limit = self._limit
        if measure(text) <= limit:
            return True
        cuts = self.settings.over_long == "cut"
        self._leave_out(f"caption cut to {limit} tokens" if cuts else f"caption over {limit} tokens")
        return cuts

    def _translate(self, meta: Mapping[str, Any], number: int, rng: np.random.Generator) -> str | None:
        """A translation of a caption, each of the clip's languages with probability ``translations`` / languages."""
        position = rng.random()
        share = self.settings.translations
        languages = sorted(name for name in meta if name.startswith(TRANSLATION)) if position < share else []
        if not languages:
            return None
        text = meta[languages[min(int(position / share * len(languages)), len(languages) - 1)]]
        text = text[number] if isinstance(text, list) and number < len(text) else text
        if not isinstance(text, str) or is_degenerate(text):
            self._leave_out("degenerate translation")
            return None
        return text.strip() if self._takes(text.strip()) else None

    def _crop(self, waveform: Waveform, rng: np.random.Generator) -> Waveform:
        spare = len(waveform) - round(self.settings.crop_s * SAMPLE_RATE)
        start = int(rng.integers(spare + 1)) if spare > 0 else 0
        return waveform[start : len(waveform) - max(spare, 0) + start]

    def _leave_out(self, reason: str) -> None:
        with self._lock:
            self.left_out[reason] += 1


class ScenePairs:
    """Scenes mixed on the fly, worded by their facts."""

    def __init__(self, config: RunConfig) -> None:
        """Sort the clips by their facts; the audio is not read."""
        self.config, self.scenes = config, scene_config(config.scenes)
        self.clips = CachedClips(ShardSet(config.data))
        self.pools = Pools(self.clips, self.scenes.set_weights, self.scenes.event_weights)
        self.left_out: Counter[str] = Counter()
        self.encoded: set[int] = set()  # scenes whose audio is not needed again
        self._facts: dict[int, Scene] = {}  # of scenes that were mixed, without their audio

    @property
    def manifest_hash(self) -> str:
        """That of the shards."""
        return self.clips.manifest_hash

    def sample(self, step: int, place: int) -> Pair:
        """The pair at ``place`` of the batch of ``step``; all of ``align.scenes`` are used before any is repeated.

        A repeated scene is worded anew.
        """
        rng = np.random.default_rng((self.config.seed, step, place))
        count = self.config.align.scenes
        if not count:
            return self._worded(make_scene(self.pools, rng, self.scenes), rng, -1)
        epoch, position = divmod(step * self.config.batch_size + place, count)
        number = int(Permutation(count, self.config.seed, epoch).ids(position))
        known = self._facts.get(number)
        if known is not None and number in self.encoded:
            return self._worded(known, rng, number)
        scene = make_scene(self.pools, np.random.default_rng((self.config.seed, number)), self.scenes)
        self._facts[number] = replace(scene, waveform=np.zeros(0, np.float32))
        return self._worded(scene, rng, number)

    def _worded(self, scene: Scene, rng: np.random.Generator, number: int) -> Pair:
        names = short_names(scene) if rng.random() < self.config.align.name_share else ()
        text = names[int(rng.integers(len(names)))] if names else wording.caption(scene, rng)
        return Pair(scene.waveform, text, (meaning_of(scene), key_of(text)), number)


def captions_of(meta: Mapping[str, Any]) -> list[str]:
    """The captions in a clip's metadata, blank captions left in place so that translations keep their numbers."""
    value: Any = next((meta[name] for name in CAPTION_FACTS if meta.get(name)), [])
    listed = value if isinstance(value, list) else [value]
    captions = [text.strip() if isinstance(text, str) else "" for text in listed]
    return captions if any(captions) else []


def key_of(text: str) -> int:
    """A number >= 0 that texts share which differ in case and spacing only: 63 bits of BLAKE2b."""
    plain = " ".join(text.casefold().split())
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "little") >> 1


def meaning_of(scene: Scene) -> int:
    """The key of the audio: scenes whose facts would be worded alike share it, since their captions fit both."""
    # The wording depends on the facts and the random numbers alone: with a fixed seed equal facts give equal sentences.
    return key_of(wording.caption(scene, np.random.default_rng(0)))


def short_names(scene: Scene) -> list[str]:
    """Labels and zero-shot prompts for a scene of one part; none for mixtures and silence.

    The prompts are GLAP's for sound and music classes; speech has its words as a label.
    """
    if len(scene.parts) != 1:
        return []
    part = scene.parts[0]
    if part.kind == "sound":
        label, words = event_name(part.event or ""), event_words(part.event or "")
        return [label, words.subject, words.noun, f"The sound of {label} can be heard."]
    if part.kind == "music" and part.instruments:
        players = " and ".join(part.instruments)
        return [f"{players} music", players, f"The music in the style of {players}."]
    return [part.text] if part.kind == "speech" and part.text else []


def is_degenerate(text: str) -> bool:
    """Whether a machine translation went wrong: over 180 characters, or some four bytes more than four times."""
    stored = text.encode("utf-8", "replace")
    repeats = Counter(stored[i : i + 4] for i in range(len(stored) - 3))
    return len(text) > MAX_CHARACTERS or max(repeats.values(), default=0) > MAX_REPEATS


def scene_config(changes: Mapping[str, Any]) -> SceneConfig:
    """How scenes are sampled, from a run's ``scenes``.

    Raises:
        ConfigError: an unknown setting, or one out of range.
    """
    known = [field.name for field in fields(SceneConfig)]
    if unknown := changes.keys() - set(known):
        raise ConfigError(f"scenes has no setting {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return SceneConfig(**changes)


def open_pairs(config: RunConfig, *, num_tokens: Callable[[str], int], max_tokens: int) -> ShardPairs | ScenePairs:
    """The pairs that ``align.pairs`` names; arguments as for `ShardPairs`."""
    if config.align.pairs == "scenes":
        return ScenePairs(config)
    return ShardPairs(config, num_tokens=num_tokens, max_tokens=max_tokens)
