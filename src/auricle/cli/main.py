"""The command line: one application; its verbs are in the other files of this folder."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any, TextIO

import typer
from typer.core import TyperGroup

from auricle import __version__
from auricle.cli import (
    bench,
    checkpoints,
    curate,
    data,
    denoise,
    doctor,
    encode,
    evaluate,
    evaluate_report,
    evaluate_run,
    evaluate_score,
    evaluate_variants,
    heldout,
    idle_cores,
    listen,
    search,
    serve,
    train,
)
from auricle.cli.options import FAILED
from auricle.cli.output import warn
from auricle.errors import AuricleError, ConfigError, WeightsError

USAGE = 2  # exit code; see the epilog
INTERRUPTED, CLOSED_PIPE = 130, 141  # as shells report SIGINT and SIGPIPE


class _Verbs(TyperGroup):
    """Reports errors of all verbs in one line, with an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # shows here whether the reader is gone, or the disk full
            return result
        except AuricleError as error:
            warn(str(error))
            raise typer.Exit(USAGE if isinstance(error, ConfigError | WeightsError) else FAILED) from None
        except KeyboardInterrupt:
            warn("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _drop_output()
            raise typer.Exit(CLOSED_PIPE) from None


def _drop_output() -> None:
    """The interpreter flushes standard output once more at its end, which must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_PYTHONS_OWN = warnings.showwarning
app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="General audio understanding: speech, sound and music in one system.",
    epilog="Exit codes: 0 all processed, 1 a file is missing or failed, 2 wrong usage, or a model that cannot be "
    "loaded, 3 a file was partly processed, 4 with --strict: a result is unsure, or a file has warnings.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    listen.describe,
    listen.ask,
    listen.transcribe,
    encode.embed,
    denoise.denoise,
    encode.score,
    encode.classify,
    search.index,
    search.search,
    serve.serve,
    checkpoints.models,
    checkpoints.convert,
    checkpoints.export,
    train.train,
    heldout.heldout,
    curate.filter,
    doctor.doctor,
):
    app.command()(verb)
for verb in (
    evaluate_score.score,
    evaluate_run.run,
    evaluate_run.tasks,
    evaluate_report.compare,
    evaluate_report.report,
    evaluate_variants.robustness,
    evaluate_variants.prompts,
):
    evaluate.evaluate.command()(verb)
app.add_typer(data.data, name="data")
app.add_typer(curate.curate, name="curate")
app.add_typer(bench.bench, name="bench")
app.add_typer(evaluate.evaluate, name="evaluate")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"auricle {__version__}")
        raise typer.Exit


@app.callback()
def _auricle(
    version: bool = typer.Option(
        False, "--version", "-V", help="Print the version.", is_eager=True, callback=_print_version
    ),
) -> None:
    pass


def _leave_cores_to_others() -> None:
    """Have torch, which is imported later, use the cores that are free, and its threads wait for each other asleep.

    Beside busy processes threads that spin for long while they wait take ten times as long as a single one; where cores
    are free, threads that sleep at once take 1.4 times as long as those that spin for some microseconds first.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if (free := idle_cores.measure()) < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(free))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A line for a user where the package warns of data; others are for programmers."""
    if category is UserWarning:
        warn(str(message))
    else:
        _PYTHONS_OWN(message, category, filename, lineno, file, line)


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    _leave_cores_to_others()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    if sys.stdout is None:
        warn("standard output is closed; send it to a file, or to /dev/null")
        sys.exit(FAILED)
    warnings.showwarning = _show_warning
    try:
        app(prog_name="auricle")
    except OSError as error:  # of a disk or device, in most cases the one behind standard output
        warn(f"{error.filename or 'standard output'}: {error.strerror or error}")
        if error.filename is None:
            _drop_output()
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
