"""Results of runs in folders, without a model: answers are given."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from auricle.evaluate.score_answers import ScoringSettings, score_predictions

JUDGES = {"digits": "asr", "events": "tagging", "gender": "gender", "facts_qa": "qa", "fsd50k": "multitag"}


def rows_of(task: str, said: Sequence[str], references: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"dataset_name": task, "audio": f"{at}.wav", "prompt": f"Tell {task}.", "model_output": text, **reference}
        for at, (text, reference) in enumerate(zip(said, references, strict=True))
    ]


def write_run(
    out: Path,
    model: str,
    task: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    protocols: Sequence[Any] = ("strict",),
    run: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write ``OUT/MODEL/TASK`` as a run leaves it; return the folder of the model."""
    folder = out / model / task
    folder.mkdir(parents=True)
    lines = [json.dumps({**row, "model_name": model}) + "\n" for row in rows]
    (folder / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    told = {"model": model, "fingerprint": sha256(model.encode()).hexdigest(), "task": task, **(run or {})}
    (folder / "run.json").write_text(json.dumps(told), encoding="utf-8")
    chosen = ScoringSettings(**{"rounds": 50, "missing": "worst", **settings})
    for protocol in protocols:
        judge: Any = JUDGES[task]
        scored = score_predictions(folder / "answers.jsonl", judge, protocol=protocol, settings=chosen)
        (folder / f"{protocol}.json").write_text(scored.to_json(), encoding="utf-8")
    return folder.parent
