"""Continuous batching: rows join when they arrive and leave when they are done; prompts are read in portions between.

Every step is one pass of the decoder over the next token of all rows that are being answered and over a portion of the
prompts that are being read. What a request gets does not depend on the others: only on rounding, 1e-6 in float32.

Shape legend: B rows being answered, L prompt tokens, H decoder width, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from auricle.engine.detokenizer import Detokenizer
from auricle.engine.kv_cache import BLOCK, PrefixCache, Rows
from auricle.engine.request import Generation, Stopped, Token
from auricle.engine.sampling import Sampler, choose
from auricle.errors import AuricleError
from auricle.models.qwen_attention import Segment

if TYPE_CHECKING:
    from auricle.models.stock_decoder import Decoder

# Prompts and the token from which each is to be embedded → decoder inputs (L_i - start_i, H).
Embed = Callable[[Sequence[tuple[Any, int]]], list[Tensor]]

_WORTH_WAITING = 2  # blocks of a common beginning that another prompt computes; less is computed twice instead
_KEPT_IDLE = 1 << 28  # bytes of row memory that stay allocated while nobody asks


@dataclass(slots=True, eq=False)
class Request:
    """A request on its way, and in the end what came of it."""

    prompt: Any  # what `Embed` takes
    length: int  # L
    names: list[bytes]  # of the prompt's blocks that may be shared, see `name_blocks`
    sampler: Sampler
    text: Detokenizer | None = None  # where stop strings or a stream need the text while it grows
    is_cancelled: bool = False
    tokens: deque[Token] = field(default_factory=deque)  # given out by ``text``, not yet taken by a stream
    generation: Generation | None = None
    error: Exception | None = None
    _kept: list[Token] = field(default_factory=list)
    _logprobs: list[float] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether there is an answer or an error."""
        return self.generation is not None or self.error is not None

    @property
    def room(self) -> int:
        """Tokens of the prompt and the longest answer."""
        return self.length + self.sampler.sampling.max_new_tokens

    def take(self, token: int, logprob: float) -> None:
        """Go on with the chosen token, or end with it."""
        self._logprobs.append(logprob)
        if token in self.sampler.ends:
            self.finish("eos")
            return
        self.sampler.ids.append(token)
        if self.text is not None:
            self._give(self.text.add(token, logprob))
            if self.text.is_stopped:
                self.finish("stop")
                return
        if len(self.sampler.ids) == self.sampler.sampling.max_new_tokens:
            self.finish("length")

    def finish(self, stopped: Stopped) -> None:
        """File the answer as it is."""
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
    """What a scheduler has done so far."""

    steps: int = 0
    read_tokens: int = 0  # of prompts, computed
    reused_tokens: int = 0  # of prompts, found in the prefix cache
    answer_tokens: int = 0


@dataclass(slots=True, eq=False)
class _Reading:
    """A prompt that is being read into a memory of its own."""

    names: list[bytes]
    embeddings: Tensor  # (L - start, H)
    memory: Tensor  # (layers, 2, 1, K, ≥ L, C)
    start: int  # tokens that were in the prefix cache
    length: int  # L
    request: Request | None = None
    read: int = field(init=False)
    last: Tensor | None = None  # last hidden state (H,) once all is read

    def __post_init__(self) -> None:
        self.read = self.start

    def portion(self, count: int) -> Segment:
        begin, end = self.read, self.read + count
        part = self.embeddings[begin - self.start : end - self.start]
        positions = torch.arange(begin, end, device=part.device)
        return Segment(part[None], positions[None], self.memory, begin, end)


