"""Verbs that put sound into words: describe, ask, transcribe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.inputs import find_sources, open_source
from auricle.cli.output import print_json, print_line, with_progress
from auricle.errors import AuricleError

if TYPE_CHECKING:
    from auricle.infer.listener import Listener
    from auricle.infer.receipt import Receipt

Files = Annotated[list[str], typer.Argument(metavar="FILES", help="Files, folders, globs, or - for standard input.")]
Model = Annotated[str, typer.Option("--model", help="Embedded name, hub id or folder; see `auricle models`.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, …")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per file.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Clips heard at once.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]

Hear = Callable[["Listener", list[Any]], Iterator[Any]]


def describe(
    files: Files,
    model: Model = "auricle-tiny",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    max_new_tokens: MaxNewTokens = 128,
    as_json: AsJson = False,
) -> None:
    """Describe each sound in a caption.

    Example: auricle describe street.ogg recordings/ --json
    """

    def hear(ear: Listener, sources: list[Any]) -> Iterator[Any]:
        return ear.describe_many(sources, batch_size=batch_size, max_new_tokens=max_new_tokens)

    _listen(files, hear, "caption", model=model, device=device, dtype=dtype, as_json=as_json)


def ask(
    files: Files,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The question.")],
    model: Model = "auricle-tiny",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    max_new_tokens: MaxNewTokens = 128,
    as_json: AsJson = False,
) -> None:
    """Ask the same question about each sound.

    Example: auricle ask street.ogg --prompt "How many people speak?"
    """

    def hear(ear: Listener, sources: list[Any]) -> Iterator[Any]:
        from auricle.infer.engine import Decoding

        decoding = Decoding(max_new_tokens=max_new_tokens)
        return ear.ask_many(sources, prompt, batch_size=batch_size, decoding=decoding)

    _listen(files, hear, "answer", model=model, device=device, dtype=dtype, as_json=as_json)


def transcribe(
    files: Files,
    model: Model = "auricle-tiny",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    max_new_tokens: MaxNewTokens = 128,
    as_json: AsJson = False,
) -> None:
    """Write down the words spoken in each sound.

    Prints an empty text where nobody speaks.

    Example: auricle transcribe memo.m4a
    """

    def hear(ear: Listener, sources: list[Any]) -> Iterator[Any]:
        return ear.transcribe_many(sources, batch_size=batch_size, max_new_tokens=max_new_tokens)

    _listen(files, hear, "text", model=model, device=device, dtype=dtype, as_json=as_json)


def _listen(files: list[str], hear: Hear, key: str, *, model: str, device: str, dtype: str, as_json: bool) -> None:
    names = find_sources(files)
    sources = [open_source(name) for name in names]

    import auricle

    ear = auricle.load(model, device=device, dtype=dtype)
    results = with_progress(hear(ear, sources), len(names), "listening", prints=True)
    tally = Tally()
    for name, result in zip(names, results, strict=True):
        record: dict[str, Any] = {
            "file": name,
            key: None,
            "segments": [],
            "receipt": None,
            "model": ear.model,
            "error": None,
        }
        if isinstance(result, AuricleError):
            record["error"] = str(result)
        else:
            receipt = result.receipt
            record[key] = getattr(result, "caption" if key == "caption" else "text")
            record["segments"] = [asdict(segment) for segment in result.segments]
            record["receipt"] = receipt.as_dict()
            tally.note_receipt(name, receipt, quiet=as_json)
        if as_json:
            print_json(record)
        elif record["error"] is None:
            print_line(f"{name}: {record[key]}" if len(names) > 1 else str(record[key]))
        tally.note_error(name, record["error"], quiet=as_json)
    tally.leave()


class Tally:
    """Counts what went wrong, tells it to people at once, and turns it into an exit code."""

    def __init__(self) -> None:
        """Start at nothing wrong."""
        self.failed = self.partial = 0

    def note_error(self, name: str, error: str | None, *, quiet: bool) -> None:
        """Count a file that failed."""
        if error is None:
            return
        self.failed += 1
        if not quiet:
            print_line(f"auricle: {error}" if name in error else f"auricle: {name}: {error}", err=True)

    def note_receipt(self, name: str, receipt: Receipt, *, quiet: bool) -> None:
        """Count a file that was not read to its end."""
        if receipt.complete:
            return
        self.partial += 1
        if not quiet:
            heard = sum(span.stop_s - span.start_s for span in receipt.read)
            why = [f"{receipt.damaged} damaged places"] if receipt.damaged else []
            why += ["it breaks off"] if receipt.truncated else []
            why += [span.reason for span in receipt.skipped]
            reasons = "; ".join(dict.fromkeys(why))
            print_line(f"auricle: {name}: heard in part, {heard:.1f} s: {reasons}", err=True)

    def leave(self) -> None:
        """End the verb: 1 where files failed, else 3 where some were heard in part, else 0."""
        if self.failed or self.partial:
            raise typer.Exit(1 if self.failed else 3)
