"""Whisper behind the verb `transcribe`: the same windows, stitching and receipts, with times of words and languages.

The network runs in faster-whisper, an extra; audio is read and cut here. Every window is decoded by itself and without
chance, so that a source gives the same transcript alone and among others.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch

from auricle.audio.facts import Samples
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import AudioSource
from auricle.errors import AuricleError, ConfigError, LayoutMismatch, MissingExtra, check_number
from auricle.listen.capabilities import Capabilities
from auricle.listen.confidence import Calibration
from auricle.listen.long_audio import Recording, Reply
from auricle.listen.model import AudioLM
from auricle.listen.no_speech import NoSpeechRule
from auricle.listen.other_models.whisper_files import PREFIX, WhisperFiles, find_whisper
from auricle.listen.outputs import Segment, Transcript
from auricle.listen.pipeline import each_source, process
from auricle.listen.verbs import Transcription
from auricle.listen.windows import Window
from auricle.weights.loaders import AUTO, DTYPES, device_of

MAX_AUDIO_S = 30.0  # Whisper's encoder takes this much, and is given zeros behind shorter audio
MAX_TOKENS = 444  # of a window: a context of 448, less what the prompt takes
CAPABILITIES = Capabilities(
    verbs=("transcribe",), max_audio_s=MAX_AUDIO_S, token_logprobs=False, system_turns=False, several_clips=False
)
_BEAM = 5  # this and the three bounds: arXiv 2212.04356, section 4.5
_MIN_NO_SPEECH, _MAX_LOGPROB = 0.6, -1.0  # nobody speaks where "no speech" is likelier and the words are less likely
_MAX_COMPRESSION = 2.4  # text that compresses better repeats itself
_REPEATED_TOKENS = 5  # as many in the same order may not come twice, where a text had repeated itself
_SURE = 0.5  # a language detected with less is compared with another
_LIKELY = 0.1  # least probability of a language that is tried


class Network(Protocol):
    """What is used of `faster_whisper.WhisperModel`."""

    @property
    def supported_languages(self) -> list[str]:
        """Codes of languages."""

    def transcribe(self, audio: Samples, **options: Any) -> tuple[Iterable[Any], Any]:
        """Segments, made while they are iterated, and what was detected before."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """Audio tokens for the receipt: Whisper's encoder gives two positions for each 0.04 s, of 30 s at any time."""

    subsample_factor: int = 1
    min_samples: int = int(MAX_AUDIO_S * SAMPLE_RATE)
    whole_tokens: bool = True


