"""Continuous batching: rows join when they arrive and leave when they are done; prompts are prefilled in portions.

Every step is one pass of the decoder over the next token of all rows that are being answered and over a portion of the
prompts that are being prefilled. A request's tokens do not depend on the others, up to rounding (1e-6 in float32).

Shape legend: B rows being answered, L prompt tokens, H decoder width, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from auricle.engine.detokenizer import Detokenizer
from auricle.engine.kv_cache import BLOCK, PrefixCache, Rows
from auricle.engine.prompt import CheckedPrompt
from auricle.engine.request import Generation, Stopped, Token, TopLogprobs
from auricle.engine.sampling import Sampler, choose, most_likely
from auricle.models.qwen_attention import Segment

if TYPE_CHECKING:
    from auricle.models.stock_decoder import Decoder

_WORTH_WAITING = 2  # blocks of a shared prefix that another prompt is computing; fewer are computed twice instead
_KEPT_IDLE = 1 << 28  # bytes of row memory that stay allocated while there are no requests


@dataclass(slots=True, eq=False)
class Request:
    """One prompt to be answered: what is needed to answer it, the tokens so far, and in the end the answer."""

    prompt: CheckedPrompt  # without its clips once they are embedded
    sampler: Sampler
    text: Detokenizer | None = None  # where stop strings or a stream need the text token by token
    is_cancelled: bool = False
    tokens: deque[Token] = field(default_factory=deque)  # given out by ``text``, not yet taken by a stream
    generation: Generation | None = None
    error: Exception | None = None
    submitted_at: float = field(default_factory=monotonic)
    admitted_at: float | None = None
    first_token_at: float | None = None
    _kept: list[Token] = field(default_factory=list)
    _logprobs: list[float] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether there is an answer or an error."""
        return self.generation is not None or self.error is not None

    @property
    def room(self) -> int:
        """Places of the prompt and the longest answer."""
        return len(self.prompt.ids) + self.sampler.sampling.max_new_tokens

    def take(self, token: int, logprob: float, top: TopLogprobs = ()) -> None:
        """Append the chosen token, or end with it."""
        self._logprobs.append(logprob)
        self.first_token_at = self.first_token_at or monotonic()
        if token in self.sampler.ends:
            self.finish("eos")
            return
        self.sampler.ids.append(token)
        if self.text is not None:
            self._give(self.text.add(token, logprob, top))
            if self.text.is_stopped:
                self.finish("stop")
                return
        if len(self.sampler.ids) == self.sampler.sampling.max_new_tokens:
            self.finish("length")

    def finish(self, stopped: Stopped) -> None:
        """Set the answer to the tokens so far."""
        ids, logprobs, text = self.sampler.ids, self._logprobs, None
        if self.text is not None:
            self._give(self.text.close())
            text = "".join(token.text for token in self._kept)
            if stopped == "stop":
                ids = [token.id for token in self._kept]
                logprobs = [token.logprob for token in self._kept]
        mean = sum(logprobs) / max(len(logprobs), 1)
        self.generation = Generation(list(ids), stopped, mean, tuple(logprobs), text)

    def _give(self, tokens: list[Token]) -> None:
        self._kept.extend(tokens)
        self.tokens.extend(tokens)


@dataclass(slots=True)
class Counts:
    """Work of a scheduler so far."""

    steps: int = 0
    read_tokens: int = 0  # of prompts, computed
    reused_tokens: int = 0  # of prompts, taken from the prefix cache
    answer_tokens: int = 0


@dataclass(slots=True, eq=False)
class Prefill:
    """A prompt whose keys and values are being computed, into a memory of its own."""

    prompt: CheckedPrompt
    start: int  # tokens taken from the prefix cache
    room: int  # places of its memory, ≥ L
    request: Request | None = None  # None: no answer is wanted
    embeddings: Tensor = field(init=False)  # (L - start, H)
    memory: Tensor = field(init=False)  # (layers, 2, 1, K, room, C)
    read: int = field(init=False)  # tokens in memory
    last: Tensor | None = None  # last hidden state (H,) once all tokens are in memory

    def __post_init__(self) -> None:
        """Start where the prefix cache ends."""
        self.read = self.start

    @property
    def length(self) -> int:
        """L."""
        return len(self.prompt.ids)

    def portion(self, count: int) -> Segment:
        """The next ``count`` tokens."""
        start, end = self.read, self.read + count
        part = self.embeddings[start - self.start : end - self.start]
        positions = torch.arange(start, end, device=part.device)
        return Segment(part[None], positions[None], self.memory, start, end)


