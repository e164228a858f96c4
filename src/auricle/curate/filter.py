"""The filter of pairs of audio and captions: embed, score, decide, split, report; resumed after any kill.

What a run leaves in its folder::

    keep/ review/ drop/   shards under the names of the input's, every member byte for byte
    scores.jsonl          a line a pair, in the order of the input: scores, verdict, reasons
    calibration.json      what scores mean in each domain and language
    report.html, distributions.png
    summary.json          written last: if it exists, the run is complete
    undo/                 what restores the input, see `auricle.curate.splitting`
    embeddings/           kept, so that another threshold costs no second pass of the model

All but the embeddings and the indexes of shards follows from the input, the model and the settings alone, to the byte.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from auricle.curate.decision import NAMES, FilterConfig, Verdicts, decide, numbers, reasons
from auricle.curate.embedding import AudioTextModel, embed_pairs
from auricle.curate.pairs import PairTable, read_lines
from auricle.curate.random_pairs import Evidence, score_pairs
from auricle.curate.report import write_report
from auricle.curate.splitting import Split, output_names, restore_tars, split_tars
from auricle.curate.stages import Stage, run_stages
from auricle.curate.summary import summarise
from auricle.data.shards import ShardSet
from auricle.errors import DataError
from auricle.files import atomic_write, locked, make_folder, remove_all_leftovers, write_bytes
from auricle.pages.plots import new_figure

_FORMAT = "auricle-filter-1"
_OUTPUTS = ("scores.jsonl", "calibration.json", "report.html", "distributions.png", "summary.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Filtered:
    """What came of a run."""

    summary: dict[str, Any]  # as in summary.json
    failed: list[tuple[str, str]]  # key and error of clips whose audio could not be read or embedded
    encoded: tuple[int, int]  # clips and texts that the model encoded in this run


def filter_shards(
    shards: ShardSet,
    out: str | Path,
    aligner: AudioTextModel,
    config: FilterConfig | None = None,
    *,
    on_pairs: Callable[[int], None] = lambda count: None,
    on_tar: Callable[[Path], None] = lambda tar: None,
) -> Filtered:
    """Split shards into pairs to keep, to review and to drop; the input is only read.

    Args:
        shards: clips with their captions.
        out: new folder, or that of a run over the same shards: its embeddings are used, and its verdicts are replaced.
        aligner: model of audio and texts.
        config: thresholds.
        on_pairs: called with the number of pairs embedded since the last call.
        on_tar: called with each tar of the input that is split.

    Raises:
        DataError: the folder has other content or cannot be read, or there are too few pairs.
        OutputError: the folder cannot be written, or another run is writing there.
        MissingExtra: matplotlib, which draws the distributions, is not installed.
    """
    new_figure(1, 1, "The page of a filter", "bench")  # fails before hours of work rather than after them
    config, out = config or FilterConfig(), Path(out)
    with _input_errors(out):
        _claim(out, shards)
    with _input_errors(out), locked(out):
        values = run_stages(filter_stages(out, aligner, config, on_pairs, on_tar), {"shards": shards})
    table: PairTable = values["table"]
    failed = [(line.key, line.error) for line in read_lines(table.lines) if line.error]
    return Filtered(summary=values["summary"], failed=failed, encoded=table.encoded)


def filter_stages(
    out: Path,
    aligner: AudioTextModel,
    config: FilterConfig,
    on_pairs: Callable[[int], None] = lambda count: None,
    on_tar: Callable[[Path], None] = lambda tar: None,
) -> list[Stage]:
    """The stages of the filter, from ``shards`` to the last file; arguments as of `filter_shards`."""
    embed = partial(_embed, folder=out / "embeddings", aligner=aligner, caption=config.caption, on_pairs=on_pairs)
    score = partial(score_pairs, p=config.p, num_captions=config.random_captions, alike=config.alike, seed=config.seed)
    found = ("shards", "table", "evidence", "verdicts")
    page = ("shards", "evidence", "verdicts", "scores", "calibrations", "summary")
    return [
        Stage("embed", ("shards",), "table", embed),
        Stage("score", ("table",), "evidence", score),
        Stage("decide", ("table", "evidence"), "verdicts", partial(decide, config=config)),
        Stage("summarise", found, "summary", partial(summarise, config=config, model=aligner.fingerprint)),
        Stage("split", ("shards", "verdicts", "summary"), "", partial(_split, out=out, on_tar=on_tar)),
        Stage("list", found, "scores", partial(_write_scores, out=out, config=config)),
        Stage("calibrate", ("evidence",), "calibrations", partial(_write_calibrations, out=out, p=config.p)),
        Stage("report", page, "", partial(write_report, out=out, config=config)),
        Stage("finish", ("summary",), "", partial(_write_json, path=out / "summary.json")),
    ]


def undo_filter(out: str | Path, folder: str | Path | None = None) -> Iterator[tuple[Path, bool]]:
    """Restore the input of a run, byte for byte; the output stays.

    Args:
        out: folder of the run.
        folder: for the tars; None: each goes where it was.

    Yields:
        Path of each tar, and whether it existed already.

    Raises:
        DataError: no such folder, a run that did not finish, output that was changed, or another file in the way.
    """
    out = Path(out)
    claim = _claim_of(out)
    if claim is None:
        raise DataError(f"{out} is no folder that the filter wrote; name the one given to it with -o")
    lists = {path.stem for path in (out / "undo").glob("*.json")}
    if missing := [tar for tar, name, _ in claim["tars"] if name not in lists and not Path(tar).exists()]:
        raise DataError(f"{out} does not have {', '.join(missing)}: the run was stopped before; restore it elsewhere")
    with _input_errors(out):
        yield from restore_tars(out, None if folder is None else Path(folder))


# --- the folder


def _claim(out: Path, shards: ShardSet) -> None:
    """Reserve the folder for this input."""
    tars = [index.tar for index in shards.shards]
    named = zip(tars, output_names(tars), strict=True)
    claim = {
        "format": _FORMAT,
        "manifest": shards.manifest_hash,
        "tars": [[str(tar.absolute()), name, tar.stat().st_size] for tar, name in named],
    }
    earlier = _claim_of(out)
    remove_all_leftovers(out)
    if earlier is None and out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and not the filter's own; choose a new folder")
    # The shards may have moved, but not be cut otherwise.
    if earlier is not None and (earlier["manifest"], _cut(earlier)) != (claim["manifest"], _cut(claim)):
        raise DataError(f"{out} has the output of other shards; choose a new folder, or delete it")
    make_folder(out)
    if earlier is None:
        write_bytes(out / "filter.json", json.dumps(claim, allow_nan=False).encode())


def _cut(claim: dict[str, Any]) -> list[tuple[str, int]]:
    return [(name, size) for _, name, size in claim["tars"]]


def _claim_of(out: Path) -> dict[str, Any] | None:
    try:
        claim: dict[str, Any] = json.loads((out / "filter.json").read_text(encoding="utf-8"))
        return claim if claim["format"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _input_errors(out: Path) -> Iterator[None]:
    """Report what the operating system refuses as an error that a user can act on."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be read or written ({error.strerror or error}); fix that and start "
            "again: what is done is kept"
        ) from error


