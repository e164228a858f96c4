import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny"
FREE, UNFREE = "CC BY 4.0", "GPL-2+/CC/PD"


@pytest.fixture(scope="module")
def wide() -> Any:
    sys.path.insert(0, str(RECIPE))
    try:
        import wide

        yield wide
    finally:
        sys.path.remove(str(RECIPE))


events = st.sampled_from(["bat", "bat_left", "cat", "cow", "dog", "owl"])
recordings = st.builds("r{}".format, st.integers(0, 12))
event_rows = st.lists(
    st.fixed_dictionaries({"event": events, "recording": recordings, "license": st.sampled_from([FREE, UNFREE])}),
    max_size=40,
)


@given(rows=event_rows)
def test_recordings_stay_together_and_unfree_ones_are_never_learnt(wide: Any, rows: list[dict[str, str]]) -> None:
    for number, row in enumerate(rows):  # a recording has one licence
        row |= {"audio": f"{number}.opus", "license": UNFREE if row["recording"] in ("r1", "r2") else FREE}
    parts = wide.split_events(rows, frozenset({"dog"}))
    clips = [row["audio"] for found in parts.values() for row in found]
    assert len(set(clips)) == len(clips) and set(clips) <= {row["audio"] for row in rows}
    held = {part: {row["recording"] for row in found} for part, found in parts.items()}
    assert not (held["train"] & held["valid"] or held["train"] & held["test"] or held["valid"] & held["test"])
    assert all(wide.is_free(row) for part in ("train", "valid") for row in parts[part])
    learnt = {row["event"] for row in parts["train"]} | {"dog"}
    assert all(row["event"] in learnt or wide.SAME.get(row["event"]) in learnt for row in parts["test"])
    free = {(row["event"], row["recording"]) for row in rows if wide.is_free(row)}
    for event in {event for event, _ in free}:  # one recording to learn from, and one to test with where there are two
        names = {recording for each, recording in free if each == event}
        if all(each == event for each, recording in free if recording in names):
            assert names & held["train"]
            assert (len(names) > 1) == bool(names & held["test"]) and (len(names) > 3) == bool(names & held["valid"])


@given(speakers=st.lists(st.integers(0, 60), max_size=80))
def test_speakers_are_in_one_part(wide: Any, speakers: list[int]) -> None:
    rows = [{"speaker": f"s{speaker}", "license": FREE} for speaker in speakers]
    for parts in (wide.split_groups(rows, "speaker"), wide.split_speakers(rows)):
        assert sum(map(len, parts.values())) == len(rows)
        names = [{row["speaker"] for row in found} for found in parts.values()]
        assert sum(map(len, names)) == len(set.union(*names))


def test_a_sixth_of_many_speakers_test(wide: Any) -> None:
    parts = wide.split_speakers([{"speaker": f"s{number}"} for number in range(24)])
    assert {part: len(found) for part, found in parts.items()} == {"train": 18, "valid": 2, "test": 4}


@pytest.mark.parametrize(
    ("text", "words"),
    [("You are entering", "you are entering"), ("exclamation-point [!]", None), (None, None), ("press 1", None),
     ("  It's, well — done! ", "it's well done"), ("...", None)],
)  # fmt: skip
def test_words_are_plain_or_unknown(wide: Any, text: str | None, words: str | None) -> None:
    assert wide.plain_text(text) == words


KNOWN = {"license": FREE, "author": "nobody", "source": "nowhere", "audio": "audio/a.opus"}


