"""What an audio language model can do, as it states it itself, and where replies of servers are kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

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

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "verbs": list(self.verbs)}


class Journal(Protocol):
    """Replies of a server by request, see `AudioLM.journal`."""

    def get(self, key: str) -> str | None:
        """The reply to a request; None: there is none yet."""

    def add(self, key: str, reply: str) -> None:
        """Keep a reply, before anything else is done with it."""
