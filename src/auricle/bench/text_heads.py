"""Heads whose labels are text: X-ARES's ASR head on a frozen language model, and its caption retrieval head."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from auricle.bench.asr_head import MAX_NEW_TOKENS, SEPARATOR, AsrHead, AsrSettings, Utterance, train_asr
from auricle.bench.embedded_task import EmbeddedTask, partitions
from auricle.bench.results import HeadScore
from auricle.bench.retrieval_head import Captioned, RetrievalSettings, rank_captions, train_retrieval
from auricle.bench.xares import BOOTSTRAP_ROUNDS, HeadResult
from auricle.errors import ConfigError, DataError
from auricle.metrics.intervals import Score, bootstrap_interval
from auricle.metrics.retrieval import summarise_ranks
from auricle.metrics.scoring_rule import ScoringRule
from auricle.metrics.word_errors import count_word_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from auricle.weights.causal_lm import CausalLM

_BATCH = 32  # clips transcribed at once
_SHOWN = 5  # transcripts in a result
_SEPARATORS = (SEPARATOR, "<|audio_eos|>")  # the first that a tokenizer has


class _Parts(NamedTuple):
    train: list[int]
    valid: list[int]
    test: list[int]


def score_asr_head(
    data: EmbeddedTask,
    scoring_rule: ScoringRule,
    lm: "CausalLM",
    *,
    seed: int,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> HeadResult:
    """Train the adapter of `auricle.bench.asr_head` and transcribe the test set.

    ``compat`` picks the epoch by teacher-forced words, as released; ``strict`` by the loss on validation text. An
    item's score is one minus its own word error rate; the interval is over utterances.

    Raises:
        ConfigError: the tokenizer has no token to set between frames and text, or the longest clip and its transcript
            are beyond the context of the language model.
        DataError: the task has folds, or the test texts have no words.
    """
    parts, utterances = _parts(data, scoring_rule, seed), list(_utterances(data))
    train, valid, test = ([utterances[clip] for clip in part] for part in parts)
    settings = AsrSettings(
        epochs=data.task.epochs,
        batch_size=data.task.batch_size,
        rate=data.task.learning_rate,
        seed=seed,
        validation="teacher_forced" if scoring_rule == "compat" else "loss",
    )
    _check_context(lm, test)
    separator = _separator(lm)
    head = AsrHead(lm.model, lm.tokenizer, data.features.shape[1], separator=separator, end=lm.end, seed=seed)
    scores = train_asr(head, train, valid, settings=settings, on_epoch=lambda epoch, score: on_epoch(epoch))
    transcripts = _transcribe(head, [utterance.frames for utterance in test])
    pairs = [(utterance.text, found) for utterance, found in zip(test, transcripts, strict=True)]
    counts = np.array([count_word_errors(*pair) for pair in pairs], np.float64)
    if not counts[:, 1].sum():
        raise DataError("the test transcripts have no words, so no error rate exists; check the field of the text")
    facts: dict[str, Any] = {
        "language_model": lm.name,
        "language_model_sha256": lm.sha256,
        "separator": separator,
        "epochs": settings.epochs,
        "word_error_rate": float(counts[:, 0].sum() / counts[:, 1].sum()),
        "epoch": scores.index(max(scores)),
        "validation": settings.validation,
        "transcripts": [list(pair) for pair in pairs[:_SHOWN]],
    }
    rates = 1.0 - counts[:, 0] / counts[:, 1].clip(min=1)
    return _result(data, parts.test, rates, bootstrap_interval(counts, _wer_inv, rounds=BOOTSTRAP_ROUNDS), facts)


def score_retrieval_head(
    data: EmbeddedTask,
    scoring_rule: ScoringRule,
    tokenizer: "Tokenizer",
    *,
    seed: int,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> HeadResult:
    """Train the head of `auricle.bench.retrieval_head` and rank captions and clips of the test set.

    The score is recall at rank 1, the mean of both directions; an item's score is the same of one clip and its
    captions, and the interval is over clips. A clip is the mean over its pieces.

    Raises:
        DataError: the task has folds, or too few captions.
    """
    parts = _parts(data, scoring_rule, seed)
    sums = torch.zeros(len(data.ids), data.features.shape[1]).index_add_(0, data.owners, data.features)
    means = sums / data.owners.bincount(minlength=len(data.ids))[:, None]
    train, valid, test = (_captioned(means, data.texts, part, tokenizer) for part in parts)
    settings = RetrievalSettings(
        mode=scoring_rule,
        epochs=data.task.epochs,
        batch_size=data.task.batch_size,
        rate=data.task.learning_rate,
        seed=seed,
    )
    head, scores = train_retrieval(
        train,
        valid,
        vocabulary=tokenizer.get_vocab_size(),
        settings=settings,
        on_epoch=lambda epoch, score: on_epoch(epoch),
    )
    ranks = rank_captions(head, test)
    of_clip = (ranks.of_captions == 1).double()
    hits = torch.zeros(len(of_clip), dtype=torch.float64).index_add_(0, test.owners, (ranks.of_clips == 1).double())
    rows = torch.stack([of_clip, hits, test.owners.bincount().double()], 1).numpy()
    both = summarise_ranks(ranks)
    facts: dict[str, Any] = {
        "epochs": settings.epochs,
        "epoch": scores.index(max(scores)),
        "vocabulary": tokenizer.get_vocab_size(),
        "audio_to_text": both[0]._asdict(),
        "text_to_audio": both[1]._asdict(),
    }
    each = (rows[:, 0] + rows[:, 1] / rows[:, 2]) / 2
    return _result(data, parts.test, each, bootstrap_interval(rows, _recall, rounds=BOOTSTRAP_ROUNDS), facts)


def _parts(data: EmbeddedTask, scoring_rule: ScoringRule, seed: int) -> _Parts:
    found = partitions(data, scoring_rule, seed)
    if len(found) != 1:
        raise DataError(f"task {data.task.name!r} has {len(found)} folds; texts are scored on train, valid and test")
    return _Parts(*(part.tolist() for part in found[0][1:]))


def _utterances(data: EmbeddedTask) -> Iterator[Utterance]:
    """Frames of all pieces of a clip, one after the other, and its text."""
    counts = data.owners.bincount(minlength=len(data.ids)).tolist()
    pieces = iter(data.frames())
    for count, texts in zip(counts, data.texts, strict=True):
        yield Utterance(torch.cat([next(pieces) for _ in range(count)]), " ".join(texts))


def _check_context(lm: "CausalLM", utterances: Sequence[Utterance]) -> None:
    longest = max(len(utterance.frames) for utterance in utterances) + 1 + MAX_NEW_TOKENS
    if longest > lm.model.config.max_position_embeddings:
        raise ConfigError(
            f"{lm.name} reads {lm.model.config.max_position_embeddings} tokens, the longest clip and its transcript "
            f"are {longest}; give a language model of a longer context, or an encoder of fewer frames a second"
        )


def _separator(lm: "CausalLM") -> str:
    for token in _SEPARATORS:
        if lm.tokenizer.token_to_id(token) is not None:
            return token
    raise ConfigError(f"{lm.name}: its tokenizer has none of {', '.join(_SEPARATORS)}; give another model")


def _transcribe(head: AsrHead, clips: Sequence[Tensor]) -> list[str]:
    """Transcripts in the order of the clips, which are read from short to long, so that little is padded."""
    order = sorted(range(len(clips)), key=lambda i: len(clips[i]))
    found: dict[int, str] = {}
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        found.update(zip(batch, head.transcribe([clips[i] for i in batch]), strict=True))
    return [found[i] for i in range(len(clips))]


def _captioned(
    means: Tensor, texts: Sequence[Sequence[str]], chosen: Sequence[int], tokenizer: "Tokenizer"
) -> Captioned:
    own = [(number, caption) for number, clip in enumerate(chosen) for caption in texts[clip]]
    tokens = [encoding.ids for encoding in tokenizer.encode_batch([caption for _, caption in own])]
    return Captioned(means[list(chosen)], tokens, torch.tensor([number for number, _ in own]))


def _wer_inv(counts: Any) -> float:
    """Of rows of errors and words."""
    words = counts[:, 1].sum()
    return max(0.0, 1.0 - float(counts[:, 0].sum() / words)) if words else 0.0


def _recall(rows: Any) -> float:
    """Of rows of a clip's hit, its captions' hits, and their number."""
    return float((rows[:, 0].mean() + rows[:, 1].sum() / rows[:, 2].sum()) / 2)


def _result(data: EmbeddedTask, test: Sequence[int], each: Any, interval: Score, facts: dict[str, Any]) -> HeadResult:
    items = {data.ids[clip]: round(float(value), 6) for clip, value in zip(test, each, strict=True)}
    return HeadResult(HeadScore.of(interval, settings=facts), items)