@pytest.mark.parametrize(
    ("name", "row", "facts"),
    [
        ("arabic_commands", {"kind": "speech", "language": "ar", "keyword": "go", "text_en": "go", "speaker": "s"},
         {"command": "go", "language": "ar", "speaker": "s"}),
        ("mycroft_community", {"kind": "speech", "language": "es", "keyword": "hey computer"},
         {"command": "hey computer", "text": "hey computer", "language": "en"}),
        ("mycroft_community", {"kind": "speech", "language": "es"}, {"language": "es"}),
        ("picovoice_coffee_commands",
         {"kind": "speech", "language": "en", "slots": {"size": " small"}, "text_asr": "A small one.",
          "slots_confirmed": False}, {"language": "en", "slots": {"size": "small"}}),
        ("asterisk_prompts",
         {"kind": "speech", "language": "ru", "gender": "m", "text": "слово", "speaker": "x",
          "audio": "audio/ru-ru_RU_f_Voice_word.opus"}, {"language": "ru", "gender": "f", "speaker": "x"}),
        ("open_events", {"kind": "sound", "event": "violin", "recording": "r"},
         {"kind": "music", "instruments": ["violin"], "recording": "r"}),
        ("philharmonia", {"kind": "music", "instruments": ["train whistle"]},
         {"kind": "sound", "event": "train_whistle"}),
        ("philharmonia", {"kind": "music", "instruments": ["bell tree"], "note": "C4"},
         {"instruments": ["bells"], "note": "C4"}),
        ("donateacry", {"kind": "sound", "event": "crying_baby", "gender": "m", "speaker": "b"},
         {"event": "crying_baby", "speaker": "b", "recording": "b"}),
    ],
)  # fmt: skip
def test_rows_state_what_scenes_use(
    wide: Any, tmp_path: Path, name: str, row: dict[str, Any], facts: dict[str, Any]
) -> None:
    found = wide.convert(name, KNOWN | row, tmp_path)
    credit = {key: KNOWN[key] for key in ("license", "author", "source")}
    assert {key: value for key, value in found.items() if key not in ("id", "audio")} == {
        "kind": row["kind"], "set": name, **credit, **facts,
    }  # fmt: skip
    assert Path(found["audio"]).parent == (tmp_path / "audio").resolve()


def test_voices_without_header_are_read(wide: Any, tmp_path: Path) -> None:
    import voices

    voice = voices.VOICES[0]
    folder = tmp_path / voice.folder
    folder.mkdir(parents=True)
    wave = (0.3 * np.sin(np.arange(16_000) * 2 * np.pi * 440 / 8000)).astype(np.float32)
    for number, seconds in enumerate((2, 1)):
        soundfile.write(folder / f"{number}.gsm", wave[: seconds * 8000], 8000, format="RAW", subtype="GSM610")
    ((name, waveform),) = voices.clips(voice, tmp_path)  # the other one is too short
    assert name == f"{voice.package}-0" and waveform.size == pytest.approx(32_000, abs=400)
    spectrum = np.abs(np.fft.rfft(waveform))
    assert np.argmax(spectrum) * 16_000 / waveform.size == pytest.approx(440, abs=2)


def test_phrases_are_composed_of_recorded_notes(wide: Any, tmp_path: Path) -> None:
    import random

    import phrases

    time = np.arange(16_000) / 16_000
    rows = []
    for instrument in ("flute", "oboe"):
        for octave in (4, 5):
            for name in ("C", "E", "G#"):
                number = phrases.midi_number(f"{name}{octave}")
                audio = tmp_path / f"{instrument}-{number}.wav"
                soundfile.write(audio, np.sin(2 * np.pi * 440 * 2 ** ((number - 69) / 12) * time), 16_000)
                rows.append(
                    {"kind": "music", "instruments": [instrument], "note": f"{name}{octave}", "audio": str(audio)}
                )
    rows.append({"kind": "sound", "event": "train_whistle", "audio": "/nowhere.wav"})  # no note
    manifest = tmp_path / "notes.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pitched, strokes = phrases.read_notes((manifest,))
    assert set(pitched) == {"flute", "oboe"} and not strokes
    made = [phrases.phrase(random.Random(seed), pitched) for seed in range(40)]
    assert {facts["texture"] for _, facts in made} == {"melody", "chords", "arpeggios"}
    assert {len(facts["instruments"]) for _, facts in made} == {1, 2}
    for waveform, _ in made:
        assert 2 <= waveform.size / 16_000 <= 6 and np.isfinite(waveform).all() and np.abs(waveform).max() > 0.1
    again, _ = phrases.phrase(random.Random(0), pitched)
    assert np.array_equal(again, made[0][0])
