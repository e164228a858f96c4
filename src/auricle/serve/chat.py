"""``/v1/chat/completions``: turns with text and clips, answered once or as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auricle.audio.limits import check_seconds
from auricle.audio.resample import SAMPLE_RATE
from auricle.encode.receipt import write_receipt
from auricle.engine.request import MOST_TOP, SamplingParams
from auricle.errors import visible
from auricle.listen.options import constraint_of
from auricle.serve.faults import refused
from auricle.serve.inputs import Fields, Upload, audio_part, check_schema, parts_of, read_json
from auricle.serve.replies import event_stream, only, pick_audio_lm, stripped
from auricle.serve.service import LONG_BATCH

if TYPE_CHECKING:
    from auricle.audio.facts import Clip
    from auricle.engine.request import Constraint, Token
    from auricle.listen.model import AudioLM
    from auricle.serve.jobs import Job
    from auricle.serve.service import Emit, Models, Service
    from auricle.serve.settings import Settings

_MOST_CHOICES = 4
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_NOT_HERE = "this server does not do that; leave it out"
_DEFAULT_TOKENS = 128  # of an answer


@dataclass(frozen=True, kw_only=True)
class _Chat:
    """A request, read."""

    model: AudioLM
    turns: list[tuple[str, list[str | int]]]  # role, and texts and numbers of clips
    uploads: list[Upload]
    sampling: SamplingParams
    num_choices: int
    has_logprobs: bool
    schema: Mapping[str, Any] | None
    is_streamed: bool
    has_usage: bool  # in the stream

    @property
    def is_repeatable(self) -> bool:
        """Whether the same request has the same answer."""
        return not self.sampling.do_sample or self.sampling.seed is not None

    def decided(self) -> list[Any] | None:
        """What decides the answer beside the clips; None: no two requests have the same answer."""
        if not self.is_repeatable:
            return None
        settings = [self.turns, repr(self.sampling), self.num_choices, self.has_logprobs, self.schema]
        return ["chat", self.model.model, settings]


def chat_routes(service: Service) -> list[Route]:
    """The route of a service."""

    async def completions(request: Request) -> Response:
        fields = await read_json(request, service.in_pool)
        chat = await service.in_pool(_read, Fields(fields), service.ready, service.settings)
        made = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time()), "model": chat.model.model}
        answering = _Answering(chat, service)
        if chat.is_streamed:
            chunk = {**made, "object": "chat.completion.chunk"}
            events = await service.stream(request, chat.uploads, partial(answering.stream, chunk))
            return event_stream(events)
        body = await service.answer(request, chat.uploads, answering.whole, chat.decided())
        return JSONResponse({**made, "object": "chat.completion", **body})

    return [Route("/v1/chat/completions", completions, methods=["POST"])]


def _read(fields: Fields, models: Models, settings: Settings) -> _Chat:
    """Check a request and its fields.

    Raises:
        ApiError: one cannot be honoured.
    """
    model = pick_audio_lm(models, fields.text("model"), "chat")
    turns, uploads = _turns(fields.take("messages"), settings)
    logprobs, top = fields.flag("logprobs"), fields.number("top_logprobs", 0, least=0, most=MOST_TOP, whole=True)
    if top and not logprobs:
        raise refused("top_logprobs", "top_logprobs needs logprobs: true")
    options = fields.take("stream_options") or {}
    stream = fields.flag("stream")
    if not isinstance(options, dict) or set(options) - {"include_usage"} or (options and not stream):
        raise refused("stream_options", "expected {include_usage: true} beside stream: true")
    chat = _Chat(
        model=model,
        turns=turns,
        uploads=uploads,
        sampling=replace(_sampling(fields, settings), top_logprobs=top),
        num_choices=fields.number("n", 1, least=1, most=_MOST_CHOICES, whole=True),
        has_logprobs=logprobs,
        schema=_schema(fields.take("response_format")),
        is_streamed=stream,
        has_usage=Fields(options).flag("include_usage"),
    )
    if fields.take("modalities") not in (None, ["text"]):
        raise refused("modalities", "only text comes out of this server; leave out modalities", "unsupported_parameter")
    if fields.take("tool_choice") not in (None, "none", "auto"):
        raise refused("tool_choice", _NOT_HERE, "unsupported_parameter")
    if fields.take("reasoning_effort") not in (None, "none", "minimal"):
        raise refused("reasoning_effort", _NOT_HERE, "unsupported_parameter")
    names = ("tools", "functions", "function_call", "audio", "prediction", "logit_bias", "web_search_options", "store")
    fields.refuse(_NOT_HERE, *names, "frequency_penalty", "presence_penalty", "moderation")
    # What they ask for is bookkeeping, and no part of the answer.
    fields.ignore("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
    fields.ignore("service_tier", "parallel_tool_calls", "verbosity")
    fields.finish()
    return chat


def _sampling(fields: Fields, settings: Settings) -> SamplingParams:
    """How tokens are chosen: greedily, unless a temperature, or top_p, asks for chance."""
    limits: dict[str, Any] = {"least": 1, "most": settings.max_new_tokens, "whole": True}
    longest = fields.number("max_tokens", None, **limits)
    longest = fields.number("max_completion_tokens", longest, **limits)
    temperature = fields.number("temperature", None, least=0, most=2)
    top_p = fields.number("top_p", 1.0, least=1e-6, most=1)
    stop = fields.texts("stop")
    if len(stop) > 4 or not all(0 < len(each) <= 200 for each in stop):
        raise refused("stop", "expected at most four texts, none of them empty or of more than 200 characters")
    is_random = top_p < 1 if temperature is None else temperature >= 1e-6
    return SamplingParams(
        max_new_tokens=longest or _DEFAULT_TOKENS,
        do_sample=is_random,
        temperature=temperature if is_random and temperature is not None else 1.0,
        top_p=top_p if is_random else 1.0,
        top_k=fields.number("top_k", 0, least=0, most=1 << 20, whole=True),
        repetition_penalty=fields.number("repetition_penalty", 1.0, least=0.01, most=100),
        seed=fields.number("seed", None, least=-(2**63), most=2**63 - 1, whole=True),
        stop=tuple(stop),
    )


def _schema(wanted: Any) -> Mapping[str, Any] | None:
    """The JSON schema that an answer must fit."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    inner = wanted.get("json_schema") if kind == "json_schema" else None
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return check_schema(schema, "response_format")


