"""Audio–text models on the tasks of the benchmarks: zero-shot classes, and retrieval by and of captions.

Nothing is trained, so the sounds of all folds, or of the test split, are test sounds. Embeddings of sounds and of texts
are kept in `auricle.bench.store`, under the fingerprint of the model.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle import __version__
from auricle.audio.resample import SAMPLE_RATE
from auricle.bench.alignment_data import class_examples, read_captioned, select_examples
from auricle.bench.class_words import declared_words, task_prompts
from auricle.bench.encode import Embedded, embed_sounds
from auricle.bench.examples import Example, Examples, class_names, class_numbers
from auricle.bench.results import Cost, DataFacts, EncoderFacts, HeadScore, Result, TaskFacts
from auricle.bench.store import Store
from auricle.bench.task import Task
from auricle.bench.xares import Judged, Table, Tested, by_class, by_item, over_folds
from auricle.encode.zero_shot import ENGLISH, Aligns, Prompts, embed_labels
from auricle.errors import AuricleError, ConfigError, DataError
from auricle.metrics.classification import accuracy, mean_average_precision
from auricle.metrics.intervals import Score, wilson_interval
from auricle.metrics.retrieval import Estimate, RetrievalEstimates, retrieval_estimates
from auricle.metrics.scoring_rule import ScoringRule
from auricle.models.frame_model import Identity

CAPTIONED = ("retrieval", "asr")  # kinds of tasks whose labels are sentences
_TEXTS_AT_ONCE, _TEXTS_KEPT = 64, 1024  # through the text tower, and in a segment of the store
_NAMED = 3  # examples spelled out in an error


class BenchedAligner(Aligns, Protocol):
    """What a benchmark needs of an audio–text model: see `auricle.encode.aligner.Aligner`."""

    embedding_dim: int

    @property
    def fingerprint(self) -> str:
        """Hash of weights and settings."""

    def identity(self) -> Identity:
        """With the number of parameters."""


class _Heard(NamedTuple):
    """The sounds of a task in the space of a model."""

    listed: list[Example]
    embedded: Embedded
    vectors: Tensor  # (n, D) float32
    seconds: Tensor  # (n,) float32
    began: float  # monotonic clock
    encoded: float


def zero_shot(
    aligner: BenchedAligner,
    task: Task,
    folder: str | Path,
    *,
    name: str,
    store: str | Path,
    prompts: Prompts | None = None,
    splits: Sequence[str] = (),
    on_start: Callable[[int], None] = lambda sounds: None,
    on_sound: Callable[[int], None] = lambda count: None,
) -> Result:
    """Tell the classes of a task by words: accuracy, or mean average precision where a sound may have several.

    The judge is ``zero_shot``. The interval of an accuracy is Wilson's, that of the precision a bootstrap over sounds.

    Args:
        aligner: see `BenchedAligner`.
        task: of clips with classes.
        folder: of its data; see `auricle.bench.examples.load_examples`.
        name: of the model, for the result.
        store: folder of embeddings, shared by all models, tasks and runs.
        prompts: None: those of `auricle.bench.class_words.task_prompts`.
        splits: splits or folds to test on; none: all folds, or the test split.
        on_start: called with the number of sounds.
        on_sound: called with the number of sounds embedded since the last call.

    Raises:
        ConfigError: a task without classes, or whose classes are nothing that words could tell; words for a class that
            it does not have.
        DataError: no usable data, or sounds that could not be embedded; they are named.
    """
    if task.kind != "clip":
        raise ConfigError(f"task {task.name!r} is {task.kind}; zero-shot needs clips with classes")
    prompts = prompts or task_prompts(task)
    examples = select_examples(task, folder, splits)
    classes = class_names(class_examples(task, folder, examples))
    if unknown := sorted(prompts.phrases.keys() - {*classes, *declared_words(task)}):
        raise ConfigError(
            f"words are given for {unknown[0]!r}, which is no class of task {task.name!r}; it has {', '.join(classes)}"
        )
    on_start(len(examples))
    heard = _hear(aligner, examples, store, on_sound)
    words = embed_labels(_texts(aligner, store, prompts.language), classes, prompts)
    judged = _judge_classes(task, classes, heard, heard.vectors @ words.t(), prompts)
    metric = "mAP" if _is_ranked(task) else "accuracy"
    return _result(aligner, examples, heard, {"zero_shot": judged}, name=name, metric=metric, rule="strict")


def text_retrieval(
    aligner: BenchedAligner,
    task: Task,
    folder: str | Path,
    *,
    name: str,
    store: str | Path,
    rule: ScoringRule = "strict",
    language: str = ENGLISH,
    splits: Sequence[str] = (),
    on_start: Callable[[int], None] = lambda sounds: None,
    on_sound: Callable[[int], None] = lambda count: None,
) -> Result:
    """How well sounds find what is said of them, and captions or transcripts their sounds.

    The judge is ``retrieval``, its score recall at rank 1, the mean of both directions; all metrics with intervals and
    what chance gives stand in its settings.

    Args:
        aligner: see `BenchedAligner`.
        task: with captions or transcripts, such as `auricle.bench.alignment_data.own_task`.
        folder: of its data, or a manifest as described there.
        name: of the model, for the result.
        store: folder of embeddings, shared by all models, tasks and runs.
        rule: ``compat`` takes every caption for one of its own, as published. ``strict`` takes equal ones for one,
            which is right for all its sounds; where none are equal, both are the same. Examples with the same bytes are
            one sound.
        language: of the texts, see `auricle.encode.aligner.Aligner.text`.
        splits: splits or folds to test on; none: all folds, or the test split.
        on_start: called with the number of sounds.
        on_sound: called with the number of sounds embedded since the last call.

    Raises:
        ConfigError: a task without captions.
        DataError: no usable data, or sounds that could not be embedded; they are named.
    """
    if task.kind not in CAPTIONED:
        raise ConfigError(f"task {task.name!r} is {task.kind}; retrieval needs captions or transcripts")
    read = read_captioned if Path(folder).is_file() else select_examples
    examples = read(task, folder, splits)
    on_start(len(examples))
    heard = _hear(aligner, examples, store, on_sound)
    judged = _judge_captions(task, heard, _texts(aligner, store, language), rule, language)
    return _result(aligner, examples, heard, {"retrieval": judged}, name=name, metric="recallatk_r1", rule=rule)


class _AudioTower:
    """A model's ear with the face of an encoder; a sound is one row: its embedding, and behind it its length, s."""

    def __init__(self, aligner: Aligns) -> None:
        self._aligner = aligner

    def embed_many(self, sources: Iterable[Any], *, frames: bool = False) -> Iterator[Any]:
        waveforms = list(sources)
        for waveform, result in zip(waveforms, self._aligner.audio_many(waveforms), strict=True):
            if isinstance(result, AuricleError):
                yield result
            else:
                yield _Row(torch.cat([result.values.float(), torch.tensor([len(waveform) / SAMPLE_RATE])])[None])


