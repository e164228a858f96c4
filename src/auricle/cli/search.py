"""The verbs that search audio: index, search."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from auricle.cli.inputs import STDIN, find_sources, open_source
from auricle.cli.options import AlignOptions, Files, with_groups
from auricle.cli.output import print_result, progress
from auricle.cli.printing import Tally


@with_groups
def index(
    files: Files,
    output: Annotated[Path, typer.Option("--output", "-o", help="The index, e.g. sounds.auricle.")],
    window: Annotated[float, typer.Option("--window", help="Length of a segment of a longer file, s.")] = 10.0,
    hop: Annotated[float, typer.Option("--hop", help="Distance of the segments' starts, s; at most --window.")] = 5.0,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read files even if size and time of change are unchanged.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: one object, the outcome for the files.")] = False,
    *,
    options: AlignOptions,
) -> None:
    """Build an index of clips for `auricle search`, or update it.

    The index has exactly the files that are named or found: unchanged ones keep their vectors, new ones are encoded,
    others are removed. A run that was stopped continues. Files that fail are left out; those that cannot be opened keep
    the vectors they had.

    Example: auricle index recordings/ -o sounds.auricle
    """
    names = find_sources(files, must_exist=True)
    if STDIN in names:
        raise typer.BadParameter("an index needs files; standard input has no name", param_hint="FILES")

    from auricle.encode.long_clips import check_windows
    from auricle.files import check_writable
    from auricle.search.build import build_index

    check_windows(window, hop)
    check_writable(output)
    aligner = options.load(quiet=as_json)
    tally = Tally(quiet=as_json)
    with progress("indexing", len(names), quiet=as_json) as advance:

        def on_file(name: str, error: str | None) -> None:
            advance()
            if error is not None:
                tally.note_error(name, error)

        report = build_index(
            aligner, names, output, model=options.model, window_s=window, hop_s=hop, rehash=rehash, on_file=on_file
        )
    for name, reason in report.partial.items():
        tally.note_partial(name, reason)
    line = (
        f"{output}: {report.files:,} files, {report.segments:,} segments ({report.encoded:,} files encoded, "
        f"{report.reused:,} kept, {report.removed:,} removed, {len(report.failed):,} failed)"
    )
    print_result({"index": str(output), "model": options.model, **report.as_dict()}, [line], as_json=as_json)
    tally.leave()


@with_groups
def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Made by `auricle index`.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Words to search for; several texts are averaged.")
    ] = None,
    like: Annotated[list[str] | None, typer.Option("--like", help="A similar clip, or - ; repeatable.")] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Words that hits should not match; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option("-k", min=1, help="Most hits.")] = 10,
    all_segments: Annotated[
        bool, typer.Option("--all-segments", help="Several hits in one file, not only its best.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line: one a hit.")] = False,
    *,
    options: AlignOptions,
) -> None:
    """Find clips by words, or by a similar clip.

    A hit is printed as its score, its time and its file. The score is 100 × the cosine to the query, less 100 × the
    largest positive cosine to a --without.

    Example: auricle search sounds.auricle "dog barking over rain" --without speech
    """
    if not texts and not like:
        raise typer.BadParameter("give words, or a clip with --like", param_hint="TEXT")
    clips = [open_source(name) for name in like or []]

    from auricle.search.query import Index, embed_query

    opened = Index.open(index)
    aligner = options.load(quiet=as_json)
    opened.check_model(aligner.fingerprint)
    query = embed_query(aligner, texts=texts or [], clips=clips)
    unwanted = aligner.text(without) if without else None
    for hit in opened.search(query, limit, without=unwanted, all_segments=all_segments):
        record = {"file": hit.path, **{key: value for key, value in asdict(hit).items() if key != "path"}}
        line = f"{hit.score:6.1f}  {_clock(hit.start_s)}-{_clock(hit.end_s)}  {hit.path}"
        print_result(record, [line], as_json=as_json)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes) // 60}:{int(minutes) % 60:02}:{rest:04.1f}"
