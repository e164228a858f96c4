"""Audio language models behind an OpenAI-compatible server: ``openai:MODEL@URL``.

Clips are sent as WAV at 16 kHz in windows of the longest clip that the server states, or 30 s: many servers cut longer
clips without a word. A request is known by its content, so that its reply can be kept (see `AudioLM.journal`) and no
request is answered twice.
"""

from __future__ import annotations

import json
import re
import struct
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any
from urllib.parse import quote

import numpy as np

from auricle.audio.facts import Clip, Samples
from auricle.audio.resample import SAMPLE_RATE
from auricle.data.untrusted_json import parse_object
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, ConfigError, DataError, EndpointError
from auricle.listen.capabilities import Capabilities
from auricle.listen.long_audio import Reply
from auricle.listen.other_models.endpoint import Endpoint, Refused, Spent
from auricle.listen.other_models.endpoint_settings import EndpointSettings, split_name, tokens_field
from auricle.listen.other_models.prompted import PromptedLM, Turns

MAX_AUDIO_S = 30.0  # where a server does not state the longest clip: what the shortest-sighted models take
_DAYS_S = 1e6  # what states more states no limit
_NOT_THERE = (400, 404, 405, 501)  # status codes of servers without descriptions of models
_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Request:
    """A request that may be sent."""

    key: str  # of its reply
    audio_s: float
    send: Callable[[], dict[str, Any]]


