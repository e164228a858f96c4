"""The verbs that find sounds: index, search."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from auricle.cli.inputs import STDIN, find_sources, open_source
from auricle.cli.listen import Device, Dtype, Files
from auricle.cli.output import print_json, print_line, progress

Model = Annotated[str, typer.Option("--model", help="Audio–text model: name, hub id or folder; see `auricle models`.")]


def index(
    files: Files,
    output: Annotated[Path, typer.Option("--output", "-o", help="The index, e.g. sounds.auricle.")],
    model: Model = "auricle-tiny-glap",
    window: Annotated[float, typer.Option("--window", help="Length of a segment of a longer file, s.")] = 10.0,
    hop: Annotated[float, typer.Option("--hop", help="Distance of the segments' begins, s; at most --window.")] = 5.0,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read files even where size and time of change are as before.")
    ] = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: what became of the files.")] = False,
) -> None:
    """Make an index of sounds for `auricle search`, or bring it up to date.

    The index holds exactly the files that are named or found: unchanged ones keep their vectors, new ones are encoded,
    others leave. A run that was stopped goes on where it was. Files that fail are left out.

    Example: auricle index recordings/ -o sounds.auricle
    """
    names = find_sources(files)
    if STDIN in names:
        raise typer.BadParameter("an index holds files; standard input has no name", param_hint="FILES")

    import auricle
    from auricle.files import check_writable
    from auricle.search.build import build_index

    check_writable(output)
    aligner = auricle.load_aligner(model, device=device, dtype=dtype)
    with progress("indexing", len(names), quiet=as_json) as advance:

        def on_file(name: str, error: str | None) -> None:
            advance()
            if error is not None and not as_json:
                print_line(f"auricle: {error}" if name in error else f"auricle: {name}: {error}", err=True)

        report = build_index(
            aligner, names, output, model=model, window_s=window, hop_s=hop, rehash=rehash, on_file=on_file
        )
    if as_json:
        print_json({"index": str(output), "model": model, **report.as_dict()})
    else:
        for name, reason in report.partial.items():
            print_line(f"auricle: {name}: {reason}", err=True)
        print_line(
            f"{output}: {report.files:,} files, {report.segments:,} segments ({report.encoded:,} files encoded, "
            f"{report.reused:,} kept, {report.removed:,} removed, {len(report.failed):,} failed)"
        )
    if report.failed or report.partial:
        raise typer.Exit(1 if report.failed else 3)


def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Made by `auricle index`.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="What is sought; several texts are averaged.")
    ] = None,
    like: Annotated[list[str] | None, typer.Option("--like", help="A sound of that kind, or - ; repeatable.")] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="What hits should not be like; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option("-k", min=1, help="Most hits.")] = 10,
    all_segments: Annotated[
        bool, typer.Option("--all-segments", help="Several hits in one file, not only its best.")
    ] = False,
    model: Model = "auricle-tiny-glap",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per hit.")] = False,
) -> None:
    """Find sounds by words, or by a sound that is like them.

    A hit is told by its score, its time and its file. Its score is 100 × the cosine to what is sought, less 100 × the
    largest positive cosine to a --without.

    Example: auricle search sounds.auricle "dog barking over rain" --without speech
    """
    if not texts and not like:
        raise typer.BadParameter("give words, or a sound with --like", param_hint="TEXT")
    sounds = [open_source(name) for name in like or []]

    import auricle
    from auricle.search.query import Index, embed_query

    opened = Index.open(index)
    aligner = auricle.load_aligner(model, device=device, dtype=dtype)
    opened.check_model(aligner.fingerprint)
    query = embed_query(aligner, texts=texts or [], sounds=sounds)
    unwanted = aligner.text(without) if without else None
    for hit in opened.search(query, limit, without=unwanted, all_segments=all_segments):
        if as_json:
            print_json({"file": hit.path, **{key: value for key, value in asdict(hit).items() if key != "path"}})
        else:
            print_line(f"{hit.score:6.1f}  {_clock(hit.start_s)}-{_clock(hit.end_s)}  {hit.path}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes) // 60}:{int(minutes) % 60:02}:{rest:04.1f}"