class _Row(NamedTuple):
    values: Tensor  # (1, D + 1)


def _hear(aligner: BenchedAligner, examples: Examples, store: str | Path, on_sound: Callable[[int], None]) -> _Heard:
    listed = list(examples)
    began = time.monotonic()
    place = Store(store, aligner.fingerprint, "16 kHz mono, whole, embedding of an aligner and length in s")
    embedded = embed_sounds(_AudioTower(aligner), listed, place, on_sound=on_sound)
    rows, _ = embedded.pooled()
    return _Heard(listed, embedded, F.normalize(rows[:, :-1], dim=1), rows[:, -1], began, time.monotonic())


def _texts(aligner: BenchedAligner, store: str | Path, language: str) -> Callable[[Sequence[str]], Tensor]:
    """A function that embeds texts, each once and for all."""
    place = Store(store, aligner.fingerprint, f"text, {language}")

    def embed(texts: Sequence[str]) -> Tensor:
        digests = [sha256(text.encode()).hexdigest() for text in texts]
        missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in place}
        # Texts of about one length together, so that little is padded.
        order = sorted(missing, key=lambda digest: len(missing[digest]))
        for start in range(0, len(order), _TEXTS_AT_ONCE):
            batch = order[start : start + _TEXTS_AT_ONCE]
            vectors = aligner.text([missing[digest] for digest in batch], language=language)
            for digest, vector in zip(batch, vectors, strict=True):
                place.add(digest, [vector[None]])
            if (start + _TEXTS_AT_ONCE) % _TEXTS_KEPT == 0:
                place.flush()
        place.flush()
        return F.normalize(torch.cat([place.get(digest).pooled for digest in digests]), dim=1)

    return embed