def _turns(messages: Any, settings: Settings) -> tuple[list[tuple[str, list[str | int]]], list[Upload]]:
    if not isinstance(messages, list) or not messages:
        raise refused("messages", 'expected a list of messages, {"role": "user", "content": …}')
    turns: list[tuple[str, list[str | int]]] = []
    uploads: list[Upload] = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise refused(f"{place}.role", f"the role is {role!r:.40}; expected one of {', '.join(_ROLES)}")
        content: list[str | int] = []
        for at, part in enumerate(parts_of(message.get("content"), f"{place}.content")):
            content.append(_part(part, f"{place}.content[{at}]", uploads, settings))
        turns.append((_ROLES[role], content))
    if len(uploads) > settings.max_clips:
        raise refused("messages", f"there are {len(uploads)} clips; the limit is {settings.max_clips}")
    length = sum(len(part) for _, content in turns for part in content if isinstance(part, str))
    if length > settings.max_prompt_chars:
        raise refused(
            "messages",
            f"the texts have {length:,} characters; the limit is {settings.max_prompt_chars:,}",
            "context_length_exceeded",
        )
    return turns, uploads


def _part(part: Mapping[str, Any], place: str, uploads: list[Upload], settings: Settings) -> str | int:
    if part["type"] == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if part["type"] in ("input_audio", "audio_url"):
        uploads.append(audio_part(part, place, settings.limits, settings.url_hosts))
        return len(uploads) - 1
    raise refused(
        place, f"{visible(part['type'])[:40]!r} is no part this server reads; expected text, input_audio or audio_url"
    )


