"""Scores of models on clips they were not trained on: one table, every row with its 95 % interval.

The test set is a folder of packed shards with facts (see `auricle.data.recipes`), which pick the clips of a row:
``event`` for sounds, ``text`` for words, ``gender`` and ``speaker`` for voices, ``kind`` for the category.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from auricle.audio.logmel import LogMel
from auricle.bench.probes import effective_rank, knn_predict, linear_predict
from auricle.data import mixing
from auricle.data.parts import DIGITS
from auricle.data.shards import ShardSet
from auricle.data.wording import CAPTION_PROMPT, NO_SPEECH, TRANSCRIBE_PROMPT, names_event, names_speech
from auricle.errors import DataError
from auricle.metrics.intervals import Score, bootstrap_interval, wilson_interval
from auricle.metrics.normalisers import split_words
from auricle.metrics.word_errors import edit_distance

Waveform = npt.NDArray[np.float32]
Answer = Callable[[list[Waveform], str], list[str]]  # clips and one prompt → answers
Embed = Callable[[list[Waveform]], Tensor]  # clips → (n, D) pooled embeddings

CATEGORY_PROMPT = "Is this speech, sound, music or a mix?"
GENDER_PROMPT = "Is the speaker male or female?"
GENDERS = {"m": "male", "f": "female"}
ADULT = 18  # years


class Clips:
    """The clips of a test set with a given fact, in order."""

    def __init__(self, shards: ShardSet, wanted: Callable[[dict[str, Any]], bool], limit: int | None = None) -> None:
        """Keep the clips whose facts are ``wanted``; of more than ``limit``, evenly spread ones."""
        metas = [shards.read_meta(i) for i in range(len(shards))]
        ids = [i for i, meta in enumerate(metas) if wanted(meta)]
        if limit is not None and len(ids) > limit:
            ids = [ids[int(p)] for p in np.linspace(0, len(ids) - 1, limit)]
        self.shards, self.ids = shards, ids
        self.metas = [metas[i] for i in ids]

    def waveforms(self) -> list[Waveform]:
        """All of them, decoded."""
        return [self.shards.read(i).waveform for i in self.ids]

    def facts(self, name: str) -> list[Any]:
        """One fact of each clip."""
        return [meta.get(name) for meta in self.metas]


def is_event(meta: dict[str, Any]) -> bool:
    """A recorded sound with a named event."""
    return meta.get("kind") == "sound" and bool(meta.get("event"))


def is_digit(meta: dict[str, Any]) -> bool:
    """A clip of one spoken digit."""
    return meta.get("kind") == "speech" and meta.get("text") in DIGITS


def is_utterance(meta: dict[str, Any]) -> bool:
    """Transcribed speech of more than a digit."""
    return meta.get("kind") == "speech" and bool(meta.get("text")) and not is_digit(meta)


def language_model_rows(answer: Answer, test: ShardSet, *, seed: int = 0, limit: int | None = None) -> dict[str, Score]:
    """Every row about captions, transcripts and answers, of packed clips the model was not trained on."""
    events = Clips(test, is_event, limit)
    digits = Clips(test, is_digit, limit)
    utterances = Clips(test, is_utterance, limit)
    rng = np.random.default_rng(seed)
    rows: dict[str, Score] = {}
    captions = answer(events.waveforms(), CAPTION_PROMPT)
    named = [names_event(c, e) for c, e in zip(captions, events.facts("event"), strict=True)]
    rows["event named in the caption"] = wilson_interval(named)
    transcripts = answer(digits.waveforms(), TRANSCRIBE_PROMPT)
    rows["digit transcribed exactly"] = wilson_interval(
        [split_words(h) == split_words(t) for h, t in zip(transcripts, digits.facts("text"), strict=True)]
    )
    rows["speech/sound/music/mixed"] = _category(answer, test, rng, limit)
    rows |= _gender(answer, utterances)
    rows["both parts named, 0-10 dB"] = _both_parts(answer, events, utterances, rng)
    rows["word error rate"] = _word_error_rate(answer, utterances)
    return rows


def _category(answer: Answer, test: ShardSet, rng: np.random.Generator, limit: int | None) -> Score:
    """As many clips of each kind as the rarest kind has, and as many two-kind mixtures of them."""
    kinds = {kind: Clips(test, partial(_is_kind, kind), limit) for kind in ("speech", "sound", "music")}
    count = min(len(clips.ids) for clips in kinds.values())
    if not count:
        raise DataError("the test set needs clips of kind speech, sound and music for the category row; pack all three")
    sampled = {
        kind: [test.read(int(i)).waveform for i in rng.permutation(clips.ids)[:count]] for kind, clips in kinds.items()
    }
    mixtures = []
    for number in range(count):
        front, back = rng.permutation(list(kinds))[:2]
        mixtures.append(_mixture(sampled[front][number], sampled[back][number], rng))
    clips = [*sampled["speech"], *sampled["sound"], *sampled["music"], *mixtures]
    truth = [kind for kind in ("speech", "sound", "music", "mixed") for _ in range(count)]
    return wilson_interval(
        [split_words(found)[:1] == [kind] for found, kind in zip(answer(clips, CATEGORY_PROMPT), truth, strict=True)]
    )


def _is_kind(kind: str, meta: dict[str, Any]) -> bool:
    return meta.get("kind") == kind


def _gender(answer: Answer, utterances: Clips) -> dict[str, Score]:
    """All speakers whose gender is known, and the adults among them: children's voices hardly differ by gender."""
    known = [
        (meta, waveform)
        for meta, waveform in zip(utterances.metas, utterances.waveforms(), strict=True)
        if meta.get("gender")
    ]
    answers = answer([waveform for _, waveform in known], GENDER_PROMPT)
    right = [split_words(a)[:1] == [GENDERS[meta["gender"]]] for a, (meta, _) in zip(answers, known, strict=True)]
    adults = [hit for hit, (meta, _) in zip(right, known, strict=True) if (meta.get("age") or 0) >= ADULT]
    rows = {"gender of the speaker": wilson_interval(right)}
    return rows | ({"gender of adult speakers": wilson_interval(adults)} if adults else {})


