import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import auricle as package
from auricle.errors import UnknownModel

from ..encode.keys import Keys, sound
from .conftest import auricle


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """A model that is loaded by any name."""
    model = Keys()

    def load(name: str, **settings: Any) -> Keys:
        if name == "unknown":
            raise UnknownModel("no model 'unknown'")
        return model

    monkeypatch.setattr(package, "load_aligner", load)
    return model


@pytest.fixture
def sounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a dog, rain, and a file that is broken; the working directory."""
    for word in ("dog", "rain"):
        soundfile.write(tmp_path / f"{word}.wav", sound(word), 16_000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_clips_and_texts_make_a_table(keys: Keys, sounds: Path) -> None:
    done = auricle("score", "dog.wav", "rain.wav", "-t", "a dog barks", "-t", "rain")
    assert done.code == 0 and done.err == ""
    head, first, second = (line.split("  ") for line in done.out.splitlines())
    assert [part.strip() for part in head if part.strip()] == ["a dog barks", "rain"]
    assert first[0].strip() == "dog.wav" and second[0].strip() == "rain.wav"
    dog, rain = ([float(number) for number in " ".join(row[1:]).split()] for row in (first, second))
    assert dog[0] > 95 > 20 > dog[1] and rain[1] > 95 > 20 > rain[0]
    assert len({len(line) for line in done.out.splitlines()}) == 1  # columns stand under their texts


@pytest.mark.parametrize(
    ("arguments", "files", "texts"),
    [
        (["dog.wav", "a dog barks"], ["dog.wav"], ["a dog barks"]),
        (["a dog barks", "dog.wav", "rain", "rain.wav", "rain"], ["dog.wav", "rain.wav"], ["a dog barks", "rain"]),
        (["[dr]*.wav", "what is this?"], ["dog.wav", "rain.wav"], ["what is this?"]),
        (["dog.wav", "-t", "rain.wav"], ["dog.wav"], ["rain.wav"]),
    ],
)
def test_what_is_a_file_is_audio_and_the_rest_is_text(
    keys: Keys, sounds: Path, arguments: list[str], files: list[str], texts: list[str]
) -> None:
    done = auricle("score", *arguments, "--json")
    assert done.code == 0 and [record["file"] for record in done.records] == files
    for record in done.records:
        assert list(record["scores"]) == texts == list(record["probabilities"])
        assert record["receipt"]["complete"] and record["error"] is None and record["model"] == "auricle-tiny-glap"


def test_a_misspelt_file_is_no_text(keys: Keys, sounds: Path) -> None:
    done = auricle("score", "dgo.wav", "dog.wav", "rain", "--json")
    assert done.code == 1 and [record["file"] for record in done.records] == ["dgo.wav", "dog.wav"]
    assert "no such file" in done.records[0]["error"] and list(done.records[1]["scores"]) == ["rain"]


def test_a_bad_file_is_reported_in_one_line_and_the_others_continue(keys: Keys, sounds: Path) -> None:
    for verb in (["score", ".", "-t", "rain"], ["classify", ".", "--labels", "dog,rain"]):
        done = auricle(*verb)
        assert done.code == 1 and len(done.err.splitlines()) == 1 and "bad.wav" in done.err
        assert "dog.wav" in done.out and "rain.wav" in done.out
        assert [record["error"] is None for record in auricle(*verb, "--json").records] == [False, True, True]


def test_standard_input_is_scored(keys: Keys, sounds: Path) -> None:
    done = auricle("score", "-", "rain", "--json", stdin=(sounds / "rain.wav").read_bytes())
    assert done.code == 0 and done.records[0]["file"] == "-" and done.records[0]["scores"]["rain"] > 95


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (["score", "dog.wav"], "TEXT"),
        (["score", "a dog", "rain"], "AUDIO"),
        (["score"], "AUDIO"),
        (["score", "dog.wav", "rain", "--model", "unknown"], "no model 'unknown'"),
        (["classify", "dog.wav"], "--labels"),
        (["classify", "dog.wav", "--labels", "dog"], "is the only label"),
        (["classify", "dog.wav", "--labels", "dog,dog"], "is given twice"),
        (["classify", "dog.wav", "--labels", "dog,rain", "--labels-file", "words.txt"], "--labels"),
        (["classify", "dog.wav", "--labels", "dog,rain", "--threshold", "5"], "--threshold"),
        (["classify", "dog.wav", "--labels", "dog,rain", "--domain", "noise"], "sound, music, speech, none"),
        (["classify", "dog.wav", "--labels", "dog,rain", "--template", "a dog"], "0 slots"),
    ],
)
def test_wrong_usage_is_reported(keys: Keys, sounds: Path, verb: list[str], message: str) -> None:
    done = auricle(*verb)
    assert done.code == 2 and message in done.err and done.out == ""
    assert keys.num_clips == 0


def test_clips_are_classified(keys: Keys, sounds: Path) -> None:
    done = auricle("classify", "dog.wav", "rain.wav", "--labels", 'dog, rain,rooster,"siren, far",sneezing')
    assert done.code == 0
    assert [line.split(" %")[0] for line in done.out.splitlines()] == ["dog.wav: dog 100", "rain.wav: rain 100"]
    assert all(line.count("%") == 3 for line in done.out.splitlines())
    assert "The sound of siren, far can be heard." in keys.texts
    assert auricle("classify", "dog.wav", "--labels", "dog,rain").out == "dog 100 %, rain 0 %\n"


def test_domains_templates_and_languages_are_used(keys: Keys, sounds: Path) -> None:
    command = ["classify", "dog.wav", "--labels", "dog,rain"]
    auricle(*command, "--domain", "music", "--language", "deu_Latn")
    assert keys.texts == ["The music in the style of dog.", "The music in the style of rain."]
    assert keys.languages == ["deu_Latn"]
    keys.texts = []
    auricle(*command, "--template", "a {label}", "--template", "{label}!")
    assert keys.texts == ["a dog", "dog!", "a rain", "rain!"]


def test_labels_come_from_a_file_with_paraphrases(keys: Keys, sounds: Path) -> None:
    (sounds / "words.txt").write_text("animal\ta dog\nweather\train\tthe sky\n")
    done = auricle("classify", "dog.wav", "rain.wav", "--labels-file", "words.txt", "--domain", "none", "--json")
    assert [record["labels"] for record in done.records] == [["animal"], ["weather"]]
    assert keys.texts == ["a dog", "rain", "the sky"] and done.records[0]["scale"] == 20.0
    assert auricle("classify", "dog.wav", "--labels-file", "nowhere.txt").code == 1


def test_several_labels_may_hold(keys: Keys, sounds: Path) -> None:
    soundfile.write(sounds / "both.wav", sound("dog", "siren"), 16_000)
    command = ["classify", "both.wav", "rain.wav", "--labels", "dog,siren,rooster", "--multi"]
    shown = auricle(*command)
    first, second = shown.out.splitlines()
    assert {part.split()[0] for part in first.removeprefix("both.wav: ").split(", ")} == {"dog", "siren"}
    assert shown.code == 0 and second.startswith("rain.wav: none of the labels reaches 50.0; the best is ")
    labelled = auricle(*command, "--threshold", "-100", "--json").records
    assert [len(record["labels"]) for record in labelled] == [3, 3] and labelled[0]["threshold"] == -100
    keys.model.logit_scale = None
    assert auricle(*command).code == 2
    assert json.loads(auricle(*command, "--threshold", "50", "--json").out.splitlines()[0])["probabilities"] is None


def test_a_truncated_clip_is_reported(keys: Keys, cut: Path) -> None:
    done = auricle("score", cut, "rain")
    assert done.code == 3 and "partly processed" in done.err


@pytest.mark.parametrize("verb", ["classify", "score"])
def test_a_clip_that_is_too_short_is_refused_as_by_other_verbs(keys: Keys, sounds: Path, verb: str) -> None:
    labels = ["--labels", "dog,rain"] if verb == "classify" else ["-t", "dog", "-t", "rain"]
    for count, code in ((800, 1), (1599, 1), (1600, 0)):
        soundfile.write(sounds / "short.wav", sound("dog")[:count], 16_000)
        done = auricle(verb, "short.wav", *labels)
        assert done.code == code and ("too short to describe; expected at least 0.1 s" in done.err) is bool(code)
    both = auricle(verb, "dog.wav", "short.wav", *labels, "--json")
    assert both.code == 0 and len(both.records) == 2


def test_strict_counts_warnings_of_classified_files(keys: Keys, sounds: Path) -> None:
    waveform = sound("dog").copy()
    assert auricle("classify", "dog.wav", "--labels", "dog,rain", "--strict").code == 0
    waveform[:10] = np.nan
    soundfile.write(sounds / "odd.wav", waveform, 16_000, subtype="FLOAT")
    assert auricle("classify", "odd.wav", "--labels", "dog,rain").code == 0
    strict = auricle("classify", "odd.wav", "--labels", "dog,rain", "--strict")
    assert strict.code == 4 and "--strict: 1 result is unsure, or of a file with warnings" in strict.err
    assert auricle("classify", "odd.wav", "bad.wav", "--labels", "dog,rain", "--strict").code == 1
