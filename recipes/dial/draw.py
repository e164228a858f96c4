"""Measure the speed of the models that run.sh made, and draw quality against tokens and speed.

python recipes/dial/draw.py WORK FACTOR... [--rounds 5] [--out docs]

Writes frame_rate.json and frame_rate.svg. The models answer the same clips in alternation, so that a busy machine slows
all of them.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import auricle
from auricle.data.shards import ShardSet
from auricle.data.wording import CAPTION_PROMPT
from auricle.engine.request import SamplingParams

RATE, FRAMES_HZ = 16_000, 25
ROWS = ("event named in the caption", "digit transcribed exactly", "gender of the speaker")
SECONDS = 10.0  # of the timed clips
CLIPS = 16
ANSWER = 16  # tokens, of every model


def speeds(work: Path, factors: list[int], rounds: int) -> dict[int, list[float]]:
    """Seconds each model takes for the same clips, a list of rounds."""
    test = ShardSet(work / "shards" / "test")
    waveforms = [
        np.resize(test.read(i).waveform, int(SECONDS * 16_000)) for i in range(0, len(test), len(test) // CLIPS)
    ]
    models = {factor: auricle.load(str(work / "dial" / str(factor) / "run" / "model")) for factor in factors}
    sampling = SamplingParams(max_new_tokens=ANSWER, min_new_tokens=ANSWER)
    found: dict[int, list[float]] = {factor: [] for factor in factors}
    for turn in range(rounds + 1):
        for factor in factors:
            began = time.perf_counter()
            list(models[factor].ask_many(waveforms[:CLIPS], CAPTION_PROMPT, batch_size=CLIPS, sampling=sampling))
            if turn:  # the first round warms up
                found[factor].append(time.perf_counter() - began)
    return found


def draw(results: list[dict[str, Any]], out: Path) -> None:
    """One panel for quality, one for cost."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rates = [row["tokens_per_s"] for row in results]
    for name in ROWS:
        scores = [row["quality"][name] for row in results]
        values = [100 * score["value"] for score in scores]
        errors = [[100 * (s["value"] - s["low"]) for s in scores], [100 * (s["high"] - s["value"]) for s in scores]]
        left.errorbar(rates, values, yerr=errors, marker="o", capsize=3, label=name)
    left.set(xscale="log", xlabel="audio tokens per second", ylabel="held-out, % (95 % intervals)", ylim=(0, 100))
    left.legend(fontsize=8)
    right.plot(rates, [row["audio_s_per_s"] for row in results], marker="o")
    right.set(
        xscale="log", xlabel="audio tokens per second", ylabel="seconds of audio answered per second", ylim=(0, None)
    )
    for axes in (left, right):
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
    figure.savefig(out / "frame_rate.svg", metadata={"Date": None})


def main() -> None:
    """Parse, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("factors", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    options = parser.parse_args()
    spent = speeds(options.work, options.factors, options.rounds)
    results = []
    for factor in options.factors:
        table = json.loads((options.work / "dial" / str(factor) / "table.json").read_text())
        seconds = median(spent[factor])
        results.append(
            {
                "tokens_per_s": FRAMES_HZ / factor,
                "quality": {name: table["rows"][name] for name in table["rows"]},
                "audio_s_per_s": round(CLIPS * SECONDS / seconds, 1),
                "seconds": {"median": seconds, "min": min(spent[factor]), "max": max(spent[factor])},
            }
        )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "frame_rate.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, options.out)


if __name__ == "__main__":
    main()
