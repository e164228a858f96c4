"""The verbs that judge a language model: evaluate score, and what its neighbours share with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.listen import AsJson, Device
from auricle.cli.output import print_json, print_line
from auricle.errors import ConfigError

if TYPE_CHECKING:
    from auricle.evaluate.score_answers import ScoringSettings
    from auricle.evaluate.scores import Scored
    from auricle.evaluate.task import LanguageTask
    from auricle.metrics.intervals import Score
    from auricle.weights.sentence_encoders import ErrorDetector, SentenceEncoder

TASKS = ("asr", "tagging", "gender", "multitag", "qa", "caption", "mecat")
PROTOCOLS: dict[str, tuple[Any, ...]] = {"strict": ("strict",), "compat": ("compat",), "both": ("compat", "strict")}

Protocol = Annotated[
    str, typer.Option("--protocol", help="strict, compat (the published rules with their faults) or both.")
]
Encoder = Annotated[
    str, typer.Option("--encoder", help="Of sentences: minilm, or a folder or hub id; published is TinyBERT.")
]
Detector = Annotated[
    Path | None, typer.Option("--error-detector", help="Folder of FENSE's detector; without it no FENSE.")
]
MissingAnswers = Annotated[
    str, typer.Option("--missing", help="Rows without an answer: error, or worst to count them as wrong.")
]
Tasks = Annotated[
    list[str],
    typer.Option("--task", "-t", metavar="NAME=SOURCE", help="Task and its sounds; repeat. See `evaluate tasks`."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Sounds at most, spread over all.")]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="Folder of answers, kept for later runs [default: OUTPUT/cache].")
]
MaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens [default: the task's].")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the resampling.")]

evaluate = typer.Typer(
    no_args_is_help=True,
    help="Judge an audio language model.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@evaluate.command()
def score(
    predictions: Annotated[
        list[str],
        typer.Argument(
            metavar="PRED...", help="Answers of a model; for mecat also FIELD=FILE, or six files in its order."
        ),
    ],
    task: Annotated[str, typer.Option("--task", "-t", help=f"{', '.join(TASKS[:-1])} or {TASKS[-1]}.")],
    protocol: Protocol = "strict",
    references: Annotated[
        Path | None, typer.Option("--references", help="Folder of MECAT's references of a split.")
    ] = None,
    encoder: Encoder = "minilm",
    error_detector: Detector = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Of mecat: date, fense or bleu; repeat; all by default.")
    ] = None,
    synonyms: Annotated[
        Path | None, typer.Option("--synonyms", help='JSON of other names: {"label": ["name", ...]}.')
    ] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", help="Of strict error rates: word, character or mixed; else by language.")
    ] = None,
    missing: MissingAnswers = "error",
    group_by: Annotated[
        str, typer.Option("--group-by", help="Field of the rows; rows that agree in it are resampled together.")
    ] = "audio",
    seed: Seed = 0,
    device: Device = "cpu",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for results with the score of every item, as JSON.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score answers that lie in files.

    A row that is missing or stands twice is an error. Scores are fractions with 95 % intervals.

    Example: auricle evaluate score answers.jsonl --task asr --protocol both --json
    """
    check_choice("--task", task, TASKS)
    check_choice("--protocol", protocol, tuple(PROTOCOLS))
    check_choice("--missing", missing, ("error", "worst"))
    if unit is not None:
        check_choice("--unit", unit, ("word", "character", "mixed"))
    if (task == "mecat") != (references is not None):
        raise ConfigError("--references names the folder of MECAT's references; mecat needs it, and no other task")
    tools = Tools(encoder, error_detector, device)
    for rule in PROTOCOLS[protocol]:
        if references is not None:
            from auricle.evaluate.mecat_scores import METRICS, score_mecat

            scored = score_mecat(
                _by_field(predictions),
                references,
                tools.encoder(),
                protocol=rule,
                detector=tools.detector(),
                metrics=metric or METRICS,
                missing=missing,
                seed=seed,
            )
        else:
            scored = _score_lines(predictions, task, rule, tools, _settings(missing, unit, synonyms, group_by, seed))
        if output:
            print_line(str(_write(output, scored)), err=True)
        if as_json:
            print_json(scored.content(items=False))
        else:
            show_scored(scored)


