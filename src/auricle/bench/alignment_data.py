"""The test sounds of tasks where nothing is trained: splits of declared tasks, and captioned sets of one's own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from auricle.bench.examples import Example, Examples, Refused, load_examples
from auricle.bench.task import LabelRule, Source, Task
from auricle.data.manifest import read_manifest
from auricle.errors import DataError

CAPTION_FIELDS = ("captions", "caption")  # of an own set's manifest


def own_task(name: str) -> Task:
    """A set of one's own: a manifest (``.jsonl``, ``.csv``, ``.tsv``) with the audio and a caption, or several.

    Each entry has ``caption``, a text, or ``captions``, a text or a list of them. All entries are test sounds; a column
    ``split`` or ``fold`` serves to choose among them. Several entries may have the same audio.
    """
    return Task(
        name=name,
        title=name,
        suite="private",
        domain="private",
        kind="retrieval",
        label=LabelRule(field=CAPTION_FIELDS[0], value="text"),
        metric="recallatk_r1",
        loss="contrastive",
        source=Source(),
        train="test",
        valid="test",
        test="test",
    )


def select_examples(task: Task, folder: str | Path, splits: Sequence[str]) -> Examples:
    """Examples of the chosen splits or folds; the others need not be there.

    Args:
        task: see `auricle.bench.task.load_task`.
        folder: of its data; see `auricle.bench.examples.load_examples`.
        splits: names; none: all folds, or the test split.

    Raises:
        DataError: no such split, no data of it, or sounds that were refused.
    """
    chosen = tuple(dict.fromkeys(task.split_of(name) for name in splits)) or task.folds or (task.split_of("test"),)
    tars = {split: pattern for split, pattern in task.tars.items() if split in chosen}
    if len(chosen) > 1:
        narrowed = replace(task, folds=chosen, train=None, valid=None, test=None, tars=tars)
    else:
        narrowed = replace(task, folds=(), train=chosen[0], valid=chosen[0], test=chosen[0], tars=tars)
    examples = load_examples(narrowed, folder)
    examples.check()
    return examples


def class_examples(task: Task, folder: str | Path, examples: Examples) -> Examples:
    """The examples that tell the classes: where they are not declared, those of the whole task.

    Raises:
        DataError: the whole task is asked for, and is not there.
    """
    is_declared = isinstance(task.classes, tuple) or (task.label.value == "index" and task.classes is not None)
    return examples if is_declared else load_examples(task, folder)


def read_captioned(task: Task, manifest: str | Path, splits: Sequence[str]) -> Examples:
    """Examples of a manifest as `own_task` describes it.

    Args:
        task: with captions; where the manifest has the field of its labels, that is taken.
        manifest: of the sounds.
        splits: of its column ``split`` or ``fold``; none: all.

    Raises:
        DataError: it cannot be read, nothing is left of it, or sounds were refused.
    """
    by_split: dict[str, list[Example]] = {}
    refused = []
    for entry in read_manifest(manifest):
        split = str(entry.meta.get("split", entry.meta.get("fold", task.test or "test")))
        if splits and split not in splits:
            continue
        written = next((entry.meta[f] for f in (task.label.field, *CAPTION_FIELDS) if f in entry.meta), None)
        captions = [written] if isinstance(written, str) else written
        if (
            not isinstance(captions, list)
            or not captions
            or not all(isinstance(c, str) and c.strip() for c in captions)
        ):
            refused.append(Refused(entry.id, f"its captions are {written!r:.60}, expected a text or a list of them"))
        elif not entry.audio.is_file():
            refused.append(Refused(entry.id, f"no audio at {entry.audio}"))
        else:
            label = {**entry.meta, task.label.field: captions}
            by_split.setdefault(split, []).append(Example(f"{split}/{entry.id}", split, entry.audio, label))
    if not by_split and not refused:
        raise DataError(f"{manifest} has no entries{f' of {list(splits)}' if splits else ''}; check the manifest")
    examples = Examples(task, by_split, tuple(refused), {})
    examples.check()
    return examples
