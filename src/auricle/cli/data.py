"""Verbs of data sets: data pack, data index, data info."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from auricle.cli.options import FAILED, AsJson
from auricle.cli.output import print_result, progress, warn

data = typer.Typer(no_args_is_help=True, help="Write, index and inspect tar shards.")


@data.command()
def pack(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Manifest (.jsonl, .csv, .tsv), or data set folder.")],
    folder: Annotated[Path, typer.Argument(metavar="DST", help="Folder of the shards.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the shards; by default that of the folder.")
    ] = None,
    layout: Annotated[str, typer.Option("--layout", help="manifest, esc50, fsdd or speechocean762.")] = "manifest",
    only: Annotated[
        str | None,
        typer.Option(
            "--only", help="esc50: folds 1,2,3; fsdd: speakers; speechocean762: train or test; else FACT=VALUES."
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Decoding threads.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Decode a data set and write it as tar shards.

    Shards hold 16 kHz mono audio. Entries that cannot be read are reported and left out.

    Example: auricle data pack my_clips.jsonl shards/mine
    """
    from auricle.data import recipes

    entries = _entries(source, layout, only)
    with progress("packing", quiet=as_json) as advance:
        report = recipes.pack(
            entries,
            folder,
            name or folder.resolve().name,
            workers=workers,
            progress=lambda done, failed: advance.at(done),
        )
    for key, problem in [] if as_json else [*report.failed, *report.flawed]:
        warn(f"{key}: {problem}")
    lines = [
        f"{report.written} clips, {report.audio_s / 3600:.2f} h, in {report.seconds:.1f} s; "
        f"{len(report.failed)} left out"
    ]
    lines += [f"manifest {report.manifest_hash}"] if report.manifest_hash else []
    print_result(
        {**asdict(report), "failed": dict(report.failed), "flawed": dict(report.flawed)}, lines, as_json=as_json
    )
    if report.failed:
        raise typer.Exit(FAILED)


def _entries(source: Path, layout: str, only: str | None) -> Any:
    from auricle.data import recipes

    if layout == "manifest" and only is None:
        return recipes.from_manifest(source)
    if layout == "manifest":
        fact, _, values = str(only).partition("=")
        if not (fact and values):
            raise typer.BadParameter(f"manifest takes a fact, e.g. kind=music, got {only!r}", param_hint="--only")
        return recipes.from_manifest(source, only={fact: values.split(",")})
    chosen = [part.strip() for part in only.split(",")] if only else None
    if layout == "fsdd":
        return recipes.fsdd(source, speakers=chosen)
    if layout == "speechocean762" and chosen in (["train"], ["test"]):
        return recipes.speechocean762(source, split=chosen[0])
    if layout == "esc50" and all(part.isdigit() for part in chosen or []):
        return recipes.esc50(source, folds=None if chosen is None else [int(part) for part in chosen])
    if layout in ("esc50", "speechocean762"):
        hints = {"esc50": "folds, e.g. 1,2,3", "speechocean762": "train or test"}
        raise typer.BadParameter(f"{layout} takes {hints[layout]}, got {only!r}", param_hint="--only")
    raise typer.BadParameter(f"{layout!r}; expected manifest, esc50, fsdd or speechocean762", param_hint="--layout")


@data.command()
def index(
    tars: Annotated[list[Path], typer.Argument(metavar="TARS", help="Tar shards from any source.")],
    as_json: AsJson = False,
) -> None:
    """Rebuild the index of tar shards.

    A missing index is also built on first use.

    Example: auricle data index shards/mine/*.tar
    """
    from auricle.data.shard_index import build_index, save

    with progress("indexing", len(tars), quiet=as_json) as advance:
        for tar in tars:
            made = build_index(tar)
            save(made)
            advance()
            audio_s, left_out = int(made.num_samples.sum()) / 16_000, made.left_out() if made.ignored else None
            record = {"tar": str(tar), "clips": len(made), "audio_s": audio_s, "left_out": left_out}
            print_result(record, [f"{tar}: {len(made)} clips, {audio_s / 3600:.2f} h"], as_json=as_json)
            if left_out and not as_json:
                warn(f"{tar}: {left_out}")


@data.command()
def info(
    shards: Annotated[list[Path], typer.Argument(metavar="SHARDS", help="Folders of shards, or tars.")],
    as_json: AsJson = False,
) -> None:
    """Show what shards contain.

    Example: auricle data info shards/mine
    """
    from auricle.data.shards import ShardSet

    clips = ShardSet(list(shards))
    seconds = clips.num_samples / 16_000
    facts: dict[str, Any] = {
        "shards": len(clips.shards),
        "clips": len(clips),
        "hours": round(float(seconds.sum()) / 3600, 4),
        "shortest_s": round(float(seconds.min()), 3),
        "longest_s": round(float(seconds.max()), 3),
        "manifest": clips.manifest_hash,
        "ignored": dict(clips.ignored),
    }
    print_result(facts, (f"{key:12} {value}" for key, value in facts.items()), as_json=as_json)
