"""The filter of pairs of sound and caption: score, calibrate, decide, split; resumed after any kill.

What a run leaves in its folder::

    keep/ review/ drop/   shards under the names of the input's, every member byte for byte
    scores.jsonl          a line a pair, in the order of the input: scores, verdict, reasons
    calibration.json      what scores mean in each domain and language
    report.html, distributions.png
    summary.json          written last: when it is there, all is there
    undo/                 the way back to the input, see `auricle.curate.splitting`
    embeddings/           kept, so that another threshold costs no second pass of the model

All but the embeddings and the indexes of shards follows from the input, the model and the settings alone, to the byte.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from auricle import __version__
from auricle.curate import filter_report
from auricle.curate.calibration import Scores, auc, matched_auc
from auricle.curate.decision import DROP, KEEP, NAMES, REVIEW, FilterConfig, Verdicts, decide, evidence, reasons
from auricle.curate.pairs import Aligns, Ids, PairTable, embed_pairs, read_lines
from auricle.curate.random_pairs import Judged, judge
from auricle.curate.splitting import Split, output_names, restore_tars, split_tars
from auricle.data.shards import ShardSet
from auricle.errors import DataError
from auricle.files import atomic_write, locked, make_folder, remove_leftovers, write_bytes

_FORMAT = "auricle-filter-1"
_ROLLED_UP = ("scores.jsonl", "calibration.json", "report.html", "distributions.png", "summary.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Filtered:
    """What came of a run."""

    summary: dict[str, Any]  # as in summary.json
    unheard: list[tuple[str, str]]  # key and error of clips whose sound could not be read or embedded
    encoded: tuple[int, int]  # sounds and texts that went through the model in this run


def filter_shards(
    shards: ShardSet,
    out: str | Path,
    aligner: Aligns,
    config: FilterConfig | None = None,
    *,
    on_pairs: Callable[[int], None] = lambda count: None,
    on_tar: Callable[[Path], None] = lambda tar: None,
) -> Filtered:
    """Split shards into pairs to keep, to review and to drop; the input is only read.

    Args:
        shards: clips with their captions.
        out: new folder, or that of a run over the same shards: what it holds is used, and its verdicts are replaced.
        aligner: model of sounds and texts.
        config: thresholds.
        on_pairs: called with the number of pairs embedded since the last call.
        on_tar: called with each tar of the input that is split.

    Raises:
        DataError: the folder holds something else or cannot be read, or there are too few pairs.
        OutputError: the folder cannot be written, or another run is writing there.
        MissingExtra: matplotlib, which draws the distributions, is not installed.
    """
    filter_report.check_figures()
    config, out = config or FilterConfig(), Path(out)
    with _told(out):
        _claim(out, shards)
    with _told(out), locked(out):
        vectors = out / "embeddings" / _hash(aligner.fingerprint, config.caption)[:16]
        table = embed_pairs(aligner, shards, vectors, caption=config.caption, on_pairs=on_pairs)
        if not len(table.usable()):
            known = ", ".join(sorted(shards.read_meta(0))) or "none"
            raise DataError(
                f"no clip has both a sound that can be read and a caption in the fact {config.caption!r}; the first "
                f"clip has the facts: {known}; name another one with --caption"
            )
        judged = judge(table, p=config.p, num_captions=config.random_captions, alike=config.alike, seed=config.seed)
        verdicts = decide(table, judged, config)
        summary = _summary(shards, table, judged, verdicts, config)
        summary |= {"model": aligner.fingerprint}
        summary |= {"run": _hash(json.dumps(summary, sort_keys=True), verdicts.verdict.tobytes().hex())}
        if _run_of(out) != summary["run"]:
            for name in _ROLLED_UP:
                (out / name).unlink(missing_ok=True)
        for tar in split_tars(_splits(shards, verdicts), out, summary["run"]):
            on_tar(tar)
        keys = shards.keys()
        _write_scores(out / "scores.jsonl", shards, table, judged, verdicts, config, keys)
        calibrations = [{"group": each.name, **each.facts(config.p)} for each in judged.calibrations]
        write_bytes(out / "calibration.json", json.dumps(calibrations, indent=1, ensure_ascii=False).encode())
        examples = filter_report.choose_examples(judged, verdicts, config)
        filter_report.write_report(out, summary, calibrations, judged.calibrations, shards, examples, config.p)
        write_bytes(out / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode())
        unheard = [(line.key, line.error) for line in read_lines(table.lines) if line.error]
        return Filtered(summary=summary, unheard=unheard, encoded=table.encoded)


def undo_filter(out: str | Path, folder: str | Path | None = None) -> Iterator[tuple[Path, bool]]:
    """Put the input of a run together again, byte for byte; the output stays.

    Args:
        out: folder of the run.
        folder: for the tars; None: each goes where it was.

    Yields:
        Path of each tar, and whether it was there already.

    Raises:
        DataError: no such folder, a run that did not finish, output that was changed, or another file in the way.
    """
    out = Path(out)
    told = _claim_of(out)
    if told is None:
        raise DataError(f"{out} is no folder that the filter wrote; name the one given to it with -o")
    lists = {path.stem for path in (out / "undo").glob("*.json")}
    missing = [tar for tar, name, _ in told["tars"] if name not in lists and not Path(tar).exists()]
    if missing:
        raise DataError(f"{out} does not hold {', '.join(missing)}: the run was stopped before; restore it elsewhere")
    with _told(out):
        yield from restore_tars(out, None if folder is None else Path(folder))


def _claim(out: Path, shards: ShardSet) -> None:
    """Make the folder this input's own."""
    tars = [index.tar for index in shards.shards]
    named = zip(tars, output_names(tars), strict=True)
    claim = {
        "format": _FORMAT,
        "manifest": shards.manifest_hash,
        "tars": [[str(tar.absolute()), name, tar.stat().st_size] for tar, name in named],
    }
    told = _claim_of(out)
    remove_leftovers(out)
    if told is None and out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and not the filter's own; choose a new folder")
    # The shards may have moved, but not be cut otherwise.
    if told is not None and (told["manifest"], _cut(told)) != (claim["manifest"], _cut(claim)):
        raise DataError(f"{out} holds what came of other shards; choose a new folder, or delete it")
    make_folder(out)
    if told is None:
        write_bytes(out / "filter.json", json.dumps(claim).encode())


