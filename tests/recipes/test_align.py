"""Held-out pairs and words of the recipe for auricle-tiny-glap."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.data import wording
from auricle.data.parts import Part, Scene
from auricle.data.shards import ShardWriter
from auricle.encode.zero_shot import read_labels

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny"
ESC10 = {"dog", "rooster", "rain", "sea_waves", "crackling_fire", "crying_baby", "sneezing", "clock_tick"}
ESC10 |= {"helicopter", "chainsaw"}
SMALL_WORDS = set("a an the of on at in with by from over is its".split())


@pytest.fixture(scope="module")
def recipe() -> Iterator[ModuleType]:
    sys.path.insert(0, str(RECIPE))
    try:
        import pairs

        yield pairs
    finally:
        sys.path.remove(str(RECIPE))


def trained_words(event: str) -> set[str]:
    """All words that training may use for an event."""
    scene = Scene(np.zeros(8, np.float32), (Part(kind="sound", event=event),), "pure_sound")
    captions = [wording.caption(scene, np.random.default_rng(seed)) for seed in range(300)]
    return set(re.findall(r"[a-z]+", " ".join(captions).lower()))


@pytest.mark.parametrize("file", sorted((RECIPE / "paraphrases").glob("*.tsv")), ids=lambda file: file.stem)
def test_paraphrases_are_never_trained_on(file: Path) -> None:
    labels = read_labels(file)
    assert set(labels) == ESC10
    for event, phrases in labels.items():
        (phrase,) = phrases
        words = set(re.findall(r"[a-z]+", phrase.lower())) - SMALL_WORDS
        assert words and not words & trained_words(event), f"{event}: {phrase}"


@given(st.lists(st.integers(0, 5), min_size=12, max_size=60), st.integers(0, 2**32))
def test_every_mismatched_pair_means_something_else(recipe: ModuleType, meanings: list[int], seed: int) -> None:
    chosen = np.arange(0, len(meanings), 2)
    commonest = max([meanings[i] for i in chosen].count(m) for m in range(6))
    if commonest > len(chosen) / 3:
        return
    found = recipe.partners(meanings, chosen, np.random.default_rng(seed))
    assert sorted(found) == sorted(found.values()) == chosen.tolist()
    assert all(meanings[i] != meanings[j] for i, j in found.items())


def test_held_out_pairs_state_which_are_mismatched(tmp_path: Path, warm_python: str) -> None:
    facts = [{"kind": "sound", "event": event} for event in ("dog", "rain", "siren")]
    facts += [{"kind": "speech", "text": text, "language": "en", "gender": "f"} for text in ("one", "two")]
    facts += [{"kind": "music", "instruments": [name]} for name in ("piano", "flute")]
    with ShardWriter(tmp_path / "shards", "toy") as writer:
        for number, meta in enumerate(facts):
            noise = np.random.default_rng(number).standard_normal(16_000)
            writer.write(f"clip{number}", 0.1 * noise.astype(np.float32), {"set": "toy", **meta})
    command = [warm_python, str(RECIPE / "pairs.py"), str(tmp_path / "shards"), str(tmp_path / "pairs")]
    subprocess.run([*command, "--count", "40", "--mismatched", "0.25"], check=True, timeout=300)
    rows = [json.loads(line) for line in (tmp_path / "pairs" / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 40 and sum(row["mismatched"] for row in rows) == 10
    assert all((tmp_path / "pairs" / row["audio"]).is_file() and row["caption"] and row["domain"] for row in rows)
