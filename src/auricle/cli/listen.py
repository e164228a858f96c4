"""Verbs of audio language models: describe, ask, transcribe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.inputs import audio_seconds, open_sources
from auricle.cli.options import AsJson, BatchSize, Files, LoadOptions, Model, Strict, check_choice, with_groups
from auricle.cli.output import print_line, progress, warn
from auricle.cli.printing import FORMATS, AnswerPrinter, Layout
from auricle.errors import ConfigError
from auricle.files import check_writable, read_regular_text

if TYPE_CHECKING:
    from auricle.listen.model import AudioLM

DEFAULT_MODEL = "auricle-tiny"
_DONE = {"caption": "describing", "answer": "answering", "text": "transcribing"}  # by key of the record


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(LoadOptions):
    """The model, how it processes files, and how the results are printed."""

    model: Model = DEFAULT_MODEL
    window_s: Annotated[
        float | None,
        typer.Option("--window", min=0.4, help="Longest window, s; at most what the model was trained on."),
    ] = None
    batch_size: BatchSize = 8
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            min=1,
            help="Longest answer, in tokens [default: 128; of Whisper, what its context holds].",
        ),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write instead of printing: .txt, .json, .jsonl, .srt or .vtt."),
    ] = None
    format: Annotated[
        str | None,
        typer.Option("--format", help="txt, json (one list), jsonl, srt or vtt [default: by the ending of --output]."),
    ] = None
    as_json: AsJson = False
    strict: Strict = False
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            help="URL of an `auricle serve` that does the work; its key is in AURICLE_ENDPOINT_KEY or --endpoint.",
        ),
    ] = None

    def open_model(self) -> Any:
        """The model, on this machine or behind the server.

        Raises:
            ConfigError: an option that goes with models of this machine alone.
        """
        if self.server is None:
            return self.load(self.model, quiet=self.is_quiet)
        from auricle.listen.other_models.endpoint_settings import read_endpoint_settings
        from auricle.listen.other_models.served import ServedModel

        own = {"--device": self.device != "auto", "--dtype": self.dtype != "auto", "--isolate": self.isolate}
        own |= {"--quantize": self.quantize is not None, "--adapter": self.adapter is not None}
        if wrong := [name for name, is_given in own.items() if is_given]:
            raise ConfigError(f"{', '.join(wrong)} cannot be combined with --server, which has loaded its models")
        settings = None if self.endpoint is None else read_endpoint_settings(self.endpoint)
        return ServedModel(self.server, None if self.model == DEFAULT_MODEL else self.model, settings)

    def device_of(self, model: Any) -> str:
        """The device that results state."""
        return self.device_name if self.server is None else str(model.device)

    def layout(self, names: Sequence[str], files: Sequence[str], *, has_times: bool) -> Layout:
        """Where the answers go, and in which form.

        Args:
            names: of the files found.
            files: as the command line names them.
            has_times: whether an answer can be written as subtitles.

        Raises:
            typer.BadParameter: an unknown form, or one that these answers do not have.
            OutputError: the file cannot be written.
        """
        ending = "txt" if self.output is None else self.output.suffix.lower().removeprefix(".")
        chosen = self.format or ("jsonl" if self.as_json and ending not in ("srt", "vtt") else ending)
        hint = "--output" if self.format is None and chosen == ending else "--format"
        if not chosen:
            raise typer.BadParameter(
                f"{self.output} has no ending; add one of .{', .'.join(FORMATS)}, or give --format",
                param_hint=hint,
            )
        check_choice(hint, chosen, FORMATS)
        if self.as_json and chosen not in ("json", "jsonl"):
            raise typer.BadParameter(f"--json prints JSON Lines, and the format is {chosen}", param_hint=hint)
        if chosen in ("srt", "vtt") and not has_times:
            raise typer.BadParameter(
                f"{chosen} needs times, which transcribe and describe --dense have", param_hint=hint
            )
        if chosen in ("srt", "vtt") and len(names) > 1:
            raise typer.BadParameter(f"{chosen} is for one file, and there are {len(names)}", param_hint="FILES")
        if self.output is not None:
            check_writable(self.output)
        with_names = len(names) > 1 or list(names) != list(files)
        return Layout(format=chosen, output=self.output, with_names=with_names, strict=self.strict)

    @property
    def is_quiet(self) -> bool:
        """Whether standard error is left to errors: JSON is printed."""
        return self.output is None and (self.as_json or self.format in ("json", "jsonl"))

    @property
    def batched(self) -> dict[str, Any]:
        """How files become windows and batches."""
        return {"batch_size": self.batch_size, "window_s": self.window_s}

    @property
    def limited(self) -> dict[str, Any]:
        """The longest answer, where it is not left to the model."""
        return {} if self.max_new_tokens is None else {"max_new_tokens": self.max_new_tokens}


@with_groups
def describe(
    files: Files,
    dense: Annotated[
        bool, typer.Option("--dense", help="A line for each part of a long file with its own caption, with times.")
    ] = False,
    *,
    options: AnswerOptions,
) -> None:
    """Describe each file in a caption; long files in windows, which --dense lists.

    Example: auricle describe street.ogg recordings/ --json
    """
    names, sources = open_sources(files)
    layout = options.layout(names, files, has_times=dense)
    loaded = options.open_model()
    results = loaded.describe_many(sources, dense=dense, **options.limited, **options.batched)
    printer = AnswerPrinter("caption", loaded, layout, device=options.device_of(loaded), timed=dense)
    _print_all(printer, loaded, names, results)


@with_groups
def ask(
    files: Files,
    prompts: Annotated[
        list[str], typer.Option("--prompt", "-p", help="The question; may be repeated, each file is encoded once.")
    ],
    choices: Annotated[
        str | None, typer.Option("--choices", help="Options, as a,b,c or a JSON list; prints the probability of each.")
    ] = None,
    letters: Annotated[bool, typer.Option("--letters", help="List the choices as (A) … in the question.")] = False,
    schema: Annotated[
        Path | None, typer.Option("--schema", help="File with a JSON schema; the answer is JSON of this schema.")
    ] = None,
    reduce: Annotated[
        str, typer.Option("--reduce", help="How answers of windows become one: auto, distinct, majority, any, summary.")
    ] = "auto",
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer while it is generated.")] = False,
    *,
    options: AnswerOptions,
) -> None:
    """Ask the same question about each file.

    Example: auricle ask street.ogg --prompt "How many people speak?"

    Example: auricle ask yard.ogg -p "Which sound is this?" --choices dog,rain
    """
    _check_modes(prompts, choices is not None, schema is not None, letters=letters, stream=stream)
    if choices is not None and reduce != "auto":
        raise typer.BadParameter("does not go with --choices, which has a rule of its own", param_hint="--reduce")
    offered = None if choices is None else _choices(choices)
    rules = None if schema is None else _schema(schema)

    names, sources = open_sources(files)
    layout = options.layout(names, files, has_times=False)
    if stream and (layout.output is not None or layout.format == "json"):
        raise typer.BadParameter("prints the answer while it is generated; leave out --output", param_hint="--stream")
    if stream and options.server is not None:
        raise typer.BadParameter("is not offered with --server, whose answers come whole", param_hint="--stream")
    loaded = options.open_model()
    if rules is not None:
        _warn_of_limit(loaded, "schema", options)
    printer = AnswerPrinter("answer", loaded, layout, device=options.device_of(loaded))
    from auricle.engine.request import SamplingParams

    shared: dict[str, Any] = {"sampling": SamplingParams(**options.limited), "reduce": reduce}
    if stream:
        for name, source in zip(names, sources, strict=True):
            printer.print_stream(name, loaded.stream(source, prompts[0], window_s=options.window_s, **shared))
        printer.leave()
        return
    results: Iterator[Any]
    if offered is not None:
        results = loaded.choose_many(sources, prompts[0], offered, letters=letters, **options.batched)
    elif len(prompts) > 1:
        results = loaded.ask_all_many(sources, prompts, **shared, **options.batched)
    else:
        results = loaded.ask_many(sources, prompts[0], schema=rules, **shared, **options.batched)
    _print_all(printer, loaded, names, results, prompts)


@with_groups
def transcribe(
    files: Files,
    segments: Annotated[bool, typer.Option("--segments", help="A line for each window, with its times.")] = False,
    overlap_s: Annotated[
        float | None,
        typer.Option(
            "--overlap",
            min=0.0,
            help="Overlap at a cut outside a pause, s [default: 2, at most window / 5].",
        ),
    ] = None,
    vad: Annotated[bool, typer.Option("--vad", help="Skip windows in which silero-vad finds no speech.")] = False,
    language: Annotated[
        str | None,
        typer.Option(
            "--language", help="Language spoken, as en or zh; only for Whisper and models whose prompt names it."
        ),
    ] = None,
    *,
    options: AnswerOptions,
) -> None:
    """Write down the words spoken in each file.

    Prints an empty text where nobody speaks, and what it is where the model cannot write it down. With the extra asr,
    `--model whisper:base` transcribes speech of any kind and language; whisper: is followed by a size, a folder of
    CTranslate2, or a hub id, which alone is downloaded.

    Example: auricle transcribe memo.m4a lecture.mp3 --segments

    Example: auricle transcribe interview.mp3 --model whisper:base -o interview.srt
    """
    names, sources = open_sources(files)
    layout = options.layout(names, files, has_times=True)
    loaded = options.open_model()
    _warn_of_limit(loaded, "transcribe", options)
    limits = {**options.limited, **options.batched}
    results = loaded.transcribe_many(sources, overlap_s=overlap_s, vad=vad, language=language, **limits)
    printer = AnswerPrinter("text", loaded, layout, device=options.device_of(loaded), timed=segments)
    _print_all(printer, loaded, names, results)


def _warn_of_limit(model: AudioLM, verb: str, options: AnswerOptions) -> None:
    """Say once what the model's card states about a verb; JSON has it in every receipt."""
    if (limit := model.verb_limits.get(verb)) and not options.is_quiet:
        warn(f"{model.model}: {limit}")


