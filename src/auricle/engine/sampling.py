"""Logits → the next token of each row, which depends on its own settings, tokens and random numbers.

Shape legend: B rows, V vocabulary.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from auricle.engine.request import Constraint, SamplingParams, TopLogprobs
from auricle.errors import ConfigError, WeightsError
from auricle.models.frame_model import NOT_FINITE


@dataclass(slots=True, eq=False)
class Sampler:
    """The tokens of one answer so far, and how the next is chosen."""

    sampling: SamplingParams
    ends: frozenset[int]  # tokens that end the answer
    constraint: Constraint | None = None
    ids: list[int] = field(default_factory=list)
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Seed the request's own random numbers: its place in a batch must not change them."""
        self.rng = random.Random(self.sampling.seed)

    @property
    def is_edited(self) -> bool:
        """Whether the logits are changed before the next choice."""
        penalised = self.sampling.repetition_penalty != 1.0 and bool(self.ids)
        return penalised or self._is_too_short or self.constraint is not None

    @property
    def _is_too_short(self) -> bool:
        return bool(self.ends) and len(self.ids) < self.sampling.min_new_tokens

    def edit(self, logits: Tensor) -> None:
        """Penalise and forbid, in place, in this row's logits (V,).

        Raises:
            ConfigError: the constraint allows nothing.
        """
        penalty = self.sampling.repetition_penalty
        if penalty != 1.0 and self.ids:
            seen = torch.tensor(sorted(set(self.ids)), dtype=torch.long, device=logits.device)
            before = logits[seen]
            logits[seen] = torch.where(before > 0, before / penalty, before * penalty)
        self._constrain(logits)
        if self._is_too_short:
            ends = torch.tensor(sorted(self.ends), dtype=torch.long, device=logits.device)
            kept = logits[ends]
            logits[ends] = -torch.inf
            if self.constraint is not None and not bool((logits > -torch.inf).any()):
                logits[ends] = kept

    def _constrain(self, logits: Tensor) -> None:
        allowed = None if self.constraint is None else self.constraint.allowed(self.ids)
        if allowed is None:
            return
        mask = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        chosen = torch.as_tensor(allowed, device=logits.device)
        if chosen.dtype == torch.bool:
            mask[: len(chosen)] = chosen
        else:
            mask[chosen.long()] = True
        if not bool(mask.any()):
            raise ConfigError(
                f"the constraint allows nothing after {len(self.ids)} tokens; expected token ids, with an end token "
                "where the answer may end"
            )
        logits.masked_fill_(~mask, -torch.inf)


def choose(rows: Sequence[Sampler], logits: Tensor) -> tuple[list[int], list[float], dict[int, Exception]]:
    """The next token of each row.

    Args:
        rows: B samplers; only their random numbers advance.
        logits: (B, V) float32.

    Returns:
        Token ids, their log-probabilities under the unchanged ``logits``, and the errors by row.
    """
    edited, failed = logits, {}
    if any(row.is_edited for row in rows):
        edited = logits.clone()
        for index, row in enumerate(rows):
            if row.is_edited:
                try:
                    row.edit(edited[index])
                except Exception as error:  # a constraint is the user's code; the other rows go on
                    failed[index] = error
                    edited[index] = logits[index]
    chosen = edited.argmax(-1)
    if sampled := [index for index, row in enumerate(rows) if row.sampling.do_sample]:
        chosen[sampled] = _sample([rows[index] for index in sampled], edited[sampled])
    logprobs = (logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
    # Not finite where any logit of the row is NaN or infinite.
    lost = [index for index, logprob in enumerate(logprobs) if not math.isfinite(logprob)]
    return chosen.tolist(), logprobs, {**{index: WeightsError(NOT_FINITE) for index in lost}, **failed}


def most_likely(row: Sampler, logits: Tensor) -> TopLogprobs:
    """The likeliest tokens of a row (V,) under the unchanged model distribution, where its settings ask for some."""
    if not row.sampling.top_logprobs:
        return ()
    found = (logits - logits.logsumexp(-1)).topk(min(row.sampling.top_logprobs, len(logits)))
    return tuple(zip(found.indices.tolist(), found.values.tolist(), strict=True))


def _sample(rows: Sequence[Sampler], logits: Tensor) -> Tensor:
    """One sample a row, (B,), by inverting the distribution function at the row's next random number."""
    settings = [row.sampling for row in rows]
    logits = _candidates(settings, logits)
    # Sums of 150,000 float32 would move the borders between tokens.
    cumulative = logits.double().softmax(-1).cumsum(-1)
    at = torch.tensor([row.rng.random() for row in rows], dtype=torch.float64, device=logits.device)
    # Below the sum of all, even where rounding brought it down to that of the last candidate.
    at = at * cumulative[:, -1] * (1 - 1e-12)
    return torch.searchsorted(cumulative, at[:, None], right=True)[:, 0]


def _candidates(settings: Sequence[SamplingParams], logits: Tensor) -> Tensor:
    """Divide (B, V) by the temperature, and set all but the candidates to -inf; the most likely token always stays."""
    device = logits.device
    logits = logits / torch.tensor([each.temperature for each in settings], device=device)[:, None]
    size = logits.shape[-1]
    counts = [each.top_k if 0 < each.top_k < size else size for each in settings]
    if min(counts) < size:
        narrow = max(count for count in counts if count < size)
        best = logits.topk(narrow).values
        last = torch.tensor([min(count, narrow) - 1 for count in counts], device=device)
        least = best.gather(1, last[:, None])
        limited = torch.tensor([count < size for count in counts], device=device)[:, None]
        logits = logits.masked_fill(limited & (logits < least), -torch.inf)
    if min(each.top_p for each in settings) < 1:
        share = torch.tensor([each.top_p for each in settings], device=device)[:, None]
        ordered, order = logits.sort(dim=-1, descending=True)
        shares = ordered.softmax(-1)
        cut = (shares.cumsum(-1) - shares >= share) & (share < 1)
        logits = logits.masked_fill(cut.scatter(1, order, cut), -torch.inf)
    return logits