class EndpointLM(PromptedLM):
    """A model behind a server."""

    def __init__(self, name: str, settings: EndpointSettings | None = None, *, shown: str | None = None) -> None:
        """Ask the server for the longest clip, where the settings do not state it.

        Args:
            name: ``openai:MODEL@URL``, where the URL ends before ``/chat/completions``.
            settings: None: defaults.
            shown: name in results; None: ``name``.

        Raises:
            ConfigError: a name of another form, or no key where the settings name one.
            EndpointError: the server does not answer, or knows no such model.
        """
        self.settings = settings or EndpointSettings()
        self._remote, url = split_name(name)
        self._endpoint = Endpoint(url, self.settings)
        super().__init__(shown or name, max_audio_s=self.settings.max_audio_s or self._stated_audio_s())
        self._lock = Lock()

    @property
    def capabilities(self) -> Capabilities:
        """What the API has; whether the model behind it does, the server says."""
        return endpoint_capabilities(self.max_audio_s)

    @property
    def spent(self) -> Spent:
        """What was asked of the server by this process."""
        return self._endpoint.spent

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what is known to decide its answers: server, model and the form of requests, not weights."""
        settings = self.settings
        decided = {
            "server": self._endpoint.url,
            "model": self._remote,
            "max_audio_s": self.max_audio_s,
            "wav_bits": settings.wav_bits,
            "extra_body": settings.extra_body,
            "transcribe": settings.transcribe,
        }
        return sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()

    def replies(self, prompts: Sequence[Turns], sampling: SamplingParams) -> Sequence[Reply | AuricleError]:
        """Ask the server, several prompts at once; as `PromptedLM.replies`."""
        shared = _sampling_fields(sampling, tokens_field(self.settings, self._endpoint.url))
        found = self._answers([self._chat_request(turns, shared) for turns in prompts])
        return [each if isinstance(each, AuricleError) else _chat_reply(each, sampling) for each in found]

    def transcripts(
        self, clips: Sequence[Clip], language: str | None, sampling: SamplingParams
    ) -> Sequence[Reply | AuricleError]:
        """By ``/audio/transcriptions``, or by a prompt where the settings say so."""
        if self.settings.transcribe == "chat":
            return super().transcripts(clips, language, sampling)
        fields = {
            "model": self._remote,
            "response_format": "json",
            **({} if language is None else {"language": language}),
        }
        found = self._answers([self._transcription_request(clip, fields) for clip in clips])
        return [each if isinstance(each, AuricleError) else _transcript(each) for each in found]

    def _stated_audio_s(self) -> float:
        """The longest clip that the server states for the model, s."""
        try:
            card = self._endpoint.get(f"/models/{quote(self._remote, safe='')}")
        except Refused as error:
            if error.status not in _NOT_THERE:
                raise
            if error.status == 404 and "no model" in str(error):
                raise EndpointError(f"{error}; see {self._endpoint.url}/models") from None
            return MAX_AUDIO_S
        stated = card.get("max_audio_s")
        if isinstance(stated, int | float) and not isinstance(stated, bool) and 0.4 <= stated < _DAYS_S:
            return float(stated)
        return MAX_AUDIO_S

    # --- requests

    def _chat_request(self, turns: Turns, shared: Mapping[str, Any]) -> _Request:
        messages: list[dict[str, Any]] = []
        audio_s = 0.0
        for turn in turns:
            content: list[dict[str, Any]] = []
            for part in turn.content:
                if isinstance(part, str):
                    content.append({"type": "text", "text": part})
                    continue
                audio_s += len(part.waveform) / SAMPLE_RATE
                data = b64encode(wav_bytes(part.waveform, self.settings.wav_bits)).decode()
                content.append({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
            is_text = len(content) == 1 and content[0]["type"] == "text"
            messages.append({"role": turn.role, "content": content[0]["text"] if is_text else content})
        body = {"model": self._remote, "messages": messages, **shared, **(self.settings.extra_body or {})}
        key = self._key("chat", json.dumps(body, sort_keys=True).encode())
        return _Request(key, audio_s, lambda: self._endpoint.chat(body, audio_s))

    def _transcription_request(self, clip: Clip, fields: Mapping[str, str]) -> _Request:
        wav, audio_s = wav_bytes(clip.waveform, self.settings.wav_bits), len(clip.waveform) / SAMPLE_RATE
        key = self._key("transcribe", json.dumps(fields, sort_keys=True).encode() + wav)
        return _Request(key, audio_s, lambda: self._endpoint.transcribe(fields, wav, audio_s))

    def _key(self, route: str, content: bytes) -> str:
        return sha256(f"{route} {self._endpoint.url}\n".encode() + content).hexdigest()

    def _answers(self, requests: Sequence[_Request]) -> list[dict[str, Any] | AuricleError]:
        """The reply to each request; equal ones are sent once, and those in the journal not at all.

        Raises:
            AuricleError: the server takes no requests; replies that came are in the journal.
        """
        once = {request.key: request for request in requests}
        with ThreadPoolExecutor(min(len(once), self.settings.concurrency) or 1, "auricle-endpoint") as pool:
            waiting = {key: pool.submit(self._answer, request) for key, request in once.items()}
            try:
                found = {key: each.result() for key, each in waiting.items()}
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return [found[request.key] for request in requests]

    def _answer(self, request: _Request) -> dict[str, Any] | AuricleError:
        with self._lock:
            kept = None if self.journal is None else self.journal.get(request.key)
            if kept is not None:
                self.spent.kept += 1
        if kept is not None:
            return parse_object(kept, "a kept reply")
        try:
            reply = request.send()
        except Refused as error:
            return error
        if self.journal is not None:
            with self._lock:
                self.journal.add(request.key, json.dumps(reply))
        return reply


def endpoint_capabilities(max_audio_s: float = MAX_AUDIO_S) -> Capabilities:
    """What the API has; ``max_audio_s`` is 30 s where neither the server nor the settings state another."""
    return Capabilities(verbs=("describe", "ask", "transcribe", "chat"), max_audio_s=max_audio_s, token_logprobs=False)


def wav_bytes(waveform: Samples, bits: int) -> bytes:
    """A WAV file at 16 kHz of a waveform (N,) in [-1, 1], with 16-bit integers or 32-bit floats."""
    if bits == 16:
        data = np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype("<i2").tobytes()
    else:
        data = waveform.astype("<f4").tobytes()
    width, kind = bits // 8, 1 if bits == 16 else 3
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, 1, SAMPLE_RATE, width * SAMPLE_RATE, width, bits)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def _sampling_fields(sampling: SamplingParams, tokens: str) -> dict[str, Any]:
    """Sampling parameters as fields of a request; those of no effect are left out.

    Raises:
        ConfigError: one that the API does not have.
    """
    if sampling.min_new_tokens or sampling.top_logprobs:
        raise ConfigError("min_new_tokens and top_logprobs cannot be asked of a server; leave them out")
    fields: dict[str, Any] = {tokens: sampling.max_new_tokens, "temperature": 0}
    if sampling.do_sample:
        fields |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        fields |= {"top_k": sampling.top_k} if sampling.top_k else {}
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    if sampling.repetition_penalty != 1.0:
        fields["repetition_penalty"] = sampling.repetition_penalty
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    return fields


def _chat_reply(found: Mapping[str, Any], sampling: SamplingParams) -> Reply | AuricleError:
    try:
        choice = found["choices"][0]
        text, finish = choice["message"].get("content"), choice.get("finish_reason")
        refusal = choice["message"].get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        return EndpointError("the server's reply has no choices[0].message; expected a chat completion")
    if not isinstance(text, str):
        why = refusal if isinstance(refusal, str) else f"finish_reason {finish!r}"
        return EndpointError(f"the model gave no text ({why[:200]}); ask in other words, or allow more tokens")
    spoken, remarks = _THOUGHT.sub("", text, count=1) if _THOUGHT.match(text) else text, []
    if spoken != text:
        remarks.append("what the model wrote between <think> and </think> was left out")
    if finish == "length":
        remarks.append(f"the answer was cut at {sampling.max_new_tokens} tokens")
    return Reply(text=spoken.strip(), remark="; ".join(remarks))


def _transcript(found: Mapping[str, Any]) -> Reply | AuricleError:
    text = found.get("text")
    if not isinstance(text, str):
        return DataError("the server's reply has no text; expected a transcript")
    return Reply(text=text.strip())
