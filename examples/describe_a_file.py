"""Describe a file.

The embedded model knows little: the man is right, but the instrument is a piano. For serious work load a published
one.
"""

from pathlib import Path

import auricle

CLIPS = Path(__file__).parent

model = auricle.load("auricle-tiny")  # or a hub id such as "mispeech/midashenglm-7b", or a folder
description = model.describe(CLIPS / "voice_over_piano.ogg")
print(description.caption)

for result in model.describe_many(sorted(CLIPS.glob("*.ogg"))):  # in batches; a damaged file gives its error
    if isinstance(result, auricle.AuricleError):
        print("not read:", result)
    else:
        print(f"{Path(result.receipt.file).name:22} {result.caption}")
