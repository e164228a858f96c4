"""Results of audio language models as one HTML page that needs no other file, and its figures as PNG.

Names, references and answers come from others or from models: the templates escape them, and clips are encoded anew
before they are put into the page.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from auricle.errors import DataError
from auricle.evaluate.answer_examples import MAX_TEXT, worst_examples
from auricle.evaluate.results import SCORING_RULES, LmResult, by_model, published_answers
from auricle.evaluate.tables import (
    MecatGroup,
    Models,
    Published,
    TaskRow,
    mecat_domains,
    mecat_groups,
    shared_rows,
    task_rows,
)
from auricle.metrics.intervals import Score
from auricle.pages.plots import Drawing, Line, draw_lines, look_of, new_figure, svg, write_page
from auricle.pages.render import bounded, render, visible
from auricle.pages.table import Column, Entry, Number, Record, Table, Text, count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 200  # failed clips in the table
_TITLE = "Audio language models by their answers"
_RUN_FACTS = {
    "source": "Source",
    "prompts": "Prompts",
    "decoding": "Sampling parameters",
    "questions_sha256": "Questions (SHA-256)",
    "contamination": "Clips in the training data",
}
_RULES = {
    "strict": "Answers are scored by what they say: whole words, one choice, empty answers count as wrong.",
    "compat": "As the released scripts score, with their known flaws: to be compared with published figures, not "
    "trusted.",
}


class _Rule(NamedTuple):
    name: str
    meaning: str
    scores: Table
    published: Table  # own and published figures of the same tasks; no rows: there are none
    note: str  # on the published figures


class _Mecat(NamedTuple):
    title: str
    groups: Table
    domains: Table


def write_lm_report(
    results: Sequence[LmResult],
    folder: str | Path,
    *,
    published: bool = True,
    worst: int = 6,
    players: bool = True,
    audio: Sequence[Path] = (),
    figures: bool = True,
) -> list[Path]:
    """Write ``report.html``, and figures as PNG beside it; return their paths.

    Args:
        results: of any models, tasks and scoring rules.
        folder: created if absent; older files of these names are replaced.
        published: whether published figures are shown beside those of the ``compat`` rule.
        worst: items of each task whose answers are shown; 0: none.
        players: whether the start of their clips can be played.
        audio: folders to look for clips in, before the source of the run.
        figures: False where matplotlib is not installed.

    Raises:
        DataError: no results, or a task of a model is given twice.
        OutputError: the folder cannot be written.
        MissingExtra: matplotlib is not installed.
    """
    if not results:
        raise DataError("found no results, expected one or more to report; run a task first")
    models = by_model(results)
    rows = task_rows(models, published=published)
    drawn = _figures(rows, models) if figures else {}
    failures, more = _failures(models)
    page = render(
        "evaluate.html",
        title=_TITLE,
        models=count(len(models), "model"),
        tasks=count(len({row.task for row in rows}), "task"),
        rules=[
            _rule(rule, own, models) for rule in SCORING_RULES if (own := [r for r in rows if r.scoring_rule == rule])
        ],
        figures=[Drawing(svg(figure, name), caption) for name, (figure, caption) in drawn.items()],
        mecat=[_mecat(row) for row in rows if _is_mecat(row)],
        worst=worst_examples(rows, worst, roots=audio, with_players=players) if worst else [],
        with_players=players,
        failures=failures,
        more_failures=more,
        records=[_record(label, result) for label, own in models.items() for result in own],
    )
    return write_page(folder, page, {name: figure for name, (figure, _) in drawn.items()})


def report_content(results: Sequence[LmResult], *, published: bool = True) -> dict[str, Any]:
    """The tables of the page as JSON has them."""
    models = by_model(results)
    rows = task_rows(models, published=published)
    return {
        "models": {
            label: {"fingerprint": own[0].fingerprint or None, "results": [str(result.path) for result in own]}
            for label, own in models.items()
        },
        "tables": [row.content() for row in rows],
        "mecat_domains": [
            {"task": row.task, "protocol": row.scoring_rule, "domains": found}
            for row in rows
            if _is_mecat(row) and (found := mecat_domains(row))
        ],
    }


def _is_mecat(row: TaskRow) -> bool:
    return next(iter(row.results.values())).scored.kind == "mecat"


# --- tables


def _rule(rule: str, rows: Sequence[TaskRow], models: Models) -> _Rule:
    shown = [label for label in models if any(label in row.scores for row in rows)]
    scores = Table(
        label=f"Scores, {rule}",
        columns=[Column(title="Task"), *map(_percent, shown)],
        rows=[[_title(row), *_scores(row.scores, shown, row.best)] for row in rows],
    )
    known = [row for row in rows if row.published]
    columns, values = _published([row.published for row in known])
    published = Table(
        label=f"Published figures, {rule}",
        columns=[Column(title="Task"), *map(_percent, shown), *columns],
        rows=[[_title(row), *_scores(row.scores, shown), *own] for row, own in zip(known, values, strict=True)],
    )
    return _Rule(rule, _RULES[rule], scores, published, _published_note(known))


def _percent(title: str) -> Column:
    return Column(title=title, decimals=1, is_percent=True)


def _title(row: TaskRow) -> Text:
    metric = f"{row.metric.replace('_', ' ')}{' ↓' if row.lower_is_better else ''}"
    note = " · ".join(filter(None, (row.domain, metric)))
    shares = {label: result.trained_share for label, result in row.results.items()}
    tags = [f"⚠ {label} was trained on {share:.0%} of the clips" for label, share in shares.items() if share]
    tags += [] if row.is_same else ["⚠ not the same items or tools"]
    return Text(text=row.title, note=note, tags=tags)


def _scores(scores: Mapping[str, Score], models: Iterable[str], best: Sequence[str] = ()) -> list[Number | None]:
    """A number for each model."""
    found = ((model, scores.get(model)) for model in models)
    return [
        score and Number(value=score.value, low=score.low, high=score.high, n=score.n, is_best=model in best)
        for model, score in found
    ]


def _published(rows: Sequence[Sequence[Published]]) -> tuple[list[Column], list[list[float | None]]]:
    """A column for each system and source, and its values in each row."""
    systems = list(dict.fromkeys((each.system, each.source) for row in rows for each in row))
    by_system = [{(each.system, each.source): each.value for each in row} for row in rows]
    values = [[row.get(system) for system in systems] for row in by_system]
    columns = [
        Column(
            title=system,
            note=source,
            # Percent with one or two decimals, as papers print them.
            decimals=max(_decimals(row[place]) for row in values),
            is_percent=True,
            is_quoted=True,
        )
        for place, (system, source) in enumerate(systems)
    ]
    return columns, values


def _decimals(value: float | None) -> int:
    return 1 if value is None or f"{100 * value:.2f}".endswith("0") else 2


def _published_note(rows: Sequence[TaskRow]) -> str:
    sources = {each.source for row in rows for each in row.published}
    notes = [each.note for each in published_answers() if each.note and each.source in sources]
    if encoders := sorted({str(name) for row in rows for name in _encoders(row)}):
        notes.append(f"Sentences were compared by {', '.join(encoders)} here, by paraphrase-TinyBERT-L6-v2 there.")
    return " ".join(dict.fromkeys(notes))


def _encoders(row: TaskRow) -> Iterable[Any]:
    for result in row.results.values():
        if (found := result.scored.settings.get("encoder")) is not None:
            yield found.get("name", found) if isinstance(found, dict) else found


# --- MECAT


def _mecat(row: TaskRow) -> _Mecat:
    groups, models = mecat_groups(row), list(row.results)
    columns, values = _published([group.published for group in groups])
    domains = mecat_domains(row)
    return _Mecat(
        f"{row.title}: groups, {row.scoring_rule}",
        Table(
            label="Groups",
            columns=[Column(title="Group"), *map(_percent, models), *columns],
            rows=[_mecat_row(group, row, own) for group, own in zip(groups, values, strict=True)],
        ),
        Table(
            label="Domains",
            columns=[Column(title="Domain"), *map(_percent, models)],
            rows=[[domain, *map(own.get, models)] for domain, own in domains.items()],
        ),
    )


def _mecat_row(group: MecatGroup, row: TaskRow, published: Sequence[float | None]) -> list[Entry]:
    highest = max(score.value for score in group.scores.values())
    best = [model for model, score in group.scores.items() if score.value == highest]
    is_compared = row.is_same and len(group.scores) > 1
    title = Text(text=group.group.replace("_", " "), note=group.metric.replace("_", " "))
    return [title, *_scores(group.scores, row.results, best if is_compared else ()), *published]


# --- figures


def _figures(rows: Sequence[TaskRow], models: Models) -> "dict[str, tuple[Figure, str]]":
    """By name the figure and its caption: all tasks, and of MECAT the domains."""
    found: dict[str, tuple[Figure, str]] = {}
    by_rule = {name: shared_rows([row for row in rows if row.scoring_rule == name], models) for name in SCORING_RULES}
    rule = max(SCORING_RULES, key=lambda name: len(by_rule[name]))
    if own := by_rule[rule]:
        words, axes = _axes(own)
        lines = {label: [fmean(row.goodness(label) for row in rows) for rows in axes.values()] for label in models}
        title = f"Scoring rule {rule}. Each axis: {words}"
        found["tasks"] = (
            _figure(title, list(axes), lines),
            f"{title}. Of error rates what they leave to 100 %, at least 0.",
        )
    for row in {row.task: row for row in reversed(rows) if _is_mecat(row)}.values():  # strict, where there is one
        domains = mecat_domains(row)
        shared = {domain: own for domain, own in domains.items() if own.keys() == row.results.keys()}
        if shared and row.is_same:
            lines = {model: [min(1.0, max(0.0, own[model])) for own in shared.values()] for model in row.results}
            title = f"{row.title}, {row.scoring_rule}: DATE by domain"
            found[f"mecat-{len(found)}"] = _figure(title, list(shared), lines), f"{title}: S speech, M music, A other."
    return found


def _axes(rows: Sequence[TaskRow]) -> tuple[str, dict[str, list[TaskRow]]]:
    """Domains, or tasks where those are few."""
    domains: dict[str, list[TaskRow]] = {}
    for row in rows:
        domains.setdefault(row.domain or "other", []).append(row)
    if len(domains) >= 3 and len(rows) > 8:
        return f"mean over the tasks of a domain, {len(rows)} tasks in all", domains
    titles = [row.title for row in rows]
    return "one task", {row.title if titles.count(row.title) == 1 else row.task: [row] for row in rows}


def _figure(title: str, titles: Sequence[str], lines: Mapping[str, Sequence[float]]) -> "Figure":
    figure = new_figure(7.0, 6.4 + 0.14 * len(lines), "The report on answers", "evaluate")
    figure.suptitle(f"{visible(title)}\n".replace("$", r"\$"), fontsize=11)
    looks = [Line(values, look_of(label, number)) for number, (label, values) in enumerate(lines.items())]
    return draw_lines(figure, titles, looks)


# --- failures and provenance


def _failures(models: Models) -> tuple[Table, int]:
    """Clips that failed or were partly processed, and how many more there are."""
    rows: list[list[Entry]] = []
    more = 0
    for label, own in models.items():
        for task, result in {result.task: result for result in own}.items():
            for name, why in _failed(result):
                if len(rows) < MAX_ROWS:
                    rows.append([bounded(name, 200), bounded(why, MAX_TEXT), task, label])
                else:
                    more += 1
            if unanswered := result.scored.counts.get("unanswered") or result.scored.counts.get("missing"):
                rows.append(["–", f"{unanswered:g} without an answer, counted as wrong", task, label])
    columns = [Column(title=title) for title in ("Clip", "What happened", "Task", "Model")]
    return Table(label="Failures", columns=columns, rows=rows), more


def _failed(result: LmResult) -> Iterable[tuple[str, str]]:
    """Names of clips and what happened to them; untrusted files may hold anything."""
    failed, partial = (result.run.get(name) for name in ("failed", "heard_in_part"))
    for each in failed if isinstance(failed, list) else ():
        if isinstance(each, dict):
            yield str(each.get("audio", "?")), f"failed: {each.get('error', 'no reason given')}"
    for each in partial if isinstance(partial, list) else ():
        yield str(each), "partly processed"


def _record(label: str, result: LmResult) -> Record:
    scored = result.scored
    # Precision of each class and the like are results, and as long as the data are wide.
    settings = {name: own for name, own in scored.settings.items() if not isinstance(own, dict) or len(own) < 20}
    codes = {
        "Settings": settings,
        **{title: result.run[name] for name, title in _RUN_FACTS.items() if name in result.run},
        **{f"Data: {name.replace('_', ' ')}": own for name, own in scored.data.items()},
        "Model": result.fingerprint or "not known",
    }
    return Record(
        title=f"{label} · {result.task} · {result.scoring_rule}",
        facts={
            "Rule": f"{scored.rule.id} version {scored.rule.version}",
            "Counts": ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in scored.counts.items()),
            "Auricle": scored.version,
        },
        codes={
            name: bounded(own if isinstance(own, str) else json.dumps(own, ensure_ascii=False), 4000)
            for name, own in codes.items()
            if own
        },
    )
