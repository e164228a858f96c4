"""Read a receipt.

It states which seconds of a file the model processed, and what was wrong with the file. Here the second half of a
file is missing. What is there is described, and the receipt says what is not.
"""

import tempfile
from pathlib import Path

import auricle

data = (Path(__file__).parent / "piano.ogg").read_bytes()
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "cut.ogg")
    file.write_bytes(data[: len(data) // 2])
    description = auricle.load("auricle-tiny").describe(file)

receipt = description.receipt
print("caption:", description.caption)
print("complete:", receipt.complete, " truncated:", receipt.truncated)
print("read:", [(span.start_s, span.stop_s) for span in receipt.read])
print("notes:", list(receipt.notes))
