"""Tars split by verdict without changing a byte of any member, and put together again exactly.

Every tar is cut into pieces, headers and padding included: what belongs to a clip goes where the clip goes, the rest
(the end of the archive, members that belong to no clip) into a separate file. From the list of pieces, in order, the
tar can be restored. The list is written last, so that a tar without it is split again.
"""

import hashlib
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from auricle.curate.decision import NAMES
from auricle.data import shard_index
from auricle.data.shard_index import ShardIndex
from auricle.data.tar_members import split_member_name, tar_members
from auricle.errors import DataError
from auricle.files import atomic_path, atomic_write, make_folder, write_bytes

UNDO = "undo"  # folder of the lists of pieces
_REST = "rest"
_BLOCK = 1 << 20


class _Piece(NamedTuple):
    """A member of a tar with its headers and padding, or the end of the archive."""

    target: str  # one of `NAMES`, or the rest
    start: int  # bytes
    contents: int  # start of the contents
    stop: int


class Split(NamedTuple):
    """One tar of the input, and what it is called in the output."""

    shard: ShardIndex
    name: str  # file name, unique in the output
    verdicts: Sequence[int]  # of its clips, places in `NAMES`


def output_names(tars: Sequence[Path]) -> list[str]:
    """A file name for each tar: its own, with its number before it where several share one."""
    counts = Counter(tar.name for tar in tars)
    return [tar.name if counts[tar.name] == 1 else f"{number:04d}-{tar.name}" for number, tar in enumerate(tars)]


def split_tars(splits: Sequence[Split], out: Path, run: str) -> Iterator[Path]:
    """Split every tar that this run has not split yet, replacing the output of others; yields each when it is done.

    Raises:
        DataError: a tar changed while it was read.
    """
    for folder in (*NAMES, UNDO):
        (out / folder).mkdir(exist_ok=True)
    sets = {
        name: Counter(_set_name(split.name) for split in splits if place in split.verdicts)
        for place, name in enumerate(NAMES)
    }
    for split in splits:
        if not _is_done(split.name, out, run):
            set_sizes = {name: counts[_set_name(split.name)] for name, counts in sets.items()}
            _split(split, out, run, set_sizes)
        yield split.shard.tar


def restore_tars(out: Path, folder: Path | None = None) -> Iterator[tuple[Path, bool]]:
    """Restore the tars of the input.

    Args:
        out: folder of the output, which stays as it is.
        folder: for the tars; None: each where it was.

    Yields:
        Path of each tar, and whether it existed already, byte for byte.

    Raises:
        DataError: the output is incomplete or was changed, or another file is where a tar has to go.
    """
    for path in sorted((out / UNDO).glob("*.json")):
        listed = _read_list(path)
        tar = _former_place(Path(listed["tar"]), out) if folder is None else folder / listed["name"]
        is_there = tar.exists()
        if is_there and _sha256(tar) != listed["sha256"]:
            raise DataError(f"{tar} exists and is not what the filter read; name another folder with -o")
        if not is_there:
            make_folder(tar.parent)
            _restore(out, listed, tar)
        yield tar, is_there


def _former_place(tar: Path, out: Path) -> Path:
    """Where a tar was, if that is near: the list may be forged."""
    near = (out.absolute().parent.resolve(), Path.cwd().resolve())
    if not any(tar.parent.resolve().is_relative_to(folder) for folder in near):
        raise DataError(
            f"{tar} was neither below {near[0]} nor below this folder; name the folder for it with -o, as the list in "
            f"{out / UNDO} may be wrong"
        )
    return tar


def _split(split: Split, out: Path, run: str, set_sizes: Mapping[str, int]) -> None:
    tar, pieces = split.shard.tar, list(_pieces(split))
    paths = _paths(split.name, out)
    targets = sorted({piece.target for piece in pieces})
    size = dict.fromkeys(targets, 0)
    hashes = {target: hashlib.sha256() for target in (*targets, "tar")}
    moved: dict[int, int] = {}  # start of a member's contents, before → after
    with ExitStack() as stack:
        source = stack.enter_context(tar.open("rb"))
        files = {target: stack.enter_context(atomic_write(paths[target])) for target in targets}
        for piece in pieces:
            moved[piece.contents] = size[piece.target] + piece.contents - piece.start
            for block in _read(source, piece.stop - piece.start, tar):
                files[piece.target].write(block)
                hashes[piece.target].update(block)
                hashes["tar"].update(block)
            size[piece.target] += piece.stop - piece.start
        for target, file in files.items():
            end = _end_of_archive(size[target]) if target in NAMES else b""
            file.write(end)
            hashes[target].update(end)
            size[target] += len(end)
        stat = os.fstat(source.fileno())
        if stat.st_size != (pieces[-1].stop if pieces else 0):
            raise DataError(f"{tar} changed while it was read; start again when nobody writes to it")
        for target in NAMES:  # before the tars they belong to change
            shard_index.index_path(paths[target]).unlink(missing_ok=True)
    for target in {*NAMES, _REST} - set(targets):
        paths[target].unlink(missing_ok=True)
    _write_indexes(split, paths, moved, set_sizes)
    listed = {
        "tar": str(tar.absolute()),
        "name": split.name,
        "run": run,
        "size": stat.st_size,
        "sha256": hashes["tar"].hexdigest(),
        "mtime_ns": stat.st_mtime_ns,
        "files": {target: {"size": size[target], "sha256": hashes[target].hexdigest()} for target in targets},
        "pieces": _runs(pieces),
    }
    write_bytes(_list_path(split.name, out), json.dumps(listed, allow_nan=False).encode())


