"""Chat about two clips.

Turns may hold any number of clips and texts, in any order. The embedded model was trained on one clip a prompt: it
answers, but the answer means little. `midashenglm-7b` takes the same messages.
"""

from pathlib import Path

import auricle

CLIPS = Path(__file__).parent

model = auricle.load("auricle-tiny")
content = [
    {"type": "audio", "audio": CLIPS / "voice.ogg"},
    {"type": "audio", "audio": CLIPS / "two_voices.ogg"},
    {"type": "text", "text": "Is the speaker male or female?"},
]
print(model.chat([{"role": "user", "content": content}]))
