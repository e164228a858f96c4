"""Write what a model was trained on, clip by clip, beside its weights: training_clips.json and new checksums.

python recipes/tiny/training_clips.py SHARDS FOLDER
(the shards of run.sh that the model was trained on, and the model's folder; what material.py makes is no published data
and is left out)
"""

import argparse
from collections import defaultdict
from pathlib import Path

from auricle.data import ShardSet
from auricle.data.acoustic_fingerprint import acoustic_fingerprint
from auricle.weights import safe
from auricle.weights.cards import write_training_clips

SETS = {
    "esc10": "ESC-10, folds 1-3",
    "fsdd": "Free Spoken Digit Dataset, 4 speakers",
    "speechocean762": "speechocean762, train part",
}


def fingerprints(folder: Path) -> dict[str, list[bytes]]:
    """Fingerprints of the clips of published data sets, by title."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for name, title in SETS.items():
        shards = ShardSet(sorted(folder.glob(f"{name}-*.tar")))
        for number in range(len(shards)):
            fingerprint = acoustic_fingerprint(shards.read(number).waveform)
            if fingerprint is not None:
                found[title].append(fingerprint)
    return found


def main() -> None:
    """Parse, read, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    write_training_clips(options.folder, fingerprints(options.shards))
    safe.write_checksums(options.folder)


if __name__ == "__main__":
    main()
