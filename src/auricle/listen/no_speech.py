"""When a transcript is withheld: the model itself rates it likely that nobody speaks, or that the speech is of other
kinds than it was trained to write down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from auricle.data.vocabulary import LANGUAGES
from auricle.data.wording import NO_SPEECH, OPEN_SPEECH
from auricle.errors import ConfigError

SUGGESTED = "whisper:base"  # a model for speech of any kind, see `auricle.listen.other_models.whisper`
UNWRITTEN = "it was not trained to write down this speech"  # of a model whose card says nothing of it
_LANGUAGE = "|".join(map(re.escape, {**dict.fromkeys(LANGUAGES.values()), "an unknown language": None}))
# What a model may answer to such speech, see `auricle.data.wording.transcript`.
_OPEN_SPEECH = re.compile(
    rf"(?:open )?({OPEN_SPEECH} (?:{_LANGUAGE})(?: and (?:{_LANGUAGE}))*)(?:[;,.]|$)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class NoSpeechRule:
    """The answer "no speech" overrules a transcript from this log-probability on.

    A greedy transcript does not show how likely the answer "no speech" was: where the probability is spread over many
    words, none of them likely, "no speech" is never the first choice. It is compared with a bound from `calibrate`.
    """

    min_logprob: float | None = None  # nats of the whole answer "no speech"; None: only its own text counts

    def __post_init__(self) -> None:
        if self.min_logprob is not None and not self.min_logprob <= 0:
            raise ConfigError(f"the log-probability of no speech is {self.min_logprob}; expected nats, 0 or less")

    def can_deny(self, transcript_logprob: float) -> bool:
        """Whether "no speech" can be likely enough beside a transcript of this log-probability (nats, whole answer).

        The two exclude each other, so a likely transcript settles it without scoring.
        """
        if self.min_logprob is None:
            return False
        return transcript_logprob < 0 and math.log1p(-math.exp(transcript_logprob)) >= self.min_logprob

    def denies(self, no_speech_logprob: float) -> bool:
        """Whether "no speech" of this log-probability (nats, whole answer) overrules the transcript."""
        return self.min_logprob is not None and no_speech_logprob >= self.min_logprob


def is_no_speech(text: str) -> bool:
    """Whether an answer is the one that models are trained to give for clips without speech."""
    return text.rstrip(".").lower() == NO_SPEECH


def open_speech(text: str, confidence: float | None, below: float | None) -> str:
    """What a transcript is by its model's own account, where that is speech that it was not trained to write down.

    Args:
        text: of the transcript.
        confidence: see `auricle.listen.Answer`.
        below: words with less confidence are taken for such speech; None: the model was trained on all speech.

    Returns:
        "speech in English" where the model names the language, else "speech"; empty: the text holds the words.
    """
    if below is None or not text:
        return ""
    if found := _OPEN_SPEECH.match(text):
        return f"{OPEN_SPEECH}{found[1][len(OPEN_SPEECH) :]}"
    return "speech" if confidence is not None and confidence < below else ""


def spoken_language(phrase: str) -> str | None:
    """The code of the language that `open_speech` names; None: it names none, or several."""
    name = phrase.removeprefix(f"{OPEN_SPEECH} ").lower()
    return next((code for code, each in LANGUAGES.items() if each.lower() == name), None)


def calibrate(speech: Sequence[float], other: Sequence[float]) -> float:
    """Choose the bound between two sets of clips.

    Args:
        speech: log-probability of "no speech" for clips in which somebody speaks, nats.
        other: the same for clips in which nobody does.

    Returns:
        The bound with the fewest errors of both kinds, each kind weighted by its share; of equal ones the middle.

    Raises:
        ConfigError: one of the sets is empty.
    """
    if not speech or not other:
        raise ConfigError(f"{len(speech)} clips with and {len(other)} without speech; expected some of both")
    values = sorted({*speech, *other})
    bounds = [values[0], *(low + (high - low) / 2 for low, high in pairwise(values)), 0.0]

    def errors(bound: float) -> float:
        missed = sum(value >= bound for value in speech) / len(speech)
        return missed + sum(value < bound for value in other) / len(other)

    fewest = min(map(errors, bounds))
    best = [bound for bound in bounds if errors(bound) <= fewest + 1e-12]
    return best[len(best) // 2]
