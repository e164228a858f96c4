"""The begin of a sound as a small file that browsers play."""

from __future__ import annotations

import io

import numpy as np

from auricle.audio.decode import decode
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import Source


def encode_excerpt(source: Source, *, seconds: float = 10.0, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The first ``seconds`` of a sound as Ogg Vorbis, 16 kHz mono; about 6 kB a second.

    Nothing of the source but what is heard gets into the file: no tags, no pictures. Raises as `decode`.
    """
    import soundfile

    waveform = np.clip(decode(source, stop_s=seconds, limits=limits).waveform, -1.0, 1.0)
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", SAMPLE_RATE, 1, format="OGG", subtype="VORBIS") as writer:
        # In parts, as older encoders overflow their stack over one long write.
        for start in range(0, len(waveform), SAMPLE_RATE):
            writer.write(waveform[start : start + SAMPLE_RATE])
    return file.getvalue()