def _both_parts(answer: Answer, events: Clips, utterances: Clips, rng: np.random.Generator) -> Score:
    """Each sound event under an utterance at 0-10 dB: the caption must name speech and the event."""
    sounds = events.waveforms()
    if not utterances.ids:
        return wilson_interval([])
    chosen = rng.choice(utterances.ids, size=len(sounds))
    mixtures = [
        _mixture(utterances.shards.read(int(i)).waveform, sound, rng) for i, sound in zip(chosen, sounds, strict=True)
    ]
    captions = answer(mixtures, CAPTION_PROMPT)
    return wilson_interval(
        [names_speech(c) and names_event(c, e) for c, e in zip(captions, events.facts("event"), strict=True)]
    )


def _mixture(front: Waveform, back: Waveform, rng: np.random.Generator) -> Waveform:
    back = mixing.crop_energetic(back, rng, len(front)) if len(back) > len(front) else mixing.loop(back, len(front))
    return mixing.limit_peak(mixing.mix(front, back, float(rng.uniform(0.0, 10.0))))


def _word_error_rate(answer: Answer, utterances: Clips) -> Score:
    """Corpus word error rate; the interval resamples speakers."""
    transcripts = answer(utterances.waveforms(), TRANSCRIBE_PROMPT)
    counts = []
    for found, text in zip(transcripts, utterances.facts("text"), strict=True):
        spoken = [] if found.rstrip(".").lower() == NO_SPEECH else split_words(found)
        counts.append((edit_distance(split_words(text), spoken), len(split_words(text))))
    return bootstrap_interval(
        np.array(counts, dtype=np.float64),
        lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum()),
        groups=utterances.facts("speaker"),
    )


def encoder_rows(embed: Embed, train: ShardSet, test: ShardSet, *, limit: int | None = None) -> dict[str, Score]:
    """kNN and linear probe of frozen, mean-pooled embeddings and of the mean log-mel, on events and digits.

    No rows for labels that only one of the sets has clips of.
    """
    rows: dict[str, Score] = {}
    for name, wanted, fact in (("events", is_recorded_event, "event"), ("digits", is_recorded_digit, "text")):
        known, unknown = Clips(train, wanted, limit), Clips(test, wanted, limit)
        if not known.ids or not unknown.ids:
            continue
        classes = sorted(set(known.facts(fact)))
        labels = torch.tensor([classes.index(c) for c in known.facts(fact)])
        truth = torch.tensor([classes.index(c) if c in classes else -1 for c in unknown.facts(fact)])
        for source, run in (("encoder", embed), ("mean log-mel", mean_log_mel)):
            inputs, queries = run(known.waveforms()), run(unknown.waveforms())
            for probe, predict in (("kNN", knn_predict), ("linear", linear_predict)):
                rows[f"{name}, {probe}, {source}"] = wilson_interval(
                    (predict(inputs, labels, queries) == truth).numpy()
                )
    return rows


def is_recorded_event(meta: dict[str, Any]) -> bool:
    """A sound event of a published data set."""
    return is_event(meta) and meta.get("set") == "esc50"


def is_recorded_digit(meta: dict[str, Any]) -> bool:
    """A digit of a published data set."""
    return is_digit(meta) and meta.get("set") == "fsdd"


def mean_log_mel(clips: Sequence[Waveform]) -> Tensor:
    """The baseline embedding: log-mel averaged over time, (n, 64)."""
    front_end = LogMel().eval()
    return torch.stack([front_end(torch.from_numpy(_padded(clip)))[0].mean(1) for clip in clips])


def _padded(clip: Waveform) -> Waveform:
    return np.pad(clip, (0, max(0, 512 - len(clip))))


def training_probe(shards: ShardSet, *, limit: int = 300) -> Callable[[Any], dict[str, float]]:
    """A probe for pre-training: kNN accuracy and embedding rank on labelled clips of the training set.

    Labels are never trained on, but the audio is, so the figures only compare steps of one run.
    Even clips are the neighbours, odd ones the queries.
    """
    sets = {}
    for name, wanted, fact in (("events", is_recorded_event, "event"), ("digits", is_recorded_digit, "text")):
        clips = Clips(shards, wanted, limit)
        if len(clips.ids) >= 20:
            classes = sorted(set(clips.facts(fact)))
            sets[name] = (clips.waveforms(), torch.tensor([classes.index(c) for c in clips.facts(fact)]))

    def probe(network: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, (waveforms, labels) in sets.items():
            frames = network.encoder.encode([torch.from_numpy(_padded(w)) for w in waveforms])
            pooled = torch.stack([clip.mean(0) for clip in frames])
            right = knn_predict(pooled[::2], labels[::2], pooled[1::2]) == labels[1::2]
            found[f"knn_{name}"] = round(right.float().mean().item(), 4)
            found[f"rank_{name}"] = round(effective_rank(pooled), 2)
        return found

    return probe
