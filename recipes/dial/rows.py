"""Write clips of packed shards as files, and a manifest of prompts and answers about each, for `objective: sft`.

python recipes/dial/rows.py SHARDS OUT [--most 300] [--wordings 6] [--seed 0]

Of every set and kind at most `most` clips are taken, of recorded sounds and digits four times as many. Each clip is
prompted `wordings` times: caption, transcript, and whatever else its facts answer.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

from auricle.data.parts import Part, Scene
from auricle.data.shards import ShardSet
from auricle.data.wording import example

RATE = 16_000
WANTED_MORE = {"esc50", "fsdd"}


def choose(shards: ShardSet, most: int, rng: np.random.Generator) -> list[int]:
    """Clips of every set and kind, in order."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i in range(len(shards)):
        meta = shards.read_meta(i)
        groups[(str(meta.get("set")), str(meta.get("kind")))].append(i)
    chosen: list[int] = []
    for (name, _), clips in sorted(groups.items()):
        count = most * (4 if name in WANTED_MORE else 1)
        chosen += sorted(rng.permutation(clips)[:count].tolist())
    return chosen


def main() -> None:
    """Parse, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--most", type=int, default=300)
    parser.add_argument("--wordings", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shards = ShardSet(options.shards)
    rng = np.random.default_rng(options.seed)
    (options.out / "audio").mkdir(parents=True, exist_ok=True)
    with (options.out / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number, i in enumerate(choose(shards, options.most, rng)):
            clip = shards.read(i)
            part = Part.from_meta(clip.meta)
            scene = Scene(clip.waveform, (part,), f"pure_{part.kind}")
            name = f"audio/{number:05}.flac"
            soundfile.write(options.out / name, clip.waveform, RATE)
            made = dict.fromkeys(example(scene, rng) for _ in range(options.wordings))
            for prompt, answer in made:
                file.write(json.dumps({"audio": name, "prompt": prompt, "answer": answer}) + "\n")


if __name__ == "__main__":
    main()
