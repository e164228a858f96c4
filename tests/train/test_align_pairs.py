from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.data.parts import Part, Scene
from auricle.data.shards import ShardWriter
from auricle.errors import ConfigError, DataError
from auricle.train.config import RunConfig
from auricle.train.pairs import (
    ScenePairs,
    ShardPairs,
    captions_of,
    is_degenerate,
    key_of,
    meaning_of,
    open_pairs,
    short_names,
)

Facts = Callable[[int], dict[str, Any]]


def write(folder: Path, name: str, seconds: list[float], facts: Facts, peak: float = 0.3) -> str:
    """Clips whose samples rise from 0 to ``peak``, so that a crop shows where it was taken."""
    with ShardWriter(folder / name, name) as writer:
        for number, length_s in enumerate(seconds):
            count = int(16_000 * length_s)
            writer.write(f"{name}{number}", np.linspace(0, peak, count, dtype=np.float32), facts(number))
    return str(folder / name)


def pairs_of(*folders: str, batch_size: int = 8, **settings: Any) -> ShardPairs:
    config = RunConfig(data=list(folders), batch_size=batch_size)
    for name, value in settings.items():
        setattr(config.align, name, value)
    return ShardPairs(config, num_tokens=lambda text: len(text.split()), max_tokens=10)


def test_each_caption_of_a_clip_has_a_crop_of_its_own(tmp_path: Path) -> None:
    folder = write(tmp_path, "one", [30.0], lambda n: {"captions": [f"caption {i}" for i in range(5)]})
    sampled = [pairs_of(folder).sample(0, place) for place in range(5)]
    assert {pair.text for pair in sampled} == {f"caption {i}" for i in range(5)}
    assert {len(pair.waveform) for pair in sampled} == {160_000} and len({pair.waveform[0] for pair in sampled}) == 5
    assert {pair.keys[0] for pair in sampled} == {0} and len({pair.keys[1] for pair in sampled}) == 5


def test_crops_lie_anywhere_and_short_clips_stay_whole(tmp_path: Path) -> None:
    folder = write(tmp_path, "one", [0.5, 1.5], lambda n: {"caption": f"clip {n}"})
    pairs = pairs_of(folder, crop_s=1.0)
    sampled = [pairs.sample(step, place) for step in range(50) for place in range(8)]
    assert all(len(pair.waveform) == (8000 if pair.text == "clip 0" else 16_000) for pair in sampled)
    starts = np.asarray([pair.waveform[0] for pair in sampled if pair.text == "clip 1"]) / 0.3
    assert starts.min() < 0.02 and 0.31 < starts.max() <= 1 / 3 + 1e-3


def test_sources_take_turns_and_never_end(tmp_path: Path) -> None:
    small = write(tmp_path, "small", [0.3] * 2, lambda n: {"caption": f"small {n}"})
    large = write(tmp_path, "large", [0.3] * 40, lambda n: {"text": f"large {n}"})
    pairs = pairs_of(small, large, batch_size=5)
    sampled = [pairs.sample(step, place) for step in range(32) for place in range(5)]
    counts = Counter(pair.text for pair in sampled)
    assert {counts[f"small {n}"] for n in range(2)} == {40} and {counts[f"large {n}"] for n in range(40)} == {2}
    first = [pair.text for pair in sampled if pair.text.startswith("large")]
    assert sorted(first[:40]) == sorted(first[40:]) and first[:40] != first[40:]


@pytest.mark.parametrize("rule", ["strict", "compat"])
def test_what_is_left_out_is_counted(tmp_path: Path, rule: str) -> None:
    metadata: list[dict[str, Any]] = [
        {"caption": "fine"},
        {"caption": "  "},
        {"captions": ["fine, too", ""]},
        {"kind": "music"},
        {"caption": "too short a clip"},
        {"caption": "word " * 12},
        {"text": "w" * 181},
    ]
    folder = write(tmp_path, "mixed", [1, 1, 1, 1, 0.19, 1, 1], lambda n: metadata[n])
    pairs = pairs_of(folder, rule=rule)
    expected = {
        "no caption": 2,
        "blank caption": 1,
        "shorter than 0.2 s": 1,
        "caption cut to 10 tokens": 1,
        "caption over 180 characters": 1,
    }
    if rule == "strict":
        del expected["caption over 180 characters"]
    assert pairs.left_out == expected
    texts = {pairs.sample(step, place).text[:9] for step in range(9) for place in range(8)}
    assert texts == {"fine", "fine, too", "word word"} | ({"w" * 9} if rule == "strict" else set())


