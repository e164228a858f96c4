from collections import Counter
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from auricle.data import mixing
from auricle.data.parts import DIGITS, Part, Scene
from auricle.data.scenes import CATEGORIES, Pools, SceneConfig, make_scene
from auricle.errors import ConfigError, DataError


@cache
def noise(count: int, seed: int) -> np.ndarray:
    waveform = mixing.noise(count, np.random.default_rng(seed)) * np.float32(0.05)
    waveform.flags.writeable = False  # who makes scenes changes no clip
    return waveform


class Clips:
    """A packed data set in memory: noise of 0.5 s for digits, of ``seconds`` for all else."""

    def __init__(self, metas: list[dict[str, Any]], seconds: float = 4.0) -> None:
        self.metas = metas
        self.seconds = seconds

    def __len__(self) -> int:
        return len(self.metas)

    def read_meta(self, i: int) -> dict[str, Any]:
        return self.metas[i]

    def read(self, i: int) -> SimpleNamespace:
        seconds = 0.5 if self.metas[i].get("text") in DIGITS else self.metas[i].get("seconds", self.seconds)
        return SimpleNamespace(waveform=noise(int(seconds * 16_000), i), meta=self.metas[i])


def speech(text: str | None, speaker: str, origin: str, **facts: Any) -> dict[str, Any]:
    known = {"kind": "speech", "text": text, "language": "en", "gender": "m", "age": None, "speaker": speaker}
    return {**known, "synthetic": False, "set": origin, **facts}


def sound_meta(event: str, origin: str = "esc10") -> dict[str, Any]:
    return {"kind": "sound", "event": event, "set": origin}


def music(instrument: str) -> dict[str, Any]:
    facts = {"kind": "music", "instruments": [instrument], "tempo": "slow", "mode": "major", "texture": "melody"}
    return {**facts, "set": "fluidsynth"}


METAS = [
    *(speech(digit, f"s{speaker}", "fsdd") for digit in sorted(DIGITS) for speaker in range(3)),
    *(speech("we call it a bear", f"c{n}", "speechocean762", gender="mf"[n % 2], age=6 + 3 * n) for n in range(6)),
    speech(None, "e", "espeak", language="de", gender="f"),
    *(sound_meta(event) for event in ("dog", "dog", "dog", "rain", "clock_tick")),
    sound_meta("beep", "procedural"),
    music("piano"),
    music("drums"),
]


def scenes(count: int, seed: int = 0, seconds: float = 4.0, **config: Any) -> list[Scene]:
    pools, rng, chosen = Pools(Clips(METAS, seconds)), np.random.default_rng(seed), SceneConfig(**config)
    return [make_scene(pools, rng, chosen) for _ in range(count)]


def test_every_category_is_sampled_with_about_its_share() -> None:
    counts = Counter(scene.category for scene in scenes(1500, seconds=0.8))
    assert set(counts) == set(CATEGORIES)
    pure = sum(counts[f"pure_{kind}"] for kind in ("speech", "sound", "music"))
    assert pure / 1500 > 0.5
    assert counts["mixed_speech"] / 1500 == pytest.approx(SceneConfig().shares["mixed_speech"], abs=0.04)


def test_waveforms_are_sound_and_facts_fit_the_category() -> None:
    for scene in scenes(400, seed=1):
        assert scene.waveform.dtype == np.float32 and scene.waveform.ndim == 1
        assert np.isfinite(scene.waveform).all() and np.abs(scene.waveform).max(initial=0) <= 1.0
        assert 0.3 <= scene.waveform.size / 16_000 <= 10.0
        kinds = [part.kind for part in scene.parts]
        if scene.category.startswith("pure_"):
            assert kinds == [scene.category[5:]]
        elif scene.category.startswith("mixed_"):
            assert kinds[0] == scene.category[6:] and kinds[1] != kinds[0]
            assert scene.parts[0].foreground and not scene.parts[1].foreground
            assert scene.parts[1].text is None
        elif scene.category == "steady":
            assert [part.event in ("noise", "hum", "tone") for part in scene.parts] == [True]
        elif scene.category == "silence":
            assert kinds == [] and np.abs(scene.waveform).max(initial=0) < 0.01
        else:
            assert kinds == [scene.category[4:].removesuffix("s").replace("speaker", "speech")] * 2


