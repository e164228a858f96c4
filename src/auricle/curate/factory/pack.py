"""What a run leaves: tar shards of captioned clips, and test files in the layout of MECAT.

A clip's facts in a shard: the six fields (three texts each) under MECAT's names, ``caption`` (the first long text),
``domain``, ``questions``, ``confidence``, ``writer``, ``evidence`` (of each field, of each text: numbers in ``facts``),
``facts`` (value, seconds, confidence, expert), ``dropped`` clauses, ``source`` (file, seconds, all that the input
states of it, the licence among it) and ``clip_hash``.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from auricle.curate.factory.clips import Piece, read_piece
from auricle.curate.factory.sheet import FIELDS, Evidence, Sheet, Written
from auricle.data.shards import ShardSet, ShardWriter
from auricle.errors import AuricleError
from auricle.files import make_folder, read_regular_text, write_json, write_text

NAME = "clips"  # of the set of shards
_LICENCES = ("license", "licence")


@dataclass(frozen=True, kw_only=True, slots=True)
class Captioned:
    """A clip with what was written of it."""

    piece: Piece
    sheet: Sheet
    written: Written


def record_of(clip: Captioned) -> dict[str, Any]:
    """The facts of a clip in a shard."""
    piece, sheet, written = clip.piece, clip.sheet, clip.written
    numbers = {each: number for number, each in enumerate(dict.fromkeys(sheet.evidence))}

    def cited(evidence: Iterable[Evidence]) -> list[int]:
        return sorted({numbers[each] for each in evidence})

    return {
        **{field: [each.text for each in written.fields[field]] for field in FIELDS},
        "caption": written.fields["long"][0].text,
        "domain": sheet.code,
        "questions": [
            {
                "category": each.category,
                "difficulty": each.difficulty,
                "question": each.question,
                "answer": each.answer,
                "evidence": cited(each.evidence),
            }
            for each in written.questions
        ],
        "confidence": written.confidence,
        "writer": written.writer,
        "evidence": {field: [cited(each.evidence) for each in written.fields[field]] for field in FIELDS},
        "facts": [each._asdict() for each in numbers],
        "dropped": list(written.dropped),
        "source": source_of(piece),
        "clip_hash": piece.clip_hash,
    }


def source_of(piece: Piece) -> dict[str, Any]:
    """Where a clip comes from, with all that the input states of it."""
    meta = json.loads(json.dumps(dict(piece.source.meta), default=str))
    return {
        "id": piece.source.id,
        "file": Path(piece.source.audio).name,
        "start_s": round(piece.start / 16_000, 3),
        "stop_s": round(piece.stop / 16_000, 3),
        "license": licence_of(piece),
        "facts": meta,
    }


def licence_of(piece: Piece) -> str | None:
    """The licence that the input states."""
    return next((str(piece.source.meta[name]) for name in _LICENCES if piece.source.meta.get(name)), None)


def pack(
    clips: Sequence[Captioned],
    folder: Path,
    *,
    max_bytes: int = 256 << 20,
    on_clip: Callable[[], None] = lambda: None,
) -> tuple[dict[str, str], str]:
    """Write clips as shards; where the same ones are there, nothing is done.

    Returns:
        Why clips could not be written, by key; and the hash of the shards' content (``ShardSet.manifest_hash``).
    """
    digest = sha256(f"{max_bytes}".encode())
    for clip in clips:
        digest.update(json.dumps([clip.piece.key, record_of(clip)], sort_keys=True).encode("utf-8", "replace"))
    claim, name = folder / "packed.json", digest.hexdigest()
    if (before := _claim(claim)).get("content") == name:
        return dict(before["failed"]), str(before["manifest"])
    claim.unlink(missing_ok=True)
    for old in [*folder.glob(f"{NAME}-*.tar"), *folder.glob(f"{NAME}-*.index.safetensors")]:
        old.unlink()
    failed: dict[str, str] = {}
    with ShardWriter(folder, NAME, max_bytes=max_bytes) as writer:
        for clip in clips:
            try:
                writer.write(clip.piece.key, read_piece(clip.piece), record_of(clip))
            except AuricleError as error:
                failed[clip.piece.key] = str(error)
            on_clip()
    tars = sorted(folder.glob(f"{NAME}-*.tar"))
    manifest = ShardSet(tars).manifest_hash if tars else ""
    write_json(claim, {"content": name, "failed": failed, "manifest": manifest})
    return failed, manifest


def write_mecat(clips: Sequence[Captioned], folder: Path) -> None:
    """Write ``caption/DOMAIN.jsonl`` and ``qa/DOMAIN.jsonl``, as MECAT's own references are laid out.

    A question's name is its clip's with eight digits of a hash.
    """
    captions: dict[str, list[str]] = {}
    questions: dict[str, list[str]] = {}
    for clip in clips:
        key, code = clip.piece.key, clip.sheet.code
        fields: dict[str, Any] = {field: [each.text for each in clip.written.fields[field]] for field in FIELDS}
        captions.setdefault(code, []).append(_line(key, {**fields, "domain": code}))
        for number, each in enumerate(clip.written.questions):
            name = blake2b(f"{key}\0{number}\0{each.question}".encode(), digest_size=4).hexdigest()
            content = {"category": each.category, "difficulty": each.difficulty, "question": each.question}
            lines = questions.setdefault(code, [])
            lines.append(_line(f"{key}_{name}", {**content, "answer": each.answer, "domain": code}))
    for kind, by_domain in (("caption", captions), ("qa", questions)):
        make_folder(folder / kind)
        for stale in set((folder / kind).glob("*.jsonl")) - {folder / kind / f"{code}.jsonl" for code in by_domain}:
            stale.unlink()
        for code, lines in by_domain.items():
            write_text(folder / kind / f"{code}.jsonl", "".join(lines))


def _line(name: str, content: Mapping[str, Any]) -> str:
    return json.dumps({name: content}, ensure_ascii=False, allow_nan=False) + "\n"


def _claim(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_regular_text(path, 64 << 20))
        is_ours = isinstance(found, dict) and isinstance(found["failed"], dict) and isinstance(found["manifest"], str)
        return found if is_ours and any(path.parent.glob("*.tar")) else {}
    except (OSError, ValueError, KeyError):
        return {}
