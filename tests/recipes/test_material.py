import json
import random
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny"


@pytest.fixture(scope="module")
def recipe() -> Any:
    sys.path.insert(0, str(RECIPE))
    try:
        import material

        yield material
    finally:
        sys.path.remove(str(RECIPE))


def test_missing_programs_are_named_with_their_packages(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe.shutil, "which", lambda name: None)
    monkeypatch.setattr(recipe, "SOUNDFONT", Path("/nowhere.sf2"))
    with pytest.raises(SystemExit, match="apt install espeak-ng fluidsynth fluid-soundfont-gm"):
        recipe.check_tools()


def test_midi_files_hold_every_note(recipe: Any) -> None:
    for seed in range(40):
        midi, facts = recipe.tunes.compose(random.Random(seed))
        assert midi[:4] == b"MThd" and struct.unpack(">IHHH", midi[4:14]) == (6, 0, 1, recipe.tunes.TICKS)
        assert midi[14:18] == b"MTrk" and struct.unpack(">I", midi[18:22])[0] == len(midi) - 22
        assert midi.endswith(b"\xff\x2f\x00")
        assert facts["tempo"] in recipe.tunes.TEMPI and facts["instruments"][0] in recipe.tunes.INSTRUMENTS
        assert (facts["mode"] is None) == (facts["instruments"] == ["drums"])


def test_long_quantities_are_written_in_seven_bit_groups(recipe: Any) -> None:
    written = {0: "00", 0x7F: "7f", 0x80: "8100", 0x2000: "c000", 0x0FFFFFFF: "ffffff7f"}  # MIDI 1.0 specification
    assert {value: recipe.tunes._variable(value).hex() for value in written} == written


@pytest.mark.parametrize("number", range(12))
def test_procedural_sounds_are_finite_and_audible(recipe: Any, number: int) -> None:
    event = tuple(recipe.sounds.EVENTS)[number]
    for seed in range(4):
        waveform, name = recipe.sounds.synthesize(random.Random(seed), event)
        assert name == event and np.isfinite(waveform).all() and waveform.std() > 1e-3
        assert 2.0 <= waveform.size / 16_000 <= 5.0


def test_every_procedural_event_has_words(recipe: Any) -> None:
    from auricle.data.vocabulary import EVENTS, LANGUAGES

    assert len(recipe.sounds.EVENTS) == 13 and set(recipe.sounds.EVENTS) <= set(EVENTS)
    assert set(recipe.sentences.FOREIGN) <= set(LANGUAGES)


def test_sentences_are_plain_and_varied(recipe: Any) -> None:
    rng = random.Random(0)
    made = [recipe.sentences.sentence(rng) for _ in range(800)]
    assert all(set(text) <= set("abcdefghijklmnopqrstuvwxyz ") and "  " not in text and text for text in made)
    assert len(set(made)) > 600 and len({word for text in made for word in text.split()}) > 400
    digits = [recipe.sentences.digits(rng).split() for _ in range(300)]
    assert all(set(words) <= set(recipe.sentences.DIGITS) for words in digits)
    assert {len(words) for words in digits} == {1, 2, 3, 4, 5}


HAS_TOOLS = shutil.which("espeak-ng") and shutil.which("fluidsynth")
HAS_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2").is_file()


@pytest.mark.skipif(
    not (HAS_TOOLS and HAS_FONT), reason="needs the Debian packages espeak-ng, fluidsynth and fluid-soundfont-gm"
)
def test_material_is_complete_and_repeatable(recipe: Any, tmp_path: Path) -> None:
    rows = recipe.make_material(tmp_path / "one", scale=0.004, seed=3, jobs=1)
    again = recipe.make_material(tmp_path / "two", scale=0.004, seed=3, jobs=1)
    assert rows == again and {row["kind"] for row in rows} == {"speech", "music", "sound"}
    written = (tmp_path / "one" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in written] == rows
    for row in rows:
        waveform, rate = soundfile.read(tmp_path / "one" / row["audio"])
        assert rate == 16_000 and waveform.ndim == 1 and waveform.size / rate == pytest.approx(row["seconds"], abs=1e-3)
        assert 0.05 < np.abs(waveform).max() <= 1.0 and row["synthetic"] is True
        same, _ = soundfile.read(tmp_path / "two" / row["audio"])
        assert np.array_equal(waveform, same)
