"""The verb that sorts pairs of audio and captions: filter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auricle.cli.options import FAILED, AlignOptions, with_groups
from auricle.cli.output import named, print_result, progress, warn

if TYPE_CHECKING:
    from auricle.curate.filter import Filtered

_NAMED = 5  # failed clips that are named


@dataclass(frozen=True, kw_only=True)
class DecisionOptions:
    """What decides about a pair, see `auricle.curate.decision.FilterConfig`."""

    caption: Annotated[str, typer.Option("--caption", help="Fact that has the caption, or a list of captions.")] = (
        "caption"
    )
    p: Annotated[float, typer.Option("--p", help="Keep up to this p value: of random pairs, this share passes.")] = 0.01
    drop_p: Annotated[float, typer.Option("--drop-p", help="Drop above this p value; review between.")] = 0.1
    random_captions: Annotated[
        int, typer.Option("--random-captions", help="Random captions that each clip is compared with.")
    ] = 30
    top: Annotated[int, typer.Option("--top", help="Place the own caption must reach among these; review below.")] = 3
    near: Annotated[
        float, typer.Option("--near", help="Cosine from which two clips are nearly the same; 1: never.")
    ] = 0.995
    alike: Annotated[
        float, typer.Option("--alike", help="Cosine from which captions say the same; 1: equal words only.")
    ] = 1.0
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Only mark the same and nearly the same clips.")
    ] = False
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the random pairs.")] = 0


@with_groups
def filter(
    shards: Annotated[list[Path] | None, typer.Argument(metavar="SHARDS", help="Folders of shards, or tars.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the result; with --undo, of the restored tars.")
    ] = None,
    undo: Annotated[
        Path | None,
        typer.Option("--undo", metavar="OUT", help="Restore the shards that OUT was made of, byte for byte."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: one object, the summary.")] = False,
    *,
    aligning: AlignOptions,
    decision: DecisionOptions,
) -> None:
    """Sort pairs of audio and captions into those to keep, to review and to drop.

    Each pair is compared with random ones of its domain and language, sampled from the shards themselves. The shards
    are only read. A run that was stopped continues; OUT/report.html shows what was found.

    Example: auricle filter shards/mine -o filtered
    """
    if undo is not None:
        if shards:
            raise typer.BadParameter("takes no shards; it restores those of OUT", param_hint="--undo")
        _undo(undo, output, as_json=as_json)
        return
    if not shards:
        raise typer.BadParameter("name folders of shards, or tars", param_hint="SHARDS")
    if output is None:
        raise typer.BadParameter("name a folder for the result", param_hint="--output")

    from auricle.curate.decision import FilterConfig
    from auricle.curate.filter import filter_shards
    from auricle.data.shards import ShardSet
    from auricle.files import check_folder

    config = FilterConfig(**asdict(decision))
    check_folder(output)
    clips = ShardSet(shards)
    aligner = aligning.load(quiet=as_json)
    with (
        progress("embedding", len(clips), quiet=as_json) as on_pairs,
        progress("splitting", len(clips.shards), quiet=as_json) as on_tar,
    ):
        found = filter_shards(clips, output, aligner, config, on_pairs=on_pairs, on_tar=lambda tar: on_tar())
    for key, error in found.failed[:_NAMED]:
        warn(named(key, error))
    if (more := len(found.failed) - _NAMED) > 0:
        warn(f"{more} more clips that could not be processed; see {output / 'scores.jsonl'}")
    clips_and_texts = dict(zip(("sounds", "texts"), found.encoded, strict=True))
    record = {**found.summary, "output": str(output), "encoded": clips_and_texts}
    print_result(record, _lines(found, output), as_json=as_json)
    if found.failed:
        raise typer.Exit(FAILED)


def _undo(out: Path, folder: Path | None, *, as_json: bool) -> None:
    from auricle.curate.filter import undo_filter

    for tar, existed in undo_filter(out, folder):
        line = f"{tar}: {'exists, byte for byte' if existed else 'restored'}"
        print_result({"file": str(tar), "restored": not existed}, [line], as_json=as_json)


def _lines(found: Filtered, output: Path) -> Iterator[str]:
    from auricle.curate.summary import SIGNS

    summary, (clips, texts) = found.summary, found.encoded
    for name in ("keep", "review", "drop"):
        yield f"{name:7} {summary[name]:8} {summary[name] / summary['pairs']:7.1%}"
    for sign, count in summary["signs"].items():
        if count:
            yield f"  {SIGNS.get(sign, sign)}: {count}"
    yield (
        f"about {summary['mismatched_share']:.0%} of the pairs do not belong together; of random pairs "
        f"{summary['random_passing']:.2%} pass p = {summary['settings']['p']:g}"
    )
    yield f"{clips} clips and {texts} texts were encoded; {output / 'report.html'}"