def _is_ranked(task: Task) -> bool:
    """Whether the metric is the mean average precision."""
    return task.is_multilabel or task.metric == "mAP"


def _judge_classes(task: Task, classes: Sequence[str], heard: _Heard, scores: Tensor, prompts: Prompts) -> Judged:
    numbers = [class_numbers(task, classes, example) for example in heard.listed]
    hot = torch.zeros(len(numbers), len(classes))
    for row, own in enumerate(numbers):
        hot[row, [number for number in own if number >= 0]] = 1.0
    labels = hot if _is_ranked(task) else torch.tensor([own[0] for own in numbers])
    everything = torch.arange(len(numbers))
    splits = [example.split for example in heard.listed]
    table = Table(task, [e.id for e in heard.listed], splits, labels, classes, scores, everything)
    tested = Tested(scores, labels, everything)
    metric = mean_average_precision if _is_ranked(task) else accuracy
    interval: Score = (
        over_folds([tested], metric) if _is_ranked(task) else wilson_interval((scores.argmax(1) == labels).numpy())
    )
    facts: dict[str, Any] = {
        "templates": list(prompts.templates),
        "words": {name: list(prompts.phrases[name]) for name in classes if prompts.phrases.get(name)},
        "language": prompts.language,
        "chance": float(hot.mean()) if _is_ranked(task) else 1 / len(classes),
    }
    if len(set(splits)) > 1:
        facts["splits"] = {split: metric(scores[rows], labels[rows]) for split, rows in _rows_of(splits).items()}
    score = HeadScore(
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=len(numbers),
        folds={},
        classes=by_class(table, tested),
        settings=facts,
    )
    return Judged(score, by_item(table, tested))


def _rows_of(splits: Sequence[str]) -> dict[str, Tensor]:
    return {name: torch.tensor([i for i, own in enumerate(splits) if own == name]) for name in dict.fromkeys(splits)}


def _judge_captions(
    task: Task, heard: _Heard, embed: Callable[[Sequence[str]], Tensor], rule: ScoringRule, language: str
) -> Judged:
    own = [[" ".join(str(text).split()) for text in task.label.values(example.label)] for example in heard.listed]
    if empty := [e.id for e, texts in zip(heard.listed, own, strict=True) if not texts or not all(texts)]:
        raise DataError(f"{len(empty)} sounds have an empty caption: {', '.join(empty[:_NAMED])}; leave them out")
    sounds = heard.embedded.digests
    said = [(row, text) for row, texts in enumerate(own) for text in texts]
    # What makes a caption the same as another one: what it says, or its place.
    captions = [text if rule == "strict" else place for place, (_, text) in enumerate(said)]
    sound_of, caption_of = _numbers(sounds), _numbers(captions)
    pairs = {(sound_of[sounds[row]], caption_of[key]): None for (row, _), key in zip(said, captions, strict=True)}
    first = {sound: row for row, sound in reversed(list(enumerate(sounds)))}
    text_of = {key: text for (_, text), key in zip(said, captions, strict=True)}
    rankings = retrieval_estimates(
        heard.vectors[[first[sound] for sound in sound_of]],
        embed([text_of[key] for key in caption_of]),
        torch.tensor(list(pairs)),
    )
    facts: dict[str, Any] = {
        "captions": len(caption_of),
        "merged_sounds": len(sounds) - len(sound_of),
        "merged_captions": len(captions) - len(caption_of),
        "language": language,
    }
    items = {heard.listed[first[sound]].id: rankings.clips[number] for sound, number in sound_of.items()}
    return _judged_rankings(rankings, items, facts)


