"""Judges whose truth is text: X-ARES's ASR head on a frozen language model, and its caption retrieval head."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from auricle.bench.asr_head import MAX_NEW_TOKENS, SEPARATOR, AsrHead, AsrSettings, Utterance, train_asr
from auricle.bench.examples import Protocol
from auricle.bench.results import HeadScore
from auricle.bench.retrieval_head import Captioned, RetrievalSettings, rank_captions, train_retrieval
from auricle.bench.xares import BOOTSTRAP_ROUNDS, Judged, Table, plans
from auricle.errors import ConfigError, DataError
from auricle.metrics.intervals import bootstrap_interval
from auricle.metrics.retrieval import summarise_ranks
from auricle.metrics.word_errors import count_word_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from auricle.weights.causal_lm import CausalLM

TRANSCRIBED = 32  # clips at once
SHOWN = 5  # transcripts, or captions, in a result
_SEPARATORS = (SEPARATOR, "<|audio_eos|>")  # the first that a tokenizer has


class _Parts(NamedTuple):
    train: list[int]
    valid: list[int]
    test: list[int]


def judge_asr(
    table: Table, protocol: Protocol, lm: "CausalLM", *, seed: int, on_epoch: Callable[[int], None] = lambda epoch: None
) -> Judged:
    """Train the adapter of `auricle.bench.asr_head` and transcribe the test set.

    ``compat`` picks the epoch by teacher-forced words, as released; ``strict`` by the loss on validation text. An
    item's score is one minus its own word error rate; the interval is over utterances.

    Args:
        table: with the frames and texts of each sound.
        protocol: see above.
        lm: the frozen language model.
        seed: of adapter and shuffles.
        on_epoch: called after each epoch with its number.

    Raises:
        ConfigError: the tokenizer has no token to set between frames and text, or the longest clip and its transcript
            are beyond the context of the language model.
        DataError: the task has folds, or the test texts have no words.
    """
    parts, utterances = _parts(table, protocol, seed), list(_utterances(table))
    longest = max(len(utterances[i].frames) for i in parts.test) + 1 + MAX_NEW_TOKENS
    if longest > lm.model.config.max_position_embeddings:
        raise ConfigError(
            f"{lm.name} reads {lm.model.config.max_position_embeddings} tokens, the longest clip and its transcript "
            f"are {longest}; give a language model of a longer context, or an encoder of fewer frames a second"
        )
    settings = AsrSettings(
        epochs=table.task.epochs,
        batch_size=table.task.batch_size,
        rate=table.task.learning_rate,
        seed=seed,
        validation="teacher_forced" if protocol == "compat" else "loss",
    )
    separator = next((token for token in _SEPARATORS if lm.tokenizer.token_to_id(token) is not None), None)
    if separator is None:
        raise ConfigError(f"{lm.name}: its tokenizer has none of {', '.join(_SEPARATORS)}; give another model")
    head = AsrHead(lm.model, lm.tokenizer, table.features.shape[1], separator=separator, end=lm.end, seed=seed)
    chosen = train_asr(
        head,
        [utterances[i] for i in parts.train],
        [utterances[i] for i in parts.valid],
        settings=settings,
        on_epoch=lambda epoch, score: on_epoch(epoch),
    )
    heard = _transcribe(head, [utterances[i].frames for i in parts.test])
    truth = [utterances[i].text for i in parts.test]
    counts = np.array([count_word_errors(*pair) for pair in zip(truth, heard, strict=True)], np.float64)
    if not counts[:, 1].sum():
        raise DataError("the test transcripts have no words, so no error rate exists; check the field of the text")
    interval = bootstrap_interval(counts, _wer_inv, rounds=BOOTSTRAP_ROUNDS)
    facts: dict[str, Any] = {
        "language_model": lm.name,
        "language_model_sha256": lm.sha256,
        "separator": separator,
        "epochs": settings.epochs,
        "word_error_rate": float(counts[:, 0].sum() / counts[:, 1].sum()),
        "epoch": chosen.index(max(chosen)),
        "validation": settings.validation,
        "transcripts": [list(pair) for pair in zip(truth[:SHOWN], heard[:SHOWN], strict=True)],
    }
    rates = 1.0 - counts[:, 0] / counts[:, 1].clip(min=1)
    return _judged(table, parts.test, rates, interval, facts)


def judge_retrieval(
    table: Table,
    protocol: Protocol,
    tokenizer: "Tokenizer",
    *,
    seed: int,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Judged:
    """Train the head of `auricle.bench.retrieval_head` and look for captions and clips in the test set.

    The score is recall at rank 1, the mean of both directions; an item's score is the same of one clip and its
    captions, and the interval is over clips.

    Args:
        table: with the pooled rows and the captions of each sound; a sound is the mean over its pieces.
        protocol: the loss follows it, see `contrastive_loss`.
        tokenizer: of the captions; its word vectors are learnt here.
        seed: of weights and shuffles.
        on_epoch: called after each epoch with its number.

    Raises:
        DataError: the task has folds, or too few captions.
    """
    parts = _parts(table, protocol, seed)
    sums = torch.zeros(len(table.ids), table.features.shape[1]).index_add_(0, table.owners, table.features)
    means = sums / table.owners.bincount(minlength=len(table.ids))[:, None]
    train, valid, test = (_captioned(means, table.texts, part, tokenizer) for part in parts)
    settings = RetrievalSettings(
        mode=protocol,
        epochs=table.task.epochs,
        batch_size=table.task.batch_size,
        rate=table.task.learning_rate,
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
    interval = bootstrap_interval(rows, _recall, rounds=BOOTSTRAP_ROUNDS)
    return _judged(table, parts.test, (rows[:, 0] + rows[:, 1] / rows[:, 2]) / 2, interval, facts)


def _parts(table: Table, protocol: Protocol, seed: int) -> _Parts:
    found = plans(table, protocol, seed)
    if len(found) != 1:
        raise DataError(f"task {table.task.name!r} has {len(found)} folds; texts are judged on train, valid and test")
    return _Parts(*(part.tolist() for part in found[0][1:]))


def _utterances(table: Table) -> Iterator[Utterance]:
    """Frames of all pieces of a sound, one after the other, and its text."""
    assert table.lengths is not None
    owners = table.owners.bincount(minlength=len(table.ids)).tolist()
    pieces = iter(table.features.split(table.lengths.tolist()))
    for count, texts in zip(owners, table.texts, strict=True):
        yield Utterance(torch.cat([next(pieces) for _ in range(count)]), " ".join(texts))


def _transcribe(head: AsrHead, clips: Sequence[Tensor]) -> list[str]:
    """Transcripts in the order of the clips, which are read from short to long, so that little is padded."""
    order = sorted(range(len(clips)), key=lambda i: len(clips[i]))
    found: dict[int, str] = {}
    for start in range(0, len(order), TRANSCRIBED):
        batch = order[start : start + TRANSCRIBED]
        found.update(zip(batch, head.transcribe([clips[i] for i in batch]), strict=True))
    return [found[i] for i in range(len(clips))]


def _captioned(
    means: Tensor, texts: Sequence[Sequence[str]], chosen: Sequence[int], tokenizer: "Tokenizer"
) -> Captioned:
    own = [(number, caption) for number, sound in enumerate(chosen) for caption in texts[sound]]
    tokens = [encoding.ids for encoding in tokenizer.encode_batch([caption for _, caption in own])]
    return Captioned(means[list(chosen)], tokens, torch.tensor([number for number, _ in own]))


def _wer_inv(counts: Any) -> float:
    """Of rows of errors and words."""
    words = counts[:, 1].sum()
    return max(0.0, 1.0 - float(counts[:, 0].sum() / words)) if words else 0.0


def _recall(rows: Any) -> float:
    """Of rows of a clip's hit, its captions' hits, and their number."""
    return float((rows[:, 0].mean() + rows[:, 1].sum() / rows[:, 2].sum()) / 2)


def _judged(table: Table, test: Sequence[int], each: Any, interval: Any, facts: dict[str, Any]) -> Judged:
    score = HeadScore(
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=len(test),
        folds={},
        classes={},
        settings=facts,
    )
    items = {table.ids[sound]: round(float(value), 6) for sound, value in zip(test, each, strict=True)}
    return Judged(score, items)