class Tools:
    """The networks behind caption scores, each loaded when first asked for."""

    def __init__(self, encoder: str, detector: Path | None, device: str) -> None:
        """Name what may be loaded.

        Args:
            encoder: of sentences, see `auricle.weights.sentence_encoders.load_sentence_encoder`.
            detector: folder of FENSE's; None: there is none.
            device: of both.
        """
        self._names, self._device = (encoder, detector), device
        self._encoder: Any = None
        self._detector: Any = None

    def encoder(self) -> SentenceEncoder:
        """The one of sentences."""
        if self._encoder is None:
            from auricle.weights.sentence_encoders import load_sentence_encoder

            self._encoder = load_sentence_encoder(self._names[0], device=self._device)
        found: SentenceEncoder = self._encoder
        return found

    def detector(self) -> ErrorDetector | None:
        """The one of errors in captions; None where none was named."""
        if self._detector is None and self._names[1] is not None:
            from auricle.weights.sentence_encoders import load_error_detector

            self._detector = load_error_detector(self._names[1], device=self._device)
        found: ErrorDetector | None = self._detector
        return found


def check_choice(flag: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value of an option that is none of those known.

    Raises:
        typer.BadParameter: it is not.
    """
    if value not in known:
        raise typer.BadParameter(f"expected one of {', '.join(known)}, got {value!r}", param_hint=flag)


def _settings(missing: str, unit: str | None, synonyms: Path | None, group_by: str, seed: int) -> ScoringSettings:
    from auricle.evaluate.score_answers import ScoringSettings, read_synonyms

    chosen: Any = {"missing": missing, "unit": unit}
    names = read_synonyms(synonyms) if synonyms else {}
    return ScoringSettings(synonyms=names, group_by=group_by, seed=seed, **chosen)


def _score_lines(files: Sequence[str], task: Any, rule: Any, tools: Tools, settings: ScoringSettings) -> Scored:
    from auricle.evaluate.score_answers import score_predictions

    if len(files) != 1:
        raise ConfigError(f"found {len(files)} files, expected one for {task}; score them one by one")
    detector = tools.detector() if task == "caption" else None
    return score_predictions(files[0], task, protocol=rule, settings=settings, encoder=tools.encoder, detector=detector)


def _by_field(files: Sequence[str]) -> dict[str, str]:
    """MECAT's files by field: named, one for all, or six in the order of its fields."""
    from auricle.evaluate.mecat import CATEGORIES, FIELDS

    fields = {*FIELDS, *(group.name for group in CATEGORIES)}
    named = [file.partition("=") for file in files]
    if all(sign and field in fields for field, sign, _ in named) and len({field for field, *_ in named}) == len(named):
        return {field: file for field, _, file in named}
    if len(files) == 1:
        return {"": files[0]}
    if len(files) == len(FIELDS):
        return dict(zip(FIELDS, files, strict=True))
    raise ConfigError(
        f"found {len(files)} files, expected one for all fields, {len(FIELDS)} in the order {', '.join(FIELDS)}, or "
        "FIELD=FILE with each field once"
    )


def show_scored(scored: Scored) -> None:
    """Print a score as a table for people."""
    print_line(f"{scored.task}, {scored.protocol}: {scored.rule.id} version {scored.rule.version}")
    for name, found in scored.scores.items():
        print_line(_line(name, found))
    for part, metrics in scored.parts.items():
        for name, found in metrics.items():
            print_line(_line(f"  {part}, {name}", found))
    print_line(", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in scored.counts.items()))


def _line(name: str, found: Score) -> str:
    interval = "" if found.low != found.low else f"  [{found.low:.6f}, {found.high:.6f}]"
    return f"{name:44} {found.value:.10f}{interval}  n = {found.n}"


def _write(folder: Path, scored: Scored) -> Path:
    """Write ``TASK.PROTOCOL.json``."""
    from auricle.evaluate.answer_files import utf8
    from auricle.files import make_folder, write_bytes

    path = make_folder(folder) / f"{scored.task}.{scored.protocol}.json"
    write_bytes(path, utf8(scored.to_json()))
    return path


def split_task(text: str) -> tuple[LanguageTask, str]:
    """Task and source of ``NAME=SOURCE``.

    Raises:
        ConfigError: no such form, or no such task.
    """
    from auricle.evaluate.task import load_language_task

    name, sign, source = text.partition("=")
    if not sign or not source:
        raise ConfigError(f"--task is {text!r}, expected NAME=SOURCE, as digits=shards")
    return load_language_task(name), source
