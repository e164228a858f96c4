"""One encoder on one task: find the sounds, embed them once, judge, and say what was done."""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from auricle import __version__
from auricle.audio.resample import SAMPLE_RATE
from auricle.bench import examples as finding
from auricle.bench.encode import Cut, Embedded, EncodesMany, embed_sounds
from auricle.bench.hear import judge_hear
from auricle.bench.results import Cost, DataFacts, EncoderFacts, Leaks, Result, TaskFacts
from auricle.bench.store import Pieces, Store
from auricle.bench.task import Task
from auricle.bench.text_heads import judge_asr, judge_retrieval
from auricle.bench.xares import Judged, Table, judge_knn, judge_linear
from auricle.metrics.events import frame_targets
from auricle.weights.causal_lm import load_causal_lm, load_text_tokenizer

SEED = 42  # X-ARES `TaskConfig`
LANGUAGE_MODEL = "auricle-tiny"  # embedded, so that every task can be judged offline
NEAR = 0.999  # cosine from which sounds of different splits are reported as near-duplicates
_NAMED_LEAKS = 200  # in a result


class BenchedEncoder(EncodesMany, Protocol):
    """What a benchmark needs of an encoder: see `auricle.encode.encoder.Encoder`."""

    name: str
    output_dim: int
    hop_size_in_ms: float

    @property
    def fingerprint(self) -> str:
        """Hash of weights and settings."""
        ...

    @property
    def num_parameters(self) -> int:
        """Of the network; 0 for a fixed transform."""
        ...


def run_benchmark(
    encoder: BenchedEncoder,
    task: Task,
    folder: str | Path,
    *,
    protocol: finding.Protocol,
    store: str | Path,
    seed: int = SEED,
    language_model: str = LANGUAGE_MODEL,
    on_start: Callable[[int], None] = lambda sounds: None,
    on_sound: Callable[[int], None] = lambda count: None,
) -> Result:
    """Measure an encoder on a task.

    Args:
        encoder: see `BenchedEncoder`.
        task: see `auricle.bench.task.load_task`.
        folder: of the task's data; see `auricle.bench.examples.load_examples`.
        protocol: ``compat`` or ``strict``; see `auricle.bench.xares`.
        store: folder of embeddings, shared by all encoders, tasks and runs.
        seed: of heads and of what is kept back for validation.
        language_model: that reads frames in ASR tasks, and whose tokens captions are made of in retrieval tasks; see
            `auricle.weights.causal_lm`. X-ARES has ``Qwen/Qwen2.5-0.5B``.
        on_start: called with the number of sounds.
        on_sound: called with the number of sounds embedded since the last call.

    Raises:
        WeightsError: the language model cannot be loaded.
        DataError: no usable data, or sounds that could not be embedded; they are named.
    """
    examples = finding.load_examples(task, folder)
    examples.check()
    listed = list(examples)
    on_start(len(listed))
    cutting = _cutting(task, protocol)
    place = Store(store, encoder.fingerprint, cutting.words, frames=needs_frames(task))
    began = time.monotonic()
    embedded = embed_sounds(encoder, listed, place, cut=cutting.cut, on_sound=on_sound)
    encoded = time.monotonic()
    table = _table(examples, listed, embedded, encoder.hop_size_in_ms)
    threads = torch.get_num_threads()
    judged = _judge(table, protocol, seed, language_model)
    by_digest = dict(zip(embedded.digests, embedded.pieces, strict=True))
    cost = Cost(
        encode_s=round(encoded - began, 3),
        audio_s=round(_seconds((piece for digest, piece in by_digest.items() if digest in embedded.fresh), encoder), 3),
        encoded=embedded.encoded,
        reused=embedded.reused,
        heads_s=round(time.monotonic() - encoded, 3),
        peak_rss_mb=round(_peak_rss_mb(), 1),
        threads=threads,
    )
    return _result(encoder, examples, listed, embedded, judged, protocol, seed, cost)


def needs_frames(task: Task) -> bool:
    """Whether a task is judged by frames; of others the store keeps only their mean."""
    return task.kind in ("frame", "asr")


class _Cutting(NamedTuple):
    words: str  # what happens to a sound before the encoder; tasks of the same words share embeddings
    cut: Cut


def _cutting(task: Task, protocol: finding.Protocol) -> _Cutting:
    if task.hear is not None and task.hear.duration_s is not None:
        size = int(task.hear.duration_s * SAMPLE_RATE)
        words = f"16 kHz mono, cut or padded to {task.hear.duration_s:g} s, mean of frames"
        return _Cutting(words, lambda wave: [finding.trim_or_pad(wave, size)])
    crop = "whole" if task.crop_s is None else f"{protocol} crops of {task.crop_s:g} s"
    return _Cutting(f"16 kHz mono, {crop}, mean of frames", lambda wave: finding.cut(wave, task.crop_s, protocol))


def _judge(table: Table, protocol: finding.Protocol, seed: int, language_model: str) -> dict[str, Judged]:
    """What each judge of the task says, by its name."""
    task = table.task
    if task.hear is not None:
        return {"hear": judge_hear(table, seed=seed)}
    if task.kind == "asr":
        return {"mlp": judge_asr(table, protocol, load_causal_lm(language_model), seed=seed)}
    with _one_thread():
        if task.kind == "retrieval":
            return {"mlp": judge_retrieval(table, protocol, load_text_tokenizer(language_model), seed=seed)}
        judged = {"mlp": judge_linear(table, protocol, seed=seed)}
        if task.knn and task.kind == "clip" and not task.is_multilabel:
            judged["knn"] = judge_knn(table, protocol)
    return judged


