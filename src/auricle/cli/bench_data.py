"""The verbs that bring data to the encoder benchmark: bench download, bench prepare."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.options import FAILED, AsJson
from auricle.cli.output import print_json, print_result, progress, warn
from auricle.cli.printing import Tally
from auricle.errors import AuricleError, ConfigError, DataError

if TYPE_CHECKING:
    from auricle.bench.examples import Example, Examples
    from auricle.bench.task import Task
    from auricle.data.downloads import RemoteRecord
    from auricle.data.label_tars import LabelledFile

To = Annotated[Path, typer.Option("--to", help="Folder in which each task gets a folder of its name.")]

_GB = 1e9
_SHOWN = 5  # problems spelled out in an error


def download(
    names: Annotated[list[str], typer.Argument(metavar="TASK...", help="Tasks; see auricle bench tasks.")],
    to: To = Path("data"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show licence and size, and download nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download the official audio tars of tasks from Zenodo, and verify them.

    Licence and size are shown first. Files that are there and verified are kept; interrupted downloads continue.

    Example: auricle bench download esc50 --to data
    """
    tally, found = Tally(), []
    for task in [_published(name) for name in dict.fromkeys(names)]:
        try:
            found.append((task, _describe(task, to, as_json=as_json)))
        except AuricleError as error:
            _report_failure(tally, task, to, error, as_json=as_json)
    if not dry_run:
        _check_space(found, to)
        for task, record in found:
            try:
                _download(task, record, to, as_json=as_json)
            except AuricleError as error:
                _report_failure(tally, task, to, error, as_json=as_json)
    tally.leave()