class _Answering:
    """The work for one request, on a thread of its own."""

    def __init__(self, chat: _Chat, service: Service) -> None:
        self._chat, self._service = chat, service
        self._job: Job  # set when the work starts
        self._receipts: list[dict[str, Any]] = []

    def whole(self, job: Job, clips: list[Clip]) -> dict[str, Any]:
        """All choices, the usage and the receipts."""
        choices: list[dict[str, Any]] = []
        for index, finish in self._choices(job, clips):
            tokens: list[Token] = []
            text = "".join(stripped(self._texts(finish, tokens)))
            message = {"role": "assistant", "content": text, "refusal": None}
            logprobs = {"content": [self._logprob(each) for each in tokens], "refusal": None}
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "finish_reason": finish.reason,
                    "logprobs": logprobs if self._chat.has_logprobs else None,
                }
            )
        return {"choices": choices, "usage": self._usage(), "auricle": {"receipts": self._receipts}}

    def stream(self, chunk: dict[str, Any], job: Job, clips: list[Clip], emit: Emit) -> None:
        """The same as chunks."""
        for index, finish in self._choices(job, clips):
            tokens: list[Token] = []
            has_begun = False
            for text in stripped(self._texts(finish, tokens)):
                if not has_begun:
                    emit(_chunk(chunk, index, {"role": "assistant", "content": ""}))
                    has_begun = True
                emit(_chunk(chunk, index, {"content": text}, logprobs=self._taken(tokens)))
            if not has_begun:
                emit(_chunk(chunk, index, {"role": "assistant", "content": ""}))
            last = _chunk(chunk, index, {}, finish=finish.reason, logprobs=self._taken(tokens))
            is_last = index == self._chat.num_choices - 1
            emit({**last, "auricle": {"receipts": self._receipts}} if is_last else last)
        if self._chat.has_usage:
            emit({**chunk, "choices": [], "usage": self._usage()})

    def _texts(self, finish: _Choice, tokens: list[Token]) -> Iterator[str]:
        for token in finish.tokens():
            if isinstance(token, str):
                yield token
                continue
            tokens.append(token)
            yield token.text

    def _choices(self, job: Job, clips: list[Clip]) -> Iterator[tuple[int, _Choice]]:
        chat, self._job = self._chat, job
        model = job.view(chat.model, self._service.settings.limits)
        longest = max((len(clip.waveform) for clip in clips), default=0)
        if longest > model.max_audio_s * SAMPLE_RATE:
            yield 0, _Windows(self._windows(model, clips), job)
            return
        for number, clip in enumerate(clips):
            check_seconds(len(clip.waveform) / SAMPLE_RATE, chat.uploads[number].name)
        prompt = model.prompt_writer.write(_messages(chat, clips), limits=model.limits)
        checked = model.engine.check(prompt, chat.sampling.max_new_tokens)
        constraints = constraint_of(chat.model.loaded, None, chat.schema)
        seed = chat.sampling.seed
        requests = []
        for index in range(chat.num_choices):
            sampling = replace(chat.sampling, seed=None if seed is None else seed + index)
            bound: Constraint | None = None if constraints is None else constraints()
            requests.append(model.engine.submit(checked, sampling, constraint=bound, is_streamed=True))
        self._receipts += [_receipt(model, clip) for clip in clips]
        for index, request in enumerate(requests):
            yield index, _Prompted(model, request)

    def _windows(self, model: AudioLM, clips: list[Clip]) -> Callable[[], str]:
        """A question about one clip that is longer than the model was trained on: the answer of all its windows.

        Raises:
            ApiError: anything else with such a clip.
        """
        chat = self._chat
        texts = [part for _, content in chat.turns for part in content if isinstance(part, str)]
        if len(clips) != 1 or len(chat.turns) != 1 or not texts or chat.num_choices > 1 or chat.has_logprobs:
            raise refused(
                "messages",
                f"a clip is longer than the {model.max_audio_s:g} s that {model.model} takes at once; expected one "
                "user turn with that clip and a text, asked of each window, and no n or logprobs; or cut the clip",
                "clip_too_long",
            )

        def ask() -> str:
            settings: dict[str, Any] = {"sampling": chat.sampling, "schema": chat.schema, "batch_size": LONG_BATCH}
            answer = only(model.ask_many(clips, "\n".join(texts), **settings))
            self._receipts.append(answer.receipt.as_dict())
            return answer.text

        return ask

    def _usage(self) -> dict[str, Any]:
        job = self._job
        return {
            "prompt_tokens": job.prompt_tokens,
            "completion_tokens": job.completion_tokens,
            "total_tokens": job.prompt_tokens + job.completion_tokens,
            "prompt_tokens_details": {"audio_tokens": job.audio_tokens, "cached_tokens": 0},
        }

    def _taken(self, tokens: list[Token]) -> dict[str, Any] | None:
        """Log-probabilities of tokens that were not given out yet."""
        if not self._chat.has_logprobs:
            return None
        content = [self._logprob(each) for each in tokens]
        tokens.clear()
        return {"content": content, "refusal": None}

    def _logprob(self, token: Token) -> dict[str, Any]:
        tokenizer = self._chat.model.loaded.tokenizer
        top = [_odds(tokenizer.decode([number], skip_special_tokens=False), value) for number, value in token.top]
        return {**_odds(token.text, token.logprob), "top_logprobs": top}


class _Choice:
    """One answer while it is generated."""

    reason = "stop"

    def tokens(self) -> Iterator[Token | str]:
        """Its tokens, or pieces of text where tokens are not at hand."""
        raise NotImplementedError


class _Prompted(_Choice):
    """The answer to one prompt."""

    def __init__(self, model: AudioLM, request: Any) -> None:
        self._engine, self._request = model.engine, request

    def tokens(self) -> Iterator[Token | str]:
        """See `_Choice`."""
        yield from self._engine.follow(self._request)
        stopped = self._engine.result(self._request).stopped
        self.reason = "length" if stopped == "length" else "stop"


class _Windows(_Choice):
    """The one answer about all windows of a long clip."""

    def __init__(self, ask: Callable[[], str], job: Job) -> None:
        self._ask, self._job = ask, job

    def tokens(self) -> Iterator[Token | str]:
        """See `_Choice`."""
        yield self._ask()
        self.reason = "length" if self._job.is_cut else "stop"


def _messages(chat: _Chat, clips: list[Clip]) -> list[dict[str, Any]]:
    def part(each: str | int) -> dict[str, Any]:
        return {"type": "text", "text": each} if isinstance(each, str) else {"type": "audio", "audio": clips[each]}

    return [{"role": role, "content": [part(each) for each in content]} for role, content in chat.turns]


def _receipt(model: AudioLM, clip: Clip) -> dict[str, Any]:
    config, length = model.loaded.model.config, len(clip.waveform)
    return write_receipt(
        clip.facts,
        length,
        [(0, length)],
        subsample_factor=config.subsample_factor,
        min_samples=config.min_samples,
        whole_tokens=config.whole_tokens,
    ).as_dict()


def _chunk(
    chunk: dict[str, Any], index: int, delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None
) -> dict[str, Any]:
    return {**chunk, "choices": [{"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}]}


def _odds(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": round(logprob, 4), "bytes": list(text.encode())}
