"""Make manifests of a task that auricle-tiny was not trained on, from speechocean762, and score models on them.

    python recipes/sft/speaker.py make DATA/speechocean762 FOLDER
    auricle train recipes/sft/speaker.yaml --out RUN sft.train=[FOLDER/train.jsonl] sft.heldout=[FOLDER/heldout.jsonl]
    python recipes/sft/speaker.py score FOLDER/test.jsonl auricle-tiny RUN/model [-o FILE]

Four kinds of speaker are offered under letters, and a letter is to be said: words and answers that no training of
auricle-tiny had. Of the training speakers a sixth is kept aside to choose settings and the best checkpoint with; the
test part's speakers are used once, by ``score``.
"""

import argparse
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from auricle.data.parts import CHILD_AGE
from auricle.metrics.intervals import bootstrap_interval, wilson_interval
from auricle.train.sft_data import read_rows
from auricle.train.sft_eval import score_rows
from auricle.weights import load_midashenglm, safe

KINDS = ("boy", "girl", "man", "woman")
LETTERS = "ABCD"
PROMPT = "Which voice is it? A: boy, B: girl, C: man, D: woman."
PER_SPEAKER = 8  # utterances of a held-out or test speaker that are scored
ADULT_AGE = 18  # years; speakers between a child and this are left out, as the names would be arguable


def kind_of(facts: dict[str, Any]) -> int | None:
    """Which of `KINDS` a speaker is; None between the ages."""
    if CHILD_AGE < facts["age"] < ADULT_AGE:
        return None
    return 2 * (facts["age"] >= ADULT_AGE) + (facts["gender"] == "f")


def make(data: Path, folder: Path) -> None:
    """Write ``train.jsonl``, ``heldout.jsonl`` and ``test.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "heldout": [], "test": []}
    seen: Counter[str] = Counter()
    for part in ("train", "test"):
        for line in (data / f"{part}.jsonl").read_text(encoding="utf-8").splitlines():
            facts = json.loads(line)
            speaker = facts["speaker"]
            aside = part == "train" and zlib.crc32(speaker.encode()) % 6 == 0
            name = "heldout" if aside else part
            seen[speaker] += 1
            if (kind := kind_of(facts)) is None or (name != "train" and seen[speaker] > PER_SPEAKER):
                continue
            rows[name].append(
                {
                    "audio": str((data / facts["audio"]).absolute()),
                    "prompt": PROMPT,
                    "answer": LETTERS[kind],
                    "options": list(LETTERS),
                    "speaker": speaker,
                }
            )
    for name, listed in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in listed)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        counts = {letter: sum(row["answer"] == letter for row in listed) for letter in LETTERS}
        print(f"{name}: {len(listed)} rows of {len({row['speaker'] for row in listed})} speakers, {counts}")


def scores(manifest: Path, name: str) -> dict[str, Any]:
    """Exact answers and choices of one model, with Wilson's interval, and one over speakers (bootstrap)."""
    loaded = load_midashenglm(name)
    found = score_rows(loaded, read_rows(manifest))
    speakers = [json.loads(line)["speaker"] for line in manifest.read_text(encoding="utf-8").splitlines()]
    hits = {
        "exact": [result.exact for result in found],
        "choice": [result.choice == result.row.answer for result in found],
    }
    row: dict[str, Any] = {"model": Path(name).name, "sha256": loaded.identity["sha256"]}
    for key, values in hits.items():
        share = wilson_interval(values)
        spread = bootstrap_interval(
            np.array(values, float)[:, None], lambda sampled: float(sampled.mean()), groups=speakers
        )
        row[key] = {
            "accuracy": round(share.value, 4),
            "wilson": [round(share.low, 4), round(share.high, 4)],
            "speakers": [round(spread.low, 4), round(spread.high, 4)],
            "n": share.n,
        }
    row["said"] = sorted({result.prediction for result in found})[:8]
    return row


def main() -> None:
    """Parse, and make or score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    maker = verbs.add_parser("make")
    maker.add_argument("data", type=Path)
    maker.add_argument("folder", type=Path)
    scorer = verbs.add_parser("score")
    scorer.add_argument("manifest", type=Path)
    scorer.add_argument("models", nargs="+")
    scorer.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    if args.verb == "make":
        make(args.data, args.folder)
        return
    results = {"manifest_sha256": safe.sha256(args.manifest), "rows": [scores(args.manifest, m) for m in args.models]}
    print(json.dumps(results, indent=1))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
