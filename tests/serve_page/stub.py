"""A server with the routes the page uses, which answers as the project does, or as slowly and badly as a test wants."""

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from auricle.audio import LogMel
from auricle.serve.page import page_routes

CAPTION = "A man is speaking while slow piano music plays."
CAPTIONS = {"alarm": "An electronic alarm beeps twice a second.", "voice.ogg": 'A man says "seven two four".'}
WORDS = ["A man says", "seven two", "four"]


class Refusal(Exception):
    """An error in the shape of the OpenAI API."""

    def __init__(self, status: int, message: str, code: str, **headers: str) -> None:
        self.response = JSONResponse(
            {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}},
            status,
            headers,
        )


@dataclass
class Stub:
    """The server, its switches, and what it has seen."""

    pause_s: float = 0.0  # between two pieces of a stream
    busy: int = 0  # requests still to be refused with 429
    retry_after: int = 2
    key: str = ""
    ending: str = "whole"  # of a stream; or "error", or "cut"
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    server: uvicorn.Server | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = uvicorn.Config(
            self.app(), port=self.port, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        assert self.server is not None
        self.server.should_exit = True
        self.thread.join()

    def app(self) -> Starlette:
        verbs = {
            "audio/describe": self.describe,
            "audio/ask": self.ask,
            "audio/transcriptions": self.transcribe,
            "audio/classify": self.classify,
            "audio/mel": self.mel,
            "embeddings": self.embeddings,
        }
        return Starlette(
            routes=[
                *page_routes(),
                Route("/health", lambda _: JSONResponse({"status": "ok"})),
                Route("/v1/models", self.models),
                *(Route(f"/v1/{path}", self.guarded(path, verb), methods=["POST"]) for path, verb in verbs.items()),
            ]
        )

    def guarded(self, path: str, verb: Any) -> Any:
        async def answer(request: Request) -> Response:
            try:
                self.admit(request)
                if path == "embeddings":
                    return verb(await request.json())
                async with request.form() as form:
                    self.seen.append((path, {k: v for k, v in form.items() if isinstance(v, str)}))
                    return verb(form, *await read(form))
            except Refusal as refusal:
                return refusal.response

        return answer

    def admit(self, request: Request) -> None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            raise Refusal(401, "An API key is needed: Authorization: Bearer KEY.", "invalid_api_key")
        if self.busy and request.url.path != "/v1/models":
            self.busy -= 1
            wait = str(self.retry_after)
            raise Refusal(429, "The queue is full.", "overloaded", **{"Retry-After": wait})

    def models(self, request: Request) -> Response:
        try:
            self.admit(request)
        except Refusal as refusal:
            return refusal.response
        models = [
            ("auricle-tiny", ["describe", "ask", "transcriptions"]),
            ("auricle-tiny-glap", ["embeddings", "classify"]),
        ]
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "auricle", "capabilities": c}
            for name, c in models
        ]
        return JSONResponse({"object": "list", "data": data})

    def describe(self, form: FormData, name: str, samples: Any) -> Response:
        caption = next((text for key, text in CAPTIONS.items() if key in name), CAPTION)
        return self.streamed(form, caption, {**record(name, samples, caption), "caption": caption})

    def ask(self, form: FormData, name: str, samples: Any) -> Response:
        answer = "Two people speak, <b>one</b> after the other."
        return self.streamed(form, answer, {**record(name, samples, answer), "answer": answer})

    def streamed(self, form: FormData, text: str, result: dict[str, Any], kind: str = "text") -> Response:
        if form.get("stream") != "true":
            time.sleep(self.pause_s)
            return JSONResponse(result)

        async def events() -> AsyncIterator[str]:
            try:
                for piece in text.split(" "):
                    await asyncio.sleep(self.pause_s)
                    delta = piece if piece == text.split(" ")[0] else f" {piece}"
                    yield f"data: {json.dumps({'type': f'{kind}.delta', 'delta': delta})}\n\n"
                if self.ending == "error":
                    failure = {
                        "message": "Out of memory.",
                        "type": "server_error",
                        "param": None,
                        "code": "out_of_memory",
                    }
                    yield f"data: {json.dumps({'error': failure})}\n\n"
                if self.ending != "whole":
                    return
                yield f": keep-alive\n\ndata: {json.dumps({'type': f'{kind}.done', **result})}\n\ndata: [DONE]\n\n"
            except asyncio.CancelledError:
                self.cancelled.append(text)
                raise

        return StreamingResponse(events(), media_type="text/event-stream")

    def transcribe(self, form: FormData, name: str, samples: Any) -> Response:
        result = record(name, samples, "")
        length = len(samples) / 16_000
        segments = [
            {"id": i, "start": i * length / 3, "end": (i + 1) * length / 3, "text": text}
            for i, text in enumerate(WORDS)
        ]
        body = {
            "task": "transcribe",
            "language": "en",
            "duration": length,
            "text": " ".join(WORDS),
            "segments": segments,
        }
        body["auricle"] = {"receipt": result["receipt"]}
        return self.streamed(form, " ".join(WORDS), body, "transcript.text")

    def classify(self, form: FormData, name: str, samples: Any) -> Response:
        labels = [each.strip() for each in str(form["labels"]).split(",")]
        shares = np.exp(-1.4 * np.arange(len(labels)))
        shares /= shares.sum()
        probabilities = {label: round(float(share), 6) for label, share in zip(labels, shares, strict=True)}
        return JSONResponse({**record(name, samples, ""), "labels": labels[:1], "probabilities": probabilities})

    def mel(self, form: FormData, name: str, samples: Any) -> Response:
        mel = LogMel()(torch.from_numpy(samples))[0]
        low, high = float(mel.min()), float(mel.max())
        values = ((mel - low) / max(high - low, 1e-6) * 255).round().to(torch.uint8).numpy()
        header = {"num_mels": 64, "frames": values.shape[1], "frame_hz": 100, "f_min": 0.0, "f_max": 8000.0}
        return Response(json.dumps(header).encode() + b"\n" + values.tobytes(), media_type="application/octet-stream")

    def embeddings(self, body: dict[str, Any]) -> Response:
        vectors = [vector_of(each) for each in body["input"]]
        data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
        return JSONResponse({"object": "list", "data": data, "model": body["model"]})


