"""Verbs of audio language models: describe, ask, transcribe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.inputs import audio_seconds, find_sources, open_source
from auricle.cli.output import progress
from auricle.cli.printing import ResultPrinter, Tally
from auricle.errors import AuricleError, ConfigError

if TYPE_CHECKING:
    from auricle.listen.model import AudioLM

__all__ = ["Tally", "ask", "describe", "transcribe"]

Files = Annotated[list[str], typer.Argument(metavar="FILES", help="Files, folders, globs, or - for standard input.")]
Model = Annotated[str, typer.Option("--model", help="Embedded name, hub id or folder; see `auricle models`.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, …")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16; auto: the checkpoint's own.")]
Quantize = Annotated[
    str | None, typer.Option("--quantize", help="Round the decoder's weights: int8, int8-dynamic; on a GPU int4, fp8.")
]
Adapter = Annotated[str | None, typer.Option("--adapter", help="Folder or hub id of a PEFT adapter to merge.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per file.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Windows in one batch; most clips are one window.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]
WindowS = Annotated[
    float | None,
    typer.Option("--window", min=0.4, help="Longest window, s; at most what the model was trained on."),
]

_DONE = {"caption": "describing", "answer": "answering", "text": "transcribing"}  # by key of the record


def describe(
    files: Files,
    dense: Annotated[
        bool, typer.Option("--dense", help="A line for each part of a long file with its own caption, with times.")
    ] = False,
    window_s: WindowS = None,
    model: Model = "auricle-tiny",
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    adapter: Adapter = None,
    batch_size: BatchSize = 8,
    max_new_tokens: MaxNewTokens = 128,
    as_json: AsJson = False,
) -> None:
    """Describe each file in a caption; long files in windows, which --dense lists.

    Example: auricle describe street.ogg recordings/ --json
    """

    names, sources = _sources(files)
    loaded = _load(model, device=device, dtype=dtype, quantize=quantize, adapter=adapter, as_json=as_json)
    results = loaded.describe_many(
        sources, batch_size=batch_size, dense=dense, window_s=window_s, max_new_tokens=max_new_tokens
    )
    printer = ResultPrinter("caption", loaded.model, as_json=as_json, has_many=len(names) > 1, timed=dense)
    _print_all(printer, loaded, names, results)


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
        str,
        typer.Option("--reduce", help="How answers of windows become one: auto, distinct, majority, any, summary."),
    ] = "auto",
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer while it is generated.")] = False,
    window_s: WindowS = None,
    model: Model = "auricle-tiny",
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    adapter: Adapter = None,
    batch_size: BatchSize = 8,
    max_new_tokens: MaxNewTokens = 128,
    as_json: AsJson = False,
) -> None:
    """Ask the same question about each file.

    Example: auricle ask street.ogg --prompt "How many people speak?"

    Example: auricle ask yard.ogg -p "Which sound is this?" --choices dog,rain
    """
    _check_modes(prompts, choices is not None, schema is not None, letters=letters, stream=stream)
    options = None if choices is None else _options(choices)
    rules = None if schema is None else _schema(schema)

    names, sources = _sources(files)
    loaded = _load(model, device=device, dtype=dtype, quantize=quantize, adapter=adapter, as_json=as_json)
    printer = ResultPrinter("answer", loaded.model, as_json=as_json, has_many=len(names) > 1)
    batched: dict[str, Any] = {"batch_size": batch_size, "window_s": window_s}
    if options is not None:
        _print_all(printer, loaded, names, loaded.choose_many(sources, prompts[0], options, letters=letters, **batched))
        return
    from auricle.engine.request import SamplingParams

    shared: dict[str, Any] = {"sampling": SamplingParams(max_new_tokens=max_new_tokens), "reduce": reduce}
    if stream:
        for name, source in zip(names, sources, strict=True):
            printer.print_stream(name, loaded.stream(source, prompts[0], window_s=window_s, **shared))
        printer.tally.leave()
    elif len(prompts) > 1:
        _print_all(printer, loaded, names, loaded.ask_all_many(sources, prompts, **shared, **batched), prompts)
    else:
        _print_all(printer, loaded, names, loaded.ask_many(sources, prompts[0], schema=rules, **shared, **batched))


def transcribe(
    files: Files,
    segments: Annotated[bool, typer.Option("--segments", help="A line for each window, with its times.")] = False,
    window_s: WindowS = None,
    overlap_s: Annotated[
        float | None,
        typer.Option(
            "--overlap", min=0.0, help="Overlap of the windows around a cut outside a pause, s; by default 2."
        ),
    ] = None,
    vad: Annotated[bool, typer.Option("--vad", help="Skip windows in which silero-vad finds no speech.")] = False,
    model: Model = "auricle-tiny",
    device: Device = "cpu",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    adapter: Adapter = None,
    batch_size: BatchSize = 8,
    max_new_tokens: MaxNewTokens = 128,
    as_json: AsJson = False,
) -> None:
    """Write down the words spoken in each file.

    Prints an empty text where nobody speaks.

    Example: auricle transcribe memo.m4a lecture.mp3 --segments
    """

    names, sources = _sources(files)
    loaded = _load(model, device=device, dtype=dtype, quantize=quantize, adapter=adapter, as_json=as_json)
    results = loaded.transcribe_many(
        sources,
        batch_size=batch_size,
        window_s=window_s,
        overlap_s=overlap_s,
        vad=vad,
        max_new_tokens=max_new_tokens,
    )
    printer = ResultPrinter("text", loaded.model, as_json=as_json, has_many=len(names) > 1, timed=segments)
    _print_all(printer, loaded, names, results)


def _sources(files: list[str]) -> tuple[list[str], list[Any]]:
    """Names of the files, and what is given to the model for each."""
    names = find_sources(files)
    return names, [open_source(name) for name in names]


def _load(name: str, *, as_json: bool, **settings: Any) -> AudioLM:
    import auricle

    with progress(f"loading {name}", quiet=as_json):
        return auricle.load(name, **settings)


def _print_all(
    printer: ResultPrinter, model: AudioLM, names: list[str], results: Iterator[Any], prompts: Sequence[str] = ()
) -> None:
    """Print results in order, and end the verb with its exit code."""
    with progress(_DONE[printer.key], partial(audio_seconds, names), unit="audio", quiet=printer.as_json) as advance:
        model.on_audio = advance
        for name, result in zip(names, results, strict=True):
            _print_result(printer, name, result, prompts)
    printer.tally.leave()


def _print_result(printer: ResultPrinter, name: str, result: Any, prompts: Sequence[str]) -> None:
    if isinstance(result, list):
        for prompt, answer in zip(prompts, result, strict=True):
            printer.print_result(name, answer, prompt=prompt)
    elif isinstance(result, AuricleError) or getattr(result, "value", None) is None:
        printer.print_result(name, result)
    else:
        printer.print_result(name, result, value=result.value)


def _check_modes(prompts: list[str], has_choices: bool, has_schema: bool, *, letters: bool, stream: bool) -> None:
    modes = {"several --prompt": len(prompts) > 1, "--choices": has_choices, "--schema": has_schema, "--stream": stream}
    given = [name for name, is_given in modes.items() if is_given]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} cannot be combined; give one of them")
    if letters and not has_choices:
        raise ConfigError("--letters lists choices; give them with --choices")


def _options(text: str) -> list[str]:
    """``a,b,c``, or a JSON list for options with commas."""
    if not text.lstrip().startswith("["):
        return text.split(",")
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f'--choices is not a JSON list ({error}); give a,b,c or ["a", "b, c"]') from None
    if not all(isinstance(option, str) for option in options):
        raise ConfigError(f"--choices holds {options}; expected a list of strings")
    return list(options)


def _schema(file: Path) -> dict[str, Any]:
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read as JSON ({error}); give a file with a JSON schema") from None
    if not isinstance(schema, dict):
        raise ConfigError(f'{file}: holds a {type(schema).__name__}; expected a JSON schema, {{"type": …}}')
    return schema
