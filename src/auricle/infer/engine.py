"""Prompts → generated tokens: batches without waste, greedy or sampled.

A batch is padded on the left and masked, a finished row leaves it, and each row draws from its own random numbers, so
what a prompt gets does not depend on its neighbours.

Shape legend: B rows still running, L prompt tokens, V vocabulary, H decoder width.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from auricle.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from transformers import DynamicCache

    from auricle.models.midashenglm import MiDashengLM


class PromptLike(Protocol):
    """Token ids with expanded placeholders, and the clips (N_i,) that fill them."""

    @property
    def input_ids(self) -> Sequence[int]:
        """L token ids."""

    @property
    def clips(self) -> Sequence[Tensor]:
        """Waveforms (N_i,) float32 mono 16 kHz, in order."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What followed one prompt."""

    ids: list[int]  # new tokens, without the end token
    stopped: Literal["eos", "length"]
    mean_logprob: float  # nats per chosen token (the end token included) under the unchanged model distribution


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How the next token is chosen; the default is greedy."""

    max_new_tokens: int = 128
    min_new_tokens: int = 0  # end tokens are forbidden before
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0  # smallest set of tokens with at least this probability
    top_k: int = 0  # 0: all
    repetition_penalty: float = 1.0  # on tokens generated so far, not on the prompt (arXiv 1909.05858 §4.1)
    seed: int | None = None  # of each row's random numbers; None: fresh ones

    def __post_init__(self) -> None:
        """Reject settings out of range."""
        checks = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "min_new_tokens": (0 <= self.min_new_tokens <= self.max_new_tokens, "between 0 and max_new_tokens"),
            "temperature": (0 < self.temperature < float("inf"), "above 0; for greedy choice leave do_sample off"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "top_k": (self.top_k >= 0, "0 (all) or more"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "above 0"),
        }
        for name, (is_valid, wanted) in checks.items():
            if not is_valid:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected {wanted}")


@dataclass(slots=True)
class _Row:
    """A prompt that is being answered."""

    index: int
    generator: torch.Generator | None
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    steps: int = 0

    def finish(self, stopped: Literal["eos", "length"]) -> Generation:
        return Generation(self.ids, stopped, self.logprob / max(self.steps, 1))


@torch.inference_mode()
def generate(
    lm: MiDashengLM,
    prompts: Sequence[PromptLike],
    *,
    eos_token_ids: Collection[int],
    pad_token_id: int,
    max_new_tokens: int = 128,
    min_new_tokens: int = 0,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
) -> list[Generation]:
    """Answer prompts as one batch; the clips of all of them are encoded once, packed.

    Args:
        lm: the model, in evaluation mode.
        prompts: at least one token each.
        eos_token_ids: tokens that end an answer; empty: only the length does.
        pad_token_id: fills rows on the left; never attended to.
        max_new_tokens: tokens per answer at most.
        min_new_tokens: see `Decoding`, as for all that follows.
        do_sample: draw instead of taking the likeliest token.
        temperature: divides the logits.
        top_p: nucleus.
        top_k: candidates.
        repetition_penalty: above 1 discourages tokens generated before.
        seed: of the random numbers.

    Returns:
        One `Generation` per prompt, in order.

    Raises:
        ConfigError: a setting out of range.
        PromptError: an empty prompt, placeholders that do not fit the clips, or no room for the answer in the context.
    """
    decoding = Decoding(
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        do_sample=do_sample,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    return _Run(lm, decoding, frozenset(eos_token_ids), pad_token_id).answer(prompts)


def check_room(lm: MiDashengLM, prompt: PromptLike, max_new_tokens: int) -> None:
    """Raise `PromptError` where a prompt is empty, or does not fit into the context of the decoder with its answer."""
    if not prompt.input_ids:
        raise PromptError("a prompt is empty; expected at least one token")
    context = lm.decoder.config.max_position_embeddings
    if len(prompt.input_ids) + max_new_tokens > context:
        raise PromptError(
            f"the prompt has {len(prompt.input_ids)} tokens and asks for {max_new_tokens} more; "
            f"the model's context holds {context}. Shorten the audio or text, or lower max_new_tokens"
        )


class _Run:
    """One call of `generate`."""

    def __init__(self, lm: MiDashengLM, decoding: Decoding, ends: frozenset[int], pad_token_id: int) -> None:
        self.lm, self.decoding, self.ends, self.pad_token_id = lm, decoding, ends, pad_token_id
        self.device: torch.device = lm.decoder.device
        self.end_ids = torch.tensor(sorted(ends), dtype=torch.long, device=self.device)
        # transformers 5.24 renamed it.
        takes = inspect.signature(lm.decoder.model.forward).parameters
        self.cache_keyword = "cache" if "cache" in takes else "past_key_values"

    def answer(self, prompts: Sequence[PromptLike]) -> list[Generation]:
        if not prompts:
            return []
        for prompt in prompts:
            check_room(self.lm, prompt, self.decoding.max_new_tokens)
        from transformers import DynamicCache

        cache = DynamicCache()
        ids, mask = self._pad(prompts)
        clips = [clip.to(self.device) for prompt in prompts for clip in prompt.clips]
        logits = self._step(self.lm.embed(ids, clips), mask, cache)
        rows = [_Row(index, self._generator()) for index in range(len(prompts))]
        done: dict[int, Generation] = {}
        while True:
            chosen = self._choose(rows, logits)
            keep = self._note(rows, chosen, done)
            if not keep:
                return [done[index] for index in range(len(prompts))]
            if len(keep) < len(rows):
                kept = torch.tensor(keep, device=self.device)
                cache.batch_select_indices(kept)
                mask, chosen = mask[kept], chosen[kept]
                rows = [rows[i] for i in keep]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._step(self.lm.decoder.get_input_embeddings()(chosen[:, None]), mask, cache)

    def _pad(self, prompts: Sequence[PromptLike]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, (B, L) int64, padded on the left."""
        longest = max(len(prompt.input_ids) for prompt in prompts)
        ids = torch.full((len(prompts), longest), self.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            start = longest - len(prompt.input_ids)
            ids[row, start:] = torch.tensor(prompt.input_ids)
            mask[row, start:] = 1
        return ids.to(self.device), mask.to(self.device)

    def _step(self, embeddings: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Run (B, new, H) and return the float32 logits (B, V) of the last position; the cache grows."""
        new = embeddings.shape[1]
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -new:]
        hidden = self.lm.decoder.model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **{self.cache_keyword: cache},
        ).last_hidden_state
        return self.lm.decoder.lm_head(hidden[:, -1]).float()

    def _generator(self) -> torch.Generator | None:
        if not self.decoding.do_sample:
            return None
        generator = torch.Generator()
        if self.decoding.seed is None:
            generator.seed()
        else:
            # Every row starts alike: what a prompt gets must not depend on its place in the batch.
            generator.manual_seed(self.decoding.seed)
        return generator

    def _choose(self, rows: list[_Row], logits: Tensor) -> Tensor:
        """Next token of each row, (B,); its log-probability is added to the row."""
        logprobs = logits.log_softmax(-1)
        if self.decoding.repetition_penalty != 1.0:
            logits = self._penalise(rows, logits)
        if self.ends and rows[0].steps < self.decoding.min_new_tokens:
            logits = logits.index_fill(1, self.end_ids, -torch.inf)
        if self.decoding.do_sample:
            probabilities = self._candidates(logits).softmax(-1).cpu()
            drawn = [
                torch.multinomial(each, 1, generator=row.generator)
                for each, row in zip(probabilities, rows, strict=True)
            ]
            chosen = torch.cat(drawn).to(self.device)
        else:
            chosen = logits.argmax(-1)
        for row, logprob in zip(rows, logprobs.gather(1, chosen[:, None])[:, 0].tolist(), strict=True):
            row.logprob += logprob
            row.steps += 1
        return chosen

    def _penalise(self, rows: list[_Row], logits: Tensor) -> Tensor:
        logits = logits.clone()
        for values, row in zip(logits, rows, strict=True):
            seen = torch.tensor(sorted(set(row.ids)), dtype=torch.long, device=self.device)
            before = values[seen]
            penalty = self.decoding.repetition_penalty
            values[seen] = torch.where(before > 0, before / penalty, before * penalty)
        return logits

    def _candidates(self, logits: Tensor) -> Tensor:
        """Temper (B, V) and put all but the allowed tokens to -inf; the likeliest always stays."""
        logits = logits / self.decoding.temperature
        if 0 < self.decoding.top_k < logits.shape[-1]:
            least = logits.topk(self.decoding.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.decoding.top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True)
            shares = ordered.softmax(-1)
            before = shares.cumsum(-1) - shares
            cut = (before >= self.decoding.top_p).scatter(1, order, before >= self.decoding.top_p)
            logits = logits.masked_fill(cut, -torch.inf)
        return logits

    def _note(self, rows: list[_Row], chosen: Tensor, done: dict[int, Generation]) -> list[int]:
        """File the chosen tokens; finished rows go to ``done``, the places of the others are returned."""
        keep = []
        for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            if token in self.ends:
                done[row.index] = row.finish("eos")
                continue
            row.ids.append(token)
            if len(row.ids) == self.decoding.max_new_tokens:
                done[row.index] = row.finish("length")
            else:
                keep.append(place)
        return keep
