"""Waveforms as they are after a lossy codec, by libsndfile."""

import io
from typing import Any

import numpy as np

from auricle.data.mixing import SAMPLE_RATE, Waveform, place
from auricle.errors import ConfigError

OPUS_KBPS, MP3_KBPS = (6.0, 256.0), (8.0, 160.0)  # ends of the scales that libsndfile cuts into 0 … 1, at 16 kHz mono
_MP3_DELAY = 576 + 529  # samples of encoder and decoder, which files of low rates do not state


def opus(waveform: Waveform, kbps: float) -> Waveform:
    """Through Opus at a bit rate within `OPUS_KBPS`; the length is kept."""
    low, high = OPUS_KBPS
    share = (high - kbps) / (high - low)
    coded = through_file(waveform, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=share)
    return place(coded, 0, waveform.size)


def mp3(waveform: Waveform, kbps: float) -> Waveform:
    """Through MP3 at a constant bit rate within `MP3_KBPS`; the length is kept."""
    low, high = MP3_KBPS
    settings = {"compression_level": (high - kbps) / (high - low), "bitrate_mode": "CONSTANT"}
    coded = through_file(waveform, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III", **settings)
    start = _MP3_DELAY if coded.size >= waveform.size + _MP3_DELAY else 0
    return place(coded[start:], 0, waveform.size)


def through_file(waveform: Waveform, sample_rate: int, **codec: Any) -> Waveform:
    """Written and read again in memory; samples beyond 1 are clipped, and the length may change.

    Raises:
        ConfigError: libsndfile cannot write that format.
    """
    import soundfile

    file = io.BytesIO()
    try:
        soundfile.write(file, np.clip(waveform, -1, 1), sample_rate, **codec)
        file.seek(0)
        decoded, _ = soundfile.read(file, dtype="float32")
    except (soundfile.LibsndfileError, ValueError) as error:
        raise ConfigError(
            f"{codec['subtype']}: this installation of libsndfile cannot write it ({error}); leave the corruption out, "
            "or upgrade soundfile"
        ) from None
    found: Waveform = decoded
    return found
