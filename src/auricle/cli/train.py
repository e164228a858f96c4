"""The verb that trains: train."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.options import AsJson
from auricle.cli.output import print_json, print_line, progress, warn
from auricle.errors import MissingExtra

if TYPE_CHECKING:
    from auricle.train.config import RunConfig

Record = dict[str, Any]

_STOPPING = (signal.SIGTERM, signal.SIGUSR1)
_SHOWN = {"step", "loss", "grad_norm", "lr", "audio_s_per_s", "eta_s"}  # others are results of probes


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The run; see recipes/.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes, e.g. steps=100 mae.depth=12.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run, in place of the one in CONFIG.")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write scalars for TensorBoard into the folder of the run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train an encoder or a language model.

    A run that was stopped resumes from its newest checkpoint, with the data and settings it was started with; it may
    get more steps, another device, other intervals of logs and checkpoints. SIGTERM and SIGUSR1 save a checkpoint after
    the present step and end with exit code 143 and 138. Also runs under torchrun.

    Example: auricle train recipes/tiny/encoder.yaml steps=1000

    Fine-tuning: auricle train recipes/sft/lora.yaml --out mine sft.train=[questions.jsonl]
    """
    from auricle.train import loop
    from auricle.train.config import load_config
    from auricle.weights.loaders import place_of

    changes = [*(overrides or []), *([f"out={out}"] if out else [])]
    for change in changes:
        if "=" not in change:
            raise typer.BadParameter(f"expected KEY=VALUE, got {change!r}", param_hint="KEY=VALUE")
    settings = load_config(config, changes)
    place_of("float32", settings.device)  # refused here where the device cannot be used
    if loop.precision_here(settings) != settings.precision and _is_main():
        print_line(f"this CPU has no {settings.precision} arithmetic: training in fp32", err=True)
    writer = _scalar_writer(Path(settings.out)) if tensorboard else None
    with _display(settings.steps, as_json=as_json) as show:

        def on_log(record: Record) -> None:
            show(record)
            if writer:
                writer(record)

        with _noted_signals() as signals:
            folder = loop.run(
                settings, on_log=on_log, probe=_probe(settings), should_stop=lambda: bool(signals), notify=warn
            )
    if folder is None and _is_main():
        print_line(f"stopped, with a checkpoint in {settings.out}; the same command goes on", err=True)
    elif not as_json and _is_main():
        print_line(f"{folder}")
    if folder is None and signals:
        raise typer.Exit(128 + signals[0])


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """The signals that ask for an end, as they come in; schedulers of clusters send them before they kill."""
    found: list[int] = []
    before = {each: signal.signal(each, lambda number, _: found.append(number)) for each in _STOPPING}
    try:
        yield found
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"  # of torchrun


def _probe(settings: RunConfig) -> Callable[[Any], Record] | None:
    """Probes during training: kNN and rank of encoders, answers of language models; the loss alone says little."""
    if not settings.probe_every or not _is_main():
        return None
    if settings.objective == "sft" and settings.sft.heldout:
        from auricle.train.sft_eval import heldout_probe

        return heldout_probe(settings)
    if settings.objective != "mae":
        return None
    from auricle.bench.heldout import training_probe
    from auricle.data.shards import ShardSet

    return training_probe(ShardSet(settings.data))


@contextmanager
def _display(steps: int, *, as_json: bool) -> Iterator[Callable[[Record], None]]:
    """Show log records: as JSON, as lines, or on a terminal as a bar, with lines for results of probes."""
    if as_json:
        yield print_json
    elif not sys.stderr.isatty() or not _is_main():
        yield lambda record: print_line("  ".join([f"step {record['step']}/{steps}", *_figures(record)]))
    else:
        with progress("training", steps) as advance:

            def show(record: Record) -> None:
                advance.at(record["step"], "  ".join(_figures(record)))
                if record.keys() - _SHOWN:
                    print_line(f"step {record['step']}: {'  '.join(_probed(record))}", err=True)

            yield show


def _figures(record: Record) -> list[str]:
    shown = []
    if "loss" in record:
        shown.append(f"loss {record['loss']:.4f}")
    if "audio_s_per_s" in record:
        shown.append(f"{record['audio_s_per_s']:,.0f} s of audio/s")
    if "eta_s" in record:
        shown.append(f"ETA {timedelta(seconds=round(record['eta_s']))}")
    return shown + _probed(record)


def _probed(record: Record) -> list[str]:
    return [
        f"{key} {value:.4g}" for key, value in record.items() if key not in _SHOWN and isinstance(value, int | float)
    ]


def _scalar_writer(out: Path) -> Callable[[Record], None]:
    """A function that writes each record for TensorBoard.

    Raises:
        MissingExtra: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtra("--tensorboard", "train") from None
    writers: list[Any] = []  # opened by the first record, which only the main process has

    def write(record: Record) -> None:
        if not writers:
            writers.append(SummaryWriter(str(out / "tensorboard"), purge_step=record["step"]))
        for key, value in record.items():
            if key != "step":
                writers[0].add_scalar(key, value, record["step"])
        writers[0].flush()

    return write
