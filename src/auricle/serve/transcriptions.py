"""``/v1/audio/transcriptions`` and translations: transcripts in the formats and events of the OpenAI API."""

from __future__ import annotations

import math
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from auricle.listen.outputs import Segment, Transcript, record_of
from auricle.listen.stitching import join_words
from auricle.listen.subtitles import subtitles
from auricle.serve.faults import ApiError, refused
from auricle.serve.inputs import Fields, needed, read_form
from auricle.serve.replies import event_stream, only, pick_audio_lm, receipt_header
from auricle.serve.service import LONG_BATCH

if TYPE_CHECKING:
    from auricle.audio.facts import Clip
    from auricle.audio.limits import Limits
    from auricle.listen.model import AudioLM
    from auricle.serve.jobs import Job
    from auricle.serve.service import Emit, Service

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
_GRANULARITIES = ("segment", "word")


def transcription_routes(service: Service) -> list[Route]:
    """The routes of a service."""

    async def transcriptions(request: Request) -> Response:
        fields, upload = await read_form(request, service.settings.limits)
        wanted = _Request(fields, service)
        upload = needed(upload)
        work = partial(transcript_of, wanted.model, wanted.language, service.settings.limits)
        if wanted.is_streamed:
            return event_stream(await service.stream(request, [upload], partial(_stream, work)))
        decided = ["transcribe", wanted.model.model, wanted.language]
        transcript, usage = await service.answer(request, [upload], work, decided)
        return _reply(transcript, usage, wanted)

    async def translations(request: Request) -> Response:
        raise ApiError(
            400,
            "no model of this server was trained to translate speech; /v1/audio/transcriptions writes down what is "
            "said, in its language",
            "model_cannot",
            param="model",
        )

    return [
        Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
        Route("/v1/audio/translations", translations, methods=["POST"]),
    ]


class _Request:
    """The fields of a request, read."""

    def __init__(self, fields: Fields, service: Service) -> None:
        """Check them.

        Raises:
            ApiError: one cannot be honoured.
        """
        self.model = pick_audio_lm(service.ready, fields.text("model"), "transcriptions")
        self.language = fields.text("language")
        self.format = fields.text("response_format", "json", FORMATS)
        self.is_streamed = fields.flag("stream")
        if self.is_streamed and self.format not in ("json", "text"):
            raise refused("response_format", f"a stream has no {self.format}; expected json or text")
        # Greedy and without a prompt of the client's: that is what a transcript of this server is.
        if fields.number("temperature", 0, least=0, most=1):
            raise refused("temperature", "transcripts are made without chance; leave out temperature, or give 0")
        if fields.text("prompt"):
            raise refused("prompt", "the models of this server take no prompt for transcripts; leave it out")
        if fields.texts("include[]"):
            raise refused("include[]", "transcripts of this server have no such parts; leave out include")
        if fields.take("chunking_strategy") not in (None, "", "auto"):
            raise refused("chunking_strategy", "windows are cut in pauses; leave it out, or give auto")
        self.granularities = fields.texts("timestamp_granularities[]") or ["segment"]
        for each in self.granularities:
            if each not in _GRANULARITIES:
                raise refused("timestamp_granularities[]", f"{each[:40]!r} is none of {', '.join(_GRANULARITIES)}")
        if "word" in self.granularities and self.format != "verbose_json":
            raise refused("timestamp_granularities[]", "times of words need response_format verbose_json")
        fields.finish()


