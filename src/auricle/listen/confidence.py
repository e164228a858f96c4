"""How the probability of an answer's tokens becomes the confidence that is stated, and how doubt is said in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from auricle.data.vocabulary import LANGUAGES
from auricle.metrics.calibration import UNCHANGED, LogisticMap

UNSURE_CAPTION = "Unclear sound, perhaps"  # before a caption that its model is unsure of


@dataclass(frozen=True, slots=True)
class ConfidenceRule:
    """What is stated of one kind of result."""

    map: LogisticMap = UNCHANGED
    unsure_below: float | None = None  # confidence, 0 to 1; None: nothing is called unsure
    is_contradicted: bool = False  # what was measured speaks against the result, whatever its confidence

    def of(self, logprob: float) -> float:
        """The confidence of a result whose probability, as its kind has it, is ``exp(logprob)``."""
        return round(self.map(math.exp(logprob)), 4)

    def is_unsure(self, confidence: float | None) -> bool:
        """Whether a confidence is below the bound; what a rule set has none, and is sure."""
        if confidence is None or self.unsure_below is None:
            return False
        return self.is_contradicted or confidence < self.unsure_below


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How the confidences of a model are made of its probabilities, by kind of result; as it stands, they are these."""

    caption: LogisticMap = UNCHANGED  # of the mean probability of a token, geometric
    answer: LogisticMap = UNCHANGED  # the same
    transcript: LogisticMap = UNCHANGED  # the same
    label: LogisticMap = UNCHANGED  # of the probability of the chosen option among all


def doubtful(caption: str) -> str:
    """A caption in words that state the doubt: "A dog barks." is "Unclear sound, perhaps a dog barks."."""
    first = caption.split(maxsplit=1)[0] if caption.split() else ""
    is_name = first in LANGUAGES.values() or first == "I" or first[1:] != first[1:].lower()
    return f"{UNSURE_CAPTION} {caption if is_name else caption[:1].lower() + caption[1:]}"
