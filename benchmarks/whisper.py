"""Word error rates of a Whisper model here and in faster-whisper alone, and a long file with its receipt.

python benchmarks/whisper.py DATA [--model whisper:base] [--clips 120] [--minutes 12] [-o FILE]

DATA holds speechocean762. The clips are of its test part, evenly spread over it, and faster-whisper reads the files
itself, with its own settings. The long file is such clips with half a second of silence or room noise between them.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import auricle
from auricle.audio.decode import as_clip
from auricle.metrics import TranscriptPair, error_rates

RATE = 16_000
PAUSE_S = 0.5
ROOM = 3e-4  # amplitude of the noise in every second pause: no digital silence


def rate(references: list[str], texts: list[str], speakers: list[str] | None = None) -> dict[str, Any]:
    """Word error rate after Whisper's normaliser, with its interval over speakers."""
    pairs = [TranscriptPair(*pair, "en") for pair in zip(references, texts, strict=True)]
    total = error_rates(pairs, groups=speakers).total
    return {"wer": round(total.value, 4), "low": round(total.low, 4), "high": round(total.high, 4)}


def alone(model: Any, file: Path) -> str:
    """The transcript of faster-whisper, which reads the file."""
    segments, _ = model.network.transcribe(str(file))
    return " ".join(segment.text.strip() for segment in segments)


def clips(model: Any, data: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Both on the same files; ours in batches, and some again by themselves."""
    files, texts = [data / row["audio"] for row in rows], [row["text"] for row in rows]
    speakers = [row["speaker"] for row in rows]
    start = time.monotonic()
    ours = list(model.transcribe_many(files))
    ours_s, start = time.monotonic() - start, time.monotonic()
    theirs = [alone(model, file) for file in files]
    theirs_s = time.monotonic() - start
    again = [model.transcribe(file) for file in files[::10]]
    found = {
        "clips": len(rows),
        "ours": rate(texts, [result.text for result in ours], speakers),
        "faster_whisper": rate(texts, theirs, speakers),
        "seconds": {"ours": round(ours_s, 1), "faster_whisper": round(theirs_s, 1)},
        "receipts_complete": sum(result.receipt.complete for result in ours),
        "alone_equals_batch": sum(left == right for left, right in zip(again, ours[::10], strict=True)),
        "alone": len(again),
        "languages": {each: sum(result.language == each for result in ours) for each in {r.language for r in ours}},
    }
    return found


def long_file(model: Any, data: Path, rows: list[dict[str, Any]], minutes: float) -> dict[str, Any]:
    """Coverage, times of words, and error rates on one long file."""
    rng, spoken, left = np.random.default_rng(0), [], int(minutes * 60 * RATE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        with soundfile.SoundFile(path, "w", RATE, 1) as file:
            for number, row in enumerate(rows):
                noise = rng.standard_normal(int(PAUSE_S * RATE)).astype(np.float32) * ROOM * (number % 2)
                part = np.concatenate([as_clip(data / row["audio"]).waveform, noise])
                if len(part) > left:
                    break
                file.write(part)
                spoken.append(row["text"])
                left -= len(part)
        seconds, before_mb, start = soundfile.info(path).duration, _peak_mb(), time.monotonic()
        result = model.transcribe(path)
        ours_s, after_mb, start = time.monotonic() - start, _peak_mb(), time.monotonic()
        theirs = alone(model, path)
        theirs_s = time.monotonic() - start
    spans = sorted([*result.receipt.read, *result.receipt.skipped], key=lambda span: span.start_s)
    words = [word for segment in result.segments for word in segment.words]
    return {
        "audio_s": round(seconds, 1),
        "ours": {"wer": rate([" ".join(spoken)], [result.text])["wer"]},
        "faster_whisper": {"wer": rate([" ".join(spoken)], [theirs])["wer"]},
        "seconds": {"ours": round(ours_s, 1), "faster_whisper": round(theirs_s, 1)},
        "receipt_covers_all": spans[0].start_s == 0
        and abs(spans[-1].stop_s - seconds) < 1e-3
        and all(left.stop_s == right.start_s for left, right in pairwise(spans)),
        "windows": len(result.receipt.read),
        "overlaps": len(result.receipt.overlaps),
        "segments": len(result.segments),
        "words": len(words),
        "words_in_order": all(a.start_s <= a.stop_s <= b.start_s <= b.stop_s for a, b in pairwise(words)),
        "peak_mb_before": round(before_mb),
        "peak_mb_after": round(after_mb),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="whisper:base")
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    data = arguments.data / "speechocean762"
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    model = auricle.load(arguments.model)
    chosen = [rows[at * len(rows) // arguments.clips] for at in range(arguments.clips)]
    report = {"model": arguments.model, "clips": clips(model, data, chosen)}
    print(json.dumps(report), flush=True)
    report["long"] = long_file(model, data, rows, arguments.minutes)
    report["version"] = auricle.__version__
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
