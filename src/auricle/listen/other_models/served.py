"""The models of an `auricle serve`: files are sent as they are, and its records become the results of this program.

A file is uploaded whole and decoded by the server, within its limits. Requests are sent again and slowed down as
`Endpoint` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import urlsplit

from auricle.audio.decode import as_clip
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.sources import AudioSource, check_several, is_in_memory, open_source
from auricle.encode.receipt import Receipt, Span
from auricle.engine.request import SamplingParams
from auricle.errors import (
    AudioError,
    AuricleError,
    BrokenAudio,
    ClipTooShort,
    ConfigError,
    EndpointError,
    LimitExceeded,
    PromptError,
    UnsupportedFormat,
)
from auricle.listen.confidence import ConfidenceRule
from auricle.listen.other_models.endpoint import Endpoint, Refused
from auricle.listen.other_models.endpoint_settings import EndpointSettings
from auricle.listen.other_models.openai_model import wav_bytes
from auricle.listen.outputs import Answer, Choice, Description, Odds, Output, Segment, Transcript
from auricle.metrics.calibration import UNCHANGED, LogisticMap

T = TypeVar("T", bound=Output)

# What a server calls an error of a clip or a question → its class here.
_ERRORS: dict[str, type[AuricleError]] = {
    "limit_exceeded": LimitExceeded,
    "unsupported_format": UnsupportedFormat,
    "broken_audio": BrokenAudio,
    "clip_too_short": ClipTooShort,
    "audio_error": AudioError,
    "invalid_prompt": PromptError,
}
_MORE = ("value", "language", "language_probability", "suggested_model", "open_speech", "raw_text", "notice")
_KINDS = {"caption": "caption", "answer": "answer", "text": "transcript"}  # of confidences, by key of the record
_SPANS = ("read", "overlaps", "dropped", "skipped")


class ServedModel:
    """An audio language model of a server; the verbs of `AudioLM` that take many sources."""

    def __init__(self, url: str, model: str | None = None, settings: EndpointSettings | None = None) -> None:
        """Ask the server for its models.

        Args:
            url: of the server, as http://gpu-box:8000; a path before ``/v1`` is kept.
            model: name of one of its models; None: the first that can describe or transcribe.
            settings: how it may be asked; None: defaults.

        Raises:
            ConfigError: no such URL, or no such model.
            EndpointError: no Auricle answers there.
        """
        try:
            parts = urlsplit(url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:  # of the port, or of brackets
            parts, is_url = None, False
        if parts is None or not is_url or "@" in parts.netloc or parts.query:
            raise ConfigError(
                f"{url!r} is no URL of a server; expected http(s)://HOST[:PORT], as http://127.0.0.1:8000"
            )
        self.settings = settings or EndpointSettings()
        self._endpoint = Endpoint(url.rstrip("/").removesuffix("/v1") + "/v1", self.settings)
        try:
            card = self._card(model)
            self.model, self.device = str(card["id"]), str(card.get("device", "unknown"))
            self.verb_limits = {str(verb): str(limit) for verb, limit in dict(card.get("verb_limits") or {}).items()}
            self._confidence: Mapping[str, Any] = dict(card.get("confidence") or {})
            for kind in (*_KINDS.values(), "label"):
                self.confidence_rule(kind).is_unsure(0.5)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise EndpointError(f"{self._endpoint.url}/models: no list of Auricle's models ({why})") from None
        self.limits: Limits = DEFAULT_LIMITS
        self.on_audio: Callable[[float], None] | None = None
        self.on_segment: Callable[[str, Segment], None] | None = None  # called with the whole result

    def _card(self, model: str | None) -> Mapping[str, Any]:
        found = self._endpoint.get("/models").get("data")
        cards = [card for card in found if isinstance(card, dict)] if isinstance(found, list) else []
        able = [card for card in cards if {"describe", "transcriptions"} & set(card.get("capabilities") or ())]
        if not able:
            raise EndpointError(f"{self._endpoint.url}: no Auricle with a language model answers there; check the URL")
        chosen = able[0] if model is None else next((card for card in able if card.get("id") == model), None)
        if chosen is None:
            known = ", ".join(str(card.get("id")) for card in able)
            raise ConfigError(f"{self._endpoint.url} has no model {model!r}; it has {known}")
        return chosen

    def confidence_rule(self, kind: str) -> ConfidenceRule:
        """As `AudioLM.confidence_rule`, by what the server states."""
        stated = self._confidence.get(kind)
        return ConfidenceRule(LogisticMap(**stated) if stated else UNCHANGED, self._confidence.get("unsure_below"))

    def describe_many(
        self, sources: Iterable[AudioSource], *, dense: bool = False, **settings: Any
    ) -> Iterator[Description | AuricleError]:
        """As `AudioLM.describe_many`."""
        return self._many("describe", sources, {"dense": dense, **settings}, Description, "caption")

    def ask_many(
        self, sources: Iterable[AudioSource], prompt: str, *, sampling: SamplingParams, **settings: Any
    ) -> Iterator[Answer | AuricleError]:
        """As `AudioLM.ask_many`; of the sampling the longest answer alone."""
        fields = {"prompt": prompt, "max_new_tokens": sampling.max_new_tokens, **settings}
        return self._many("ask", sources, fields, Answer, "answer")

    def ask_all_many(
        self, sources: Iterable[AudioSource], prompts: Sequence[str], **settings: Any
    ) -> Iterator[list[Answer] | AuricleError]:
        """As `AudioLM.ask_all_many`."""
        listed = list(sources)
        for found in zip(*(self.ask_many(listed, prompt, **settings) for prompt in prompts), strict=True):
            failed = next((each for each in found if isinstance(each, AuricleError)), None)
            yield [each for each in found if isinstance(each, Answer)] if failed is None else failed

    def choose_many(
        self, sources: Iterable[AudioSource], prompt: str, options: Sequence[str], **settings: Any
    ) -> Iterator[Choice | AuricleError]:
        """As `AudioLM.choose_many`."""
        return self._many("ask", sources, {"prompt": prompt, "choices": options, **settings}, Choice, "answer")

    def transcribe_many(self, sources: Iterable[AudioSource], **settings: Any) -> Iterator[Transcript | AuricleError]:
        """As `AudioLM.transcribe_many`."""
        if settings.pop("max_new_tokens", None) is not None:
            raise ConfigError("the server sets the longest transcript; leave out max_new_tokens")
        return self._many("transcribe", sources, settings, Transcript, "text")

    def _many(
        self, verb: str, sources: Iterable[AudioSource], settings: Mapping[str, Any], kind: type[T], key: str
    ) -> Iterator[T | AuricleError]:
        """Results in order; as many requests at once as the settings allow."""
        check_several(sources, f"{verb} takes one")
        fields = {"model": self.model, **{name: each for name, each in settings.items() if name != "batch_size"}}
        remaining = iter(sources)
        with ThreadPoolExecutor(self.settings.concurrency, "auricle-server") as pool:
            try:
                waiting: list[Future[T | AuricleError]] = []
                while True:
                    for source in islice(remaining, self.settings.concurrency - len(waiting)):
                        waiting.append(pool.submit(self._one, verb, source, fields, kind, key))
                    if not waiting:
                        return
                    found = waiting.pop(0).result()
                    if not isinstance(found, AuricleError):
                        self._report(found)
                    yield found
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _report(self, found: Output) -> None:
        if self.on_segment is not None:
            for segment in found.segments:
                self.on_segment(found.receipt.file, segment)
        if self.on_audio is not None:
            self.on_audio(found.receipt.duration_s or 0.0)

    def _one(
        self, verb: str, source: AudioSource, fields: Mapping[str, Any], kind: type[T], key: str
    ) -> T | AuricleError:
        try:
            name, data = _upload(source, self.limits)
        except AuricleError as error:
            return error
        try:
            record = self._endpoint.upload(f"/audio/{verb}", fields, name.rpartition("/")[2], data)
        except Refused as error:
            known = _ERRORS.get(error.code)
            return error if known is None else known(error.said.replace(name.rpartition("/")[2], name, 1))
        try:
            return self._result(record, name, kind, key)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return EndpointError(
                f"{self._endpoint.url}: the reply is no result of Auricle ({type(error).__name__}: {error})"
            )

    def _result(self, record: Mapping[str, Any], name: str, kind: type[T], key: str) -> T:
        """The result of a record that the server printed."""
        more: dict[str, Any] = {entry: record[entry] for entry in _MORE if entry in record}
        if kind is Choice:
            more["odds"] = tuple(Odds(**odds) for odds in record["odds"])
        rule = self.confidence_rule("label" if kind is Choice else _KINDS[key])
        is_contradicted = bool(record["is_unsure"]) and not rule.is_unsure(record["confidence"])
        return kind(
            text=record[key],
            segments=tuple(map(_segment, record["segments"])),
            receipt=_receipt(record["receipt"], name),
            rule=replace(rule, is_contradicted=is_contradicted),
            **more,
        )


def _upload(source: AudioSource, limits: Limits) -> tuple[str, bytes]:
    """Name and bytes of a source; of a waveform those of a WAV file at 16 kHz, which loses nothing.

    Raises:
        AudioError: it cannot be read, or is larger than the limits allow.
    """
    if is_in_memory(source):
        clip = as_clip(source, limits=limits)
        return clip.facts.name, wav_bytes(clip.waveform, 32)
    with open_source(source, limits) as opened:
        return opened.name, opened.file.read(limits.max_bytes)


def _segment(record: Mapping[str, Any]) -> Segment:
    return Segment(**{**record, "words": tuple(map(_segment, record.get("words", ())))})


def _receipt(record: Mapping[str, Any], name: str) -> Receipt:
    fields = {key: value for key, value in record.items() if key != "complete"}
    for spans in _SPANS:
        fields[spans] = tuple(Span(**span) for span in fields[spans])
    receipt = Receipt(**{**fields, "notes": tuple(fields["notes"]), "warnings": tuple(fields["warnings"])})
    return replace(receipt, file=name)
