"""Transcribe in windows.

The embedded model was trained on single spoken digits, so it needs short windows, and gives no words where it is unsure
that these are digits: `raw_text` has what it wrote. A published model takes windows of
30 seconds, and `overlap_s` joins them where the words agree.
"""

from pathlib import Path

import auricle

model = auricle.load("auricle-tiny")
transcript = model.transcribe(Path(__file__).parent / "voice.ogg", window_s=1.2)
print(transcript.in_words)
print("It wrote:", transcript.raw_text)
for segment in transcript.segments:
    print(f"{segment.start_s:5.2f} to {segment.stop_s:5.2f} s: {segment.text or segment.open_speech}")