@contextmanager
def _one_thread() -> Iterator[None]:
    """Heads are tiny: two threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _table(examples: finding.Examples, listed: Sequence[finding.Example], embedded: Embedded, hop_ms: float) -> Table:
    task = examples.task
    classes: Sequence[str] = finding.class_names(examples) if task.kind in ("clip", "frame") else ()
    features, owners = embedded.pooled()
    shared: dict[str, Any] = {
        "task": task,
        "ids": [example.id for example in listed],
        "splits": [example.split for example in listed],
        "classes": classes,
        "owners": owners,
        "hop_ms": hop_ms,
    }
    if task.kind == "regression":
        labels = torch.tensor([[float(value) for value in task.label.values(e.label)] for e in listed])
        return Table(labels=labels, features=features, **shared)
    if task.kind in ("asr", "retrieval"):
        shared["labels"] = torch.zeros(len(listed), dtype=torch.int64)
        shared["texts"] = [[str(text) for text in task.label.values(example.label)] for example in listed]
        if task.kind == "retrieval":
            return Table(features=features, **shared)
        frames, lengths = _all_frames(embedded)
        return Table(features=frames, lengths=lengths, **shared)
    numbers = [finding.class_numbers(task, classes, example) for example in listed]
    if task.kind == "frame":
        shared["events"] = events = [
            [event._replace(label=str(event.label)) for event in task.label.events(example.label)] for example in listed
        ]
        if task.hear is None:
            shared["targets"] = [
                frame_targets(own, list(classes), hop_ms=hop_ms, duration_s=task.frames_s) for own in events
            ]
        frames, lengths = _all_frames(embedded)
        return Table(
            labels=_multi_hot(numbers, len(classes)),
            features=frames if task.hear else frames.float(),
            lengths=lengths,
            **shared,
        )
    if task.is_multilabel:
        return Table(labels=_multi_hot(numbers, len(classes)), features=features, **shared)
    return Table(labels=torch.tensor([own[0] for own in numbers]), features=features, **shared)


def _all_frames(embedded: Embedded) -> tuple[Tensor, Tensor]:
    """Frames of all pieces, one after the other (N, D) float16, and how many each has."""
    frames = [frame for piece in embedded.pieces for frame in piece.frames or ()]
    return torch.cat(frames), torch.tensor([len(frame) for frame in frames])


def _multi_hot(numbers: Sequence[Sequence[int]], classes: int) -> Tensor:
    labels = torch.zeros(len(numbers), classes)
    for row, own in enumerate(numbers):
        labels[row, [number for number in own if number >= 0]] = 1.0
    return labels


def _result(
    encoder: BenchedEncoder,
    examples: finding.Examples,
    listed: Sequence[finding.Example],
    embedded: Embedded,
    judged: dict[str, Judged],
    protocol: finding.Protocol,
    seed: int,
    cost: Cost,
) -> Result:
    task = examples.task
    return Result(
        task=TaskFacts(
            name=task.name,
            title=task.title,
            suite=task.suite,
            domain=task.domain,
            kind=task.kind,
            metric=task.metric,
            higher_is_better=task.metric != "MSE",
            weight=task.weight,
        ),
        encoder=EncoderFacts(
            name=encoder.name,
            fingerprint=encoder.fingerprint,
            output_dim=encoder.output_dim,
            hop_ms=encoder.hop_size_in_ms,
            parameters=encoder.num_parameters,
            random="random:" in encoder.name,
        ),
        protocol=protocol,
        seed=seed,
        data=DataFacts(
            manifest=_manifest(listed, embedded),
            sounds=len(listed),
            pieces=sum(len(piece.lengths) for piece in embedded.pieces),
            seconds=round(_seconds(embedded.pieces, encoder), 3),
            splits={name: len(found) for name, found in examples.by_split.items()},
        ),
        scores={name: each.score for name, each in judged.items()},
        items={name: each.items for name, each in judged.items()},
        leaks=_leaks(listed, embedded),
        cost=cost,
        version=__version__,
    )


def _manifest(listed: Sequence[finding.Example], embedded: Embedded) -> str:
    """Hash over the sounds, their splits and labels."""
    lines = [
        json.dumps([example.id, example.split, digest, dict(example.label)], sort_keys=True, default=str)
        for example, digest in zip(listed, embedded.digests, strict=True)
    ]
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _leaks(listed: Sequence[finding.Example], embedded: Embedded) -> Leaks:
    """Sounds of different splits with the same bytes, or nearly the same embedding."""
    by_digest: dict[str, list[finding.Example]] = {}
    for example, digest in zip(listed, embedded.digests, strict=True):
        by_digest.setdefault(digest, []).append(example)
    exact = [
        (one.id, one.split, other.id, other.split)
        for group in by_digest.values()
        for one, other in pairwise(group)
        if one.split != other.split
    ]
    splits = {example.id: example.split for example in listed}
    means = torch.stack([piece.pooled.mean(0) for piece in embedded.pieces])
    # Around their mean, since embeddings of one encoder share a large common part.
    pairs = finding.near_duplicates(
        list(splits), list(splits.values()), (means - means.mean(0)).numpy(), threshold=NEAR
    )
    known = {(one, other) for one, _, other, _ in exact}
    near = [(a, splits[a], b, splits[b], round(cosine, 6)) for a, b, cosine in pairs if (a, b) not in known]
    return Leaks(exact=tuple(exact[:_NAMED_LEAKS]), near=tuple(near[:_NAMED_LEAKS]))


def _seconds(pieces: Iterable[Pieces], encoder: BenchedEncoder) -> float:
    return sum(int(each.lengths.sum()) for each in pieces) * encoder.hop_size_in_ms / 1000.0


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes, on macOS bytes
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