def _numbers(keys: Sequence[Any]) -> dict[Any, int]:
    """Different keys, in the order they come, and the number of each."""
    return {key: number for number, key in enumerate(dict.fromkeys(keys))}


def _judged_rankings(rankings: RetrievalEstimates, items: Mapping[str, Tensor], facts: dict[str, Any]) -> Judged:
    def plain(table: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
        return {name: estimate._asdict() for name, estimate in table.items()}

    score = HeadScore(
        value=rankings.recall.value,
        low=rankings.recall.low,
        high=rankings.recall.high,
        n=len(items),
        folds={},
        classes={},
        settings={
            **facts,
            "chance": rankings.recall.chance,
            "audio_to_text": plain(rankings.audio_to_text),
            "text_to_audio": plain(rankings.text_to_audio),
        },
    )
    return Judged(score, {name: round(float(value), 6) for name, value in items.items()})


def _result(
    aligner: BenchedAligner,
    examples: Examples,
    heard: _Heard,
    judged: Mapping[str, Judged],
    *,
    name: str,
    metric: str,
    rule: ScoringRule,
) -> Result:
    task, embedded = examples.task, heard.embedded
    fresh = {digest: row for row, digest in enumerate(embedded.digests) if digest in embedded.fresh}
    facts = TaskFacts(
        name=task.name,
        title=task.title,
        suite=task.suite,
        domain=task.domain,
        kind="retrieval" if task.kind in CAPTIONED else task.kind,
        metric=metric,
        higher_is_better=True,
        weight=task.weight,
    )
    encoder = EncoderFacts(
        name=name,
        fingerprint=aligner.fingerprint,
        output_dim=aligner.embedding_dim,
        hop_ms=0.0,  # a sound is one vector
        parameters=aligner.identity().num_parameters,
        random=False,
    )
    data = DataFacts(
        manifest=_manifest(heard),
        sounds=len(heard.listed),
        pieces=len(heard.listed),
        seconds=round(float(heard.seconds.double().sum()), 3),
        splits={split: len(found) for split, found in examples.by_split.items()},
    )
    cost = Cost(
        encode_s=round(heard.encoded - heard.began, 3),
        audio_s=round(float(heard.seconds[list(fresh.values())].double().sum()), 3),
        encoded=embedded.encoded,
        reused=embedded.reused,
        heads_s=round(time.monotonic() - heard.encoded, 3),
        peak_rss_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _RSS_OF_MB, 1),
        threads=torch.get_num_threads(),
    )
    return Result(
        task=facts,
        encoder=encoder,
        protocol=rule,
        seed=0,  # of the bootstrap
        data=data,
        scores={judge: each.score for judge, each in judged.items()},
        items={judge: each.items for judge, each in judged.items()},
        cost=cost,
        version=__version__,
    )


_RSS_OF_MB = 1 << 20 if sys.platform == "darwin" else 1 << 10  # the kernel counts bytes there, kilobytes elsewhere


def _manifest(heard: _Heard) -> str:
    """Hash over the sounds, their splits and labels, as that of `auricle.bench.run`."""
    lines = [
        json.dumps([example.id, example.split, digest, dict(example.label)], sort_keys=True, default=str)
        for example, digest in zip(heard.listed, heard.embedded.digests, strict=True)
    ]
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()
