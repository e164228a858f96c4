"""The numbers of a run of the filter."""

import json
from collections import Counter
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import numpy as np

from auricle import __version__
from auricle.curate.calibration import Scores, auc, matched_auc
from auricle.curate.decision import DROP, KEEP, NAMES, REVIEW, FilterConfig, Verdicts, fails_rank_test
from auricle.curate.pairs import Ids, PairTable
from auricle.curate.random_pairs import Evidence
from auricle.data.shards import ShardSet

# Signs as people read them; the keys of summary.json are older.
SIGNS = {
    "not heard": "not processed",
    "same sound": "same audio",
    "nearly the same sound": "nearly the same audio",
}


def summarise(
    shards: ShardSet, table: PairTable, evidence: Evidence, verdicts: Verdicts, *, config: FilterConfig, model: str
) -> dict[str, Any]:
    """What the filter found, as JSON has it; ``run`` follows from all that decides the output."""
    usable = table.usable()
    counts = Counter(verdicts.verdict.tolist())
    p = evidence.p[usable]
    sizes = np.bincount(evidence.group[usable], minlength=len(evidence.calibrations))
    mismatched = float(sizes @ [each.mismatched for each in evidence.calibrations] / sizes.sum())
    summary = {
        "pairs": len(table),
        **{NAMES[place]: counts[place] for place in (KEEP, REVIEW, DROP)},
        "signs": {  # a pair may have several
            "like random pairs": int((p > config.drop_p).sum()),
            "between": int(((p > config.p) & (p <= config.drop_p)).sum()),
            "other captions fit as well": int(fails_rank_test(evidence, config)[usable].sum()),
            "same sound": int((verdicts.same_as >= 0).sum()),
            "nearly the same sound": int((verdicts.near >= 0).sum()),
            "not heard": int((table.audio_rows < 0).sum()),
            "no caption": int(((table.text_rows[:, 0] < 0) & (table.audio_rows >= 0)).sum()),
        },
        "mismatched_share": mismatched,
        "random_passing": _random_passing(evidence, config.p),
        "auc": _mixed_auc(evidence, usable, mismatched),
        "settings": asdict(config),
        "manifest": shards.manifest_hash,
        "left_out": dict(shards.ignored),  # members of the tars that are no clips
        "version": __version__,
        "model": model,
    }
    decided = f"{json.dumps(summary, sort_keys=True)}\0{verdicts.verdict.tobytes().hex()}"
    return {**summary, "run": sha256(decided.encode("utf-8", "backslashreplace")).hexdigest()}


def _random_passing(evidence: Evidence, p: float) -> float:
    """Share of random pairs, none of which is used by the calibration, that the p value lets pass."""
    passed = [calibration.p(calibration.check)[0] <= p for calibration in evidence.calibrations]
    return float(np.concatenate(passed).mean())


def _mixed_auc(evidence: Evidence, usable: Ids, mismatched: float) -> dict[str, float]:
    """Real against random pairs over all groups mixed in their shares, by the score and by the probability."""
    sizes = [int((evidence.group == number).sum()) for number in range(len(evidence.calibrations))]
    share = min(1.0, *(len(c.check) / size for c, size in zip(evidence.calibrations, sizes, strict=True)))
    raw: list[Scores] = []
    calibrated: list[Scores] = []
    for calibration, size in zip(evidence.calibrations, sizes, strict=True):
        places = np.linspace(0, len(calibration.check) - 1, max(1, int(share * size))).astype(int)
        raw.append(calibration.check[places])
        calibrated.append(calibration.probability(raw[-1]))
    measured = auc(evidence.probability[usable], np.concatenate(calibrated))
    return {
        "score": auc(evidence.score[usable], np.concatenate(raw)),
        "probability": measured,
        "probability_matched": matched_auc(measured, mismatched),
    }