class Scheduler:
    """Answers requests, a step at a time. One thread at a time may call it; requests may be added by any."""

    def __init__(
        self,
        decoder: Decoder,
        embed: Embed,
        *,
        max_batch: int,
        prefill_tokens: int,
        prefix_bytes: int = 0,
        memory_bytes: int | None = None,
    ) -> None:
        """Start with nothing to do.

        Args:
            decoder: in evaluation mode.
            embed: see `Embed`.
            max_batch: requests in work at once.
            prefill_tokens: prompt tokens read in one step at most; running rows wait for no more.
            prefix_bytes: of the cache of prompt beginnings.
            memory_bytes: of the keys and values of rows being answered; a request that would exceed it waits until it
                does not or nothing else runs. None: any.
        """
        self.waiting: deque[Request] = deque()
        self.counts = Counts()
        self.prefixes = PrefixCache(prefix_bytes)
        self._decoder, self._embed = decoder, embed
        self._max_batch, self._prefill_tokens, self._memory_bytes = max_batch, prefill_tokens, memory_bytes
        self._rows = Rows(decoder)
        self._answering: list[Request] = []  # of each row
        self._reading: list[_Reading] = []
        self._coming: dict[bytes, _Reading] = {}  # blocks that are being computed, and by whom

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.waiting or self._reading or self._answering)

    @torch.inference_mode()
    def step(self) -> None:
        """Do one step; where it fails, all requests in work fail with it, and the waiting ones go on."""
        try:
            self._drop_cancelled()
            self._admit()
            self._advance()
        except Exception as error:
            self._abandon(error)
        except BaseException:  # an interrupt: what is half done must not go on
            self._abandon(AuricleError("the engine was interrupted while it worked on this request; ask again"))
            raise

    @torch.inference_mode()
    def read_alone(self, prompt: Any, length: int, names: list[bytes], room: int) -> tuple[Tensor, Tensor]:
        """Read a prompt for which no answer is wanted.

        Returns:
            Memory with at least ``room`` places, the first ``length`` of them filled, and the last hidden state (H,).
        """
        (reading,) = self._open([(prompt, length, names, room)])
        while reading.last is None:
            count = min(self._prefill_tokens, length - reading.read)
            (hidden,) = self._decoder.read([reading.portion(count)])
            self._note_read(reading, count, hidden)
        return reading.memory, reading.last

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (M, H) → logits (M, V) float32."""
        return self._decoder.lm_head(hidden).float()

    def _advance(self) -> None:
        portions = self._portions()
        segments = [reading.portion(count) for reading, count in portions]
        if self._answering:
            segments.append(self._next_tokens())
        if not segments:
            return
        self.counts.steps += 1
        hidden = self._decoder.read(segments)
        for (reading, count), own in zip(portions, hidden, strict=False):
            self._note_read(reading, count, own)
        finished = [reading for reading, _ in portions if reading.last is not None]
        states = [reading.last[None] for reading in finished if reading.last is not None]
        if self._answering:
            self._rows.lengths = [length + 1 for length in self._rows.lengths]
            states.insert(0, hidden[-1][:, 0])
        if states:
            self._choose([*self._answering, *(r.request for r in finished if r.request)], torch.cat(states))
            self._settle(finished)

    def _choose(self, requests: Sequence[Request], hidden: Tensor) -> None:
        """Take the next token of each request after its last hidden state (M, H)."""
        chosen, logprobs, failed = choose([request.sampler for request in requests], self.logits(hidden))
        self.counts.answer_tokens += len(requests) - len(failed)
        for index, request in enumerate(requests):
            if index in failed:
                request.error = failed[index]
            else:
                request.take(chosen[index], logprobs[index])

    def _settle(self, finished: Sequence[_Reading]) -> None:
        """Rows that are done leave; prompts that are read become rows."""
        for row in reversed(range(len(self._answering))):
            if self._answering[row].is_done:
                self._leave(row)
        self._reading = [reading for reading in self._reading if reading.last is None]
        for reading in finished:
            if reading.request is not None and not reading.request.is_done:
                self._rows.join(reading.memory, reading.length, reading.request.room)
                self._answering.append(reading.request)
        if not self._answering and self._rows.memory.nbytes > _KEPT_IDLE:
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
            mask = torch.zeros(hidden.shape, dtype=self._rows.memory.dtype, device=device)
            mask = mask.masked_fill(hidden, -torch.inf)[:, None, None]
        last = torch.tensor([[request.sampler.ids[-1]] for request in self._answering], device=device)
        embeddings = self._decoder.get_input_embeddings()(last)
        memory = self._rows.memory[:, :, : len(self._answering)]
        return Segment(embeddings, lengths[:, None], memory, lengths, keys, mask)

    def _portions(self) -> list[tuple[_Reading, int]]:
        """What of the prompts being read is read in this step: the oldest first."""
        left, portions = self._prefill_tokens, []
        for reading in self._reading:
            if count := min(left, reading.length - reading.read):
                portions.append((reading, count))
                left -= count
        return portions

    def _note_read(self, reading: _Reading, count: int, hidden: Tensor) -> None:
        before = reading.read // BLOCK
        reading.read += count
        self.counts.read_tokens += count
        if reading.names:
            whole = reading.names[: reading.read // BLOCK]
            self.prefixes.write(whole, before, reading.memory)
            self._forget(reading, whole)
        if reading.read == reading.length:
            reading.last = hidden[0, -1]

    def _forget(self, reading: _Reading, names: Sequence[bytes]) -> None:
        """Blocks are no longer being computed by this reading."""
        for name in names:
            if self._coming.get(name) is reading:
                del self._coming[name]

    def _admit(self) -> None:
        """Begin to read as many waiting prompts as there is room for, their sounds encoded together."""
        backlog = sum(reading.length - reading.read for reading in self._reading)
        passed: list[Request] = []
        admitted: list[Request] = []
        claimed: set[bytes] = set(self._coming)
        busy = len(self._answering) + len(self._reading)
        room = max((request.room for request in self._tickets()), default=0)
        while self.waiting and busy + len(admitted) < self._max_batch and backlog < self._prefill_tokens:
            if len(passed) >= 4 * self._max_batch:
                break
            request = self.waiting.popleft()
            if request.is_cancelled:
                request.finish("cancelled")
                continue
            matched = self.prefixes.match(request.names)
            coming = request.names[matched : matched + _WORTH_WAITING]
            if len(coming) == _WORTH_WAITING and claimed.issuperset(coming):
                passed.append(request)
                continue
            room = max(room, request.room)
            if not self._fits(busy + len(admitted) + 1, room):
                passed.append(request)
                break
            admitted.append(request)
            claimed.update(request.names if self.prefixes.max_bytes else ())
            backlog += request.length - BLOCK * matched
        self.waiting.extendleft(reversed(passed))
        for request, reading in zip(admitted, self._begin(admitted), strict=True):
            if reading is not None:
                reading.request = request
                request.prompt = None  # the sounds are not needed any more
                self._reading.append(reading)
                for name in reading.names[reading.start // BLOCK :]:
                    self._coming.setdefault(name, reading)

    def _fits(self, batch: int, room: int) -> bool:
        return self._memory_bytes is None or batch == 1 or self._rows.num_bytes(batch, room) <= self._memory_bytes

    def _begin(self, requests: Sequence[Request]) -> list[_Reading | None]:
        """Open prompts; where that fails, only the requests fail that fail alone too."""
        if not requests:
            return []
        asked = [(request.prompt, request.length, request.names, request.length) for request in requests]
        try:
            return [*self._open(asked)]
        except Exception as error:
            if len(requests) == 1:
                requests[0].error = error
                return [None]
            return [self._begin([request])[0] for request in requests]

    def _open(self, asked: Sequence[tuple[Any, int, list[bytes], int]]) -> list[_Reading]:
        """Embed prompts (prompt, length, names of blocks, room) from where the prefix cache ends."""
        matched = [self.prefixes.match(names) for _, _, names, _ in asked]
        embeddings = self._embed([(each[0], BLOCK * count) for each, count in zip(asked, matched, strict=True)])
        readings = []
        for (_, length, names, room), count, part in zip(asked, matched, embeddings, strict=True):
            memory = self._decoder.new_cache(1, max(room, length))
            self.prefixes.read(names[:count], memory)
            self.counts.reused_tokens += BLOCK * count
            readings.append(_Reading(names, part, memory, BLOCK * count, length))
        return readings

    def _tickets(self) -> list[Request]:
        return [*self._answering, *(reading.request for reading in self._reading if reading.request is not None)]

    def _drop_cancelled(self) -> None:
        for row in reversed(range(len(self._answering))):
            if self._answering[row].is_cancelled:
                self._answering[row].finish("cancelled")
                self._leave(row)
        for reading in list(self._reading):
            if reading.request is not None and reading.request.is_cancelled:
                reading.request.finish("cancelled")
                self._forget(reading, reading.names)
                self._reading.remove(reading)

    def _abandon(self, error: Exception) -> None:
        for request in self._tickets():
            if not request.is_done:
                request.error = error
        self._answering, self._reading, self._coming = [], [], {}
        self._rows.clear()
