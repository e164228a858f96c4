"""Decode any audio file.

The result is a waveform at 16 kHz, mono, and the facts about the file. The container is recognised by its content,
and the limits hold while decoding, because headers lie.
"""

import io
from pathlib import Path

import numpy as np
import soundfile

import auricle
from auricle.audio import Limits, probe

clip = auricle.decode(Path(__file__).parent / "piano.ogg", start_s=1.0, stop_s=2.5)
print(clip.waveform.shape, clip.waveform.dtype, clip.facts.container, clip.facts.codec)

stereo = io.BytesIO()
soundfile.write(stereo, np.zeros((88_200, 2)), 44_100, format="WAV")
facts = probe(stereo.getvalue())
print(facts.sample_rate, "Hz,", facts.channels, "channels,", facts.duration_s, "s")
print("silent:", auricle.decode(stereo.getvalue()).facts.silent)

try:
    auricle.decode(stereo.getvalue(), limits=Limits(max_seconds=1.0))
except auricle.AuricleError as error:
    print(type(error).__name__, "-", error)
