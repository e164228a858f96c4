"""The command line: one application; its verbs are in the other files of this folder."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from auricle import __version__
from auricle.cli import (
    bench,
    checkpoints,
    data,
    doctor,
    embed,
    evaluate,
    evaluate_prompts,
    evaluate_report,
    evaluate_robustness,
    evaluate_run,
    evaluate_score,
    filter,
    heldout,
    listen,
    search,
    train,
    zero_shot,
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
            with warnings.catch_warnings():
                warnings.showwarning = _print_warning
                result = super().invoke(ctx)
            sys.stdout.flush()  # shows here whether the reader is gone, or the disk full
            return result
        except AuricleError as error:
            typer.echo(f"auricle: {error}", err=True)
            raise typer.Exit(USAGE if isinstance(error, ConfigError | WeightsError) else FAILED) from None
        except KeyboardInterrupt:
            typer.echo("auricle: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _drop_output()
            raise typer.Exit(CLOSED_PIPE) from None


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print what a library warns of, such as the terms of a licence, in one line without its place in the source."""
    warn(f"note: {message}")


def _drop_output() -> None:
    """The interpreter flushes standard output once more at its end, which must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="General audio understanding: speech, sound and music in one system.",
    epilog="Exit codes: 0 all processed, 1 a file is missing or failed, 2 wrong usage, or a model that cannot be "
    "loaded, 3 a file was partly processed.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    listen.describe,
    listen.ask,
    listen.transcribe,
    embed.embed,
    zero_shot.score,
    zero_shot.classify,
    search.index,
    search.search,
    checkpoints.models,
    checkpoints.convert,
    checkpoints.export,
    train.train,
    heldout.heldout,
    filter.filter,
    doctor.doctor,
):
    app.command()(verb)
for verb in (
    evaluate_score.score,
    evaluate_run.run,
    evaluate_run.tasks,
    evaluate_report.compare,
    evaluate_report.report,
    evaluate_robustness.robustness,
    evaluate_prompts.prompts,
):
    evaluate.evaluate.command()(verb)
app.add_typer(data.data, name="data")
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


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    try:
        app(prog_name="auricle")
    except OSError as error:  # of a disk or device, in most cases the one behind standard output
        typer.echo(f"auricle: {error.filename or 'standard output'}: {error.strerror or error}", err=True)
        if error.filename is None:
            _drop_output()
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
