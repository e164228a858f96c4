"""Time `auricle.audio.decode` against soundfile + soxr called bare, and two threads against one.

python benchmarks/decode.py [FOLDER] [--clips 64] [--rounds 15] [--json] [-o FILE]

Without a folder it writes its own clips: 5 s of tones in noise, 44.1 kHz, mono, ogg/vorbis. The two ways alternate clip
by clip, so that a busy machine slows both; the ratio of a round is the ratio of its two sums. Hashing on
two threads is the control: where it gains little, the machine was busy and the thread figures say nothing.
"""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import soundfile
import soxr
from pairs import Row, options, seconds, write

from auricle.audio.decode import SAMPLE_RATE, decode


def write_clips(folder: Path, count: int) -> None:
    """Write ``count`` ogg clips of 5 s at 44.1 kHz: three tones in pink-ish noise, different in each."""
    rng = np.random.default_rng(10)
    time_s = np.arange(5 * 44_100) / 44_100
    for index in range(count):
        noise = np.cumsum(rng.standard_normal(time_s.size)) * 1e-3
        noise -= np.linspace(noise[0], noise[-1], noise.size)
        tones = sum(np.sin(2 * np.pi * hz * time_s) for hz in rng.uniform(100, 8000, 3))
        waveform = 0.1 * tones + noise + 0.05 * rng.standard_normal(time_s.size)
        soundfile.write(folder / f"{index:03}.ogg", np.clip(waveform, -1, 1), 44_100, format="OGG", subtype="VORBIS")


def bare(path: Path) -> np.ndarray:
    """What a user would write: soundfile, mean over channels, soxr HQ."""
    waveform, rate = soundfile.read(path, dtype="float32")
    return soxr.resample(waveform if waveform.ndim == 1 else waveform.mean(axis=1), rate, SAMPLE_RATE, quality="HQ")


def ours(path: Path) -> np.ndarray:
    """The same through Auricle."""
    return decode(path).waveform


def against_bare(paths: list[Path], rounds: int) -> tuple[list[float], float, float]:
    """Ratios ours / bare, one a round, and both ways' median ms per clip."""
    ratios, mine, theirs = [], [], []
    for turn in range(rounds):
        spent = {ours: 0.0, bare: 0.0}
        for index, path in enumerate(paths):
            for call in (ours, bare) if (index + turn) % 2 else (bare, ours):
                spent[call] += seconds(partial(call, path))
        ratios.append(spent[ours] / spent[bare])
        mine.append(spent[ours] / len(paths) * 1e3)
        theirs.append(spent[bare] / len(paths) * 1e3)
    return ratios, median(mine), median(theirs)


def on_threads(paths: list[Path], rounds: int, call: Callable[[Path], object]) -> list[float]:
    """Speed-up of two threads over one, one a round."""
    ratios = []
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(2) as two:
        for turn in range(rounds):
            spent = {}
            for pool in (one, two) if turn % 2 else (two, one):
                spent[pool] = seconds(lambda pool=pool: list(pool.map(call, paths)))
            ratios.append(spent[one] / spent[two])
    return ratios


def free_of_the_interpreter(path: Path) -> bytes:
    """Work that surely leaves the interpreter to others: what its two threads gain is what the machine has to give."""
    return hashlib.pbkdf2_hmac("sha256", path.name.encode(), b"salt", 20_000)


def _spread(ratios: list[float]) -> dict[str, float]:
    low, _, high = quantiles(ratios, n=4)
    return {"median": round(median(ratios), 4), "q25": round(low, 4), "q75": round(high, 4)}


def measure(paths: list[Path], rounds: int) -> Row:
    """All figures, as one JSON-able dict."""
    for path in paths:  # files into the page cache, code into memory
        assert np.allclose(ours(path), bare(path), atol=1e-6), f"{path}: the two ways disagree"
    ratios, mine_ms, bare_ms = against_bare(paths, rounds)
    audio_s = sum(soundfile.info(path).duration for path in paths)
    return {
        "clips": len(paths),
        "audio_s": round(audio_s, 1),
        "rounds": rounds,
        "ours_ms_per_clip": round(mine_ms, 3),
        "bare_ms_per_clip": round(bare_ms, 3),
        "times_real_time": round(audio_s / len(paths) / mine_ms * 1e3),
        "ours_over_bare": _spread(ratios),
        "two_threads_over_one": _spread(on_threads(paths, rounds, ours)),
        "bare_two_threads_over_one": _spread(on_threads(paths, rounds, bare)),
        "hashing_two_threads_over_one": _spread(on_threads(paths, rounds, free_of_the_interpreter)),
        "machine": f"{platform.machine()}, Python {platform.python_version()}, soundfile {soundfile.__version__}, "
        f"soxr {soxr.__version__}",
    }


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__, rounds=15)
    parser.add_argument("folder", type=Path, nargs="?", help="read the .ogg files of this folder instead")
    parser.add_argument("--clips", type=int, default=64, help="number of clips to make, or to take from the folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if args.folder is None:
            write_clips(Path(made), args.clips)
        paths = sorted((args.folder or Path(made)).glob("*.ogg"))[: args.clips]
        if not paths:
            parser.error(f"no .ogg files in {args.folder}")
        results = measure(paths, args.rounds)
    write(results, args)


if __name__ == "__main__":
    main()
