"""Audio–text models on the tasks of the benchmarks: zero-shot classes, and retrieval by captions and of captions.

Nothing is trained, so the clips of all folds, or of the test split, are test clips. Embeddings of clips and of texts
are kept in `auricle.bench.store`, under the fingerprint of the model.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.audio.resample import SAMPLE_RATE
from auricle.bench.class_words import declared_words, task_prompts
from auricle.bench.embedded_task import EmbeddedTask, multi_hot
from auricle.bench.encode import EmbeddedClips, Progress, Waveform, embed_clips
from auricle.bench.examples import Examples, class_names, class_numbers, load_examples, read_captioned, select_examples
from auricle.bench.leaks import find_contamination
from auricle.bench.results import EncoderFacts, HeadScore, Result, TaskFacts
from auricle.bench.run import Measured, make_result
from auricle.bench.store import Store
from auricle.bench.task import CAPTIONED, Task
from auricle.bench.xares import HeadResult, Predictions, mean_over_folds, scores_by_class, scores_by_item
from auricle.encode.zero_shot import ENGLISH, Aligns, Prompts, embed_labels
from auricle.errors import AuricleError, ConfigError, DataError
from auricle.metrics.classification import accuracy, mean_average_precision
from auricle.metrics.intervals import Score, wilson_interval
from auricle.metrics.retrieval import Estimate, RetrievalEstimates, retrieval_estimates
from auricle.metrics.scoring_rule import ScoringRule
from auricle.models.frame_model import Identity

_TEXTS_AT_ONCE, _TEXTS_KEPT = 64, 1024  # through the text tower, and in a segment of the store
_SHOWN = 3  # examples spelled out in an error


class AlignerLike(Aligns, Protocol):
    """What a benchmark needs of an audio–text model: see `auricle.encode.aligner.Aligner`."""

    embedding_dim: int

    @property
    def fingerprint(self) -> str:
        """Hash of weights and settings."""

    def identity(self) -> Identity:
        """With the number of parameters."""


class _Clips(NamedTuple):
    """The clips of a task in the space of a model."""

    examples: Examples
    embedded: EmbeddedClips
    vectors: Tensor  # (n, D) float32
    seconds: Tensor  # (n,) float32


def zero_shot(
    aligner: AlignerLike,
    task: Task,
    folder: str | Path,
    *,
    name: str,
    store: str | Path,
    prompts: Prompts | None = None,
    splits: Sequence[str] = (),
    progress: Progress = lambda finished, total: None,
) -> Result:
    """Classify by prompts: accuracy, or mean average precision where a clip may have several classes.

    The head is ``zero_shot``. The interval of an accuracy is Wilson's, that of the precision a bootstrap over clips.

    Args:
        aligner: see `AlignerLike`.
        task: of clips with classes.
        folder: of its data; see `auricle.bench.examples.load_examples`.
        name: of the model, for the result.
        store: folder of embeddings, shared by all models, tasks and runs.
        prompts: None: those of `auricle.bench.class_words.task_prompts`.
        splits: splits or folds to test on; none: all folds, or the test split.
        progress: called with the number of clips embedded, and of all.

    Raises:
        ConfigError: a task without classes, or whose classes cannot be put into words; words for a class that it does
            not have.
        DataError: no usable data, or clips that could not be embedded; they are named.
    """
    if task.kind != "clip":
        raise ConfigError(f"task {task.name!r} is {task.kind}; zero-shot needs clips with classes")
    prompts = prompts or task_prompts(task)
    examples = select_examples(task, folder, splits)
    classes = class_names(examples if task.has_known_classes else load_examples(task, folder))
    if unknown := sorted(prompts.phrases.keys() - {*classes, *declared_words(task)}):
        raise ConfigError(
            f"words are given for {unknown[0]!r}, which is no class of task {task.name!r}; it has {', '.join(classes)}"
        )
    clips = _embed(aligner, examples, store, progress)
    labels = embed_labels(_text_embedder(aligner, store, prompts.language), classes, prompts)
    scored = _score_classes(clips, classes, clips.vectors @ labels.t(), prompts)
    facts = TaskFacts.of(task, metric="mAP" if _is_ranked(task) else "accuracy")
    return _result(aligner, name, store, clips, facts, {"zero_shot": scored}, "strict")


def text_retrieval(
    aligner: AlignerLike,
    task: Task,
    folder: str | Path,
    *,
    name: str,
    store: str | Path,
    scoring_rule: ScoringRule = "strict",
    language: str = ENGLISH,
    splits: Sequence[str] = (),
    progress: Progress = lambda finished, total: None,
) -> Result:
    """Retrieve captions or transcripts by clips, and clips by them.

    The head is ``retrieval``, its score recall at rank 1, the mean of both directions; all metrics with intervals and
    chance are in its settings.

    Args:
        aligner: see `AlignerLike`.
        task: with captions or transcripts, such as `auricle.bench.examples.captioned_task`.
        folder: of its data, or a manifest as described there.
        name: of the model, for the result.
        store: folder of embeddings, shared by all models, tasks and runs.
        scoring_rule: ``compat`` treats every caption as different, as published. ``strict`` merges equal captions into
            one, which is correct for all its clips; where none are equal, both are the same. Examples with the same
            bytes are one clip.
        language: of the texts, see `auricle.encode.aligner.Aligner.text`.
        splits: splits or folds to test on; none: all folds, or the test split.
        progress: called with the number of clips embedded, and of all.

    Raises:
        ConfigError: a task without captions.
        DataError: no usable data, or clips that could not be embedded; they are named.
    """
    if task.kind not in CAPTIONED:
        raise ConfigError(f"task {task.name!r} is {task.kind}; retrieval needs captions or transcripts")
    read = read_captioned if Path(folder).is_file() else select_examples
    clips = _embed(aligner, read(task, folder, splits), store, progress)
    scored = _score_captions(clips, _text_embedder(aligner, store, language), scoring_rule, language)
    facts = TaskFacts.of(task, kind="retrieval", metric="recallatk_r1")
    return _result(aligner, name, store, clips, facts, {"retrieval": scored}, scoring_rule)


def _embed(aligner: AlignerLike, examples: Examples, store: str | Path, progress: Progress) -> _Clips:
    def encode(waveforms: list[Waveform]) -> Iterator[Tensor | AuricleError]:
        """A clip is one row: its embedding, and behind it its length, s."""
        for waveform, result in zip(waveforms, aligner.audio_many(waveforms), strict=True):
            if isinstance(result, AuricleError):
                yield result
            else:
                yield torch.cat([result.values.float(), torch.tensor([len(waveform) / SAMPLE_RATE])])[None]

    place = Store(store, aligner.fingerprint, "16 kHz mono, whole, embedding of an aligner and length in s")
    embedded = embed_clips(encode, list(examples), place, progress=progress)
    rows, _ = embedded.pooled()
    return _Clips(examples, embedded, F.normalize(rows[:, :-1], dim=1), rows[:, -1])


def _text_embedder(aligner: AlignerLike, store: str | Path, language: str) -> Callable[[Sequence[str]], Tensor]:
    """A function that embeds texts, each once over all runs."""
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


def _score_classes(clips: _Clips, classes: Sequence[str], scores: Tensor, prompts: Prompts) -> HeadResult:
    task, listed = clips.examples.task, list(clips.examples)
    numbers = [class_numbers(task, classes, example) for example in listed]
    hot = multi_hot(numbers, len(classes))
    labels = hot if _is_ranked(task) else torch.tensor([own[0] for own in numbers])
    everything = torch.arange(len(numbers))
    data = EmbeddedTask(
        task=task,
        ids=[example.id for example in listed],
        splits=[example.split for example in listed],
        labels=labels,
        classes=classes,
        features=scores,
        owners=everything,
    )
    tested = Predictions(scores, labels, everything)
    metric = mean_average_precision if _is_ranked(task) else accuracy
    facts: dict[str, Any] = {
        "templates": list(prompts.templates),
        "words": {name: list(prompts.phrases[name]) for name in classes if prompts.phrases.get(name)},
        "language": prompts.language,
        "chance": float(hot.mean()) if _is_ranked(task) else 1 / len(classes),
    }
    splits = dict.fromkeys(data.splits)
    if len(splits) > 1:
        rows = {split: data.clips_of(split) for split in splits}
        facts["splits"] = {split: metric(scores[own], labels[own]) for split, own in rows.items()}
    hits = (scores.argmax(1) == labels).numpy() if not _is_ranked(task) else None
    interval = mean_over_folds([tested], metric) if hits is None else wilson_interval(hits)
    score = HeadScore.of(interval, classes=scores_by_class(data, tested), settings=facts)
    return HeadResult(score, scores_by_item(data, tested))


def _score_captions(
    clips: _Clips, embed: Callable[[Sequence[str]], Tensor], scoring_rule: ScoringRule, language: str
) -> HeadResult:
    listed, rule = list(clips.examples), clips.examples.task.label
    captions_of = [[" ".join(str(text).split()) for text in rule.values(example.label)] for example in listed]
    if empty := [e.id for e, texts in zip(listed, captions_of, strict=True) if not texts or not all(texts)]:
        raise DataError(f"{len(empty)} clips have an empty caption: {', '.join(empty[:_SHOWN])}; leave them out")
    digests = clips.embedded.digests
    pairs = [(row, text) for row, texts in enumerate(captions_of) for text in texts]
    # What makes a caption the same as another one: its text, or its place.
    keys = [text if scoring_rule == "strict" else place for place, (_, text) in enumerate(pairs)]
    clip_of, caption_of = _numbers(digests), _numbers(keys)
    first = {digest: row for row, digest in reversed(list(enumerate(digests)))}
    text_of = {key: text for (_, text), key in zip(pairs, keys, strict=True)}
    matches = {(clip_of[digests[row]], caption_of[key]): None for (row, _), key in zip(pairs, keys, strict=True)}
    rankings = retrieval_estimates(
        clips.vectors[[first[digest] for digest in clip_of]],
        embed([text_of[key] for key in caption_of]),
        torch.tensor(list(matches)),
    )
    facts: dict[str, Any] = {
        "captions": len(caption_of),
        "merged_sounds": len(digests) - len(clip_of),
        "merged_captions": len(keys) - len(caption_of),
        "language": language,
    }
    items = {listed[first[digest]].id: rankings.clips[number] for digest, number in clip_of.items()}
    return _score_rankings(rankings, items, facts)


def _numbers(keys: Sequence[Any]) -> dict[Any, int]:
    """Different keys in order of appearance, and the number of each."""
    return {key: number for number, key in enumerate(dict.fromkeys(keys))}


def _score_rankings(rankings: RetrievalEstimates, items: Mapping[str, Tensor], facts: dict[str, Any]) -> HeadResult:
    def plain(table: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
        return {name: estimate._asdict() for name, estimate in table.items()}

    recall = rankings.recall
    directions = {"audio_to_text": plain(rankings.audio_to_text), "text_to_audio": plain(rankings.text_to_audio)}
    score = HeadScore.of(
        Score(recall.value, recall.low, recall.high, len(items)),
        settings={**facts, "chance": recall.chance, **directions},
    )
    return HeadResult(score, {name: round(float(value), 6) for name, value in items.items()})


def _result(
    aligner: AlignerLike,
    name: str,
    store: str | Path,
    clips: _Clips,
    task: TaskFacts,
    scored: Mapping[str, HeadResult],
    scoring_rule: ScoringRule,
) -> Result:
    encoder = EncoderFacts(
        name=name,
        fingerprint=aligner.fingerprint,
        output_dim=aligner.embedding_dim,
        hop_ms=0.0,  # a clip is one vector
        parameters=aligner.identity().num_parameters,
        random=False,
    )
    heads_s = time.monotonic() - clips.embedded.finished
    contamination = find_contamination(list(clips.examples), clips.embedded.digests, store, [name])
    measured = Measured(clips.examples, clips.embedded, clips.seconds.double().tolist(), heads_s, contamination)
    # The seed is that of the bootstrap.
    return make_result(task, encoder, measured, scored, scoring_rule=scoring_rule, seed=0)