def test_the_same_generator_gives_the_same_scene() -> None:
    for one, two in zip(scenes(60, seed=5), scenes(60, seed=5), strict=True):
        assert np.array_equal(one.waveform, two.waveform) and one.parts == two.parts


def test_events_are_balanced_whatever_the_number_of_clips() -> None:
    counts = Counter(scene.parts[0].event for scene in scenes(1200, seconds=0.8, shares={"pure_sound": 1.0}))
    assert counts["dog"] == pytest.approx(counts["rain"], rel=0.25)
    assert counts["beep"] < 0.5 * counts["rain"]


def test_a_sound_may_be_joined_by_its_like_alone() -> None:
    clips = Clips(METAS)
    read: list[int] = []
    plain = clips.read
    clips.read = lambda i: (read.append(i), plain(i))[1]  # type: ignore[method-assign]
    pools, rng = Pools(clips), np.random.default_rng(2)
    pairs = 0
    for _ in range(200):
        read.clear()
        scene = make_scene(pools, rng, SceneConfig(shares={"pure_sound": 1.0}))
        assert {METAS[i]["event"] for i in read} == {scene.parts[0].event} and len(scene.parts) == 1
        pairs += len(read) == 2
    assert 20 < pairs < 90


def test_digits_grow_to_sequences_of_one_speaker() -> None:
    spoken = [scene.parts[0] for scene in scenes(300, shares={"pure_speech": 1.0}, set_weights={})]
    digits = [part.text.split() for part in spoken if part.text and set(part.text.split()) <= DIGITS]
    lengths = Counter(len(words) for words in digits)
    assert lengths[1] > 20 and lengths[2] > 3 and max(lengths) == 5


def test_a_sequence_is_as_long_as_its_digits() -> None:
    config = SceneConfig(shares={"pure_speech": 1.0}, sequence_share=1.0, augment=False)
    pools = Pools(Clips([meta for meta in METAS if meta["set"] == "fsdd"]))
    for seed in range(20):
        scene = make_scene(pools, np.random.default_rng(seed), config)
        count = len((scene.parts[0].text or "").split())
        assert count >= 2 and scene.waveform.size >= count * 8000


def test_a_far_pitch_move_leaves_gender_open() -> None:
    genders = Counter(scene.parts[0].gender for scene in scenes(400, shares={"pure_speech": 1.0}))
    assert genders["m"] > genders[None] > 0
    kept = scenes(200, shares={"pure_speech": 1.0}, augment=False)
    assert all(scene.parts[0].gender is not None for scene in kept)


def test_cut_speech_loses_its_words() -> None:
    pools = Pools(Clips([speech("a very long story", "x", "other", seconds=14.0)]))
    scene = make_scene(pools, np.random.default_rng(0), SceneConfig(augment=False, shares={"pure_speech": 1.0}))
    assert scene.parts[0].text is None and scene.waveform.size == 160_000


def test_categories_without_clips_are_left_out() -> None:
    pools = Pools(Clips([sound_meta("dog"), sound_meta("rain")]))
    rng = np.random.default_rng(0)
    counts = {make_scene(pools, rng).category for _ in range(200)}
    assert counts <= {"pure_sound", "two_sounds", "silence", "steady", "mixed_sound"}
    with pytest.raises(DataError, match="can be made"):
        make_scene(pools, rng, SceneConfig(shares={"pure_music": 1.0}))
    with pytest.raises(DataError, match="no music clip"):
        pools.sample("music", rng)


