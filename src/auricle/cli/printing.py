"""What the verbs of audio language models print: a record or line per file, segments with times, and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from auricle.cli.output import print_json, print_line
from auricle.errors import AuricleError

if TYPE_CHECKING:
    from auricle.encode.receipt import Receipt
    from auricle.listen.outputs import Odds, Segment
    from auricle.listen.streaming import AnswerStream


class Tally:
    """Counts files that failed or were partly processed, reports them at once, and sets the exit code."""

    def __init__(self) -> None:
        """Start at 0."""
        self.failed = self.partial = 0

    def note_error(self, name: str, error: str | None, *, quiet: bool) -> None:
        """Count a file that failed."""
        if error is None:
            return
        self.failed += 1
        if not quiet:
            print_line(f"auricle: {error}" if name in error else f"auricle: {name}: {error}", err=True)

    def note_receipt(self, name: str, receipt: Receipt, *, quiet: bool) -> None:
        """Count a file that was partly processed."""
        if receipt.complete:
            return
        self.partial += 1
        if not quiet:
            seconds = sum(span.stop_s - span.start_s for span in receipt.read)
            why = [f"{receipt.damaged} damaged places"] if receipt.damaged else []
            why += ["the file is truncated"] if receipt.truncated else []
            why += [span.reason for span in receipt.skipped]
            reasons = "; ".join(dict.fromkeys(why))
            print_line(f"auricle: {name}: partly processed, {seconds:.1f} s: {reasons}", err=True)

    def leave(self) -> None:
        """End the verb: 1 where files failed, else 3 where some were partly processed, else 0."""
        if self.failed or self.partial:
            raise typer.Exit(1 if self.failed else 3)


class ResultPrinter:
    """Prints results one by one, for people or as JSON."""

    def __init__(self, key: str, model: str, *, as_json: bool, has_many: bool, timed: bool = False) -> None:
        """Prepare to print.

        Args:
            key: of the record: caption, answer or text; the last two are the result's ``text``.
            model: name of the model.
            as_json: one object per result.
            has_many: lines start with the name of the file.
            timed: a line for each segment, with its times.
        """
        self.key, self.model, self.as_json, self.has_many, self.timed = key, model, as_json, has_many, timed
        self.tally = Tally()

    def print_result(self, name: str, result: Any, **more: Any) -> None:
        """Print a result or an error of one file, with more entries for its record."""
        if isinstance(result, AuricleError):
            self._print_error(name, str(result), more)
            return
        text = getattr(result, "caption" if self.key == "caption" else _text_of(result))
        odds = [asdict(each) for each in getattr(result, "odds", ())]
        if odds:
            more["odds"] = odds
        if self.as_json:
            segments = [_without_none(asdict(segment)) for segment in result.segments]
            print_json(self._record(name, text, more, segments=segments, receipt=result.receipt.as_dict()))
        elif self.timed:
            for segment in result.segments:
                print_line(self._line(name, timed_line(segment)))
        else:
            print_line(self._line(name, f"{text}  {shares(result.odds)}" if odds else text))
        self.tally.note_receipt(name, result.receipt, quiet=self.as_json)

    def print_stream(self, name: str, pieces: AnswerStream) -> None:
        """Print an answer while it is generated, and close it."""
        if not self.as_json and self.has_many:
            typer.echo(f"{name}: ", nl=False)
        try:
            with pieces:
                for piece in pieces:
                    if self.as_json:
                        print_json({"file": name, "piece": piece})
                    else:
                        print_piece(piece)
        except AuricleError as error:
            typer.echo("", nl=not self.as_json)
            self._print_error(name, str(error), {})
            return
        assert pieces.answer is not None
        if self.as_json:
            self.print_result(name, pieces.answer)
        else:
            typer.echo()
            self.tally.note_receipt(name, pieces.answer.receipt, quiet=False)

    def _print_error(self, name: str, error: str, more: dict[str, Any]) -> None:
        if self.as_json:
            print_json(self._record(name, None, more, error=error))
        self.tally.note_error(name, error, quiet=self.as_json)

    def _record(
        self,
        name: str,
        text: str | None,
        more: dict[str, Any],
        *,
        segments: Sequence[dict[str, Any]] = (),
        receipt: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> dict[str, Any]:
        record = {"file": name, self.key: text, **more, "segments": list(segments), "receipt": receipt}
        return {**record, "model": self.model, "error": error}

    def _line(self, name: str, text: str) -> str:
        return f"{name}: {text}" if self.has_many else text


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
    shown = "".join(c if c.isprintable() or c == "\n" else " " if c in "\r\t" else repr(c)[1:-1] for c in text)
    typer.echo(shown.encode("utf-8", "backslashreplace"), nl=False)


def _text_of(result: Any) -> str:
    return "answer" if hasattr(result, "odds") else "text"


def _without_none(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out the score of "no speech" where there is none."""
    return {key: value for key, value in record.items() if value is not None or key != "no_speech_logprob"}
