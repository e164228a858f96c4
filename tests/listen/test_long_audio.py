"""Sources longer than a window: read as a stream, covered whole, in memory that does not grow."""

import itertools
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle.audio.facts import Clip
from auricle.audio.limits import DEFAULT_LIMITS
from auricle.encode.receipt import Receipt, Span
from auricle.engine.request import SamplingParams
from auricle.errors import BrokenAudio, ConfigError
from auricle.listen import long_audio
from auricle.listen.aggregate import SUMMARY_PROMPT
from auricle.listen.long_audio import open_recording
from auricle.listen.model import AudioLM
from auricle.listen.windows import Windowing

from .test_model import NEW, answers_with, noise

RATE = 16_000


def write(path: Path, seconds: float, pieces: int = 1) -> Path:
    """A file of noise whose loudness changes, with a pause of 0.6 s every 7 s, written piece by piece."""
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for piece in range(pieces):
            waveform = noise(seconds / pieces, piece)
            waveform[(np.arange(len(waveform)) % (7 * RATE)) < 0.6 * RATE] = 0.0
            file.write(waveform)
    return path


def assert_covers(receipt: Receipt, seconds: float) -> None:
    spans: list[Span] = sorted([*receipt.read, *receipt.dropped], key=lambda span: span.start_s)
    assert receipt.complete and spans[0].start_s == 0 and spans[-1].stop_s == pytest.approx(seconds, abs=1e-3)
    assert all(left.stop_s == right.start_s for left, right in itertools.pairwise(spans))


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("long") / "minute.wav", 62.0)


@pytest.fixture(scope="module")
def short(model: AudioLM) -> AudioLM:
    """A model with windows of 10 s."""
    return AudioLM(model.loaded, max_audio_s=10.0)


def test_every_verb_processes_62_seconds_whole(short: AudioLM, minute: Path) -> None:
    described = short.describe(minute, max_new_tokens=NEW)
    written = short.transcribe(minute, max_new_tokens=NEW)
    (answer,) = short.ask_all(minute, ["What is it?"], sampling=SamplingParams(max_new_tokens=NEW))
    choice = short.choose(minute, "Is it loud?", ["yes", "no"])
    for result in (described, written, answer, choice):
        assert_covers(result.receipt, 62.0)
        assert len(result.segments) >= 7 and "processed in" in result.receipt.notes[0]
        assert result.segments[0].start_s == 0 and result.segments[-1].stop_s == 62.0
        assert all(left.stop_s == right.start_s for left, right in itertools.pairwise(result.segments))
    assert described.receipt.audio_tokens == pytest.approx(310, abs=1)


def test_a_stream_gives_what_the_whole_waveform_gives(short: AudioLM, minute: Path) -> None:
    waveform = soundfile.read(minute, dtype="float32")[0]
    for verb in (short.describe, short.transcribe):
        streamed, held = verb(minute, max_new_tokens=NEW), verb(waveform, max_new_tokens=NEW)
        assert streamed.segments == held.segments and streamed.receipt.read == held.receipt.read


