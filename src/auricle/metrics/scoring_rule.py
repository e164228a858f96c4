"""The rule by which answers and predictions are scored."""

from typing import Literal

ScoringRule = Literal["compat", "strict"]  # as published, with its faults; or corrected
