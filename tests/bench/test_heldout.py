from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auricle.bench import heldout
from auricle.bench.heldout import (
    CATEGORY_PROMPT,
    GENDER_PROMPT,
    Reply,
    encoder_rows,
    language_model_rows,
    training_probe,
)
from auricle.data import prompts
from auricle.data.shards import ShardSet, ShardWriter
from auricle.data.vocabulary import event_name, event_words
from auricle.data.wording import CAPTION_PROMPT, TRANSCRIBE_PROMPT
from auricle.errors import DataError
from auricle.metrics.calibration import calibration_error

Facts = dict[str, Any]
STEADY = "nothing invented in silence, tones and noise"
EVENTS = ("dog", "rain", "rooster", "helicopter")
DIGITS = ("one", "two", "three")


def all_facts() -> Iterator[Facts]:
    for number in range(12):
        yield {"kind": "sound", "event": EVENTS[number % 4], "set": "esc50"}
    for number in range(15):
        yield {"kind": "speech", "text": DIGITS[number % 3], "gender": "m", "speaker": "theo", "set": "fsdd"}
    for number in range(10):
        gender, speaker = "mf"[number % 2], f"speaker{number % 5}"
        facts = {"gender": gender, "speaker": speaker, "age": 10 + 5 * (number % 3)}
        yield {"kind": "speech", "text": f"mark likes {number} apples", **facts}
    for _ in range(9):
        yield {"kind": "music", "instruments": ["piano"], "set": "fluidsynth"}
    for number in range(6):
        yield {"kind": "speech", "command": ("stop", "open")[number % 2], "language": ("en", "ar")[number % 2]}
    for _ in range(3):
        yield {"kind": "speech", "slots": {"size": "large", "roast": "dark roast"}, "text": "a large one"}


@pytest.fixture(scope="module")
def facts() -> list[Facts]:
    return list(all_facts())


def tone(hz: float, seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(16_000 * seconds)) / 16_000)).astype(np.float32)


def pitch(number: int) -> float:
    return 200.0 + 100 * number