def transcript_of(
    model: AudioLM,
    language: str | None,
    limits: Limits,
    job: Job,
    clips: list[Clip],
    *,
    emit: Emit | None = None,
    **settings: Any,
) -> tuple[Transcript, dict[str, Any]]:
    """Transcribe a clip.

    Args:
        model: any that transcribes.
        language: spoken; None: unknown.
        limits: of clips.
        job: that it is done for.
        clips: one.
        emit: takes the text as it becomes final.
        settings: of `AudioLM.transcribe_many`.

    Returns:
        The transcript, and how many tokens or seconds it took.
    """
    own, texts = job.view(model, limits), [""]

    def report(_: str, segment: Segment) -> None:
        before, after = join_words(texts), join_words([*texts, segment.text])
        texts.append(segment.text)
        if emit is not None and len(after) > len(before):
            emit({"type": "transcript.text.delta", "delta": after[len(before) :]})

    own.on_segment = report
    transcript = only(own.transcribe_many(clips, language=language, batch_size=LONG_BATCH, **settings))
    if not job.prompt_tokens:
        return transcript, {"type": "duration", "seconds": transcript.receipt.duration_s or 0.0}
    return transcript, {
        "type": "tokens",
        "input_tokens": job.prompt_tokens,
        "output_tokens": job.completion_tokens,
        "total_tokens": job.prompt_tokens + job.completion_tokens,
        "input_token_details": {
            "audio_tokens": job.audio_tokens,
            "text_tokens": job.prompt_tokens - job.audio_tokens,
        },
    }


def _stream(work: Any, job: Job, clips: list[Clip], emit: Emit) -> None:
    transcript, usage = work(job, clips, emit=emit)
    done = {"type": "transcript.text.done", "text": transcript.text}
    if usage["type"] == "tokens":
        done["usage"] = usage
    emit({**done, **_verbose(transcript, has_words=False), **_stated(transcript)})


def _reply(transcript: Transcript, usage: dict[str, Any], wanted: _Request) -> Response:
    header = receipt_header(transcript.receipt.as_dict())
    if wanted.format == "text":
        return PlainTextResponse(f"{transcript.text}\n", headers=header)
    if wanted.format in ("srt", "vtt"):
        kind = "text/vtt" if wanted.format == "vtt" else "text/plain"
        text = subtitles(transcript.segments, wanted.format)
        return Response(f"{text}\n" if text else "", headers=header, media_type=f"{kind}; charset=utf-8")
    if wanted.format == "json":
        return JSONResponse({"text": transcript.text, "usage": usage, **_stated(transcript)}, headers=header)
    has_words = "word" in wanted.granularities
    if has_words and transcript.text and not any(segment.words for segment in transcript.segments):
        raise refused(
            "timestamp_granularities[]",
            f"{wanted.model.model} gives no times of words; leave out word, or serve a Whisper model",
            "unsupported_parameter",
        )
    seconds = {"type": "duration", "seconds": transcript.receipt.duration_s or 0.0}
    body = {"task": "transcribe", "text": transcript.text, **_verbose(transcript, has_words=has_words)}
    return JSONResponse({**body, "usage": seconds, **_stated(transcript)}, headers=header)


def _verbose(transcript: Transcript, *, has_words: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "language": transcript.language or "",
        "duration": transcript.receipt.duration_s or 0.0,
        "segments": [_segment(number, each) for number, each in enumerate(transcript.segments)],
    }
    if has_words:
        words = [word for segment in transcript.segments for word in segment.words]
        body["words"] = [{"word": each.text, "start": each.start_s, "end": each.stop_s} for each in words]
    return body


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    text, denied = segment.text.encode(), segment.no_speech_logprob
    return {
        "id": number,
        "seek": round(100 * segment.start_s),
        "start": segment.start_s,
        "end": segment.stop_s,
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": segment.mean_logprob or 0.0,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4) if text else 0.0,
        "no_speech_prob": 0.0 if denied is None else round(math.exp(min(0.0, denied)), 6),
    }


def _stated(transcript: Transcript) -> dict[str, Any]:
    stated = record_of("text", transcript)
    names = ("confidence", "is_unsure", "suggested_model", "open_speech", "raw_text", "notice")
    found = {name: stated[name] for name in names if name in stated}
    return {"auricle": {"receipt": transcript.receipt.as_dict(), **found}}
