"""Scores of audio language models: those in folders, with their model, task and run, and published ones.

``OUT/MODEL/TASK/strict.json`` and ``compat.json`` beside ``answers.jsonl`` and ``run.json`` are the results of a run;
``TASK.RULE.json`` and single files are results of scoring a file of predictions, and have nothing beside them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from auricle.data.untrusted_json import parse_object, read_text, shorten
from auricle.errors import DataError
from auricle.evaluate.scores import Scored, read_scored
from auricle.metrics.scoring_rule import ScoringRule

SCORING_RULES: tuple[ScoringRule, ...] = ("strict", "compat")
_DEPTH = 3  # folders between OUT and a result, with it


@dataclass(frozen=True, kw_only=True, slots=True)
class LmResult:
    """A model's scores on a task by one scoring rule."""

    model: str
    task: str  # its name among the declared tasks, or its kind where the name is not known
    scored: Scored
    path: Path  # of the scores
    run: Mapping[str, Any] = field(default_factory=dict)  # from run.json; empty where there is none

    @property
    def scoring_rule(self) -> ScoringRule:
        """``strict`` or ``compat``."""
        return self.scored.scoring_rule

    @property
    def fingerprint(self) -> str:
        """Of the model; empty where it is not known."""
        return str(self.run.get("fingerprint", ""))

    @property
    def trained_share(self) -> float:
        """The share of the clips that the model was trained on, as far as it is known; the file may hold anything."""
        found = self.run.get("contamination")
        share = found.get("share") if isinstance(found, dict) else 0.0
        return min(1.0, max(0.0, share)) if isinstance(share, int | float) else 0.0

    @property
    def answers(self) -> Path | None:
        """The file of predictions that was scored, where it is known."""
        path = self.path.parent / "answers.jsonl"
        return path if self.path.stem in SCORING_RULES and path.is_file() else None


def find_results(sources: str | Path | Iterable[str | Path]) -> list[LmResult]:
    """All results of files and folders, in the order given; within a folder by name, strict first.

    Args:
        sources: files of scores, folders of a run (all models, one, or a task of it), or folders of scored files.

    Raises:
        DataError: one cannot be read, or a folder holds none.
    """
    paths: dict[Path, None] = {}
    for source in [Path(sources)] if isinstance(sources, str | Path) else map(Path, sources):
        within = _within(source) if source.is_dir() else [source]
        if not within:
            raise DataError(
                f"{source}: found no strict.json, compat.json or TASK.RULE.json, expected scores; name another folder"
            )
        paths.update(dict.fromkeys(within))
    return [_result(path) for path in paths]


def by_model(results: Iterable[LmResult]) -> dict[str, list[LmResult]]:
    """Results of each model, in order of appearance; labels of models with one name hold their fingerprint.

    Raises:
        DataError: two results of a model on a task by one scoring rule.
    """
    grouped: dict[tuple[str, str], list[LmResult]] = {}
    for result in results:
        grouped.setdefault((result.model, result.fingerprint), []).append(result)
    names = [name for name, _ in grouped]
    labelled: dict[str, list[LmResult]] = {}
    for (name, fingerprint), own in grouped.items():
        label = name if names.count(name) == 1 else f"{name} ({fingerprint[:8] or 'fingerprint not known'})"
        while label in labelled:  # a name that imitates a label
            label += "'"
        seen: dict[tuple[str, ScoringRule], Path] = {}
        for result in own:
            key = (result.task, result.scoring_rule)
            if key in seen:
                raise DataError(
                    f"{result.path}: a second result of {label} on {result.task} ({result.scoring_rule}), the first is "
                    f"{seen[key]}; leave one out"
                )
            seen[key] = result.path
        labelled[label] = own
    return labelled


def _within(folder: Path) -> list[Path]:
    found: set[Path] = set()
    for scoring_rule in SCORING_RULES:
        for depth in range(_DEPTH):
            found.update(folder.glob("*/" * depth + f"{scoring_rule}.json"))
            found.update(folder.glob("*/" * depth + f"*.{scoring_rule}.json"))
    visible = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return sorted(visible, key=lambda path: (path.parent, "strict" not in path.name, path.name))


def _result(path: Path) -> LmResult:
    scored = read_scored(path)
    run: Mapping[str, Any] = {}
    task: str = scored.kind
    if path.stem in SCORING_RULES:
        task = path.absolute().parent.name
        beside = path.parent / "run.json"
        run = read_run(beside) if beside.is_file() else {}
    return LmResult(model=_model(scored, run, path), task=str(run.get("task", task)), scored=scored, path=path, run=run)


def read_run(path: str | Path) -> dict[str, Any]:
    """The model, task and source of a run.

    Raises:
        DataError: no JSON object, or its model, task, source or fingerprint is no text.
    """
    found = parse_object(read_text(path), str(path))
    for name in ("model", "task", "source", "fingerprint"):
        if name in found and not (isinstance(found[name], str) and found[name]):
            raise DataError(f"{path}: {name} is {shorten(found[name])}, expected text; run the task again")
    return found


def _model(scored: Scored, run: Mapping[str, Any], path: Path) -> str:
    if "model" in run:
        return str(run["model"])
    models = scored.data.get("models")
    names = [name for name in models if isinstance(name, str) and name] if isinstance(models, list) else []
    if names:
        return " + ".join(names)
    return path.absolute().parent.parent.name if path.stem in SCORING_RULES else path.stem


def only_model(results: Sequence[LmResult], side: str) -> str:
    """The label of the one model that all results are of.

    Raises:
        DataError: they are of several.
    """
    found = by_model(results)
    if len(found) != 1:
        raise DataError(
            f"{side}: holds results of {', '.join(found) or 'no model'}, expected those of one; name its folder within"
        )
    return next(iter(found))


# --- published


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerTable:
    """One table of a paper or talk: fractions, as printed and never measured again, but for `printed`.

    All of them were made by the released code, which the ``compat`` rules follow.
    """

    name: str
    source: str
    scores: Mapping[str, Mapping[str, float]] = field(hash=False)  # by system, then our name of the task
    note: str = ""
    metric: str | None = None  # None: the one of the released rule of each task
    groups: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict, hash=False)  # then of MECAT
    # As `scores`: what was printed instead, where it does not follow from the printed groups.
    printed: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)


@cache
def published_answers() -> tuple[AnswerTable, ...]:
    """Every table of ``declared/published_answers.json``, as printed but for units and names."""
    file = files("auricle.evaluate") / "declared" / "published_answers.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    return tuple(
        AnswerTable(
            name=row["name"],
            source=row["source"],
            note=row.get("note", ""),
            metric=row.get("metric"),
            scores={system: _fractions(own) for system, own in row["scores"].items()},
            groups={
                system: {task: _fractions(groups) for task, groups in own.items()}
                for system, own in row.get("groups", {}).items()
            },
            printed={system: _fractions(own) for system, own in row.get("printed", {}).items()},
        )
        for row in content["tables"]
    )


def _fractions(percent: Mapping[str, float]) -> dict[str, float]:
    # Rounded, because 61.9 / 100 is not 0.619; no table prints more than four digits.
    return {name: round(value / 100, 6) for name, value in percent.items()}
