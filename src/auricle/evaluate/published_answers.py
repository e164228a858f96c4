"""What papers and talks print about the answers of audio language models; copied, never measured again.

All of it was made by the released code, so that our ``compat`` rules come closest. The tables are in
``declared/published_answers.json``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerTable:
    """One table of a paper or talk; fractions."""

    name: str
    source: str
    scores: Mapping[str, Mapping[str, float]] = field(hash=False)  # by system, then our name of the task
    note: str = ""
    metric: str | None = None  # None: the one of the released rule of each task
    groups: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict, hash=False)  # then of MECAT


@cache
def published_answers() -> tuple[AnswerTable, ...]:
    """Every table the package holds, as printed but for units and names."""
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
        )
        for row in content["tables"]
    )


def _fractions(percent: Mapping[str, float]) -> dict[str, float]:
    # Rounded, because 61.9 / 100 is not 0.619; no table prints more than four digits.
    return {name: round(value / 100, 6) for name, value in percent.items()}
