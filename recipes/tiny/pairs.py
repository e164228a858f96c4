"""Write held-out pairs of sound and caption, a share of them mismatched on purpose.

python recipes/tiny/pairs.py SHARDS OUT [--count 1000] [--mismatched 0.3] [--seed 7]

The scenes are mixed of the clips in SHARDS as `align.yaml` mixes them for training. OUT gets flac files and a
manifest.jsonl for `auricle bench align` and, after `auricle data pack`, for `auricle filter`. Every line says what kind
of sound it is (`domain`) and whether the caption is another scene's (`mismatched`).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
import yaml

from auricle.data import wording
from auricle.data.cache import CachedClips
from auricle.data.parts import Scene
from auricle.data.scenes import Pools, make_scene
from auricle.data.shards import ShardSet
from auricle.train.pairs import SAMPLE_RATE, meaning_of, scene_config

RECIPE = Path(__file__).parent / "align.yaml"


def partners(meanings: list[int], chosen: np.ndarray, rng: np.random.Generator) -> dict[int, int]:
    """For each chosen scene one of the chosen whose caption it gets; its facts are worded otherwise.

    Every caption of the chosen is used once, so that mismatched captions are as common as their own.
    """
    order = rng.permutation(chosen)
    for _ in range(10_000):
        wrong = [i for i, j in zip(chosen, order, strict=True) if meanings[i] == meanings[j]]
        if not wrong:
            return dict(zip(chosen.tolist(), order.tolist(), strict=True))
        one, other = np.searchsorted(chosen, wrong[0]), rng.integers(len(chosen))
        order[[one, other]] = order[[other, one]]
    raise SystemExit("too many scenes are worded alike; take more of them")


def main() -> None:
    """Parse, mix, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--mismatched", type=float, default=0.3, help="share of the pairs")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    config = scene_config(yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["scenes"])
    pools = Pools(CachedClips(ShardSet(options.shards)), config.set_weights)
    scenes: list[Scene] = []
    said = []
    (options.out / "audio").mkdir(parents=True, exist_ok=True)
    for number in range(options.count):
        rng = np.random.default_rng((options.seed, number))
        scene = make_scene(pools, rng, config)
        scenes.append(scene)
        said.append(wording.caption(scene, rng))
        soundfile.write(options.out / "audio" / f"{number:05}.flac", scene.waveform, SAMPLE_RATE)
    rng = np.random.default_rng(options.seed)
    chosen = np.sort(rng.choice(options.count, round(options.mismatched * options.count), replace=False))
    wrong = partners([meaning_of(scene) for scene in scenes], chosen, rng) if len(chosen) else {}
    with (options.out / "manifest.jsonl").open("w", encoding="utf-8") as file:
        for number, scene in enumerate(scenes):
            record = {
                "audio": f"audio/{number:05}.flac",
                "id": f"{number:05}",
                "caption": said[wrong.get(number, number)],
                "mismatched": number in wrong,
                "domain": scene.category,
            }
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