class Whisper(AudioLM):
    """A Whisper model; it transcribes, and every other verb is a ConfigError that says so."""

    def __init__(self, network: Network, name: str, *, fingerprint: str = "", limits: Limits = DEFAULT_LIMITS) -> None:
        """Use a loaded network.

        Args:
            network: of faster-whisper.
            name: as results state it.
            fingerprint: of all that decides its transcripts.
            limits: budgets of every source.
        """
        self.network, self._name, self._fingerprint, self.limits = network, name, fingerprint, limits
        self.max_audio_s = self.max_prompt_s = MAX_AUDIO_S
        self.no_speech, self.unsure_below, self.open_speech_below = NoSpeechRule(), None, None
        self.verb_limits, self.calibration = {}, Calibration()
        self.on_audio = self.on_segment = self.journal = None

    def __getattr__(self, name: str) -> Any:
        """Refuse the parts of a language model, which every other verb needs."""
        if name in ("loaded", "engine", "prompt_writer"):
            raise ConfigError(
                f"{self.model} transcribes, and does nothing else; for this, load an audio language model, as "
                "auricle-tiny"
            )
        raise AttributeError(name)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """It transcribes."""
        return CAPABILITIES

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides its transcripts: weights, and the type in which they are computed."""
        return self._fingerprint

    def transcribe_many(
        self,
        sources: Iterable[AudioSource],
        *,
        batch_size: int = 8,
        window_s: float | None = None,
        overlap_s: float | None = None,
        vad: bool = False,
        language: str | None = None,
        max_new_tokens: int | None = None,
    ) -> Iterator[Transcript | AuricleError]:
        """Transcribe many sources, in order; one that fails yields its error in its place, and the others go on.

        As `AudioLM.transcribe_many`; ``language`` None: detected in each window.
        """
        known = self.network.supported_languages
        if language is not None and language not in known:
            raise ConfigError(f"language is {language!r}; {self.model} knows {', '.join(sorted(known))}")
        if max_new_tokens is not None:
            check_number("max_new_tokens", max_new_tokens, least=1, whole=True)
        task = _WhisperTranscription(
            self, language, window_s=window_s, overlap_s=overlap_s, vad=vad, max_new_tokens=max_new_tokens or MAX_TOKENS
        )
        return process(task, each_source(sources, [""], "transcribe"), batch_size)


class _Speech(NamedTuple):
    """A window to transcribe, and the recording it belongs to."""

    recording: Recording
    start_s: float  # in the source, of the waveform
    waveform: Samples


class _WhisperTranscription(Transcription):
    """Transcripts by Whisper; each window alone, in the order of the source."""

    def __init__(self, model: Whisper, language: str | None, **settings: Any) -> None:
        super().__init__(model, config=_Grid(), **settings)
        self._network, self._language = model.network, language
        self._limit = min(self.max_new_tokens, MAX_TOKENS)
        self._spoken: WeakKeyDictionary[Recording, str] = WeakKeyDictionary()  # language of the windows before

    def prompt(self, recording: Recording, windows: Any, question: str) -> _Speech:
        """A window with the time at which its waveform starts."""
        window: Window
        (window,) = windows
        start_s = recording.facts.start_s + (window.start - window.before) / SAMPLE_RATE
        return _Speech(recording, start_s, window.waveform)

    def answer(self, prompts: Any) -> list[Reply]:
        """Transcribe one window after the other."""
        return [self._reply(speech) for speech in prompts]

    def _reply(self, speech: _Speech) -> Reply:
        found, info = self._decode(speech, self._language)
        language, pieces, remark = self._settled(speech, info, list(found))
        if _repeats(pieces):
            again, _ = self._decode(speech, language, no_repeat_ngram_size=_REPEATED_TOKENS)
            pieces = list(again)
            remark = f"transcribed again without the same {_REPEATED_TOKENS} tokens twice, as the text repeated itself"
        if self._is_cut(pieces):
            remark = "; ".join(
                filter(None, [remark, f"the transcript reached {self._limit} tokens, and may lack words"])
            )
        parts = tuple(part for piece in pieces if (part := _segment(piece, speech)) is not None)
        text = " ".join(part.text for part in parts if part.text)
        if text:
            self._spoken[speech.recording] = language
        detected = dict(info.all_language_probs) if info.all_language_probs else None
        return Reply(text=text, parts=parts, language=language, languages=detected, remark=remark)

    def _settled(self, speech: _Speech, info: Any, pieces: list[Any]) -> tuple[str, list[Any], str]:
        """The language and the segments in it, and what the receipt says of them.

        Where the detected language is unsure, or its text is unlikely or repeats itself, the other candidate is tried:
        the language of the windows before, else the second likeliest. The likelier text is kept.
        """
        language, before = str(info.language), self._spoken.get(speech.recording)
        is_weak = info.language_probability < _SURE
        if not info.all_language_probs or not pieces or not (is_weak or _merit(pieces) < (True, _MAX_LOGPROB)):
            return language, pieces, ""
        likely = [each for each, probability in info.all_language_probs if probability >= _LIKELY and each != language]
        other = before if before not in (None, language) else next(iter(likely), None)
        if other is None:
            return language, pieces, ""
        in_other = list(self._decode(speech, other)[0])
        difference = (_merit(in_other) > _merit(pieces)) - (_merit(in_other) < _merit(pieces))
        if difference < 0 or (difference == 0 and not (is_weak and other == before)):
            return language, pieces, ""
        return other, in_other, f"transcribed in {other} instead of the detected {language}, as its words are likelier"

    def _decode(self, speech: _Speech, language: str | None, **more: Any) -> tuple[Iterable[Any], Any]:
        # Lower bounds at which faster-whisper would drop text, or draw other text at random, are off.
        return self._network.transcribe(
            speech.waveform,
            language=language,
            beam_size=_BEAM,
            temperature=0.0,
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
            condition_on_previous_text=False,
            word_timestamps=True,
            max_new_tokens=self._limit,
            **more,
        )

    def _is_cut(self, pieces: Iterable[Any]) -> bool:
        """Whether one pass over the window ended at the limit of tokens."""
        counts: dict[int, int] = {}
        for piece in pieces:
            counts[piece.seek] = counts.get(piece.seek, 0) + len(piece.tokens)
        return any(count >= self._limit - 1 for count in counts.values())  # a last token of time is not in them


def _repeats(pieces: Iterable[Any]) -> bool:
    return any(piece.compression_ratio > _MAX_COMPRESSION for piece in pieces)


def _merit(pieces: Sequence[Any]) -> tuple[bool, float]:
    """How credible a transcript is: whether it does not repeat itself, and the mean log-probability of its tokens."""
    tokens = sum(len(piece.tokens) for piece in pieces)
    mean = sum(piece.avg_logprob * len(piece.tokens) for piece in pieces) / tokens if tokens else -math.inf
    return not _repeats(pieces), mean


def _segment(piece: Any, speech: _Speech) -> Segment | None:
    """A segment of faster-whisper with times of the source; without its words where nobody seems to speak."""
    length_s = len(speech.waveform) / SAMPLE_RATE

    def place(seconds: float) -> float:  # Whisper may point into the zeros behind the audio
        return round(speech.start_s + min(max(float(seconds), 0.0), length_s), 3)

    start_s, stop_s, text = place(piece.start), place(piece.end), piece.text.strip()
    if not text:
        return None
    mean = round(float(piece.avg_logprob), 4)
    if piece.no_speech_prob > _MIN_NO_SPEECH and mean < _MAX_LOGPROB:
        denied = round(math.log(piece.no_speech_prob), 4)
        return Segment(start_s=start_s, stop_s=stop_s, text="", mean_logprob=mean, no_speech_logprob=denied)
    words, until = [], start_s
    for word in piece.words or ():
        begin = max(place(word.start), until)
        until = max(place(word.end), begin)
        logprob = round(math.log(max(float(word.probability), 1e-9)), 4)
        words.append(Segment(start_s=begin, stop_s=until, text=word.word, mean_logprob=logprob))
    return Segment(start_s=start_s, stop_s=stop_s, text=text, mean_logprob=mean, words=tuple(words))


def load_whisper(
    name: str, *, device: str, dtype: str | None, revision: str | None, adapter: str | None, quantize: str | None
) -> Whisper:
    """Load a Whisper model by a name that starts with ``whisper:``; see `whisper_files.find_whisper`.

    Raises:
        MissingExtra: faster-whisper is not installed.
        ConfigError: a device, type or rounding that there is not for Whisper.
        WeightsError: the weights cannot be found, trusted or read.
    """
    if adapter is not None:
        raise ConfigError(
            f"{name}: takes no adapter; convert a fine-tuned Whisper with CTranslate2 and name its folder"
        )
    place, kind = device_of(device), _compute_type(name, dtype, quantize)
    if place.type not in ("cpu", "cuda"):
        raise ConfigError(f"{name}: device {device!r} cannot be used for Whisper; expected cpu or cuda")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that faster-whisper imports
            import ctranslate2
            from faster_whisper import WhisperModel
    except ImportError:
        raise MissingExtra(name, "asr") from None
    files = find_whisper(name.removeprefix(PREFIX), revision=revision)
    level = ctranslate2.get_log_level()
    try:
        ctranslate2.set_log_level(logging.ERROR)  # that a CPU computes in float32 what is stored in float16
        network = WhisperModel(
            str(files.folder or name),
            device=place.type,
            device_index=place.index or 0,
            compute_type=kind,
            cpu_threads=torch.get_num_threads(),
            local_files_only=True,
            files=_contents(files),
        )
    except ValueError as error:
        raise ConfigError(f"{name}: cannot be loaded so ({error}); leave out dtype and quantize") from error
    except Exception as error:  # of a file of any content
        raise LayoutMismatch(
            f"{name}: cannot be read as a Whisper model of CTranslate2 ({type(error).__name__}: {error}); convert it "
            "again"
        ) from error
    finally:
        ctranslate2.set_log_level(level)
    decided = {"sha256": files.sha256, "compute_type": kind, "max_audio_s": MAX_AUDIO_S}
    return Whisper(network, name, fingerprint=sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest())


def _contents(files: WhisperFiles) -> dict[str, bytes] | None:
    # Without settings of its own, faster-whisper would look for a file below the current folder.
    return None if files.contents is None else {"preprocessor_config.json": b"{}", **files.contents}


def _compute_type(name: str, dtype: str | None, quantize: str | None) -> str:
    """CTranslate2's word for a data type; ``default``: as the weights are stored, where the device computes in it."""
    if quantize is not None:
        if quantize != "int8":
            raise ConfigError(f"{name}: quantize is {quantize!r}; expected int8, which Whisper has here")
        return "int8"
    if dtype in (None, AUTO):
        return "default"
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    return str(dtype)
