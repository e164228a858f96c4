"""One encoder on one task: find the clips, embed them once, train and test the task's heads, and write a result."""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from auricle import __version__
from auricle.audio.resample import SAMPLE_RATE
from auricle.bench.embedded_task import EmbeddedTask, label_embeddings
from auricle.bench.encode import Crop, EmbeddedClips, Progress, cut, embed_clips, manifest_hash, trim_or_pad
from auricle.bench.examples import Examples, absent_classes, load_examples
from auricle.bench.hear import score_hear
from auricle.bench.leaks import find_contamination, find_leaks
from auricle.bench.results import NO_LEAKS, Contamination, Cost, DataFacts, EncoderFacts, Leaks, Result, TaskFacts
from auricle.bench.store import Store
from auricle.bench.task import Task
from auricle.bench.text_heads import score_asr_head, score_retrieval_head
from auricle.bench.xares import HeadResult, score_knn, score_linear_head
from auricle.encode.names import parse_name
from auricle.errors import AuricleError, ConfigError
from auricle.metrics.scoring_rule import ScoringRule
from auricle.weights.causal_lm import load_causal_lm, load_text_tokenizer

SEED = 42  # X-ARES `TaskConfig`
LANGUAGE_MODEL = "auricle-tiny"  # embedded, so that every task can be scored offline


class EncoderLike(Protocol):
    """What a benchmark needs of an encoder: see `auricle.encode.encoder.Encoder`."""

    name: str
    output_dim: int
    hop_size_in_ms: float

    @property
    def fingerprint(self) -> str:
        """Hash of weights and settings."""

    @property
    def num_parameters(self) -> int:
        """Of the network; 0 for a fixed transform."""

    def embed_many(self, sources: Iterable[Any], *, frames: bool = False) -> Iterator[Any]:
        """Waveforms → for each a result with ``.values`` (T, D), or an error."""


def run_benchmark(
    encoder: EncoderLike,
    task: Task,
    folder: str | Path,
    *,
    scoring_rule: ScoringRule,
    store: str | Path,
    seed: int = SEED,
    language_model: str = LANGUAGE_MODEL,
    progress: Progress = lambda finished, total: None,
    on_epoch: Callable[[float], None] = lambda epochs: None,
) -> Result:
    """Measure an encoder on a task.

    Args:
        encoder: see `EncoderLike`.
        task: see `auricle.bench.task.load_task`.
        folder: of the task's data; see `auricle.bench.examples.load_examples`.
        scoring_rule: ``compat`` or ``strict``; see `auricle.bench.xares`.
        store: folder of embeddings, shared by all encoders, tasks and runs.
        seed: of heads and of what is held out for validation.
        language_model: that reads frames in ASR tasks, and whose tokenizer is that of captions in retrieval tasks; see
            `auricle.weights.causal_lm`. X-ARES has ``Qwen/Qwen2.5-0.5B``.
        progress: called with the number of clips embedded, and of all.
        on_epoch: called with the epochs of a head, or the settings HEAR tries, since the last call; in ASR tasks, which
            take hours, with shares of an epoch, and reading the test set counts as one more.

    Raises:
        WeightsError: the language model cannot be loaded.
        DataError: no usable data, or clips that could not be embedded; they are named.

    Declared classes that the data lacks are in the settings of each score, as ``absent_classes``.
    """
    examples = load_examples(task, folder)
    examples.check()
    cropping = _cropping(task, scoring_rule)
    place = Store(store, encoder.fingerprint, cropping.words, frames=task.needs_frames)

    def encode(waveforms: list[Any]) -> Iterator[Any]:
        results = encoder.embed_many(waveforms, frames=True)
        return (result if isinstance(result, AuricleError) else result.values for result in results)

    embedded = embed_clips(encode, list(examples), place, crop=cropping.crop, progress=progress)
    data = label_embeddings(examples, embedded, encoder.hop_size_in_ms)
    scored = _score_heads(data, scoring_rule, seed, language_model, on_epoch)
    if absent := absent_classes(examples):
        scored = {name: _with_setting(each, "absent_classes", list(absent)) for name, each in scored.items()}
    heads_s = time.monotonic() - embedded.finished
    facts = EncoderFacts(
        name=encoder.name,
        fingerprint=encoder.fingerprint,
        output_dim=encoder.output_dim,
        hop_ms=encoder.hop_size_in_ms,
        parameters=encoder.num_parameters,
        random="random:" in encoder.name,
    )
    seconds = [int(piece.lengths.sum()) * encoder.hop_size_in_ms / 1000.0 for piece in embedded.pieces]
    clips = (list(examples), embedded.digests, store)
    contamination = find_contamination(*clips, _names(encoder.name))
    measured = Measured(examples, embedded, seconds, heads_s, contamination, find_leaks(*clips))
    return make_result(TaskFacts.of(task), facts, measured, scored, scoring_rule=scoring_rule, seed=seed)