@pytest.fixture(scope="module")
def shards(facts: list[Facts], tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Each clip is a tone of its own, so that an oracle can identify it, also in mixtures."""
    folder = tmp_path_factory.mktemp("heldout")
    with ShardWriter(folder, "toy") as writer:
        for number, meta in enumerate(facts):
            writer.write(f"clip{number}", tone(pitch(number), 0.5 + 0.01 * number), meta)
    return ShardSet(folder)


class Oracle:
    """Answers from the facts of the tones it finds."""

    def __init__(self, facts: list[Facts]) -> None:
        self.facts = facts

    def found_in(self, waveform: np.ndarray) -> list[Facts]:
        spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 16_000))  # no clip is longer than 1 s
        strength = [spectrum[int(pitch(n))] for n in range(len(self.facts))]
        return [meta for meta, found in zip(self.facts, strength, strict=True) if found > 0.15 * max(strength)]

    def answer(self, waveform: np.ndarray, prompt: str) -> str:
        found = self.found_in(waveform)
        kinds = {meta["kind"] for meta in found}
        if prompt == CATEGORY_PROMPT:
            return "Mixed." if len(kinds) > 1 else kinds.pop()
        if prompt == GENDER_PROMPT:
            return {"m": "male", "f": "female"}[found[0]["gender"]]
        if prompt == prompts.COMMAND[0]:
            return str(found[0]["command"])
        if prompt == prompts.INSTRUMENT[0]:
            return str(found[0]["instruments"][0])
        if prompt == prompts.LANGUAGE[0]:
            return {"en": "English", "ar": "Arabic"}[found[0]["language"]]
        for name, ways in prompts.SLOTS.items():
            if prompt == ways[0]:
                return str(found[0]["slots"][name])
        if prompt == TRANSCRIBE_PROMPT:
            return found[0]["text"].capitalize() + "."
        assert prompt == CAPTION_PROMPT
        sounds = [heldout_noun(meta["event"]) for meta in found if meta["kind"] == "sound"]
        return " with ".join([*(["A man speaks"] if "speech" in kinds else []), *sounds])

    def __call__(self, clips: list[np.ndarray], prompt: str) -> list[Reply]:
        return [Reply(self.answer(clip, prompt), 1.0) for clip in clips]

    def rank(self, clips: list[np.ndarray], question: str, options: Sequence[str]) -> list[list[str]]:
        assert question == prompts.EVENT[0] and len(set(options)) == len(options)
        right = [event_name(self.found_in(clip)[0]["event"]) for clip in clips]
        return [[*options[:4], name, *options[4:]] for name in right]


def heldout_noun(event: str) -> str:
    return event_words(event).noun


def test_an_oracle_scores_perfectly(shards: ShardSet, facts: list[Facts]) -> None:
    rows = language_model_rows(Oracle(facts), shards, rank=Oracle(facts).rank)
    assert rows.pop(STEADY).n == 200
    assert {name: row.value for name, row in rows.items()} == {
        "event named in the caption": 1.0,
        "event among the five likeliest labels": 1.0,
        "calibration error of captions": 0.0,
        "digit transcribed exactly": 1.0,
        "speech/sound/music/mixed": 1.0,
        "gender of the speaker": 1.0,
        "gender of adult speakers": 1.0,
        "gender of children": 1.0,
        "both parts named, 0-10 dB": 1.0,
        "word error rate": 0.0,
        "command named, English": 1.0,
        "command named, other languages": 1.0,
        "instrument named": 1.0,
        "language named, 2 languages": 1.0,
        "part of an order": 1.0,
    }
    assert [row.n for row in rows.values()] == [12, 12, 12, 15, 36, 10, 3, 7, 12, 10, 3, 3, 9, 6, 6]


def test_constant_answers_are_chance(shards: ShardSet) -> None:
    constant = {
        CAPTION_PROMPT: "A dog barks.",
        TRANSCRIBE_PROMPT: "One",
        CATEGORY_PROMPT: "speech",
        GENDER_PROMPT: "female",
    }
    rows = language_model_rows(lambda clips, prompt: [Reply(constant.get(prompt, "stop"))] * len(clips), shards)
    assert rows.pop(STEADY).value == 0.0
    found = {name: round(row.value, 4) for name, row in rows.items()}
    assert found == {
        "event named in the caption": 0.25,
        "digit transcribed exactly": 0.3333,
        "speech/sound/music/mixed": 0.25,
        "gender of the speaker": 0.5,
        "gender of adult speakers": 0.3333,
        "gender of children": 0.5714,
        "both parts named, 0-10 dB": 0.0,
        "word error rate": 1.0,
        "command named, English": 1.0,
        "command named, other languages": 0.0,
        "instrument named": 0.0,
        "language named, 2 languages": 0.0,
        "part of an order": 0.0,
    }
    assert all(row.low <= row.value <= row.high for row in rows.values())


@pytest.mark.parametrize("text", ["No speech.", "speech in English"])
def test_no_speech_is_all_words_missed(shards: ShardSet, facts: list[Facts], text: str) -> None:
    def answer(clips: list[np.ndarray], prompt: str) -> list[Reply]:
        return [Reply(text)] * len(clips) if prompt == TRANSCRIBE_PROMPT else Oracle(facts)(clips, prompt)

    rows = language_model_rows(answer, shards)
    assert rows["word error rate"].value == 1.0
    declined = rows.get("open speech not written down")
    assert declined is None if text == "No speech." else declined is not None and declined.value == 1.0


def test_nothing_is_invented_by_captions_that_name_no_source(shards: ShardSet, facts: list[Facts]) -> None:
    for caption, share in (("Steady noise hisses.", 1.0), ("Silence.", 1.0), ("A man speaks over noise.", 0.0)):

        def answer(clips: list[np.ndarray], prompt: str, caption: str = caption) -> list[Reply]:
            return [Reply(caption)] * len(clips) if prompt == CAPTION_PROMPT else Oracle(facts)(clips, prompt)

        assert language_model_rows(answer, shards)[STEADY].value == share


def test_the_calibration_error_is_the_mean_gap_of_bins() -> None:
    rows = np.array([[0.95, 1], [0.95, 1], [0.55, 0], [0.55, 1], [1.0, 1], [0.05, 0]])
    # Bins of 1, 3 … clips: |0.05 - 0|, |0.55 - 0.5|, |(0.95 + 0.95 + 1) / 3 - 1|.
    assert calibration_error(rows) == pytest.approx((0.05 + 2 * 0.05 + 0.1) / 6)


def test_the_seed_chooses_the_mixtures_and_limits_hold(shards: ShardSet, facts: list[Facts]) -> None:
    def clips_given(seed: int) -> list[bytes]:
        clips_seen: list[bytes] = []

        def answer(clips: list[np.ndarray], prompt: str) -> list[Reply]:
            clips_seen.extend(clip.tobytes() for clip in clips)
            assert len(clips) <= (12 if prompt == CATEGORY_PROMPT else 6) or len(clips) == 200
            return Oracle(facts)(clips, prompt)

        rows = language_model_rows(answer, shards, seed=seed, limit=3)
        assert all(row.n <= 12 for name, row in rows.items() if name != STEADY)
        return clips_seen

    assert clips_given(1) == clips_given(1) != clips_given(2)


def test_a_set_without_music_has_no_category(tmp_path: Path, facts: list[Facts]) -> None:
    with ShardWriter(tmp_path, "few") as writer:
        writer.write("a", tone(pitch(0), 0.5), facts[0])
    with pytest.raises(DataError, match="speech, sound and music for the category row; pack all three"):
        language_model_rows(Oracle(facts), ShardSet(tmp_path))


def perfect(clips: list[np.ndarray]) -> Tensor:
    """The loudest frequency as a one-hot vector."""
    peaks = torch.tensor([round(np.abs(np.fft.rfft(clip, 16_000)).argmax() / 100) for clip in clips])
    return nn.functional.one_hot(peaks, 80).float()


def test_encoder_rows(shards: ShardSet, facts: list[Facts]) -> None:
    # Predictions on the training clips: each is its own nearest neighbour.
    rows = encoder_rows(perfect, shards, shards)
    assert set(rows) == {
        f"{what}, {probe}, {source}"
        for what in ("events", "digits")
        for probe in ("kNN", "linear")
        for source in ("encoder", "mean log-mel")
    }
    assert rows["events, linear, encoder"].value == rows["digits, linear, encoder"].value == 1.0
    assert rows["events, kNN, encoder"].n == 12 and rows["digits, kNN, mean log-mel"].n == 15
    blind = encoder_rows(lambda clips: torch.zeros(len(clips), 4), shards, shards)
    assert blind["events, linear, encoder"].value == 0.25 and blind["digits, kNN, encoder"].value < 0.5


def test_labels_of_one_set_alone_have_no_rows(shards: ShardSet, tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "digits") as writer:
        for number in range(6):
            writer.write(f"d{number}", tone(200, 0.4), {"kind": "speech", "text": DIGITS[number % 3], "set": "fsdd"})
    assert all(name.startswith("digits") for name in encoder_rows(perfect, shards, ShardSet(tmp_path)))


class Network(nn.Module):
    """Looks like a masked autoencoder; its encoder gives loudness frames."""

    class Loudness:
        def encode(self, waveforms: list[Tensor]) -> list[Tensor]:
            return [wave[: len(wave) // 160 * 160].view(-1, 160).abs()[:, :4] for wave in waveforms]

    encoder = Loudness()


def test_the_training_probe_reports_neighbours_and_rank(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "events") as writer:
        for number in range(24):
            loudness = 0.05 if number // 2 % 2 else 1.0
            meta = {"kind": "sound", "event": EVENTS[number // 2 % 2], "set": "esc50"}
            writer.write(f"e{number}", loudness * tone(300 + 7 * number, 0.3), meta)
    found = training_probe(ShardSet(tmp_path))(Network())
    assert set(found) == {"knn_events", "rank_events"}
    assert 0 <= found["knn_events"] <= 1 and 1 <= found["rank_events"] <= 4
    assert training_probe(ShardSet(tmp_path), limit=10)(Network()) == {}


def test_clips_too_short_for_a_frame_are_padded() -> None:
    assert heldout.mean_log_mel([np.ones(10, np.float32), np.ones(2000, np.float32)]).shape == (2, 64)