# --- the stages


def _embed(
    shards: ShardSet, *, folder: Path, aligner: AudioTextModel, caption: str, on_pairs: Callable[[int], None]
) -> PairTable:
    folder /= sha256(f"{aligner.fingerprint}\0{caption}".encode("utf-8", "backslashreplace")).hexdigest()[:16]
    table = embed_pairs(aligner, shards, folder, caption=caption, on_pairs=on_pairs)
    if not len(table.usable()):
        known = ", ".join(sorted(shards.read_meta(0))) or "none"
        raise DataError(
            f"no clip has both audio that can be read and a caption in the fact {caption!r}; the first clip has the "
            f"facts: {known}; name another one with --caption"
        )
    return table


def _split(
    shards: ShardSet, verdicts: Verdicts, summary: dict[str, Any], *, out: Path, on_tar: Callable[[Path], None]
) -> None:
    if _run_of(out) != summary["run"]:
        for name in _OUTPUTS:
            (out / name).unlink(missing_ok=True)
    names, start, splits = output_names([index.tar for index in shards.shards]), 0, []
    for index, name in zip(shards.shards, names, strict=True):
        splits.append(Split(index, name, verdicts.verdict[start : start + len(index)].tolist()))
        start += len(index)
    for tar in split_tars(splits, out, summary["run"]):
        on_tar(tar)


def _run_of(out: Path) -> str | None:
    try:
        return str(json.loads((out / "summary.json").read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_scores(
    shards: ShardSet, table: PairTable, evidence: Evidence, verdicts: Verdicts, *, out: Path, config: FilterConfig
) -> Path:
    path, keys = out / "scores.jsonl", shards.keys()
    names = [str(index.tar) for index in shards.shards for _ in range(len(index))]
    with atomic_write(path, "w") as file:
        for pair, line in enumerate(read_lines(table.lines)):
            record = {
                "shard": names[pair],
                "key": line.key,
                "verdict": NAMES[verdicts.verdict[pair]],
                "reasons": reasons(pair, line, evidence, verdicts, config, keys),
                **numbers(pair, evidence, verdicts, keys),
                "domain": line.domain or None,
                "language": line.language or None,
                "captions": line.captions,
            }
            if len(line.captions) > 1 and not line.error:
                record["caption_scores"] = [round(score, 6) for score in table.caption_scores(pair)]
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def _write_calibrations(evidence: Evidence, *, out: Path, p: float) -> list[dict[str, Any]]:
    facts = [{"group": each.name, **each.facts(p)} for each in evidence.calibrations]
    _write_json(facts, path=out / "calibration.json")
    return facts


def _write_json(content: dict[str, Any] | Sequence[dict[str, Any]], *, path: Path) -> None:
    write_bytes(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode())
