"""Auricle's settings in a model's ``generation_config.json``: the longest audio, when to withhold a transcript,
how the confidence of a result is made, and which results are unsure.
"""

from __future__ import annotations

import math
from pathlib import Path

from auricle.errors import ConfigError
from auricle.weights.layouts import optional_json

MAX_AUDIO_KEY = "auricle_max_audio_s"  # longest clip the model was trained on, s
MAX_PROMPT_KEY = "auricle_max_prompt_s"  # the same for all clips of one prompt, where it was trained on several
NO_SPEECH_KEY = "auricle_no_speech_logprob"  # see `auricle.listen.no_speech.NoSpeechRule`
UNSURE_KEY = "auricle_unsure_below"  # confidence, 0 to 1, below which a result is called unsure
OPEN_SPEECH_KEY = "auricle_open_speech_below"  # see `auricle.listen.no_speech.is_open_speech`
# Of the confidence of each kind of result, see `auricle.listen.confidence.Calibration`.
SLOPE_KEYS = {kind: f"auricle_{kind}_confidence_slope" for kind in ("caption", "answer", "transcript", "label")}
OFFSET_KEYS = {kind: f"auricle_{kind}_confidence_offset" for kind in SLOPE_KEYS}
CALIBRATION_KEYS = (*SLOPE_KEYS.values(), *OFFSET_KEYS.values())
_KEYS = (MAX_AUDIO_KEY, MAX_PROMPT_KEY, NO_SPEECH_KEY, UNSURE_KEY, OPEN_SPEECH_KEY, *CALIBRATION_KEYS)


def stated_settings(folder: Path) -> dict[str, float]:
    """Read those of the keys above that are in a model's folder.

    Raises:
        ConfigError: a value is not a number, or a bound on a confidence is not within 0 and 1.
    """
    file = folder / "generation_config.json"
    found = optional_json(file)
    stated = {key: found[key] for key in _KEYS if key in found}
    for key, value in stated.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ConfigError(f"{file}: {key} is {value!r}; expected a number")
        if key in (UNSURE_KEY, OPEN_SPEECH_KEY) and not 0 <= value <= 1:
            raise ConfigError(f"{file}: {key} is {value!r}; expected 0 to 1")
    return stated