def test_wrong_facts_and_settings_are_refused() -> None:
    with pytest.raises(DataError, match="kind"):
        Pools(Clips([{"kind": "smell"}]))
    with pytest.raises(DataError, match="event"):
        Part.from_meta({"kind": "sound"})
    with pytest.raises(ConfigError, match="shares"):
        SceneConfig(shares={"pure_smell": 1.0})
    with pytest.raises(ConfigError, match="min_s"):
        SceneConfig(min_s=5.0, max_s=2.0)


def test_children_are_known_by_age() -> None:
    assert [Part(kind="speech", age=age).is_child for age in (6, 12, 13, None)] == [True, True, False, None]


DETAILS: dict[str, Any] = {"detail_share": 1.0, "augment": False}


def test_counts_are_those_of_the_waveform() -> None:
    counts = Counter()
    for scene in scenes(60, seconds=0.3, shares={"pure_sound": 1.0}, **DETAILS):
        assert mixing.count_bursts(scene.waveform) == scene.parts[0].count
        counts[scene.parts[0].count] += 1
    assert set(counts) == {2, 3, 4}


def test_sounds_of_several_bursts_are_not_counted() -> None:
    pools = Pools(Clips([sound_meta("dog")]))
    burst = noise(2000, 0)
    pools.clips.read = lambda i: SimpleNamespace(waveform=mixing.join([burst, burst], [4000]))  # type: ignore[method-assign]
    config = SceneConfig(shares={"pure_sound": 1.0}, **DETAILS)
    assert {make_scene(pools, np.random.default_rng(n), config).parts[0].count for n in range(20)} == {None}


def test_places_are_those_of_the_waveform() -> None:
    clips = Clips([sound_meta("dog"), music("piano")])
    clips.read = lambda i: SimpleNamespace(  # type: ignore[method-assign]
        waveform=noise(21_600, 0) if i == 0 else np.zeros(64_000, np.float32)
    )
    places = set()
    for seed in range(60):
        config = SceneConfig(shares={"mixed_sound": 1.0}, **DETAILS)
        scene = make_scene(Pools(clips), np.random.default_rng(seed), config)
        loud = np.flatnonzero(np.abs(scene.waveform) > 1e-3).mean() / scene.waveform.size
        assert scene.parts[0].place == ("start" if loud < 0.35 else "end" if loud > 0.65 else "middle")
        places.add(scene.parts[0].place)
    assert places == {"start", "middle", "end"}


def test_backgrounds_are_loud_or_quiet_by_their_level() -> None:
    for snr_db, loudness in ((15.0, "quiet"), (5.0, None), (-1.0, "loud")):
        made = scenes(20, shares={"mixed_speech": 1.0}, snr_db=(snr_db, snr_db), **DETAILS)
        assert {scene.parts[1].loudness for scene in made} == {loudness}
    plain = scenes(20, shares={"mixed_speech": 1.0}, snr_db=(15.0, 15.0))
    assert {scene.parts[1].loudness for scene in plain} == {None}


def test_a_third_part_is_weaker_and_of_another_kind() -> None:
    made = scenes(80, shares={"mixed_speech": 1.0, "two_sounds": 1.0}, **DETAILS)
    three = [scene for scene in made if len(scene.parts) == 3]
    assert len(three) > 10
    for scene in three:
        third = scene.parts[2]
        assert not third.foreground and third.text is None and third.kind not in {p.kind for p in scene.parts[:2]}


def test_steady_scenes_are_steady_and_audible() -> None:
    made = scenes(120, shares={"steady": 1.0})
    assert {scene.parts[0].event for scene in made} == {"noise", "hum", "tone"}
    for scene in made:
        frames = scene.waveform[: scene.waveform.size // 6400 * 6400].reshape(-1, 6400)
        levels = np.sqrt(np.mean(np.square(frames), axis=1))
        assert levels.min() > 0.1 * levels.max() > 1e-5


def test_rare_commands_have_no_label() -> None:
    metas = [speech(None, f"s{n}", "commands", command="stop" if n < 20 else "go") for n in range(39)]
    assert [label for label in Pools(Clips(metas)).labels if label[0] == "command"] == [("command", "stop")]
