"""What verbs print of files: a record or line per file, segments with times, and errors, which are counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from auricle.cli.options import DOUBTFUL, FAILED, PARTLY
from auricle.cli.output import named, print_json, print_line, print_raw, print_result, progress, warn
from auricle.errors import AuricleError, escaped, visible
from auricle.files import write_bytes

if TYPE_CHECKING:
    from auricle.encode.receipt import Receipt
    from auricle.listen.model import AudioLM
    from auricle.listen.outputs import Odds, Segment
    from auricle.listen.streaming import AnswerStream
    from auricle.listen.subtitles import SubtitleFormat

FORMATS = ("txt", "json", "jsonl", "srt", "vtt")
Show = Callable[[str, Any], tuple[dict[str, Any], Iterable[str]]]


class Tally:
    """Counts files that failed, were partly processed or leave doubt, reports them at once, and sets the exit code."""

    def __init__(self, *, quiet: bool = False, strict: bool = False) -> None:
        """Start at 0; quiet: only count, for verbs that print JSON; strict: doubt has an exit code too."""
        self.failed = self.partial = self.doubtful = 0
        self.quiet, self.strict = quiet, strict

    def note_error(self, name: str, error: str) -> None:
        """Count a file that failed."""
        self.failed += 1
        self._report(named(name, error))

    def note_partial(self, name: str, reason: str) -> None:
        """Count a file that was partly processed."""
        self.partial += 1
        self._report(f"{name}: {reason}")

    def note_result(self, name: str, result: Any) -> None:
        """Count a result by its receipt and its doubt, and report what was odd about the file."""
        receipt: Receipt = result.receipt
        for remark in receipt.warnings:
            self._report(f"{name}: {remark}")
        is_unsure = getattr(result, "is_unsure", False) or getattr(result, "open_speech", False)
        self.doubtful += bool(is_unsure or receipt.warnings)
        if receipt.complete:
            return
        seconds = sum(span.stop_s - span.start_s for span in receipt.read)
        why = [f"{receipt.damaged} damaged places"] if receipt.damaged else []
        why += ["the file is truncated"] if receipt.truncated else []
        why += [span.reason for span in receipt.skipped]
        self.note_partial(name, f"partly processed, {seconds:.1f} s: {'; '.join(dict.fromkeys(why))}")

    def leave(self) -> None:
        """End the verb: 1 where files failed, else 3 where some were partly processed, else 4 where doubt counts."""
        if self.failed or self.partial:
            raise typer.Exit(FAILED if self.failed else PARTLY)
        if self.strict and self.doubtful:
            what = "result is" if self.doubtful == 1 else "results are"
            self._report(f"--strict: {self.doubtful} {what} unsure, or of a file with warnings")
            raise typer.Exit(DOUBTFUL)

    def _report(self, problem: str) -> None:
        if not self.quiet:
            warn(problem)


class FilePrinter(Tally):
    """Prints results file by file, as lines for people or as records of JSON, and counts them."""

    def __init__(
        self, model: str, device: str, *, as_json: bool, quiet: bool | None = None, strict: bool = False
    ) -> None:
        """For the results of a model on a device; as_json: one object per result, whose errors are not repeated."""
        super().__init__(quiet=as_json if quiet is None else quiet, strict=strict)
        self.model, self.device, self.as_json = model, device, as_json

    def print_file(self, name: str, result: Any, entries: dict[str, Any], lines: Iterable[str] = ()) -> None:
        """Print a result with a receipt, or the error of a file; JSON has the entries, people read the lines."""
        failed = isinstance(result, AuricleError)
        receipt, error = (None, str(result)) if failed else (result.receipt.as_dict(), None)
        model = {"model": self.model, "device": self.device}
        self.emit({"file": name, **entries, "receipt": receipt, **model, "error": error}, () if failed else lines)
        if failed:
            self.note_error(name, str(result))
        else:
            self.note_result(name, result)

    def emit(self, record: dict[str, Any], lines: Iterable[str]) -> None:
        """Print one result."""
        print_result(record, lines, as_json=self.as_json)

    def print_files(
        self, what: str, names: Sequence[str], results: Iterable[Any], keys: Sequence[str], show: Show
    ) -> None:
        """Print the results of files in order, with a bar.

        Args:
            what: the words before the bar.
            names: of the files.
            results: of each file its result or error.
            keys: of a record's entries, which are None where the file failed.
            show: name and result → the entries, and the lines for people.
        """
        with progress(what, len(names), quiet=self.as_json) as advance:
            for name, result in zip(names, results, strict=True):
                if isinstance(result, AuricleError):
                    self.print_file(name, result, dict.fromkeys(keys))
                else:
                    self.print_file(name, result, *show(name, result))
                advance()


class AnswerPrinter(FilePrinter):
    """Prints the answers of an audio language model one by one, or writes them to a file."""

    def __init__(self, key: str, model: AudioLM, layout: Layout, *, device: str, timed: bool = False) -> None:
        """Prepare to print.

        Args:
            key: of the record: caption, answer or text.
            model: the one that answers.
            layout: of what is printed.
            device: that the model is on.
            timed: a line for each segment, with its times.
        """
        as_json = layout.format in ("json", "jsonl")
        quiet = as_json and layout.output is None
        super().__init__(model.model, device, as_json=as_json, quiet=quiet, strict=layout.strict)
        self.key, self.layout, self.timed = key, layout, timed
        self._rule = model.confidence_rule("transcript" if key == "text" else key)
        self._written: list[Any] = []  # records, or texts
        self._suggested: list[str] = []  # other models, for one result each

    def print_result(self, name: str, result: Any, **more: Any) -> None:
        """Print a result or an error of one file, with more entries for its record."""
        if isinstance(result, AuricleError):
            self.print_file(name, result, {self.key: None, **more, "segments": []})
            return
        from auricle.listen.outputs import record_of

        entries = record_of(self.key, result, **more)
        self._suggested += [entries["suggested_model"]] if "suggested_model" in entries else []
        self.print_file(name, result, entries, self._lines(name, result, more.get("prompt")))

    @property
    def prints_segments(self) -> bool:
        """Whether segments are printed one by one, as `print_segment` is called."""
        return self.timed and self.layout.format == "txt" and self.layout.output is None

    def print_segment(self, name: str, segment: Segment) -> None:
        """Print a segment of a result that is not finished."""
        print_line(self._timed_line(name, segment))

    def emit(self, record: dict[str, Any], lines: Iterable[str]) -> None:
        """Print one result, or keep it for the file."""
        if self.layout.output is None and self.layout.format != "json":
            super().emit(record, lines)
        elif self.as_json:
            self._written.append(record)
        else:
            self._written += lines

    def leave(self) -> None:
        """Write the file, if there is one, and end the verb with its exit code."""
        is_said = self.layout.format == "txt" and self.layout.output is None and not self.timed
        if self._suggested and not self.quiet and not is_said:
            count = len(self._suggested)
            warn(
                f"{count} {'file holds' if count == 1 else 'files hold'} speech that {self.model} was not trained to "
                f"write down; --model {self._suggested[0]} is for it"
            )
        if self.layout.format == "json":
            self.layout.write(json.dumps(self._written, ensure_ascii=False, indent=1) + "\n")
        elif self.layout.output is not None and self.as_json:
            self.layout.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in self._written))
        elif self.layout.output is not None and (self._written or not self.failed):
            self.layout.write("".join(f"{line}\n" for line in self._written))
        super().leave()

    def print_stream(self, name: str, pieces: AnswerStream) -> None:
        """Print an answer while it is generated, and close it."""
        if not self.as_json and self.layout.with_names:
            print_piece(f"{visible(name)}: ")
        try:
            with pieces:
                for piece in pieces:
                    if self.as_json:
                        print_json({"file": name, "piece": piece})
                    else:
                        print_piece(piece)
        except AuricleError as error:
            typer.echo("", nl=not self.as_json)
            self.print_result(name, error)
            return
        assert pieces.answer is not None
        if self.as_json:
            self.print_result(name, pieces.answer)
        else:
            typer.echo(self._doubt(pieces.answer.confidence))
            self.note_result(name, pieces.answer)

    def _lines(self, name: str, result: Any, prompt: str | None) -> Iterator[str]:
        """What people read, or the subtitles."""
        if self.layout.format in ("srt", "vtt"):
            from auricle.listen.subtitles import subtitles

            segments = map(self._worded, result.segments)
            yield from subtitles(segments, cast("SubtitleFormat", self.layout.format)).splitlines()
            return
        start = (f"{name}: " if self.layout.with_names else "") + (f"{prompt}  " if prompt is not None else "")
        if self.prints_segments:
            return  # they are printed already
        if self.timed:
            yield from (self._timed_line(name, segment) for segment in result.segments)
        elif odds := getattr(result, "odds", ()):
            mark = f"  (unsure, {result.confidence:.0%})" if result.is_unsure else ""
            yield f"{start}{result.text}  {shares(odds)}{mark}"
        else:
            is_plain = result.text and getattr(result, "value", None) is None  # JSON stays JSON
            yield start + result.in_words + (self._doubt(result.confidence) if is_plain else "")

    def _timed_line(self, name: str, segment: Segment) -> str:
        start = f"{name}: " if self.layout.with_names else ""
        return start + timed_line(self._worded(segment)) + self._doubt(self._confidence(segment))

    def _worded(self, segment: Segment) -> Segment:
        """A segment with the doubt in the words of its caption."""
        if self.key != "caption" or not self._rule.is_unsure(self._confidence(segment)):
            return segment
        from auricle.listen.confidence import doubtful

        return replace(segment, text=doubtful(segment.text))

    def _confidence(self, segment: Segment) -> float | None:
        return None if segment.mean_logprob is None or not segment.text else self._rule.of(segment.mean_logprob)

    def _doubt(self, confidence: float | None) -> str:
        """A remark where the confidence is below the bound that the model declares."""
        return f"  (unsure, {confidence:.0%})" if self._rule.is_unsure(confidence) else ""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where answers go, and in which form."""

    format: str  # one of `FORMATS`
    output: Path | None  # None: standard output
    with_names: bool  # lines start with the name of the file
    strict: bool = False  # whether doubt has an exit code

    def write(self, text: str) -> None:
        """Write all that there is to write."""
        if self.output is not None:
            write_bytes(self.output, text.encode("utf-8", "backslashreplace"))
        else:
            print_raw(text)


def timed_line(segment: Segment) -> str:
    """A segment with its times, as ``[0:00.0-0:08.4] text``."""
    left_out = f"({segment.open_speech}, not written down)" if segment.open_speech else ""
    return f"[{clock(segment.start_s)}-{clock(segment.stop_s)}] {segment.text or left_out}".rstrip()


def clock(seconds: float) -> str:
    """Seconds as ``m:ss.t`` or ``h:mm:ss.t``."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest / 10:04.1f}" if hours else f"{minutes}:{rest / 10:04.1f}"


def shares(odds: Sequence[Odds]) -> str:
    """Probabilities of the options, the highest first."""
    ordered = sorted(odds, key=lambda each: -each.probability)
    return f"({', '.join(f'{each.text} {each.probability:.1%}' for each in ordered)})"


def print_piece(text: str) -> None:
    """Print a part of a line at once; control characters other than a line break cannot reach the terminal."""
    shown = "".join(c if c == "\n" else " " if c in "\r\t" else escaped(c) for c in text)
    typer.echo(shown.encode("utf-8", "backslashreplace"), nl=False)