def test_loud_clips_are_dropped_by_the_released_rule_alone(tmp_path: Path) -> None:
    loud = write(tmp_path, "loud", [1.0] * 3, lambda n: {"caption": "loud"}, peak=1.0)
    soft = write(tmp_path, "soft", [1.0], lambda n: {"caption": "soft"})
    assert {pairs_of(loud).sample(0, place).text for place in range(8)} == {"loud"}
    released = pairs_of(loud, rule="compat")
    with pytest.raises(DataError, match=r"1000 clips of .*loud in a row peak at 0\.99 or more; align.rule=strict"):
        released.sample(0, 0)
    assert released.left_out == {"peak of 0.99 or more": 1000}
    assert pairs_of(soft, rule="compat").sample(0, 0).text == "soft"


def test_translations_have_their_share_and_the_key_of_their_caption(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        "one",
        [0.3, 0.3],
        lambda n: {"captions": ["one", "two"], "caption_deu": ["eins", "zwei"], "caption_fra": "un", "caption_zho": ""},
    )
    pairs = pairs_of(folder, batch_size=1000, translations=0.3)
    sampled = [pairs.sample(step, place) for step in range(3) for place in range(1000)]
    counts = Counter(pair.text for pair in sampled)
    assert set(counts) == {"one", "two", "eins", "zwei", "un"}
    assert counts["un"] == pytest.approx(300, abs=60) and counts["eins"] == pytest.approx(150, abs=45)
    assert pairs.left_out["blank caption"] == pytest.approx(300, abs=60)
    assert {pair.keys[1] for pair in sampled if pair.text in ("one", "eins")} == {key_of("one")}
    none = pairs_of(folder, batch_size=1000, translations=0.0)
    assert {none.sample(0, place).text for place in range(200)} == {"one", "two"}


def test_broken_translations_are_recognised() -> None:
    assert is_degenerate("ha ha ha ha ha ha ha ha") and is_degenerate("x y" * 61)
    assert not is_degenerate("Ein Hund bellt, während Regen fällt.") and not is_degenerate("")
    assert is_degenerate("abcd" * 5) and not is_degenerate("abcd" * 4)


@given(
    st.dictionaries(
        st.sampled_from(["caption", "captions", "text", "kind"]),
        st.none() | st.text() | st.lists(st.text() | st.integers()),
    )
)
def test_any_facts_give_captions_or_none(meta: dict[str, Any]) -> None:
    captions = captions_of(meta)
    assert all(text == text.strip() for text in captions) and (captions == [] or any(captions))


@given(st.text())
def test_keys_are_numbers_that_ignore_case_and_spacing(text: str) -> None:
    assert 0 <= key_of(text) < 1 << 63 and key_of(text) == key_of(f"  {text}\n")
    assert key_of("A  Dog barks.") == key_of("a dog barks. ") != key_of("a dog barks")


def scene(*parts: Part, arrangement: Any = "single") -> Scene:
    return Scene(np.zeros(0, np.float32), parts, "any", arrangement)


def test_scenes_of_one_meaning_share_a_key() -> None:
    dog, rain = Part(kind="sound", event="dog"), Part(kind="sound", event="rain")
    ann, bob = (Part(kind="speech", text=None, gender="f", speaker=name, language="en") for name in ("ann", "bob"))
    assert meaning_of(scene(dog)) == meaning_of(scene(dog)) != meaning_of(scene(rain))
    assert meaning_of(scene(ann)) == meaning_of(scene(bob)) != meaning_of(scene(dog))
    assert meaning_of(scene(dog, rain, arrangement="over")) != meaning_of(scene(dog))


def test_short_names_are_of_what_is_audible_alone() -> None:
    dog = Part(kind="sound", event="dog")
    assert short_names(scene(dog)) == [
        "dog barking",
        "a dog",
        "a dog barking",
        "The sound of dog barking can be heard.",
    ]
    piano = Part(kind="music", instruments=("piano",))
    assert "The music in the style of piano." in short_names(scene(piano))
    assert short_names(scene(Part(kind="speech", text="seven"))) == ["seven"]
    assert short_names(scene(Part(kind="speech"))) == short_names(scene()) == short_names(scene(dog, piano)) == []


def test_scenes_are_worded_by_their_facts(shards: Path) -> None:
    config = RunConfig(data=[str(shards)], seed=3, scenes={"max_s": 2.0})
    config.align.pairs, config.align.name_share = "scenes", 0.5
    pairs = open_pairs(config, num_tokens=len, max_tokens=10)
    assert isinstance(pairs, ScenePairs)
    sampled = [pairs.sample(0, place) for place in range(40)]
    assert all(len(pair.waveform) and pair.text for pair in sampled)
    again = [pairs.sample(0, place) for place in range(40)]
    assert all(a.text == b.text and np.array_equal(a.waveform, b.waveform) for a, b in zip(sampled, again, strict=True))
    barks = {pair.text for pair in sampled if "dog" in pair.text.lower() and "while" not in pair.text}
    assert len(barks) > 1
    with pytest.raises(ConfigError, match="scenes has no setting loudness; known: shares"):
        config.scenes = {"loudness": 3}
        open_pairs(config, num_tokens=len, max_tokens=10)