def _print_all(
    printer: AnswerPrinter, model: AudioLM, names: list[str], results: Iterator[Any], prompts: Sequence[str] = ()
) -> None:
    """Print results in order, and end the verb with its exit code."""
    total = partial(audio_seconds, names, model.limits)
    with progress(_DONE[printer.key], total, unit="audio", quiet=printer.quiet) as advance:
        model.on_audio = advance
        if printer.prints_segments:
            model.on_segment = printer.print_segment
        for name, result in zip(names, results, strict=True):
            _print_result(printer, name, result, prompts)
    if not printer.quiet:
        _print_spent(model)
    printer.leave()


def _print_spent(model: AudioLM) -> None:
    """Say what was asked of a server, where the model is behind one."""
    from auricle.listen.other_models.openai_model import EndpointLM

    if isinstance(model, EndpointLM):
        print_line(f"{model.model}: {model.spent.line()}", err=True)


def _print_result(printer: AnswerPrinter, name: str, result: Any, prompts: Sequence[str]) -> None:
    if isinstance(result, list):
        for prompt, answer in zip(prompts, result, strict=True):
            printer.print_result(name, answer, prompt=prompt)
    else:
        printer.print_result(name, result)


def _check_modes(prompts: list[str], has_choices: bool, has_schema: bool, *, letters: bool, stream: bool) -> None:
    modes = {"several --prompt": len(prompts) > 1, "--choices": has_choices, "--schema": has_schema, "--stream": stream}
    given = [name for name, is_given in modes.items() if is_given]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} cannot be combined; give one of them")
    if letters and not has_choices:
        raise ConfigError("--letters lists choices; give them with --choices")


def _choices(text: str) -> list[str]:
    """``a,b,c``, or a JSON list for options with commas."""
    if not text.lstrip().startswith("["):
        return text.split(",")
    try:
        options = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f'--choices is not a JSON list ({error}); give a,b,c or ["a", "b, c"]') from None
    if not all(isinstance(option, str) for option in options):
        raise ConfigError(f"--choices holds {options}; expected a list of strings")
    return list(options)


_MAX_SCHEMA_BYTES = 2**20


def _schema(file: Path) -> dict[str, Any]:
    try:
        schema = json.loads(read_regular_text(file, _MAX_SCHEMA_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: cannot be read as JSON ({error}); give a file with a JSON schema") from None
    if not isinstance(schema, dict):
        raise ConfigError(f'{file}: holds a {type(schema).__name__}; expected a JSON schema, {{"type": …}}')
    return schema