def _cut(claim: dict[str, Any]) -> list[tuple[str, int]]:
    return [(name, size) for _, name, size in claim["tars"]]


def _claim_of(out: Path) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads((out / "filter.json").read_text(encoding="utf-8"))
        return told if told["format"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """A full disk or a missing right is a user's matter, not a fault of the program."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be read or written ({error.strerror or error}); mend that and start "
            "again: what is done is kept"
        ) from error


def _splits(shards: ShardSet, verdicts: Verdicts) -> list[Split]:
    names = output_names([index.tar for index in shards.shards])
    found, start = [], 0
    for index, name in zip(shards.shards, names, strict=True):
        found.append(Split(index, name, verdicts.verdict[start : start + len(index)].tolist()))
        start += len(index)
    return found


def _summary(
    shards: ShardSet, table: PairTable, judged: Judged, verdicts: Verdicts, config: FilterConfig
) -> dict[str, Any]:
    usable = table.usable()
    counts = Counter(verdicts.verdict.tolist())
    has_score = judged.group >= 0
    p = judged.p[usable]
    reached = judged.better * config.random_captions > (config.top - 1) * judged.beside
    sizes = np.bincount(judged.group[usable], minlength=len(judged.calibrations))
    mismatched = float(sizes @ [each.mismatched for each in judged.calibrations] / sizes.sum())
    return {
        "pairs": len(table),
        **{NAMES[place]: counts[place] for place in (KEEP, REVIEW, DROP)},
        "signs": {  # a pair may bear several
            "like random pairs": int((p > config.drop_p).sum()),
            "between": int(((p > config.p) & (p <= config.drop_p)).sum()),
            "other captions fit as well": int((has_score & reached).sum()),
            "same sound": int((verdicts.same_as >= 0).sum()),
            "nearly the same sound": int((verdicts.near >= 0).sum()),
            "not heard": int((table.sounds < 0).sum()),
            "no caption": int(((table.captions[:, 0] < 0) & (table.sounds >= 0)).sum()),
        },
        "mismatched_share": mismatched,
        "random_passing": _random_passing(judged, config.p),
        "auc": _mixed_auc(judged, usable, mismatched),
        "settings": asdict(config),
        "manifest": shards.manifest_hash,
        "left_out": dict(shards.ignored),  # members of the tars that are no clips
        "version": __version__,
    }


def _random_passing(judged: Judged, p: float) -> float:
    """Share of random pairs, none of which had a part in the calibration, that the p value lets pass."""
    passed = [calibration.p(calibration.check)[0] <= p for calibration in judged.calibrations]
    return float(np.concatenate(passed).mean())


def _mixed_auc(judged: Judged, usable: Ids, mismatched: float) -> dict[str, float]:
    """Real against random pairs over all groups mixed as they are, by the score as it is and by the probability."""
    sizes = [int((judged.group == number).sum()) for number in range(len(judged.calibrations))]
    share = min(1.0, *(len(c.check) / size for c, size in zip(judged.calibrations, sizes, strict=True)))
    raw: list[Scores] = []
    calibrated: list[Scores] = []
    for calibration, size in zip(judged.calibrations, sizes, strict=True):
        places = np.linspace(0, len(calibration.check) - 1, max(1, int(share * size))).astype(int)
        raw.append(calibration.check[places])
        calibrated.append(calibration.probability(raw[-1]))
    measured = auc(judged.probability[usable], np.concatenate(calibrated))
    return {
        "score": auc(judged.score[usable], np.concatenate(raw)),
        "probability": measured,
        "probability_matched": matched_auc(measured, mismatched),
    }


def _write_scores(
    path: Path,
    shards: ShardSet,
    table: PairTable,
    judged: Judged,
    verdicts: Verdicts,
    config: FilterConfig,
    keys: list[str],
) -> None:
    names = [str(index.tar) for index in shards.shards for _ in range(len(index))]
    with atomic_write(path, "w") as file:
        for pair, line in enumerate(read_lines(table.lines)):
            record = {
                "shard": names[pair],
                "key": line.key,
                "verdict": NAMES[verdicts.verdict[pair]],
                "reasons": reasons(pair, line, judged, verdicts, config, keys),
                **evidence(pair, judged, verdicts, keys),
                "domain": line.domain or None,
                "language": line.language or None,
                "captions": line.captions,
            }
            if len(line.captions) > 1 and not line.error:
                record["caption_scores"] = [round(score, 6) for score in table.caption_scores(pair)]
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")


def _run_of(out: Path) -> str | None:
    try:
        return str(json.loads((out / "summary.json").read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hash(*parts: str) -> str:
    return sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()