def _pieces(split: Split) -> Iterator[_Piece]:
    """The whole tar in order. A member goes with the clip it is named after, whatever its content."""
    tar = split.shard.tar
    of_clip = dict(zip(split.shard.keys(), split.verdicts, strict=True))
    start = 0
    for member in tar_members(tar):
        stop = member.offset + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        verdict = of_clip.get(split_member_name(member.name)[0]) if member.is_file else None
        yield _Piece(_REST if verdict is None else NAMES[verdict], start, member.offset, stop)
        start = stop
    size = tar.stat().st_size
    if size > start:
        yield _Piece(_REST, start, start, size)


def _write_indexes(
    split: Split, paths: Mapping[str, Path], moved: Mapping[int, int], set_sizes: Mapping[str, int]
) -> None:
    """An index beside each new tar, so that nothing has to be read again."""
    for place, target in enumerate(NAMES):
        rows = [split.shard.row(clip) for clip, verdict in enumerate(split.verdicts) if verdict == place]
        rows = [
            row._replace(
                audio_offset=moved[row.audio_offset],
                meta_offset=moved[row.meta_offset] if row.meta_size else 0,
            )
            for row in rows
        ]
        if rows:
            shard_index.save(shard_index.from_rows(paths[target], rows, {}, set_sizes[target]))


def _read_list(path: Path) -> dict[str, Any]:
    """The list of one tar; it may name no other places than the filter does."""
    try:
        listed: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        is_ours = listed["name"] == path.stem and Path(listed["tar"]).suffix == ".tar"
        is_ours &= {target for target, _ in listed["pieces"]} == set(listed["files"]) <= {*NAMES, _REST}
    except (ValueError, KeyError, TypeError, AttributeError):
        is_ours = False
    if not is_ours:
        raise DataError(f"{path} is no list of pieces that the filter wrote; restore it from a copy")
    return listed


def _restore(out: Path, listed: Mapping[str, Any], tar: Path) -> None:
    paths, digest = _paths(listed["name"], out), hashlib.sha256()
    with atomic_path(tar) as aside:
        with ExitStack() as stack:
            files = {target: stack.enter_context(_opened(paths[target])) for target in listed["files"]}
            restored = stack.enter_context(aside.open("wb"))
            for target, size in listed["pieces"]:
                for block in _read(files[target], size, paths[target]):
                    restored.write(block)
                    digest.update(block)
        if digest.hexdigest() != listed["sha256"]:
            damaged = [str(paths[name]) for name, facts in listed["files"].items() if _differs(paths[name], facts)]
            raise DataError(
                f"{tar} cannot be restored: {', '.join(damaged) or _list_path(listed['name'], out)} changed "
                "since the filter wrote it; restore it from a copy"
            )
        os.utime(aside, ns=(listed["mtime_ns"], listed["mtime_ns"]))


def _runs(pieces: Sequence[_Piece]) -> list[tuple[str, int]]:
    """Pieces as (target, bytes), neighbours of the same target joined."""
    runs: list[tuple[str, int]] = []
    for piece in pieces:
        size = piece.stop - piece.start
        if runs and runs[-1][0] == piece.target:
            runs[-1] = (piece.target, runs[-1][1] + size)
        else:
            runs.append((piece.target, size))
    return runs


def _is_done(name: str, out: Path, run: str) -> bool:
    path = _list_path(name, out)
    if not path.exists():
        return False
    listed, paths = json.loads(path.read_text(encoding="utf-8")), _paths(name, out)
    return listed["run"] == run and all(
        paths[target].exists() and paths[target].stat().st_size == facts["size"]
        for target, facts in listed["files"].items()
    )


def _paths(name: str, out: Path) -> dict[str, Path]:
    return {**{target: out / target / name for target in NAMES}, _REST: out / UNDO / f"{name}.rest"}


def _list_path(name: str, out: Path) -> Path:
    return out / UNDO / f"{name}.json"


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); the input is not complete without it") from None


def _read(file: BinaryIO, size: int, path: Path) -> Iterator[bytes]:
    left = size
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise DataError(f"{path} ends {left} bytes too early; it was cut since it was first read")
        yield block
        left -= len(block)


def _end_of_archive(size: int) -> bytes:
    """Two empty blocks, and as many more as fill the last record."""
    end = size + 2 * tarfile.BLOCKSIZE
    return bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE)


def _differs(path: Path, facts: Mapping[str, Any]) -> bool:
    return path.stat().st_size != facts["size"] or _sha256(path) != facts["sha256"]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _set_name(name: str) -> str:
    """The set that a shard belongs to: ``clips`` for ``clips-000007.tar``."""
    return Path(name).stem.rpartition("-")[0]
