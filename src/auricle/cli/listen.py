"""Verbs that put sound into words: describe, ask, transcribe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.inputs import find_sources, open_source
from auricle.cli.output import progress
from auricle.cli.printing import Tally, Teller
from auricle.errors import AuricleError, ConfigError

if TYPE_CHECKING:
    from auricle.listen.model import AudioLM
    from auricle.listen.streaming import AnswerStream

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
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Windows heard at once; most sounds are one.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]
WindowS = Annotated[
    float | None,
    typer.Option("--window", min=0.4, help="Longest window of a long sound, s; at most what the model was trained on."),
]

Hear = Callable[["AudioLM", list[Any]], Iterator[Any]]


def describe(
    files: Files,
    dense: Annotated[
        bool, typer.Option("--dense", help="One caption for each stretch of a long sound, with its times.")
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
    """Describe each sound in a caption; long ones in windows, which --dense tells apart.

    Example: auricle describe street.ogg recordings/ --json
    """

    def hear(ear: AudioLM, sources: list[Any]) -> Iterator[Any]:
        return ear.describe_many(
            sources, batch_size=batch_size, dense=dense, window_s=window_s, max_new_tokens=max_new_tokens
        )

    opened = {"name": model, "device": device, "dtype": dtype, "quantize": quantize, "adapter": adapter}
    _listen(files, hear, "caption", opened=opened, as_json=as_json, timed=dense)


def ask(
    files: Files,
    prompts: Annotated[
        list[str], typer.Option("--prompt", "-p", help="The question; given several times, each sound is heard once.")
    ],
    choices: Annotated[
        str | None, typer.Option("--choices", help="Options, as a,b,c or a JSON list; prints how likely each is.")
    ] = None,
    letters: Annotated[bool, typer.Option("--letters", help="List the choices as (A) … in the question.")] = False,
    schema: Annotated[
        Path | None, typer.Option("--schema", help="File with a JSON schema; the answer is JSON of it.")
    ] = None,
    reduce: Annotated[
        str, typer.Option("--reduce", help="Of a long sound's answers: auto, distinct, majority, any or summary.")
    ] = "auto",
    stream: Annotated[bool, typer.Option("--stream", help="Print the words as they come.")] = False,
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
    """Ask the same question about each sound.

    Example: auricle ask street.ogg --prompt "How many people speak?"

    Example: auricle ask yard.ogg -p "Which sound is this?" --choices dog,rain
    """
    _check_ways(prompts, choices is not None, schema is not None, letters=letters, stream=stream)
    options = None if choices is None else _options(choices)
    rules = None if schema is None else _schema(schema)

    def hear(ear: AudioLM, sources: list[Any]) -> Iterator[Any]:
        from auricle.engine.engine import SamplingParams

        shared: dict[str, Any] = {"batch_size": batch_size, "window_s": window_s}
        if options is not None:
            return ear.choose_many(sources, prompts[0], options, letters=letters, **shared)
        shared |= {"reduce": reduce, "sampling": SamplingParams(max_new_tokens=max_new_tokens)}
        if rules is not None:
            return ear.ask_many(sources, prompts[0], schema=rules, **shared)
        if len(prompts) > 1:
            return ear.ask_all_many(sources, prompts, **shared)
        if stream:
            return (
                ear.stream(source, prompts[0], sampling=shared["sampling"], reduce=shared["reduce"], window_s=window_s)
                for source in sources
            )
        return ear.ask_many(sources, prompts[0], **shared)

    opened = {"name": model, "device": device, "dtype": dtype, "quantize": quantize, "adapter": adapter}
    _listen(files, hear, "answer", opened=opened, as_json=as_json, prompts=prompts, stream=stream)


def transcribe(
    files: Files,
    segments: Annotated[bool, typer.Option("--segments", help="A line for each window, with its times.")] = False,
    window_s: WindowS = None,
    overlap_s: Annotated[
        float | None,
        typer.Option("--overlap", min=0.0, help="Heard by both windows around a cut into sound, s; by default 2."),
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
    """Write down the words spoken in each sound.

    Prints an empty text where nobody speaks.

    Example: auricle transcribe memo.m4a lecture.mp3 --segments
    """

    def hear(ear: AudioLM, sources: list[Any]) -> Iterator[Any]:
        return ear.transcribe_many(
            sources,
            batch_size=batch_size,
            window_s=window_s,
            overlap_s=overlap_s,
            vad=vad,
            max_new_tokens=max_new_tokens,
        )

    opened = {"name": model, "device": device, "dtype": dtype, "quantize": quantize, "adapter": adapter}
    _listen(files, hear, "text", opened=opened, as_json=as_json, timed=segments)


def _listen(
    files: list[str],
    hear: Hear,
    key: str,
    *,
    opened: dict[str, Any],
    as_json: bool,
    timed: bool = False,
    prompts: list[str] | None = None,
    stream: bool = False,
) -> None:
    names = find_sources(files)
    sources = [open_source(name) for name in names]

    import auricle

    ear = auricle.load(**opened)
    teller = Teller(key, ear.model, as_json=as_json, has_many=len(names) > 1, timed=timed)
    results = hear(ear, sources)
    if stream:
        for name, pieces in zip(names, results, strict=True):
            _tell_stream(teller, name, pieces)
    else:
        with progress("reading", len(names), quiet=as_json) as advance:
            for name, result in zip(names, results, strict=True):
                _tell(teller, name, result, prompts or [])
                advance()
    teller.tally.leave()


def _tell(teller: Teller, name: str, result: Any, prompts: list[str]) -> None:
    if isinstance(result, list):
        for prompt, answer in zip(prompts, result, strict=True):
            teller.tell(name, answer, prompt=prompt)
    elif isinstance(result, AuricleError) or getattr(result, "value", None) is None:
        teller.tell(name, result)
    else:
        teller.tell(name, result, value=result.value)


def _tell_stream(teller: Teller, name: str, pieces: AnswerStream) -> None:
    with pieces:
        teller.tell_pieces(name, pieces, lambda: pieces.answer)


def _check_ways(prompts: list[str], has_choices: bool, has_schema: bool, *, letters: bool, stream: bool) -> None:
    ways = {"several --prompt": len(prompts) > 1, "--choices": has_choices, "--schema": has_schema, "--stream": stream}
    given = [name for name, is_given in ways.items() if is_given]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} do not go together; give one of them")
    if letters and not has_choices:
        raise ConfigError("--letters lists choices; give them with --choices")


def _options(text: str) -> list[str]:
    """``a,b,c``, or a JSON list for options that hold commas."""
    if not text.lstrip().startswith("["):
        return text.split(",")
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f'--choices is no JSON list ({error}); give a,b,c or ["a", "b, c"]') from None
    if not all(isinstance(option, str) for option in options):
        raise ConfigError(f"--choices holds {options}; expected texts")
    return list(options)


def _schema(file: Path) -> dict[str, Any]:
    try:
        schema = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: is no JSON schema that can be read ({error}); give a JSON file") from None
    if not isinstance(schema, dict):
        raise ConfigError(f'{file}: holds a {type(schema).__name__}; expected a JSON schema, {{"type": …}}')
    return schema
