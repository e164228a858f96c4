"""What `auricle filter` finds where the truth is known: pairs of which a stated share is mismatched on purpose.

python benchmarks/filter.py SHARDS [--model auricle-tiny-glap] [--json] [-o FILE]

SHARDS come from recipes/tiny/pairs.py and `auricle data pack`. Measured are the AUC of matched against mismatched pairs
over all domains mixed, what passes at p = 0.01, whether a run that is killed three times ends as an uninterrupted one,
and whether undoing gives the shards back byte for byte.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from pairs import machine, options, write

from auricle.curate.calibration import auc
from auricle.data.shards import ShardSet
from auricle.metrics.intervals import wilson_interval

KILLS = 3


def run_filter(shards: Path, out: Path, model: str, kill_after_s: float | None = None) -> float:
    """Seconds of a run in a process of its own, which may be killed."""
    command = [
        sys.executable,
        "-m",
        "auricle.cli.main",
        "filter",
        str(shards),
        "-o",
        str(out),
        "--model",
        model,
        "--json",
    ]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        code = process.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    else:
        if code:
            sys.exit(f"{' '.join(command)} ended with {code}")
    return time.monotonic() - start


def truth(shards: Path) -> dict[str, bool]:
    """Whether each pair is mismatched, by key."""
    clips = ShardSet(shards)
    return {key: bool(clips.read_meta(i)["mismatched"]) for i, key in enumerate(clips.keys())}


def read_scores(out: Path) -> list[dict[str, Any]]:
    """The records of a run."""
    return [json.loads(line) for line in (out / "scores.jsonl").read_text(encoding="utf-8").splitlines()]


def assess(records: list[dict[str, Any]], mismatched: dict[str, bool]) -> dict[str, Any]:
    """AUC and what passes."""
    wrong = np.array([mismatched[record["key"]] for record in records])
    kept = np.array([record["verdict"] == "keep" for record in records])
    low = np.array([record["p"] <= 0.01 for record in records])
    found: dict[str, Any] = {}
    for name in ("score", "probability"):
        values = np.array([record[name] for record in records], dtype=float)
        found[f"auc_{name}"] = round(auc(values[~wrong], values[wrong]), 4)
        domains = sorted({record["domain"] for record in records})
        of_domain = np.array([record["domain"] for record in records])
        found[f"auc_{name}_of"] = {
            domain: round(auc(values[~wrong & (of_domain == domain)], values[wrong & (of_domain == domain)]), 3)
            for domain in domains
            if wrong[of_domain == domain].any() and not wrong[of_domain == domain].all()
        }
    for name, passed in (("at_p_0.01", low), ("kept", kept)):
        found[f"mismatched_{name}"] = share(passed[wrong])
        found[f"matched_{name}"] = share(passed[~wrong])
    return found


def share(passed: np.ndarray) -> dict[str, float]:
    """A share with its 95 % interval."""
    found = wilson_interval(passed)
    return {"value": round(found.value, 4), "low": round(found.low, 4), "high": round(found.high, 4), "n": len(passed)}


def measure(shards: Path, model: str) -> dict[str, Any]:
    """All of it, in a folder that is removed."""
    mismatched = truth(shards)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed, restored = (Path(scratch) / name for name in ("whole", "killed", "restored"))
        seconds = run_filter(shards, whole, model)
        for turn in range(1, KILLS + 1):
            run_filter(shards, killed, model, kill_after_s=seconds * turn / (KILLS + 1))
        run_filter(shards, killed, model)
        records = read_scores(whole)
        summary = json.loads((whole / "summary.json").read_text(encoding="utf-8"))
        again = Counter(record["key"] for record in read_scores(killed))
        undo = [sys.executable, "-m", "auricle.cli.main", "filter", "--undo", str(killed), "-o", str(restored)]
        subprocess.run(undo, check=True, stdout=subprocess.DEVNULL)
        tars = sorted(shards.glob("*.tar"))
        return {
            **assess(records, mismatched),
            "pairs": len(records),
            "mismatched": sum(mismatched.values()),
            "mismatched_share_found": summary["mismatched_share"],
            "random_passing_at_p_0.01": summary["random_passing"],
            "verdicts": dict(Counter(record["verdict"] for record in records)),
            "auc_against_random": summary["auc"],
            "seconds": round(seconds, 1),
            "after_kills": {
                "each_pair_once": again == Counter(mismatched.keys()),
                "verdicts_equal": verdicts(killed) == verdicts(whole),
                "largest_difference_of_a_score": largest_difference(killed, whole),
            },
            "undone_byte_for_byte": bool(tars)
            and all(digest(tar) == digest(next(restored.rglob(tar.name))) for tar in tars),
        }


def verdicts(out: Path) -> dict[str, str]:
    """What became of each pair."""
    return {record["key"]: record["verdict"] for record in read_scores(out)}


def largest_difference(one: Path, other: Path) -> float:
    """Of the scores of two runs over the same pairs in the same order."""
    pairs = zip(read_scores(one), read_scores(other), strict=True)
    return max(abs(a["score"] - b["score"]) for a, b in pairs)


def digest(file: Path) -> str:
    """SHA-256."""
    return sha256(file.read_bytes()).hexdigest()


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--model", default="auricle-tiny-glap")
    args = parser.parse_args()
    facts = machine()
    write({**measure(args.shards, args.model), **facts}, args)


if __name__ == "__main__":
    main()