class Scheduler:
    """Decides which requests are in work, and runs the decoder step by step.

    One thread at a time may call it; any thread may append to ``waiting``.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        max_batch: int,
        prefill_tokens: int,
        prefix_bytes: int = 0,
        memory_bytes: int | None = None,
    ) -> None:
        """Start without requests.

        Args:
            decoder: in evaluation mode.
            max_batch: requests in work at once.
            prefill_tokens: prompt tokens computed in one step at most; rows being answered wait for no more.
            prefix_bytes: of the prefix cache.
            memory_bytes: of the keys and values of rows being answered; a request that would exceed it waits until it
                does not or nothing else runs. None: no limit.
        """
        self.waiting: deque[Request] = deque()
        self.counts = Counts()
        self.prefixes = PrefixCache(prefix_bytes)
        self._decoder = decoder
        self._max_batch, self._prefill_tokens, self._memory_bytes = max_batch, prefill_tokens, memory_bytes
        self._rows = Rows(decoder)
        self._answering: list[Request] = []  # of each row
        self._admitted: list[Prefill] = []  # not started yet
        self._prefills: list[Prefill] = []
        self._coming: dict[bytes, Prefill] = {}  # blocks that are being computed, and by which

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.waiting or self._prefills or self._answering)

    def open(self, prompt: CheckedPrompt, room: int) -> Prefill:
        """Prepare to compute a prompt without a request, for `read_alone`; ``room``: places its memory needs."""
        return Prefill(prompt, BLOCK * self.prefixes.match(prompt.blocks), max(room, len(prompt.ids)))

    def start(self, prefills: Sequence[Prefill], embeddings: Sequence[Tensor | Exception]) -> None:
        """Begin to compute admitted prompts.

        Args:
            prefills: as `admit` returned them.
            embeddings: decoder inputs (L - start, H) of each; or why there are none, which fails that request alone.
        """
        for prefill, own in zip(prefills, embeddings, strict=True):
            request = prefill.request
            assert request is not None
            request.prompt = prefill.prompt = replace(prefill.prompt, clips=())  # waveforms are large
            try:
                self._fill(prefill, own)
            except Exception as error:
                request.error = error
                continue
            self._prefills.append(prefill)
            for name in prefill.prompt.blocks[prefill.start // BLOCK :]:
                self._coming.setdefault(name, prefill)
        self._admitted = []

    def read_alone(self, prefill: Prefill, embeddings: Tensor | Exception) -> tuple[Tensor, Tensor]:
        """Compute a prompt for which no answer is wanted.

        Returns:
            Memory with at least ``room`` places, the first L of them filled, and the last hidden state (H,).
        """
        self._fill(prefill, embeddings)
        while prefill.last is None:
            count = min(self._prefill_tokens, prefill.length - prefill.read)
            (hidden,) = self._decoder.read([prefill.portion(count)])
            self._note_read(prefill, count, hidden)
        return prefill.memory, prefill.last

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (M, H) → logits (M, V) float32."""
        return self._decoder.lm_head(hidden).float()

    def advance(self) -> None:
        """One pass of the decoder: the next token of every row, and a portion of the prompts."""
        portions = self._portions()
        segments = [prefill.portion(count) for prefill, count in portions]
        if self._answering:
            segments.append(self._next_tokens())
        if not segments:
            return
        self.counts.steps += 1
        hidden = self._decoder.read(segments)
        for (prefill, count), own in zip(portions, hidden, strict=False):
            self._note_read(prefill, count, own)
        finished = [prefill for prefill, _ in portions if prefill.last is not None]
        states = [prefill.last[None] for prefill in finished if prefill.last is not None]
        if self._answering:
            self._rows.lengths = [length + 1 for length in self._rows.lengths]
            states.insert(0, hidden[-1][:, 0])
        if states:
            self._choose([*self._answering, *(r.request for r in finished if r.request)], torch.cat(states))
            self._settle(finished)

    def _choose(self, requests: Sequence[Request], hidden: Tensor) -> None:
        """Take the next token of each request after its last hidden state (M, H)."""
        logits = self.logits(hidden)
        chosen, logprobs, failed = choose([request.sampler for request in requests], logits)
        self.counts.answer_tokens += len(requests) - len(failed)
        for index, request in enumerate(requests):
            if index in failed:
                request.error = failed[index]
            else:
                request.take(chosen[index], logprobs[index], most_likely(request.sampler, logits[index]))

    def _settle(self, finished: Sequence[Prefill]) -> None:
        """Rows that are done leave; prompts that are in memory become rows."""
        for row in reversed(range(len(self._answering))):
            if self._answering[row].is_done:
                self._leave(row)
        self._prefills = [prefill for prefill in self._prefills if prefill.last is None]
        for prefill in finished:
            if prefill.request is not None and not prefill.request.is_done:
                self._rows.join(prefill.memory, prefill.length, prefill.request.room)
                self._answering.append(prefill.request)
        if not self._answering and self._rows.cache.nbytes > _KEPT_IDLE:
            self._rows.clear()

    def _leave(self, row: int) -> None:
        self._rows.leave(row)
        last = self._answering.pop()
        if row < len(self._answering):
            self._answering[row] = last

    def _next_tokens(self) -> Segment:
        """The last chosen token of each row."""
        device = self._decoder.device
        lengths = torch.tensor(self._rows.lengths, device=device)
        keys = max(self._rows.lengths) + 1
        mask = None
        if min(self._rows.lengths) + 1 < keys:
            hidden = torch.arange(keys, device=device)[None] > lengths[:, None]
            mask = torch.zeros(hidden.shape, dtype=self._rows.cache.dtype, device=device)
            mask = mask.masked_fill(hidden, -torch.inf)[:, None, None]
        last = torch.tensor([[request.sampler.ids[-1]] for request in self._answering], device=device)
        embeddings = self._decoder.get_input_embeddings()(last)
        memory = self._rows.cache[:, :, : len(self._answering)]
        return Segment(embeddings, lengths[:, None], memory, lengths, keys, mask)

    def _portions(self) -> list[tuple[Prefill, int]]:
        """How many tokens of which prompts are computed in this step: the oldest first."""
        left, portions = self._prefill_tokens, []
        for prefill in self._prefills:
            if count := min(left, prefill.length - prefill.read):
                portions.append((prefill, count))
                left -= count
        return portions

    def _note_read(self, prefill: Prefill, count: int, hidden: Tensor) -> None:
        before = prefill.read // BLOCK
        prefill.read += count
        self.counts.read_tokens += count
        if prefill.prompt.blocks:
            whole = prefill.prompt.blocks[: prefill.read // BLOCK]
            self.prefixes.write(whole, before, prefill.memory)
            self._forget(prefill, whole)
        if prefill.read == prefill.length:
            prefill.last = hidden[0, -1]

    def _forget(self, prefill: Prefill, names: Sequence[bytes]) -> None:
        """Blocks are no longer being computed by this prompt."""
        for name in names:
            if self._coming.get(name) is prefill:
                del self._coming[name]

    def admit(self) -> list[Prefill]:
        """Take as many waiting requests as there is room for; `start` needs the embeddings of their prompts."""
        self._drop_cancelled()
        backlog = sum(prefill.length - prefill.read for prefill in self._prefills)
        passed: list[Request] = []
        claimed: set[bytes] = set(self._coming)
        busy = len(self._answering) + len(self._prefills)
        room = max((request.room for request in self._in_work()), default=0)
        while self.waiting and busy + len(self._admitted) < self._max_batch and backlog < self._prefill_tokens:
            if len(passed) >= 4 * self._max_batch:
                break
            request = self.waiting.popleft()
            if request.is_cancelled:
                request.finish("cancelled")
                continue
            blocks = request.prompt.blocks
            matched = self.prefixes.match(blocks)
            coming = blocks[matched : matched + _WORTH_WAITING]
            if len(coming) == _WORTH_WAITING and claimed.issuperset(coming):
                passed.append(request)
                continue
            room = max(room, request.room)
            if not self._fits(busy + len(self._admitted) + 1, room):
                passed.append(request)
                break
            request.admitted_at = monotonic()
            prefill = Prefill(request.prompt, BLOCK * matched, len(request.prompt.ids), request)
            self._admitted.append(prefill)
            claimed.update(blocks if self.prefixes.max_bytes else ())
            backlog += prefill.length - prefill.start
        self.waiting.extendleft(reversed(passed))
        return self._admitted

    def _fits(self, batch: int, room: int) -> bool:
        return self._memory_bytes is None or batch == 1 or self._rows.num_bytes(batch, room) <= self._memory_bytes

    def _fill(self, prefill: Prefill, embeddings: Tensor | Exception) -> None:
        """Give a prompt its embeddings, and a memory that starts with what the prefix cache holds of it."""
        if isinstance(embeddings, Exception):
            raise embeddings
        prefill.embeddings = embeddings
        prefill.memory = self._decoder.new_cache(1, prefill.room)
        self.prefixes.read(prefill.prompt.blocks[: prefill.start // BLOCK], prefill.memory)
        self.counts.reused_tokens += prefill.start

    def _in_work(self) -> list[Request]:
        prefills = (*self._prefills, *self._admitted)
        return [*self._answering, *(prefill.request for prefill in prefills if prefill.request is not None)]

    def _drop_cancelled(self) -> None:
        for row in reversed(range(len(self._answering))):
            if self._answering[row].is_cancelled:
                self._answering[row].finish("cancelled")
                self._leave(row)
        for prefill in list(self._prefills):
            if prefill.request is not None and prefill.request.is_cancelled:
                prefill.request.finish("cancelled")
                self._forget(prefill, prefill.prompt.blocks)
                self._prefills.remove(prefill)

    def abandon(self, error: Exception) -> None:
        """Fail all requests in work; those that wait go on."""
        for request in self._in_work():
            if not request.is_done:
                request.error = error
        self._answering, self._admitted, self._prefills, self._coming = [], [], [], {}
        self._rows.clear()
