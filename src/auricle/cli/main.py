"""The command line: one application, its verbs in the files beside this one."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from auricle import __version__
from auricle.cli import (
    align,
    bench,
    build,
    curate,
    doctor,
    embed,
    evaluate,
    evaluate_report,
    evaluate_robustness,
    evaluate_run,
    export,
    heldout,
    listen,
    search,
    train,
)
from auricle.errors import AuricleError, ConfigError, UnknownModel

FAILED, USAGE = 1, 2  # exit codes; see the epilog
INTERRUPTED, CLOSED_PIPE = 130, 141  # as shells report SIGINT and SIGPIPE


class _Verbs(TyperGroup):
    """Turns what can go wrong in any verb into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a reader that left shows only now
            return result
        except AuricleError as error:
            typer.echo(f"auricle: {error}", err=True)
            raise typer.Exit(USAGE if isinstance(error, ConfigError | UnknownModel) else FAILED) from None
        except KeyboardInterrupt:
            typer.echo("auricle: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The interpreter flushes stdout once more at its end, which must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(CLOSED_PIPE) from None


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="General audio understanding: speech, sound and music through one ear.",
    epilog="Exit codes: 0 all heard, 1 some files failed, 2 wrong usage, 3 a file was heard in part only.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    listen.describe,
    listen.ask,
    listen.transcribe,
    embed.embed,
    align.score,
    align.classify,
    search.index,
    search.search,
    build.models,
    build.convert,
    export.export,
    train.train,
    heldout.heldout,
    curate.filter,
    doctor.doctor,
):
    app.command()(verb)
for judging in (
    evaluate_run.run,
    evaluate_run.tasks,
    evaluate_report.compare,
    evaluate_report.report,
    evaluate_robustness.robustness,
    evaluate_robustness.prompts,
):
    evaluate.evaluate.command()(judging)
app.add_typer(build.data, name="data")
app.add_typer(bench.bench, name="bench")
app.add_typer(evaluate.evaluate, name="evaluate")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"auricle {__version__}")
        raise typer.Exit


@app.callback()
def _auricle(
    version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True, callback=_print_version),
) -> None:
    pass


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    app(prog_name="auricle")


if __name__ == "__main__":
    main()
