"""Held-out pairs of noisy and clean speech, for `benchmarks/enhancement.py` and `auricle denoise`.

python recipes/tiny/noisy_pairs.py SHARDS OUT [--count 200] [--seed 7] [--snr-db -5 15]
(folders of packed clips that no model was trained on, and the folder of ``manifest.jsonl``, ``noisy/`` and ``clean/``)

Each pair is one clip of speech under one to three sounds of the shards, or steady noise; half of them in a room. The
same shards and seed give the same bytes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from auricle.data import mixing
from auricle.data.degrade import DegradeConfig, degrade, make_background
from auricle.data.mixing import SAMPLE_RATE
from auricle.data.scenes import Pools
from auricle.data.shards import ShardSet
from auricle.files import make_folder, write_text

LEAST_S, MOST_S = 1.0, 10.0  # of a pair; shorter speech stands in silence
SET_WEIGHTS = {"fsdd": 0.2, "espeak": 0.0}  # mostly sentences, and no synthetic voices


def main() -> None:
    """Parse, make, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--snr-db", type=float, nargs=2, default=(-5.0, 15.0))
    options = parser.parse_args()
    pools = Pools(ShardSet(options.shards), SET_WEIGHTS)
    config = DegradeConfig(snr_db=tuple(options.snr_db), band_share=0.0, clip_share=0.0, codec_share=0.0)
    for name in ("noisy", "clean"):
        make_folder(options.out / name)
    rows = []
    for number in range(options.count):
        rng = np.random.default_rng((options.seed, number))
        speech, part, group = pools.read(pools.sample("speech", rng))
        speech = speech[: int(MOST_S * SAMPLE_RATE)]
        if speech.size < LEAST_S * SAMPLE_RATE:
            speech = mixing.place(speech, SAMPLE_RATE // 4, int(LEAST_S * SAMPLE_RATE))
        count = 1 + int(rng.choice(3, p=(0.5, 0.3, 0.2)))
        behind = [make_background(pools, rng, speech.size, config) for _ in range(count)]
        pair = degrade(speech, [waveform for _, waveform in behind], rng, config)
        row = {"audio": f"noisy/{number:04}.flac", "clean": f"clean/{number:04}.flac", "kind": "speech"}
        for name, waveform in (("noisy", pair.noisy), ("clean", pair.clean)):
            soundfile.write(options.out / name / f"{number:04}.flac", waveform, SAMPLE_RATE, subtype="PCM_16")
        facts = {"backgrounds": [name for name, _ in behind], **pair.facts}
        known = {name: getattr(part, name) for name in ("text", "language", "gender")}
        known["speaker"] = f"{group}/{part.speaker or number}"
        rows.append(row | {key: value for key, value in known.items() if value is not None} | facts)
    write_text(options.out / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
