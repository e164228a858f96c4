"""Process 1, 10 and 40 minutes: peak memory, time, coverage by the receipt; and transcripts of digits in a row.

python benchmarks/long_audio.py DATA [--model auricle-tiny] [--minutes 1 10 40] [-o FILE]

The files are recordings under DATA one after another, with pauses. Each length is processed in a new process. The
digits are of a speaker who is not in the embedded model's training data, twelve in a row with silence between; their
transcript is compared with those of the single recordings, whether these are right or not.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 16_000
PAUSE_S = 0.5
SPEAKER, IN_A_ROW, ROWS, WINDOW_S = "theo", 12, 8, 1.2


def write_file(data: Path, path: Path, seconds: float) -> None:
    """Recordings in random order until the file is long enough, written one by one."""
    from auricle.audio.decode import as_clip

    files = [*sorted(data.glob("esc10/audio/*")), *sorted(data.glob("fsdd/recordings/*"))]
    rng = random.Random(0)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        left = int(seconds * RATE)
        while left:
            clip = np.concatenate([as_clip(rng.choice(files)).waveform, np.zeros(int(PAUSE_S * RATE), np.float32)])
            file.write(clip[:left])
            left -= min(left, len(clip))


def process(path: str, verb: str, model: str) -> dict[str, Any]:
    """One verb on one file in this process."""
    import auricle

    loaded = auricle.load(model)
    # A full batch of the longest windows first: what one batch costs is no growth.
    list(loaded.describe_many([np.full(int(loaded.max_audio_s * RATE), 0.01 * n, np.float32) for n in range(1, 9)]))
    loaded_mb, start = _peak_mb(), time.monotonic()
    result = loaded.describe(path) if verb == "describe" else loaded.transcribe(path)
    seconds = soundfile.info(path).duration
    spans = sorted([*result.receipt.read, *result.receipt.dropped], key=lambda span: span.start_s)
    covers = spans[0].start_s == 0 and abs(spans[-1].stop_s - seconds) < 1e-3
    covers = covers and all(left.stop_s == right.start_s for left, right in pairwise(spans))
    took_s = time.monotonic() - start
    return {
        "verb": verb,
        "audio_s": round(seconds, 1),
        "took_s": round(took_s, 1),
        "times_real_time": round(seconds / took_s, 1),
        "windows": len(result.receipt.read),
        "overlaps": len(result.receipt.overlaps),
        "receipt_covers_all": covers and result.receipt.complete,
        "peak_mb": round(_peak_mb()),
        "peak_mb_after_loading": round(loaded_mb),
    }


def stitched(data: Path, model: str, pause_s: float) -> dict[str, Any]:
    """Digits in a row, transcribed together and one by one."""
    import auricle
    from auricle.audio.decode import as_clip
    from auricle.metrics.word_errors import edit_distance

    loaded, rng = auricle.load(model), random.Random(0)
    loaded.open_speech_below = None  # whatever it writes is compared
    files = sorted(data.glob(f"fsdd/recordings/*_{SPEAKER}_*"))
    rows = [rng.sample(files, IN_A_ROW) for _ in range(ROWS)]
    pause, equal, edits = np.zeros(int(pause_s * RATE), np.float32), 0, 0
    for row in rows:
        clips = [as_clip(file).waveform for file in row]
        alone = [word for clip in clips for word in loaded.transcribe(clip).text.split()]
        together = loaded.transcribe(
            np.concatenate([part for clip in clips for part in (clip, pause)]), window_s=WINDOW_S
        )
        differing = edit_distance(together.text.split(), alone)
        equal, edits = equal + (differing == 0), edits + differing
    return {"pause_s": pause_s, "window_s": WINDOW_S, "rows": ROWS, "digits": IN_A_ROW, "equal": equal, "edits": edits}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Write the files, process each in a process of its own, print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="auricle-tiny")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 40])
    parser.add_argument("--verbs", nargs="+", default=["describe", "transcribe"])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.file:
        print(json.dumps(process(arguments.file, arguments.verbs[0], arguments.model)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in arguments.minutes:
            path = Path(folder) / f"{minutes:g}.flac"
            write_file(arguments.data, path, minutes * 60)
            for verb in arguments.verbs:
                command = [sys.executable, __file__, str(arguments.data), "--model", arguments.model, "--verbs", verb]
                done = subprocess.run([*command, "--file", str(path)], check=True, capture_output=True, text=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(rows[-1], flush=True)
    # Last: a process starts with the peak memory of the one that starts it.
    digits = [stitched(arguments.data, arguments.model, pause_s) for pause_s in (0.5, 1.0)]
    print(*digits, sep="\n")
    if arguments.output:
        content = {"model": arguments.model, "rows": rows, "stitched": digits}
        arguments.output.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