def vector_of(part: Any) -> str:
    """Loudness in bands; a text is the vector of pure low tones."""
    vector = np.zeros(8, dtype="<f4")
    if isinstance(part, str):
        vector[0] = 1
    else:
        samples, _ = samples_of("clip", base64.b64decode(part["input_audio"]["data"]))
        power = np.abs(np.fft.rfft(samples)) ** 2
        vector[:] = [band.sum() for band in np.array_split(power, 8)]
    return base64.b64encode(vector.tobytes()).decode()


async def read(form: FormData) -> tuple[str, Any]:
    file = form["file"]
    assert isinstance(file, UploadFile)
    name = file.filename or "audio"
    mono, rate = samples_of(name, await file.read())
    return name, np.interp(np.arange(0, len(mono), rate / 16_000), np.arange(len(mono)), mono).astype("float32")


def samples_of(name: str, content: bytes) -> tuple[Any, int]:
    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        message = f"{name}: not audio that can be decoded. Expected wav, flac, ogg, mp3 or another audio format."
        raise Refusal(400, message, "unknown_format") from None
    return samples.mean(axis=1), rate


def record(name: str, samples: Any, text: str) -> dict[str, Any]:
    duration = round(len(samples) / 16_000, 4)
    stop = round(duration // 0.04 * 0.04, 4)
    dropped = [{"start_s": stop, "stop_s": duration, "reason": "shorter than one token"}] if stop < duration else []
    receipt = {
        "file": name, "duration_s": duration, "sample_rate": 16_000, "channels": 1,
        "read": [{"start_s": 0.0, "stop_s": stop}], "overlaps": [], "dropped": dropped, "skipped": [], "padded_s": 0.0,
        "truncated": False, "damaged": 0, "audio_tokens": 25, "notes": [], "complete": True,
    }  # fmt: skip
    segments = [{"start_s": 0.0, "stop_s": duration, "text": text, "mean_logprob": -0.5176}]
    result = {"file": name, "confidence": 0.5959, "segments": segments, "receipt": receipt, "model": "auricle-tiny"}
    return {**result, "device": "cpu", "error": None}