def test_words_around_cuts_into_sound_are_in_two_windows_and_written_once(
    model: AudioLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 24 words, one each second; the stand-in writes down those that are in a window in full.
    def writes(self: object, prompts: list[object], *_: object, **__: object) -> list[object]:
        texts = []
        for prompt in prompts:
            counts = np.unique(np.rint(np.abs(prompt.clips[0].numpy()) * 100), return_counts=True)  # type: ignore[attr-defined]
            texts.append(" ".join(f"w{int(value)}" for value, count in zip(*counts, strict=True) if count > 0.9 * RATE))
        return [generation(model, text) for text in texts]

    sign = np.where(np.random.default_rng(0).random(24 * RATE) < 0.5, -1, 1)
    waveform = (sign * np.repeat(np.arange(1, 25) / 100, RATE)).astype(np.float32)
    monkeypatch.setattr("auricle.engine.engine.Engine.generate", writes)
    short = AudioLM(model.loaded, max_audio_s=10.0)
    whole = " ".join(f"w{number}" for number in range(1, 25))
    found = short.transcribe(waveform, overlap_s=3.0)
    assert found.text == whole and " ".join(segment.text for segment in found.segments) == whole
    assert len(found.receipt.overlaps) == len(found.segments) - 1 and "stitched" in found.receipt.notes[-1]
    assert_covers(found.receipt, 24.0)


def generation(model: AudioLM, text: str) -> object:
    from auricle.engine.request import Generation

    ids = model.loaded.tokenizer.encode(text, add_special_tokens=False).ids
    return Generation(ids, "eos", -1.0, (-1.0,) * (len(ids) + 1), text)


def test_no_overlap_around_pauses(short: AudioLM, minute: Path) -> None:
    found = short.transcribe(minute, max_new_tokens=NEW)
    assert len(found.receipt.overlaps) < len(found.segments) / 2


def test_dense_captions_join_equal_neighbours(short: AudioLM, minute: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_with(monkeypatch, short, "Rain.")
    plain, dense = short.describe(minute), short.describe(minute, dense=True)
    assert len(plain.segments) > 5 and [(s.start_s, s.stop_s, s.text) for s in dense.segments] == [(0.0, 62.0, "Rain.")]
    assert plain.caption == dense.caption == "Rain." and plain.receipt == dense.receipt


def test_smaller_windows_and_not_larger_ones(short: AudioLM, minute: Path) -> None:
    found = short.describe(minute, window_s=4.0, max_new_tokens=1)
    assert len(found.segments) >= 16 and max(s.stop_s - s.start_s for s in found.segments) <= 4.0
    with pytest.raises(ConfigError, match="at most 10 s"):
        short.describe(minute, window_s=20.0)
    with pytest.raises(ConfigError, match="third of the window"):
        short.transcribe(minute, overlap_s=5.0)


def test_a_model_for_several_clips_is_given_windows_side_by_side(model: AudioLM, minute: Path) -> None:
    several = AudioLM(model.loaded, max_audio_s=30.0, max_prompt_s=65.0)
    (answer,) = several.ask_all(minute, ["What is it?"], sampling=SamplingParams(max_new_tokens=NEW))
    assert [(s.start_s, s.stop_s) for s in answer.segments] == [(0.0, 62.0)]
    assert len(answer.receipt.read) == 3 and "in one prompt" in answer.receipt.notes[0]
    waveform = soundfile.read(minute, dtype="float32")[0]
    parts = [waveform[round(r.start_s * RATE) : round(r.stop_s * RATE)] for r in answer.receipt.read]
    audio = [{"type": "audio", "audio": part} for part in parts]
    content = [*audio, {"type": "text", "text": "What is it?"}]
    assert answer.text == several.chat([{"role": "user", "content": content}], max_new_tokens=NEW)
    longer = np.concatenate([waveform, waveform[: 10 * RATE]])
    assert len(several.ask_all(longer, ["What?"], sampling=SamplingParams(max_new_tokens=1))[0].segments) == 3


def test_a_truncated_file_is_processed_as_far_as_it_goes(short: AudioLM, minute: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.wav"
    cut.write_bytes(minute.read_bytes()[: minute.stat().st_size // 2])
    found = short.describe(cut, max_new_tokens=1)
    assert not found.receipt.complete and found.receipt.truncated
    assert found.segments[-1].stop_s == pytest.approx(31, abs=0.1) == found.receipt.read[-1].stop_s


def test_an_error_hours_into_a_file_ends_that_file_alone(
    short: AudioLM, minute: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = long_audio.stream_quiet_windows

    def failing(*given: object) -> Iterator[object]:
        for place, window in enumerate(read(*given)):  # type: ignore[arg-type]
            if place == 3:
                raise BrokenAudio("minute.wav: it ends in noise")
            yield window

    monkeypatch.setattr(long_audio, "stream_quiet_windows", failing)
    first, second, third = short.describe_many([noise(1), minute, noise(1)], batch_size=4, max_new_tokens=1)
    assert first.segments == third.segments  # type: ignore[union-attr]
    assert isinstance(second, BrokenAudio) and "ends in noise" in str(second)


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    def peak_growth(path: Path) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        windowing = Windowing(max_samples=10 * RATE, overlap_samples=2 * RATE)
        recording = open_recording(path, ["?"], windowing, DEFAULT_LIMITS)
        assert sum(window.stop - window.start for (window,) in recording.take()) == soundfile.info(path).frames
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024

    peak_growth(write(tmp_path / "one.wav", 60.0, 6))
    # 20 minutes are 77 MB as float32.
    assert peak_growth(write(tmp_path / "twenty.wav", 1200.0, 20)) < 20_000_000


def test_a_waveform_in_memory_is_not_decoded() -> None:
    windowing = Windowing(max_samples=RATE)
    recording = open_recording(noise(3), ["?"], windowing, DEFAULT_LIMITS)
    facts, windows = recording.facts, [window for (window,) in recording.take()]
    assert facts.name == "<array>" and len(windows) == 3
    clip = open_recording(Clip(noise(3), facts), ["?"], windowing, DEFAULT_LIMITS)
    assert [window.stop for (window,) in clip.take()] == [window.stop for window in windows]


def test_an_answer_comes_in_pieces(model: AudioLM, wavs: list[Path]) -> None:
    with model.stream(wavs[2], "What is it?", sampling=SamplingParams(max_new_tokens=8)) as pieces:
        assert pieces.answer is None
        text = "".join(pieces)
    assert pieces.answer == model.ask(wavs[2], "What is it?", max_new_tokens=8)
    assert pieces.answer.text == text.strip() and pieces.answer.receipt.complete


def test_a_long_answer_has_a_line_for_each_window(short: AudioLM, minute: Path) -> None:
    pieces = short.stream(minute, "What is it?", sampling=SamplingParams(max_new_tokens=NEW))
    text = "".join(pieces)
    whole = pieces.answer
    (expected,) = short.ask_all(minute, ["What is it?"], sampling=SamplingParams(max_new_tokens=NEW))
    assert whole == expected
    lines = [segment.text for segment in expected.segments]
    assert text.count("\n") >= len(lines) - 1 and all(line in text for line in lines)
    early = short.stream(minute, "What is it?")
    next(early)
    early.close()
    assert early.answer is None


def test_a_summary_is_the_models_own(short: AudioLM, minute: Path) -> None:
    (answer,) = short.ask_many([minute], "What?", sampling=SamplingParams(max_new_tokens=NEW), reduce="summary")
    listed = "\n".join(f"{s.start_s:g}-{s.stop_s:g} s: {s.text}" for s in answer.segments if s.text)  # type: ignore[union-attr]
    question = SUMMARY_PROMPT.format(question="What?", answers=listed)
    assert answer.text == short.chat([{"role": "user", "content": question}])  # type: ignore[union-attr]
    assert "summary by the model" in answer.receipt.notes[-1]  # type: ignore[union-attr]


def test_progress_counts_all_audio(short: AudioLM, minute: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(15 * RATE), RATE)
    watching = AudioLM(short.loaded, max_audio_s=10.0)
    steps: list[float] = []
    watching.on_audio = steps.append
    for _ in watching.transcribe_many([minute, silent], max_new_tokens=1):
        pass
    assert sum(steps) == pytest.approx(77.0, abs=1e-3) and len(steps) > 7
    steps.clear()
    for _ in watching.ask_all_many([minute], ["What is it?", "Is it loud?"], sampling=SamplingParams(max_new_tokens=1)):
        pass
    assert sum(steps) == pytest.approx(62.0, abs=1e-3)
