"""Time what a user waits for: a cold `auricle describe` of one clip, and captions of a warm batch.

python benchmarks/listen.py [--model auricle-tiny] [--clips 32] [--batch-size 8] [--rounds 5] [--threads 2] [--json]

Cold is a new process: interpreter, imports, weights, one 10 s clip. Files are in the page cache after the first round.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
from pairs import machine, options, seconds, spread, write

CLIP_S = 10
RATE = 16_000  # Hz


def write_clips(folder: Path, count: int) -> list[Path]:
    """Write ``count`` wav clips of 10 s: tones that come and go in noise, different in each."""
    rng = np.random.default_rng(3)
    time_s = np.arange(CLIP_S * RATE) / RATE
    paths = [folder / f"{index:03}.wav" for index in range(count)]
    for path in paths:
        tones = sum(
            np.sin(2 * np.pi * hz * time_s) * np.sin(2 * np.pi * swell * time_s)
            for hz, swell in zip(rng.uniform(100, 4000, 3), rng.uniform(0.1, 2, 3), strict=True)
        )
        soundfile.write(path, 0.1 * tones + 0.02 * rng.standard_normal(time_s.size), RATE)
    return paths


def cold(path: Path, model: str, threads: int) -> tuple[float, float]:
    """Seconds and peak resident megabytes (10⁶ bytes) of a process that describes one clip."""
    command = [sys.executable, "-m", "auricle.cli.main", "describe", str(path), "--model", model]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}")
    # Linux counts in KiB, macOS in bytes.
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def warm(paths: list[Path], model: str, batch_size: int, threads: int, rounds: int) -> list[float]:
    """Seconds of audio captioned in a second, once a round, by a loaded model."""
    import torch

    import auricle

    torch.set_num_threads(threads)
    loaded = auricle.load(model)

    def describe() -> None:
        for result in loaded.describe_many(paths, batch_size=batch_size):
            if isinstance(result, auricle.AuricleError):
                raise result

    describe()
    return [CLIP_S * len(paths) / seconds(describe) for _ in range(rounds)]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures, as one JSON-able dict."""
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_clips(Path(folder), args.clips)
        starts = [cold(paths[0], args.model, args.threads) for _ in range(args.rounds)]
        speeds = warm(paths, args.model, args.batch_size, args.threads, args.rounds)
    return {
        "model": args.model,
        "cold_s": spread([duration for duration, _ in starts]),
        "cold_peak_mb": round(median(megabytes for _, megabytes in starts)),
        "warm_times_real_time": spread(speeds, 1),
        "clips": args.clips,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "threads": args.threads,
        **facts,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__, rounds=5, threads=2)
    parser.add_argument("--model", default="auricle-tiny", help="embedded name or folder")
    parser.add_argument("--clips", type=int, default=32, help="of the warm batch, 10 s each")
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    write(measure(args), args)


if __name__ == "__main__":
    main()