def prepare(
    name: Annotated[str, typer.Argument(metavar="TASK", help="Task; see auricle bench tasks.")],
    source: Annotated[Path, typer.Option("--from", help="Data set as its authors publish it, or a manifest.")],
    to: To = Path("data"),
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out clips that are missing or without a label; exit code 1.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a published data set as audio tars in the form of the official ones.

    Audio bytes are copied. The tars are read back and compared with the data set.

    Example: auricle bench prepare esc50 --from ESC-50-master --to data
    """
    from auricle.data.label_tars import write_label_tars

    task = _with_tars(name)
    folder = to / task.name
    examples = _examples(task, source, folder, partial=partial)
    with progress(f"{task.name}, clips", len(examples), quiet=as_json) as advance:
        sets = {task.tars[split]: _labelled_files(task, each) for split, each in examples.by_split.items()}
        tars = write_label_tars(folder, sets, progress=advance)
    _compare(examples, folder)
    counts = {split: len(each) for split, each in examples.by_split.items()}
    size = sum(tar.stat().st_size for tar in tars)
    record = {
        "task": task.name,
        "folder": str(folder),
        "sounds": counts,
        "bytes": size,
        "files": [tar.name for tar in tars],
        "left_out": [{"name": each.name, "reason": each.reason} for each in examples.refused],
        "unused": examples.unused,
    }
    shown = ", ".join(f"{split} {number:,}" for split, number in counts.items())
    lines = [f"{task.name}: {len(examples):,} clips ({shown}) in {len(tars)} tars, {size / _GB:.2f} GB: {folder}"]
    lines += [f"not of the task: {number:,} clips, {reason}" for reason, number in examples.unused.items()]
    print_result(record, lines, as_json=as_json)
    if examples.refused:
        raise typer.Exit(FAILED)


def _with_tars(name: str) -> Task:
    from auricle.bench.task import load_task

    task = load_task(name)
    if not task.tars:
        raise ConfigError(
            f"task {name!r} has no audio tars; bench run reads its data set directly: -t {name}=FOLDER"
            + (f", from {task.source.url}" if task.source.url else "")
        )
    return task


def _published(name: str) -> Task:
    from auricle.bench.task import load_task

    task = load_task(name)
    if task.suite == "hear":
        raise ConfigError(
            f"task {name!r}: Zenodo record {task.source.zenodo} holds an archive for each task of HEAR; fetch one, "
            f"unpack it, and give the folder of its task to bench run: -t {name}=FOLDER"
        )
    if task.source.zenodo is None:
        remedy = f"fetch its data set from {task.source.url}" if task.source.url else "bring a manifest of your own"
        raise ConfigError(f"task {name!r} has no official audio tars; {remedy}")
    return task


def _describe(task: Task, to: Path, *, as_json: bool) -> RemoteRecord:
    from auricle.data import downloads as remote

    record = remote.zenodo_record(str(task.source.zenodo), base_url=remote.ZENODO)
    if not record.files:
        raise DataError(f"{record.page} shows no files; it may be restricted")
    left = remote.bytes_left(record.files, to / task.name)
    facts = {"title": record.title, "licence": record.licence, "page": record.page, "bytes": record.size}
    shown = {"task": task.name, "state": "found", **facts, "bytes_left": left, "files": len(record.files)}
    line = (
        f"{task.name}: {record.title}, licence {record.licence or 'not stated'}; {len(record.files)} files of "
        f"{record.size / _GB:.2f} GB, {left / _GB:.2f} GB to download; {record.page}"
    )
    print_result(shown, [line], as_json=as_json)
    return record


def _check_space(found: Sequence[tuple[Task, RemoteRecord]], to: Path) -> None:
    from auricle.data.downloads import bytes_left

    wanted = sum(bytes_left(record.files, to / task.name) for task, record in found)
    place = next(path for path in (to.absolute(), *to.absolute().parents) if path.is_dir())
    if wanted > (free := shutil.disk_usage(place).free):
        raise DataError(
            f"{wanted / _GB:.2f} GB are to be downloaded, and {free / _GB:.2f} GB are free in {place}; make room, "
            "choose fewer tasks, or give another folder with --to"
        )


def _download(task: Task, record: RemoteRecord, to: Path, *, as_json: bool) -> None:
    from auricle.data.downloads import download as fetch
    from auricle.data.label_tars import find_tars

    folder = to / task.name
    _link_from_siblings(task, record, to)
    for file in record.files:
        with progress(file.name, file.size, unit="bytes", quiet=as_json) as advance:
            fetch(file, folder, progress=lambda name, done, size: advance.at(done))
    for pattern in task.tars.values():
        find_tars(folder, pattern)
    names = [file.name for file in record.files]
    verified = {"task": task.name, "state": "verified", "folder": str(folder), "files": names}
    print_result(verified, [f"{task.name}: {len(names)} files verified: {folder}"], as_json=as_json)


def _link_from_siblings(task: Task, record: RemoteRecord, to: Path) -> None:
    """Link files of a task with the same record; the download verifies them like files that were there."""
    from auricle.bench.task import tasks

    for other in tasks():
        if other.source.zenodo != task.source.zenodo or other.name == task.name:
            continue
        for file in record.files:
            source, target = to / other.name / file.name, to / task.name / file.name
            if source.is_file() and not target.exists():
                with suppress(OSError):  # a disk without links: it is downloaded again
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.link(source, target)


def _report_failure(tally: Tally, task: Task, to: Path, error: AuricleError, *, as_json: bool) -> None:
    from auricle.data.downloads import ZENODO

    where = f"{ZENODO}/records/{task.source.zenodo}"
    tally.note_error(task.name, str(error))
    warn(f"{task.name}: by hand, the files of {where} belong into {to / task.name}")
    if as_json:
        print_json({"task": task.name, "state": "failed", "error": str(error)})


def _examples(task: Task, source: Path, folder: Path, *, partial: bool) -> Examples:
    """The examples of a data set, checked for what would make the tars another task's."""
    from auricle.bench.examples import MANIFESTS, load_examples

    if present := [name for name in MANIFESTS if (folder / name).exists()]:
        raise ConfigError(f"{folder} has a {present[0]}, which is read before any tars; give another folder with --to")
    examples = load_examples(task, source)
    if not all(isinstance(example.audio, Path) for example in examples):
        raise ConfigError(f"{source} holds the audio tars of {task.name!r} already; give it to bench run as it is")
    for name, reason in examples.refused if partial else ():
        warn(f"left out: {name}: {reason}")
    if examples.refused and not partial:
        named = [f"{name}: {reason}" for name, reason in examples.refused[:_SHOWN]]
        more = ["…"] if len(examples.refused) > _SHOWN else []
        raise DataError(
            f"{source}: {len(examples.refused):,} clips cannot be taken: {'; '.join(named + more)}. "
            "Complete the data set, or write the rest with --partial"
        )
    return examples


def _labelled_files(task: Task, examples: Sequence[Example]) -> Iterator[LabelledFile]:
    """Examples with the labels that X-ARES expects: a bare list of events, captions by number, else facts by name."""
    from auricle.data.label_tars import LabelledFile
    from auricle.data.shards import safe_key

    for example in examples:
        name = example.id.removeprefix(f"{example.split}/")
        key = safe_key(name)
        label: Any = dict(example.label) if key == name else {"id": name, **example.label}
        if task.kind == "frame":
            label = example.label[task.label.field]
        elif task.kind == "retrieval":
            label = {f"caption_{n}": text for n, text in enumerate(task.label.values(example.label), 1)}
        yield LabelledFile(key, Path(str(example.audio)), label)


def _compare(examples: Examples, folder: Path) -> None:
    """Read the tars back; they must be the same task."""
    from auricle.bench.examples import load_examples

    def truths(found: Examples) -> list[Any]:
        rule = found.task.label
        read = rule.events if found.task.kind == "frame" else rule.values
        return [(example.split, read(example.label)) for example in found]

    again = load_examples(examples.task, folder)
    if again.refused or truths(again) != truths(examples):
        raise DataError(f"the tars in {folder} read back as another task than they were written from; delete them")
