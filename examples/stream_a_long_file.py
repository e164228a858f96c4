"""Stream a long file.

Memory is constant, and the answer is printed while it is generated. The file is read in windows of the longest
duration that the model was trained on.
"""

import tempfile
from pathlib import Path

import numpy as np
import soundfile

import auricle

CLIPS = Path(__file__).parent

parts = [auricle.decode(CLIPS / f"{name}.ogg").waveform for name in ("piano", "voice", "alarm")]
model = auricle.load("auricle-tiny")
with tempfile.TemporaryDirectory() as folder:
    soundfile.write(f"{folder}/long.flac", np.concatenate(parts * 3), 16_000)
    for piece in model.stream(f"{folder}/long.flac", "Write a general audio caption."):
        print(piece, end="", flush=True)
    print()
    for segment in model.describe(f"{folder}/long.flac", dense=True).segments:
        print(f"{segment.start_s:5.1f} to {segment.stop_s:5.1f} s: {segment.text}")
