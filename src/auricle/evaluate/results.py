"""Scores of language models as they lie in folders: whose they are, of which task, and how they came about.

``OUT/MODEL/TASK/strict.json`` and ``compat.json`` beside ``answers.jsonl`` and ``run.json`` are the results of a run;
``TASK.PROTOCOL.json`` and single files are what scoring a file of answers gives, and have nothing beside them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auricle.errors import DataError
from auricle.evaluate.predictions import read_bounded, read_line
from auricle.evaluate.scores import Scored, read_scored
from auricle.metrics.scoring_rule import ScoringRule

PROTOCOLS: tuple[ScoringRule, ...] = ("strict", "compat")
_DEPTH = 3  # folders between OUT and a result, with it


@dataclass(frozen=True, kw_only=True, slots=True)
class LmResult:
    """A model's scores on a task under one protocol."""

    model: str
    task: str  # its name among the declared tasks, or the kind of task where that is not known
    scored: Scored
    path: Path  # of the scores
    run: Mapping[str, Any] = field(default_factory=dict)  # what was asked, from run.json; nothing where there is none

    @property
    def protocol(self) -> ScoringRule:
        """The rules."""
        return self.scored.protocol

    @property
    def fingerprint(self) -> str:
        """Of the model; empty where it is not known."""
        return str(self.run.get("fingerprint", ""))

    @property
    def answers(self) -> Path | None:
        """The file of answers that was scored, where it is known."""
        path = self.path.parent / "answers.jsonl"
        return path if self.path.stem in PROTOCOLS and path.is_file() else None


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
                f"{source}: found no strict.json, compat.json or TASK.PROTOCOL.json, expected scores; name "
                "another folder"
            )
        paths.update(dict.fromkeys(within))
    return [_result(path) for path in paths]


def by_model(results: Iterable[LmResult]) -> dict[str, list[LmResult]]:
    """Results of each model, in order of appearance; models of one name are told apart by their fingerprint.

    Raises:
        DataError: a task comes twice under one protocol.
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
            key = (result.task, result.protocol)
            if key in seen:
                raise DataError(
                    f"{result.path}: a second result of {label} on {result.task} ({result.protocol}), the first is "
                    f"{seen[key]}; leave one out"
                )
            seen[key] = result.path
        labelled[label] = own
    return labelled


def _within(folder: Path) -> list[Path]:
    found: set[Path] = set()
    for protocol in PROTOCOLS:
        for depth in range(_DEPTH):
            found.update(folder.glob("*/" * depth + f"{protocol}.json"))
            found.update(folder.glob("*/" * depth + f"*.{protocol}.json"))
    visible = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return sorted(visible, key=lambda path: (path.parent, "strict" not in path.name, path.name))


def _result(path: Path) -> LmResult:
    scored = read_scored(path)
    run: Mapping[str, Any] = {}
    task = scored.task
    if path.stem in PROTOCOLS:
        task = path.absolute().parent.name
        beside = path.parent / "run.json"
        run = read_run(beside) if beside.is_file() else {}
    return LmResult(model=_model(scored, run, path), task=str(run.get("task", task)), scored=scored, path=path, run=run)


def read_run(path: str | Path) -> dict[str, Any]:
    """What was asked in a run.

    Raises:
        DataError: no JSON object, or its model, task, source or fingerprint is no text.
    """
    found = read_line(read_bounded(path), str(path))
    for name in ("model", "task", "source", "fingerprint"):
        if name in found and not (isinstance(found[name], str) and found[name]):
            raise DataError(f"{path}: {name} is {ascii(found[name])[:60]}, expected text; run the task again")
    return found


def _model(scored: Scored, run: Mapping[str, Any], path: Path) -> str:
    if "model" in run:
        return str(run["model"])
    models = scored.data.get("models")
    names = [name for name in models if isinstance(name, str) and name] if isinstance(models, list) else []
    if names:
        return " + ".join(names)
    return path.absolute().parent.parent.name if path.stem in PROTOCOLS else path.stem


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
