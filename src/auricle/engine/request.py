"""Sampling parameters, constraints, tokens and answers: what a user of the engine gives and gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypedDict

from torch import Tensor

from auricle.data.untrusted_json import check_characters
from auricle.errors import AuricleError, ConfigError, check_number, hint_names

_MOST = 2**31  # of counts
MOST_TOP = 20  # of log-probabilities at one place
_TINY = 1e-6  # of factors; beyond it, and its inverse, logits are not finite

Stopped = Literal["eos", "length", "stop", "cancelled"]
TopLogprobs: TypeAlias = tuple[tuple[int, float], ...]  # token ids and their log-probabilities, the likeliest first


class EngineBusy(AuricleError):
    """Too many requests wait for the engine."""


class PromptLike(Protocol):
    """Token ids with expanded placeholders, and the clips (N_i,) that fill them."""

    @property
    def input_ids(self) -> Sequence[int]:
        """L token ids."""

    @property
    def clips(self) -> Sequence[Tensor]:
        """Waveforms (N_i,) float32 mono 16 kHz, in order."""


class Constraint(Protocol):
    """Which answers are allowed; one object serves one request."""

    def allowed(self, ids: Sequence[int]) -> Sequence[int] | Tensor | None:
        """Token ids that may follow the answer ``ids`` so far, end tokens included where it may end.

        A sequence, or a tensor of ids (int64) or of one bool per token (V,); None: all. Called once per token.
        """


class Token(NamedTuple):
    """One token of an answer, as soon as its text is certain."""

    id: int
    logprob: float  # nats, under the unchanged model distribution
    text: str  # "" where a character is spread over tokens and ends in a later one
    top: TopLogprobs = ()  # of all tokens at this place, as many as ``top_logprobs`` asks for


@dataclass(frozen=True, slots=True)
class Generation:
    """The answer to one prompt."""

    ids: list[int]  # new tokens without the end token; with "stop" those that spell the text before the stop string
    stopped: Stopped
    mean_logprob: float  # mean of logprobs, nats; 0 where there are none
    logprobs: tuple[float, ...] = ()  # of each token of ids, then of the end token where there was one, see `Token`
    text: str | None = None  # ids decoded, cut before the stop string; None where the engine has no tokenizer


class SamplingOptions(TypedDict, total=False):
    """`SamplingParams` as keyword arguments, such as those of `auricle.listen.AudioLM.ask`; all are optional."""

    max_new_tokens: int
    min_new_tokens: int
    do_sample: bool
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int | None
    stop: tuple[str, ...]
    top_logprobs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How the next token is chosen; the default is greedy."""

    max_new_tokens: int = 128  # of an answer: a caption of several sentences, or 30 s of fast speech
    min_new_tokens: int = 0  # end tokens are forbidden before, unless a constraint leaves nothing else
    do_sample: bool = False  # sample at random instead of taking the most likely token
    temperature: float = 1.0  # divides the logits
    top_p: float = 1.0  # nucleus sampling: from the smallest set of tokens with at least this probability
    top_k: int = 0  # sample from this many tokens; 0: all
    repetition_penalty: float = 1.0  # on tokens generated so far, not on the prompt (arXiv 1909.05858 §4.1)
    seed: int | None = None  # of each request's random numbers; None: fresh ones
    stop: tuple[str, ...] = ()  # the answer ends before the first of these strings
    top_logprobs: int = 0  # likeliest tokens, with their log-probabilities, that a streamed token states beside itself

    def __post_init__(self) -> None:
        # A lone string would be taken for its letters, and a list comes from JSON.
        given: Any = self.stop
        stop = (given,) if isinstance(given, str) else tuple(given)
        object.__setattr__(self, "stop", stop)
        most = self.max_new_tokens
        check_number("max_new_tokens", most, least=1, most=_MOST, whole=True)
        ranges: dict[str, tuple[float, float, bool, str]] = {
            "min_new_tokens": (0, most, True, "between 0 and max_new_tokens"),
            "temperature": (_TINY, 1 / _TINY, False, "above 0; for greedy choice leave do_sample off"),
            "top_p": (_TINY, 1, False, "in (0, 1]"),
            "top_k": (0, _MOST, True, "0 (all) or more"),
            "repetition_penalty": (_TINY, 1 / _TINY, False, "above 0"),
            "top_logprobs": (0, MOST_TOP, True, f"0 to {MOST_TOP}"),
        }
        for name, (least, largest, whole, wanted) in ranges.items():
            check_number(name, getattr(self, name), least=least, most=largest, whole=whole, expected=wanted)
        if self.seed is not None:
            check_number("seed", self.seed, least=-(2**63), most=2**64 - 1, whole=True)
        for each in stop:
            check_characters(each, "stop")
        if not all(stop):
            raise ConfigError(f"stop is {stop}; expected strings that are not empty")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SamplingParams:
        """Sampling parameters from keyword arguments.

        Raises:
            ConfigError: an unknown option, or one out of range.
        """
        known = [each.name for each in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"unknown option {name!r}.{hint_names(name, known)}")
        return cls(**options)
