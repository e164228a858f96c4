"""Results of runs in folders, without a model, and scores of files."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from auricle.evaluate.mecat import read_mecat_predictions
from auricle.evaluate.predictions import read_predictions
from auricle.evaluate.score_answers import score_predictions
from auricle.evaluate.scores import Scored, ScoringConfig, TaskKind
from auricle.metrics.scoring_rule import ScoringRule

KINDS: dict[str, TaskKind] = {
    "digits": "asr",
    "events": "tagging",
    "gender": "gender",
    "facts_qa": "qa",
    "fsd50k": "multitag",
}


def score_file(path: Path, kind: TaskKind, rule: ScoringRule = "strict", **config: Any) -> Scored:
    return score_predictions(read_predictions(path, kind), ScoringConfig(scoring_rule=rule, **config))


def score_mecat_file(path: Path, references: Path, rule: ScoringRule = "strict", **config: Any) -> Scored:
    predictions = read_mecat_predictions({"": path}, references)
    return score_predictions(predictions, ScoringConfig(scoring_rule=rule, **config))


def rows_of(task: str, answers: Sequence[str], references: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"dataset_name": task, "audio": f"{at}.wav", "prompt": f"Tell {task}.", "model_output": text, **reference}
        for at, (text, reference) in enumerate(zip(answers, references, strict=True))
    ]


def write_run(
    out: Path,
    model: str,
    task: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    scoring_rules: Sequence[ScoringRule] = ("strict",),
    run: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write ``OUT/MODEL/TASK`` as a run leaves it; return the folder of the model."""
    folder = out / model / task
    folder.mkdir(parents=True)
    lines = [json.dumps({**row, "model_name": model}) + "\n" for row in rows]
    (folder / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    content = {"model": model, "fingerprint": sha256(model.encode()).hexdigest(), "task": task, **(run or {})}
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    chosen = {"rounds": 50, "missing": "worst", **settings}
    for scoring_rule in scoring_rules:
        scored = score_file(folder / "answers.jsonl", KINDS[task], scoring_rule, **chosen)
        (folder / f"{scoring_rule}.json").write_text(scored.to_json(), encoding="utf-8")
    return folder.parent
