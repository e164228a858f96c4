"""What verbs print of files: a record or line per file, segments with times, and errors, which are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from auricle.cli.options import FAILED, PARTLY
from auricle.cli.output import named, print_json, print_result, progress, warn
from auricle.errors import AuricleError, escaped, visible

if TYPE_CHECKING:
    from auricle.encode.receipt import Receipt
    from auricle.listen.outputs import Odds, Segment
    from auricle.listen.streaming import AnswerStream

Show = Callable[[str, Any], tuple[dict[str, Any], Iterable[str]]]


class Tally:
    """Counts files that failed or were partly processed, reports them at once, and sets the exit code."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Start at 0; quiet: only count, for verbs that print JSON."""
        self.failed = self.partial = 0
        self._quiet = quiet

    def note_error(self, name: str, error: str) -> None:
        """Count a file that failed."""
        self.failed += 1
        self._report(named(name, error))

    def note_partial(self, name: str, reason: str) -> None:
        """Count a file that was partly processed."""
        self.partial += 1
        self._report(f"{name}: {reason}")

    def note_receipt(self, name: str, receipt: Receipt) -> None:
        """Count a file by its receipt, if it was partly processed."""
        if receipt.complete:
            return
        seconds = sum(span.stop_s - span.start_s for span in receipt.read)
        why = [f"{receipt.damaged} damaged places"] if receipt.damaged else []
        why += ["the file is truncated"] if receipt.truncated else []
        why += [span.reason for span in receipt.skipped]
        self.note_partial(name, f"partly processed, {seconds:.1f} s: {'; '.join(dict.fromkeys(why))}")

    def leave(self) -> None:
        """End the verb: 1 where files failed, else 3 where some were partly processed, else 0."""
        if self.failed or self.partial:
            raise typer.Exit(FAILED if self.failed else PARTLY)

    def _report(self, problem: str) -> None:
        if not self._quiet:
            warn(problem)


class FilePrinter(Tally):
    """Prints results file by file, as lines for people or as records of JSON, and counts them."""

    def __init__(self, model: str, *, as_json: bool) -> None:
        """For the results of a model; as_json: one object per result."""
        super().__init__(quiet=as_json)
        self.model, self.as_json = model, as_json

    def print_file(self, name: str, result: Any, entries: dict[str, Any], lines: Iterable[str] = ()) -> None:
        """Print a result with a receipt, or the error of a file; JSON has the entries, people read the lines."""
        failed = isinstance(result, AuricleError)
        receipt, error = (None, str(result)) if failed else (result.receipt.as_dict(), None)
        record = {"file": name, **entries, "receipt": receipt, "model": self.model, "error": error}
        print_result(record, () if failed else lines, as_json=self.as_json)
        if failed:
            self.note_error(name, str(result))
        else:
            self.note_receipt(name, result.receipt)

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
    """Prints the answers of an audio language model one by one."""

    def __init__(self, key: str, model: str, *, as_json: bool, has_many: bool, timed: bool = False) -> None:
        """Prepare to print.

        Args:
            key: of the record: caption, answer or text; the last two are the result's ``text``.
            model: name of the model.
            as_json: one object per result.
            has_many: lines start with the name of the file.
            timed: a line for each segment, with its times.
        """
        super().__init__(model, as_json=as_json)
        self.key, self.has_many, self.timed = key, has_many, timed

    def print_result(self, name: str, result: Any, **more: Any) -> None:
        """Print a result or an error of one file, with more entries for its record."""
        if isinstance(result, AuricleError):
            self.print_file(name, result, {self.key: None, **more, "segments": []})
            return
        odds = getattr(result, "odds", ())
        text = getattr(result, "caption" if self.key == "caption" else "answer" if hasattr(result, "odds") else "text")
        if odds:
            more["odds"] = [asdict(each) for each in odds]
        segments = [_without_none(asdict(segment)) for segment in result.segments]
        shown = [f"{text}  {shares(odds)}" if odds else text]
        lines = map(timed_line, result.segments) if self.timed else shown
        entries = {self.key: text, **more, "segments": segments}
        self.print_file(name, result, entries, (f"{name}: {line}" if self.has_many else line for line in lines))

    def print_stream(self, name: str, pieces: AnswerStream) -> None:
        """Print an answer while it is generated, and close it."""
        if not self.as_json and self.has_many:
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
            typer.echo()
            self.note_receipt(name, pieces.answer.receipt)


def timed_line(segment: Segment) -> str:
    """A segment with its times, as ``[0:00.0-0:08.4] text``."""
    return f"[{clock(segment.start_s)}-{clock(segment.stop_s)}] {segment.text}".rstrip()


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


def _without_none(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out the score of "no speech" where there is none."""
    return {key: value for key, value in record.items() if value is not None or key != "no_speech_logprob"}
