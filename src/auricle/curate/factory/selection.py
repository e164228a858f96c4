"""Which clips go on: readable ones of the licences wanted, one of each audio; later those whose captions fit them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from auricle.curate.decision import FilterConfig
from auricle.curate.factory.clips import Piece
from auricle.curate.factory.pack import Captioned, licence_of, pack
from auricle.curate.filter import filter_shards
from auricle.data.shards import ShardSet


class Dropped(NamedTuple):
    """A clip that is left out on purpose."""

    key: str
    kind: str  # "licence", "duplicate", "filter"
    reason: str


def keep_licensed(pieces: Sequence[Piece], licences: Sequence[str]) -> tuple[list[Piece], list[Dropped]]:
    """Clips of the licences wanted (letter by letter, case apart), the first of each audio."""
    wanted = {licence.casefold().strip() for licence in licences}
    kept: dict[str, Piece] = {}
    dropped = []
    for piece in pieces:
        licence = licence_of(piece)
        if wanted and (licence or "").casefold().strip() not in wanted:
            dropped.append(Dropped(piece.key, "licence", f"licence {licence or 'not stated'}"))
        elif piece.clip_hash in kept:
            dropped.append(Dropped(piece.key, "duplicate", f"the same audio as {kept[piece.clip_hash].key}"))
        else:
            kept[piece.clip_hash] = piece
    return list(kept.values()), dropped


def keep_matching(
    draft: Sequence[Captioned], out: Path, aligner: str, p: float, device: str
) -> tuple[list[Piece], list[Dropped]]:
    """Clips that the filter keeps: the own captions fit better than random ones, and rank among the first.

    The drafts are packed and filtered in ``OUT/draft`` and ``OUT/filtered``, whose report shows the scores.

    Raises:
        DataError: see `auricle.curate.filter.filter_shards`; for instance too few clips.
        MissingExtra: the model or the report needs a package that is not installed.
    """
    from auricle.encode.aligner import load_aligner

    model = load_aligner(aligner, device=device)
    _, manifest = pack(draft, out / "draft")
    folder = out / f"filtered-{manifest[:12]}"
    filter_shards(ShardSet(out / "draft"), folder, model, FilterConfig(caption="short", p=p))
    verdicts = {}
    for line in (folder / "scores.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        verdicts[record["key"]] = (record["verdict"], "; ".join(record["reasons"]))
    kept = [clip.piece for clip in draft if verdicts[clip.piece.key][0] == "keep"]
    dropped = [
        Dropped(clip.piece.key, "filter", f"{verdicts[clip.piece.key][0]}: {verdicts[clip.piece.key][1]}")
        for clip in draft
        if verdicts[clip.piece.key][0] != "keep"
    ]
    return kept, dropped
