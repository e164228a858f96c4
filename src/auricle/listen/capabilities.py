"""What an audio language model can do, as it states it itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Verb: TypeAlias = Literal["describe", "ask", "choose", "transcribe", "chat"]
VERBS: tuple[Verb, ...] = get_args(Verb)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """The verbs of a model and the limits of one prompt; clips of any length are given to it in windows."""

    verbs: tuple[Verb, ...]  # that it offers; each other one is a ConfigError
    max_audio_s: float  # longest clip in one prompt, s; longer sources are cut into windows
    sample_rate: int = 16_000  # Hz, at which it takes audio
    token_logprobs: bool = True  # whether the probabilities of the tokens of given answers are known
    system_turns: bool = True  # whether `chat` may have turns of the role system
    several_clips: bool = True  # whether a prompt may have more than one clip