def _with_setting(result: HeadResult, name: str, value: Any) -> HeadResult:
    return result._replace(score=replace(result.score, settings={**result.score.settings, name: value}))


class Measured(NamedTuple):
    """The clips behind a result, and how they were measured."""

    examples: Examples
    embedded: EmbeddedClips
    seconds: Sequence[float]  # of each clip
    heads_s: float  # wall clock of training and testing all heads
    contamination: Contamination
    leaks: Leaks = NO_LEAKS


def make_result(
    task: TaskFacts,
    encoder: EncoderFacts,
    measured: Measured,
    scored: Mapping[str, HeadResult],
    *,
    scoring_rule: ScoringRule,
    seed: int,
) -> Result:
    """The result of a run; ``scored`` by the name of the head."""
    examples, embedded = measured.examples, measured.embedded
    by_digest = dict(zip(embedded.digests, measured.seconds, strict=True))
    return Result(
        task=task,
        encoder=encoder,
        scoring_rule=scoring_rule,
        seed=seed,
        data=DataFacts(
            manifest=manifest_hash(list(examples), embedded.digests),
            clips=len(examples),
            pieces=sum(len(piece.lengths) for piece in embedded.pieces),
            seconds=round(math.fsum(measured.seconds), 3),
            splits={name: len(found) for name, found in examples.by_split.items()},
        ),
        scores={name: each.score for name, each in scored.items()},
        items={name: each.items for name, each in scored.items()},
        leaks=measured.leaks,
        contamination=measured.contamination,
        cost=Cost(
            encode_s=round(embedded.encode_s, 3),
            audio_s=round(math.fsum(own for digest, own in by_digest.items() if digest in embedded.fresh), 3),
            encoded=embedded.encoded,
            reused=embedded.reused,
            heads_s=round(measured.heads_s, 3),
            peak_rss_mb=round(_peak_rss_mb(), 1),
            threads=torch.get_num_threads(),
        ),
        version=__version__,
    )


def _names(encoder: str) -> list[str]:
    """The names of models in the name of an encoder, which may be that of no model."""
    try:
        return [part.name for part in parse_name(encoder)]
    except ConfigError:
        return []


class _Cropping(NamedTuple):
    words: str  # what happens to a clip before the encoder; tasks of the same words share embeddings
    crop: Crop


def _cropping(task: Task, scoring_rule: ScoringRule) -> _Cropping:
    if task.hear is not None and task.hear.duration_s is not None:
        size = int(task.hear.duration_s * SAMPLE_RATE)
        words = f"16 kHz mono, cut or padded to {task.hear.duration_s:g} s, mean of frames"
        return _Cropping(words, lambda wave: [trim_or_pad(wave, size)])
    crop = "whole" if task.crop_s is None else f"{scoring_rule} crops of {task.crop_s:g} s"
    return _Cropping(f"16 kHz mono, {crop}, mean of frames", lambda wave: cut(wave, task.crop_s, scoring_rule))


def _score_heads(
    data: EmbeddedTask,
    scoring_rule: ScoringRule,
    seed: int,
    language_model: str,
    on_epoch: Callable[[float], None],
) -> dict[str, HeadResult]:
    """Results of each head of the task, by its name."""
    task = data.task
    if task.hear is not None:
        return {"hear": score_hear(data, seed=seed, on_point=lambda fitted: on_epoch(1))}
    if task.kind == "asr":
        return {"mlp": score_asr_head(data, scoring_rule, load_causal_lm(language_model), seed=seed, on_share=on_epoch)}

    def one_epoch(number: int) -> None:
        on_epoch(1)

    with _one_thread():
        if task.kind == "retrieval":
            tokenizer = load_text_tokenizer(language_model)
            return {"mlp": score_retrieval_head(data, scoring_rule, tokenizer, seed=seed, on_epoch=one_epoch)}
        scored = {"mlp": score_linear_head(data, scoring_rule, seed=seed, on_epoch=one_epoch)}
        if task.knn and task.kind == "clip" and not task.is_multilabel:
            scored["knn"] = score_knn(data, scoring_rule)
    return scored


@contextmanager
def _one_thread() -> Iterator[None]:
    """Heads are tiny: two threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes, on macOS bytes
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
