"""Figures of a server in the text format of Prometheus; nothing in them says whose audio it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from auricle.engine import Engine
    from auricle.engine.scheduler import Request

_PREFIX = "auricle"
_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # s
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Monitoring:
    """Counters, gauges and histograms of one server; names after the prefix are those of vLLM where it has them."""

    def __init__(self, engines: Iterable[Engine] = ()) -> None:
        """Start at 0; ``engines`` are read when the figures are."""
        self.registry, self.engines = CollectorRegistry(), list(engines)
        self.clips = 0  # given to the engines
        self.http_requests = self._counter("http_requests", "Answers by route and status.", "endpoint", "status")
        self.successes = self._counter("request_success", "Finished generations.", "finished_reason")
        self.audio_seconds = self._counter("audio_seconds", "Audio processed, s.", "endpoint")
        self.rejected = self._counter("audio_rejected", "Requests refused.", "reason")
        self.coalesced = self._counter("coalesced_requests", "Requests answered by an equal one.", "how")
        self.running = self._gauge("num_requests_running", "Requests in work.")
        self.waiting = self._gauge("num_requests_waiting", "Requests that wait for a worker.")
        self.waiting_s = self._gauge("estimated_wait_seconds", "Time a new request would wait, s.")
        self.real_time_factor = self._gauge("real_time_factor", "Seconds of work a second of audio.")
        self.latency = self._histogram("e2e_request_latency_seconds", "From the first byte to the last, s.", "endpoint")
        self.audio_decode = self._histogram("audio_decode_seconds", "Decoding of a clip, s.")
        self.queue_time = self._histogram("request_queue_time_seconds", "In the queue of the engine, s.")
        self.prefill_time = self._histogram("request_prefill_time_seconds", "From there to the first token, s.")
        self.decode_time = self._histogram("request_decode_time_seconds", "From the first token to the last, s.")
        self.first_token = self._histogram("time_to_first_token_seconds", "Queue and prefill, s.")
        self.token_time = self._histogram("inter_token_latency_seconds", "Between tokens, s.")
        self._work = {
            name: self._gauge(name, what)
            for name, what in (
                ("prompt_tokens_total", "Tokens of prompts."),
                ("generation_tokens_total", "Tokens generated."),
                ("prefix_cache_queries_total", "Tokens of prompts looked for in the prefix cache."),
                ("prefix_cache_hits_total", "Tokens found there."),
                ("encoder_clips_total", "Clips that went through the encoder."),
                ("encoder_cache_hits_total", "Clips that need not, because the engine still had their tokens."),
            )
        }

    def note_generation(self, request: Request, now: float) -> None:
        """Count a request of the engine that is done."""
        generation = request.generation
        if generation is None or request.admitted_at is None:
            return
        reason = "length" if generation.stopped == "length" else "stop"
        self.successes.labels("abort" if generation.stopped == "cancelled" else reason).inc()
        first = request.first_token_at or now
        self.queue_time.observe(request.admitted_at - request.submitted_at)
        self.prefill_time.observe(first - request.admitted_at)
        self.decode_time.observe(now - first)
        self.first_token.observe(first - request.submitted_at)
        if len(generation.ids) > 1:
            self.token_time.observe((now - first) / (len(generation.ids) - 1))

    def text(self) -> bytes:
        """All figures."""
        counts = [engine.counts for engine in self.engines]
        read, reused = sum(each.read_tokens for each in counts), sum(each.reused_tokens for each in counts)
        self._work["prompt_tokens_total"].set(read + reused)
        self._work["generation_tokens_total"].set(sum(each.answer_tokens for each in counts))
        self._work["prefix_cache_queries_total"].set(read + reused)
        self._work["prefix_cache_hits_total"].set(reused)
        encoded = sum(engine.encoded_clips for engine in self.engines)
        self._work["encoder_clips_total"].set(encoded)
        self._work["encoder_cache_hits_total"].set(max(0, self.clips - encoded))
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", what, registry=self.registry)

    def _histogram(self, name: str, what: str, *labels: str) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", what, labels, buckets=_TIMES, registry=self.registry)
