"""Routes of the project's own verbs, ``/v1/audio/VERB``: forms in, the JSON that ``auricle VERB --json`` prints out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auricle.data.untrusted_json import parse_json
from auricle.data.wording import CAPTION_PROMPT
from auricle.encode.zero_shot import TEMPLATES, Prompts, classify_many, parse_labels, score_many
from auricle.engine.request import SamplingParams
from auricle.listen.other_models.prompted import PromptedLM
from auricle.listen.pipeline import Task, check_questions
from auricle.listen.streaming import AnswerStream, stream_answer
from auricle.listen.verbs import Captioning, Questions
from auricle.search.query import embed_query
from auricle.serve.faults import ApiError, refused
from auricle.serve.inputs import Fields, Upload, check_schema, needed, read_form
from auricle.serve.mel import mel_bytes
from auricle.serve.replies import (
    event_stream,
    file_record,
    only,
    pick_aligner,
    pick_audio_lm,
    record,
    stripped,
)
from auricle.serve.service import LONG_BATCH
from auricle.serve.transcriptions import transcript_of

if TYPE_CHECKING:
    from auricle.audio.facts import Clip
    from auricle.listen.model import AudioLM
    from auricle.serve.jobs import Job
    from auricle.serve.service import Emit, Service

_MOST_TEXTS, _MOST_TEMPLATES, _MOST_HITS = 256, 16, 1000
_LEAST_WINDOW_S = 1.0  # each window has an answer of its own, so that many of them are much work
_REDUCTIONS = ("auto", "distinct", "majority", "any", "summary")

Made = tuple[str, dict[str, Any], Callable[[Any, list[Any]], Any]]  # model's fingerprint, what decides, and the work


def native_routes(service: Service) -> list[Route]:
    """The routes of a service."""
    verbs = _Verbs(service)
    handlers = {
        "describe": verbs.describe,
        "ask": verbs.ask,
        "transcribe": verbs.transcribe,
        "score": verbs.score,
        "classify": verbs.classify,
        "search": verbs.search,
        "mel": verbs.mel,
    }
    return [Route(f"/v1/audio/{verb}", handler, methods=["POST"]) for verb, handler in handlers.items()]


class _Verbs:
    """Handlers that share a service."""

    def __init__(self, service: Service) -> None:
        self._service, self._settings = service, service.settings

    async def describe(self, request: Request) -> Response:
        """A caption, as a stream where it is wanted."""
        fields, upload = await self._form(request)
        model = pick_audio_lm(self._service.ready, fields.text("model"), "describe")
        dense, window_s, longest, streams = (
            fields.flag("dense"),
            _window(fields, model),
            self._tokens(fields),
            fields.flag("stream"),
        )
        fields.finish()

        def task(own: AudioLM) -> Task:
            return Captioning(own, dense=dense, window_s=window_s, max_new_tokens=longest)

        def work(job: Job, clips: list[Clip]) -> Any:
            own = job.view(model, self._settings.limits)
            options: dict[str, Any] = {"window_s": window_s, "max_new_tokens": longest, "batch_size": LONG_BATCH}
            return only(own.describe_many(clips, dense=dense, **options))

        if streams:
            return await self._streamed(
                request, "caption", upload, model, self._pieces(model, task, CAPTION_PROMPT, work)
            )
        return await self._answered(request, "caption", upload, model, work, [dense, window_s, longest])

    async def ask(self, request: Request) -> Response:
        """An answer to a question: free, one of several choices, or JSON of a schema."""
        fields, upload = await self._form(request)
        model = pick_audio_lm(self._service.ready, fields.text("model"), "ask")
        prompt = fields.text("prompt") or ""
        check_questions([prompt])
        if len(prompt) > self._settings.max_prompt_chars:
            raise refused("prompt", f"the prompt has more than {self._settings.max_prompt_chars:,} characters")
        choices, letters = fields.texts("choices") or None, fields.flag("letters")
        if choices is not None and len(choices) == 1:
            choices = choices[0].split(",")
        schema, streams = _schema(fields), fields.flag("stream")
        window_s, longest = _window(fields, model), self._tokens(fields)
        reduce = fields.text("reduce", "auto", _REDUCTIONS)
        fields.finish()
        if (choices is not None) + (schema is not None) + streams > 1 or (letters and choices is None):
            raise refused("choices", "choices, schema and stream cannot be combined, and letters needs choices")
        sampling = SamplingParams(max_new_tokens=longest)

        def task(own: AudioLM) -> Task:
            return Questions(own, sampling, reduce=reduce, window_s=window_s)

        def work(job: Job, clips: list[Clip]) -> Any:
            own = job.view(model, self._settings.limits)
            options: dict[str, Any] = {"window_s": window_s, "batch_size": LONG_BATCH}
            if choices is not None:
                return only(own.choose_many(clips, prompt, choices, letters=letters, **options))
            return only(own.ask_many(clips, prompt, sampling=sampling, schema=schema, reduce=reduce, **options))

        if streams:
            return await self._streamed(request, "answer", upload, model, self._pieces(model, task, prompt, work))
        decided = [prompt, choices, letters, schema, window_s, longest, reduce]
        return await self._answered(request, "answer", upload, model, work, decided)

    async def transcribe(self, request: Request) -> Response:
        """A transcript with the settings of the command line."""
        fields, upload = await self._form(request)
        model = pick_audio_lm(self._service.ready, fields.text("model"), "transcriptions")
        language, window_s = fields.text("language"), _window(fields, model)
        overlap_s = fields.number("overlap_s", None, least=0, most=model.max_audio_s)
        options: dict[str, Any] = {"window_s": window_s, "overlap_s": overlap_s, "vad": fields.flag("vad")}
        fields.finish()

        def work(job: Job, clips: list[Clip]) -> Any:
            return transcript_of(model, language, self._settings.limits, job, clips, **options)[0]

        return await self._answered(request, "text", upload, model, work, [language, options])

    async def score(self, request: Request) -> Response:
        """How well a clip and texts fit."""
        fields, upload = await self._form(request)
        aligner = pick_aligner(self._service.ready, fields.text("model"))
        texts, language = list(dict.fromkeys(fields.texts("text"))), fields.text("language", "eng_Latn")
        fields.finish()
        self._check_texts("text", texts)

        def work(job: Job, clips: list[Clip]) -> Any:
            return job.call(lambda: only(score_many(aligner, clips, texts, language=language)))

        return await self._compared(request, "score", upload, work, [texts, language])

    async def classify(self, request: Request) -> Response:
        """The labels of a clip, out of any words."""
        fields, upload = await self._form(request)
        aligner = pick_aligner(self._service.ready, fields.text("model"))
        given = fields.texts("labels")
        labels = parse_labels(given[0]) if len(given) == 1 else given
        domain, templates = fields.text("domain", "sound", tuple(TEMPLATES)), fields.texts("template")
        if len(templates) > _MOST_TEMPLATES:
            raise refused("template", f"there are {len(templates)} templates; expected at most {_MOST_TEMPLATES}")
        multi, threshold = fields.flag("multi"), fields.number("threshold", None, least=-100, most=100)
        prompts = Prompts(templates=tuple(templates) or TEMPLATES[domain], language=fields.text("language", "eng_Latn"))
        fields.finish()
        self._check_texts("labels", labels)
        if threshold is not None and not multi:
            raise refused("threshold", "threshold needs multi: true")

        def work(job: Job, clips: list[Clip]) -> Any:
            options: dict[str, Any] = {"prompts": prompts, "multi": multi, "threshold": threshold}
            return job.call(lambda: only(classify_many(aligner, clips, labels, **options)))

        return await self._compared(request, "classify", upload, work, [labels, repr(prompts), multi, threshold])

    async def search(self, request: Request) -> Response:
        """Clips of the index that fit words, a clip, or both."""
        fields, upload = await self._form(request)
        models = self._service.ready
        aligner, index = pick_aligner(models, fields.text("model")), models.index
        if index is None:
            raise ApiError(404, "this server has no index; start it with --index FILE", "no_index")
        texts, without = fields.texts("query"), fields.texts("without")
        limit = fields.number("k", 10, least=1, most=_MOST_HITS, whole=True)
        all_segments = fields.flag("all_segments")
        fields.finish()
        self._check_texts("query", texts, least=0)
        self._check_texts("without", without, least=0)

        def work(job: Job, clips: list[Clip]) -> Any:
            wanted = job.call(lambda: embed_query(aligner, texts=texts, clips=clips))
            unwanted = job.call(lambda: aligner.text(without)) if without else None
            return job.call(lambda: index.search(wanted, limit, without=unwanted, all_segments=all_segments))

        uploads = [] if upload is None else [upload]
        decided = ["search", models.aligner_name, texts, without, limit, all_segments]
        hits = await self._service.answer(request, uploads, work, decided)
        data = [{"file": hit.path, **{k: v for k, v in asdict(hit).items() if k != "path"}} for hit in hits]
        return JSONResponse({"object": "list", "data": data, "model": models.aligner_name})

    async def mel(self, request: Request) -> Response:
        """The log-mel spectrogram that the models are given: a line of JSON and a byte for each value, or a PNG."""
        fields, upload = await self._form(request)
        kind = fields.text("format", "raw", ("raw", "png"))
        fields.ignore("model")
        fields.finish()

        def work(job: Job, clips: list[Clip]) -> bytes:
            return job.call(lambda: mel_bytes(clips[0].waveform, as_png=kind == "png"))

        content = await self._service.answer(request, [needed(upload)], work, None)
        return Response(content, media_type="image/png" if kind == "png" else "application/octet-stream")

    async def _form(self, request: Request) -> tuple[Fields, Upload | None]:
        return await read_form(request, self._settings.limits)

    def _tokens(self, fields: Fields) -> int:
        return int(fields.number("max_new_tokens", 128, least=1, most=self._settings.max_new_tokens, whole=True))

    def _check_texts(self, name: str, texts: list[str], least: int = 1) -> None:
        if not least <= len(texts) <= _MOST_TEXTS or sum(map(len, texts)) > self._settings.max_prompt_chars:
            most = f"{_MOST_TEXTS} texts of together {self._settings.max_prompt_chars:,} characters"
            raise refused(name, f"there are {len(texts)} texts; expected {least} to {most}")

    async def _answered(
        self, request: Request, key: str, upload: Upload | None, model: AudioLM, work: Any, decided: Any
    ) -> Response:
        """The record of an audio language model's result."""
        clip = needed(upload)
        result = await self._service.answer(request, [clip], work, [request.url.path, model.model, decided])
        return JSONResponse(record(key, clip.name, result, model, self._service.ready.device))

    async def _compared(self, request: Request, verb: str, upload: Upload | None, work: Any, decided: Any) -> Response:
        """The record of a comparison with words."""
        clip, models = needed(upload), self._service.ready
        result = await self._service.answer(request, [clip], work, [verb, models.aligner_name, decided])
        entries = {name: value for name, value in result.as_dict().items() if name != "receipt"}
        return JSONResponse(file_record(clip.name, entries, result.receipt, models.aligner_name, models.device))

    def _pieces(
        self, model: AudioLM, task: Callable[[AudioLM], Task], prompt: str, work: Callable[[Job, list[Clip]], Any]
    ) -> Callable[[Job, list[Clip], Emit], Any]:
        """How an answer is streamed: emits its pieces, and gives the whole; another server's is one piece."""

        def stream(job: Job, clips: list[Clip], emit: Emit) -> Any:
            pieces = AnswerStream(stream_answer(task(job.view(model, self._settings.limits)), clips[0], prompt))
            with pieces:
                for piece in stripped(pieces):
                    emit({"type": "text.delta", "delta": piece})
            assert pieces.answer is not None
            return pieces.answer

        def whole(job: Job, clips: list[Clip], emit: Emit) -> Any:
            result = work(job, clips)
            emit({"type": "text.delta", "delta": result.text})
            return result

        return whole if isinstance(model, PromptedLM) else stream

    async def _streamed(
        self,
        request: Request,
        key: str,
        upload: Upload | None,
        model: AudioLM,
        pieces: Callable[[Job, list[Clip], Emit], Any],
    ) -> Response:
        """An answer while it is generated, and its record at the end."""
        clip, device = needed(upload), self._service.ready.device

        def work(job: Job, clips: list[Clip], emit: Emit) -> None:
            answer = pieces(job, clips, emit)
            emit({"type": "text.done", **record(key, clip.name, answer, model, device)})

        return event_stream(await self._service.stream(request, [clip], work))


def _window(fields: Fields, model: AudioLM) -> float | None:
    found: float | None = fields.number("window_s", None, least=_LEAST_WINDOW_S, most=model.max_audio_s)
    return found


def _schema(fields: Fields) -> dict[str, Any] | None:
    text = fields.text("schema")
    if text is None:
        return None
    try:
        schema = parse_json(text)
    except ValueError:
        schema = None
    return check_schema(schema, "schema")
