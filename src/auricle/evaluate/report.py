"""Results of audio language models for the eye and the ear: one HTML page that needs nothing else.

Names, references and answers were written by strangers or by models. Every text is escaped on its way into the page,
the page forbids scripts and network to the browser, and sounds are encoded anew before they are put into it.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auricle.errors import DataError
from auricle.evaluate.answer_examples import Players, bounded, worst_section
from auricle.evaluate.published_answers import published_answers
from auricle.evaluate.results import PROTOCOLS, LmResult, by_model
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
from auricle.files import atomic_write, make_folder, write_text
from auricle.metrics.intervals import Score
from auricle.pages.page import cell, document, shown, table, visible
from auricle.pages.plots import Line, draw_lines, look_of, new_figure, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ROWS = 200  # failed sounds in the table
_TITLE = "Audio language models by their answers"
_STYLE = """
h3 { margin: 1.8rem 0 .2rem } audio { width: 15rem; height: 2.2rem }
td.text { max-width: 26rem; overflow-wrap: anywhere }
th.published, td.published { color: #666; font-style: italic; background: #fafafa }
th.first, td.first { border-left: 2px solid #888 } td small.tag { display: inline-block; margin-top: .2rem }
p.note, small.note { color: #555 } td.told { min-width: 34rem } .figures { display: flex; flex-wrap: wrap }
.figures figure { flex: 1 1 26rem; max-width: 36rem } td.n small { font-weight: 400; white-space: nowrap }
th small { font-weight: 400 } .said { display: block; margin-bottom: .35rem }
.who { font: 600 12px/1.3 system-ui; color: #444 }
"""
_TOLD_OF_RUN = ("source", "prompts", "decoding", "questions_sha256")
_WORDS = {
    "strict": "Answers are judged by what they say: whole words, one choice, empty answers count as wrong.",
    "compat": "As the released scripts judge, their known flaws included: to be set beside published figures, not "
    "trusted.",
}


def write_lm_report(
    results: Sequence[LmResult],
    folder: str | Path,
    *,
    published: bool = True,
    worst: int = 6,
    sounds: bool = True,
    audio: Sequence[Path] = (),
    figures: bool = True,
) -> list[Path]:
    """Write ``report.html``, and figures as PNG beside it; return their paths.

    Args:
        results: of any models, tasks and protocols.
        folder: made if need be; older files of these names are replaced.
        published: whether published figures stand beside those of the ``compat`` protocol.
        worst: items of each task whose answers are shown; 0: none.
        sounds: whether the begin of their sounds can be heard.
        audio: folders to look for sounds in, before the source of the run.
        figures: False where matplotlib is not at hand.

    Raises:
        DataError: no results, or a task of a model comes twice.
        OutputError: the folder cannot be written.
        MissingExtra: matplotlib is not installed.
    """
    if not results:
        raise DataError("found no results, expected one or more to report; run a task first")
    models = by_model(results)
    rows = task_rows(models, published=published)
    drawn = _figures(rows, models) if figures else {}
    players = Players(audio) if sounds else None
    parts = [
        f"<h1>{_TITLE}</h1>",
        _summary(rows, models),
        *(_scores(protocol, [row for row in rows if row.protocol == protocol], models) for protocol in PROTOCOLS),
        _drawn(drawn),
        *(_mecat(row) for row in rows if _is_mecat(row)),
        worst_section(rows, worst, players) if worst else "",
        _failures(models),
        _provenance(models),
    ]
    return _write(Path(folder), document(_TITLE, parts, style=_STYLE, with_sounds=sounds), drawn)


def report_content(results: Sequence[LmResult], *, published: bool = True) -> dict[str, Any]:
    """The tables of the page as JSON holds them."""
    models = by_model(results)
    rows = task_rows(models, published=published)
    return {
        "models": {
            label: {"fingerprint": own[0].fingerprint or None, "results": [str(result.path) for result in own]}
            for label, own in models.items()
        },
        "tables": [row.content() for row in rows],
        "mecat_domains": [
            {"task": row.task, "protocol": row.protocol, "domains": found}
            for row in rows
            if _is_mecat(row) and (found := mecat_domains(row))
        ],
    }


def _write(folder: Path, page: str, drawn: "Mapping[str, tuple[Figure, str]]") -> list[Path]:
    make_folder(folder)
    paths = [folder / "report.html", *(folder / f"{name}.png" for name in drawn)]
    write_text(paths[0], page)
    for path, (figure, _) in zip(paths[1:], drawn.values(), strict=True):
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=160, metadata={"Software": None})
    return paths


def _is_mecat(row: TaskRow) -> bool:
    return next(iter(row.results.values())).scored.task == "mecat"


# --- tables


def _summary(rows: Sequence[TaskRow], models: Models) -> str:
    tasks = len({row.task for row in rows})
    return (
        f"<p>{_count(len(models), 'model')}, {_count(tasks, 'task')}. Figures are percent; the small ones below them "
        "are 95 % intervals, over items or over what is resampled together, as all utterances of a speaker. ★ marks "
        "the best of a row, which need not be better than chance would have it: <code>auricle evaluate compare</code> "
        "tells that.</p>"
    )


def _scores(protocol: str, rows: Sequence[TaskRow], models: Models) -> str:
    if not rows:
        return ""
    shown_models = [label for label in models if any(label in row.scores for row in rows)]
    body = []
    for row in rows:
        cells = [_score(row.scores.get(model), is_best=model in row.best) for model in shown_models]
        body.append([*_begin(row), *cells])
    head = ["Domain", "Task", "Metric", *map(shown, shown_models)]
    title = f"<h2>{protocol.capitalize()} protocol</h2><p>{_WORDS[protocol]}</p>"
    return title + table(head, body) + _published_table(rows, shown_models)


def _begin(row: TaskRow) -> list[str]:
    note = "" if row.is_same else '<br><span class="tag">⚠ not the same items or tools</span>'
    metric = f"{row.metric.replace('_', ' ')}{' ↓' if row.lower_is_better else ''}"
    return [cell(row.domain or "–"), f"<td>{shown(row.title)}{note}</td>", cell(metric)]


def _score(score: Score | None, *, is_best: bool = False) -> str:
    if score is None or math.isnan(score.value):
        return cell("–", "n")
    interval = "" if math.isnan(score.low) else f"{_percent(score.low)} to {_percent(score.high)}, "
    style = "n best" if is_best else "n"
    return f'<td class="{style}">{_percent(score.value)}<small>{interval}n = {score.n}</small></td>'


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _published_table(rows: Sequence[TaskRow], models: Sequence[str]) -> str:
    """Own scores and published ones of the tasks that have any."""
    known = [row for row in rows if row.published]
    if not known:
        return ""
    systems = list(dict.fromkeys((each.system, each.source) for row in known for each in row.published))
    head = ["Task", "Metric", *map(shown, models)]
    head += [f"{shown(system)}<br><small>{shown(source)}</small>" for system, source in systems]
    body = []
    for row in known:
        own = [_score(row.scores.get(model)) for model in models]
        body.append([*_begin(row)[1:], *own, *_published_cells(row.published, systems)])
    notes = [each.note for each in published_answers() if each.note and each.source in {s for _, s in systems}]
    encoders = sorted({str(name) for row in known for name in _encoders(row)})
    if encoders:
        notes.append(f"Sentences were compared by {', '.join(encoders)} here, by paraphrase-TinyBERT-L6-v2 there.")
    return (
        "<h3>Beside published figures</h3><p class='note'>In italics what papers and talks print: copied, not "
        "re-measured, made by the released scripts on whole test sets. Only figures of the same data set can be "
        f"compared.{' ' if notes else ''}{shown(' '.join(dict.fromkeys(notes)))}</p>" + table(head, body)
    )


def _published_cells(published: Sequence[Published], systems: Sequence[tuple[str, str]]) -> list[str]:
    values = {(each.system, each.source): each.value for each in published}
    return [
        cell(_printed(values[key]) if key in values else "–", f"n published{' first' * (not number)}")
        for number, key in enumerate(systems)
    ]


def _printed(value: float) -> str:
    """Percent with one or two digits after the point, as tables print them."""
    text = f"{100 * value:.2f}"
    return text.removesuffix("0")


def _encoders(row: TaskRow) -> Iterable[Any]:
    for result in row.results.values():
        if (found := result.scored.settings.get("encoder")) is not None:
            yield found.get("name", found) if isinstance(found, dict) else found


# --- MECAT


def _mecat(row: TaskRow) -> str:
    groups = mecat_groups(row)
    systems = list(dict.fromkeys((each.system, each.source) for group in groups for each in group.published))
    head = ["Group", "Metric", *map(shown, row.results)]
    head += [f"{shown(system)}<br><small>{shown(source)}</small>" for system, source in systems]
    body = [_mecat_row(group, row, systems) for group in groups]
    parts = [f"<h2>{shown(row.title)}: groups, {row.protocol}</h2>"]
    if systems:
        parts.append('<p class="note">In italics published figures, copied and not re-measured.</p>')
    parts.append(table(head, body))
    if domains := mecat_domains(row):
        parts.append(_mecat_domains(row, domains))
    return "".join(parts)


def _mecat_row(group: MecatGroup, row: TaskRow, systems: Sequence[tuple[str, str]]) -> list[str]:
    values = {model: score.value for model, score in group.scores.items()}
    is_compared = row.is_same and len(values) > 1
    best = max(values.values()) if is_compared else math.nan
    own = [_score(group.scores.get(model), is_best=values.get(model) == best) for model in row.results]
    names = [cell(group.group.replace("_", " ")), cell(group.metric.replace("_", " "))]
    return [*names, *own, *_published_cells(group.published, systems)]


def _mecat_domains(row: TaskRow, domains: Mapping[str, Mapping[str, float]]) -> str:
    body = [
        [cell(domain), *(cell(_percent(own.get(model, math.nan)), "n") for model in row.results)]
        for domain, own in domains.items()
    ]
    return (
        "<h3>By domain</h3><p class='note'>Mean DATE of clips with (S)peech, (M)usic and other sounds (A); of captions "
        "the long ones.</p>" + table(["Domain", *map(shown, row.results)], body)
    )


# --- figures


def _figures(rows: Sequence[TaskRow], models: Models) -> "dict[str, tuple[Figure, str]]":
    """By name the figure and what it shows: all tasks, and of MECAT the domains."""
    found: dict[str, tuple[Figure, str]] = {}
    by_protocol = {name: shared_rows([row for row in rows if row.protocol == name], models) for name in PROTOCOLS}
    protocol = max(PROTOCOLS, key=lambda name: len(by_protocol[name]))
    if own := by_protocol[protocol]:
        words, axes = _axes(own)
        lines = {label: [_mean(row.goodness(label) for row in rows) for rows in axes.values()] for label in models}
        title = f"{protocol.capitalize()} protocol. Each axis: {words}"
        found["tasks"] = (
            _figure(title, list(axes), lines),
            f"{title}. Of error rates what they leave to 100 %, at least 0.",
        )
    for row in {row.task: row for row in reversed(rows) if _is_mecat(row)}.values():  # strict, where there is one
        domains = mecat_domains(row)
        shared = {domain: own for domain, own in domains.items() if own.keys() == row.results.keys()}
        if shared and row.is_same:
            lines = {model: [min(1.0, max(0.0, own[model])) for own in shared.values()] for model in row.results}
            title = f"{row.title}, {row.protocol}: DATE by domain"
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


def _mean(values: Iterable[float]) -> float:
    own = list(values)
    return math.fsum(own) / len(own)


def _figure(title: str, titles: Sequence[str], lines: Mapping[str, Sequence[float]]) -> "Figure":
    figure = new_figure(7.0, 6.4 + 0.14 * len(lines), "The report on answers")
    figure.suptitle(f"{visible(title)}\n".replace("$", r"\$"), fontsize=11)
    looks = [Line(values, look_of(label, number)) for number, (label, values) in enumerate(lines.items())]
    return draw_lines(figure, titles, looks)


def _drawn(figures: "Mapping[str, tuple[Figure, str]]") -> str:
    drawn = "".join(
        f"<figure>{svg(figure, name)}<figcaption>{shown(caption)}</figcaption></figure>"
        for name, (figure, caption) in figures.items()
    )
    return f'<h2>Figures</h2><div class="figures">{drawn}</div>' if drawn else ""


# --- what went wrong, and what decided


def _failures(models: Models) -> str:
    rows: list[list[str]] = []
    more = 0
    for label, own in models.items():
        for task, result in {result.task: result for result in own}.items():
            for name, why in _wrong(result):
                if len(rows) < MAX_ROWS:
                    rows.append([cell(label), cell(task), f"<td>{bounded(name, 200)}</td>", f"<td>{bounded(why)}</td>"])
                else:
                    more += 1
            if unanswered := result.scored.counts.get("unanswered") or result.scored.counts.get("missing"):
                rows.append(
                    [cell(label), cell(task), "<td>–</td>", cell(f"{unanswered:g} without an answer, counted as wrong")]
                )
    if not rows:
        return "<h2>Failures</h2><p>No sound is known to have failed or to have been heard in part.</p>"
    told = f"<p>{more} more are not shown.</p>" if more else ""
    return "<h2>Failures</h2>" + table(["Model", "Task", "Sound", "What happened"], rows) + told


def _wrong(result: LmResult) -> Iterable[tuple[str, str]]:
    """Names of sounds and what happened to them; files of a stranger may hold anything."""
    failed, partial = (result.run.get(name) for name in ("failed", "heard_in_part"))
    for each in failed if isinstance(failed, list) else ():
        if isinstance(each, dict):
            yield str(each.get("audio", "?")), f"failed: {each.get('error', 'no reason given')}"
    for each in partial if isinstance(partial, list) else ():
        yield str(each), "heard in part"


def _provenance(models: Models) -> str:
    rows = []
    for label, own in models.items():
        for result in own:
            scored = result.scored
            rule = f"{scored.rule.id} version {scored.rule.version}"
            counts = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in scored.counts.items())
            run = {name: result.run[name] for name in _TOLD_OF_RUN if name in result.run}
            # Precision of each class and the like: results, and as long as the data are wide.
            settings = {
                name: own for name, own in scored.settings.items() if not isinstance(own, dict) or len(own) < 20
            }
            told = {"model": result.fingerprint or "not known", "data": scored.data, "settings": settings, "run": run}
            codes = "<br>".join(f"{name} <code>{bounded(_json(own), 4000)}</code>" for name, own in told.items() if own)
            names = (label, result.task, result.protocol, rule, scored.version, counts)
            rows.append([*map(cell, names), f'<td class="told">{codes}</td>'])
    head = ["Model", "Task", "Protocol", "Rule", "Auricle", "Counts", "Hashes, settings and what was asked"]
    return f"<h2>Provenance</h2><details><summary>What decided each figure</summary>{table(head, rows)}</details>"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
