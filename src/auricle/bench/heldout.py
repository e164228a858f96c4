"""Scores of models on clips they were not trained on: one table, every row with its 95 % interval.

The test set is a folder of packed shards with facts (see `auricle.data.recipes`), which pick the clips of a row:
``event`` for sounds, ``text`` for words, ``gender`` and ``speaker`` for voices, ``kind`` for the category, ``command``,
``slots``, ``language`` and ``instruments`` for questions on these. Rows without clips are left out, but for the oldest.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from auricle.audio.logmel import LogMel
from auricle.bench.probes import effective_rank, knn_predict, linear_predict
from auricle.data import mixing, prompts
from auricle.data.parts import DIGITS
from auricle.data.shards import ShardSet
from auricle.data.vocabulary import EVENTS, LANGUAGES, event_name, names_source
from auricle.data.wording import (
    CAPTION_PROMPT,
    NO_SPEECH,
    OPEN_SPEECH,
    TRANSCRIBE_PROMPT,
    names_event,
    names_speech,
)
from auricle.errors import DataError
from auricle.metrics.calibration import calibration_error
from auricle.metrics.intervals import Score, bootstrap_interval, wilson_interval
from auricle.metrics.normalisers import split_words
from auricle.metrics.word_errors import edit_distance

Waveform = npt.NDArray[np.float32]
Answer = Callable[[list[Waveform], str], list["Reply"]]  # clips and one prompt → answers
Rank = Callable[[list[Waveform], str, Sequence[str]], list[list[str]]]  # with options → options, the likeliest first
Embed = Callable[[list[Waveform]], Tensor]  # clips → (n, D) pooled embeddings

CATEGORY_PROMPT = "Is this speech, sound, music or a mix?"
GENDER_PROMPT = "Is the speaker male or female?"
GENDERS = {"m": "male", "f": "female"}
ADULT = 18  # years
STEADY_CLIPS = 200


class Reply(NamedTuple):
    """An answer, with the probability that the model gives it."""

    text: str
    confidence: float | None = None


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
    """Transcribed speech of more than a digit, a command or an order."""
    is_closed = is_digit(meta) or bool(meta.get("command")) or has_slots(meta)
    return meta.get("kind") == "speech" and bool(meta.get("text")) and not is_closed


def language_model_rows(
    answer: Answer, test: ShardSet, *, rank: Rank | None = None, seed: int = 0, limit: int | None = None
) -> dict[str, Score]:
    """Every row about captions, transcripts and answers, of packed clips the model was not trained on.

    Args:
        answer: of the model.
        test: clips with facts.
        rank: of the model, for the rows of labels; None: no such rows.
        seed: of mixtures and generated clips.
        limit: most clips of one row.
    """
    events = Clips(test, is_event, limit)
    digits = Clips(test, is_digit, limit)
    utterances = Clips(test, is_utterance, limit)
    rng = np.random.default_rng(seed)
    rows = _events(answer, rank, events)
    transcripts = answer(digits.waveforms(), TRANSCRIBE_PROMPT)
    rows["digit transcribed exactly"] = wilson_interval(
        [split_words(h.text) == split_words(t) for h, t in zip(transcripts, digits.facts("text"), strict=True)]
    )
    rows["speech/sound/music/mixed"] = _category(answer, test, rng, limit)
    rows |= _gender(answer, utterances)
    rows["both parts named, 0-10 dB"] = _both_parts(answer, events, utterances, rng)
    rows |= _transcripts(answer, utterances)
    for name, (wanted, prompt, expected) in QUESTIONS.items():
        clips = Clips(test, wanted, limit)
        if clips.ids:
            found = answer(clips.waveforms(), prompt)
            pairs = zip(found, map(expected, clips.metas), strict=True)
            rows[name] = wilson_interval([split_words(reply.text) == split_words(right) for reply, right in pairs])
    return rows | _languages(answer, test, limit) | _slots(answer, Clips(test, has_slots, limit)) | _steady(answer, rng)


def has_slots(meta: Mapping[str, Any]) -> bool:
    """A spoken order whose parts are known."""
    return bool(meta.get("slots"))


# Row → which clips, the question, and the right answer.
QUESTIONS: dict[str, tuple[Callable[[Mapping[str, Any]], bool], str, Callable[[Mapping[str, Any]], str]]] = {
    "command named, English": (
        lambda meta: bool(meta.get("command")) and meta.get("language") == "en",
        prompts.COMMAND[0],
        lambda meta: str(meta["command"]),
    ),
    "command named, other languages": (
        lambda meta: bool(meta.get("command")) and meta.get("language") not in (None, "en"),
        prompts.COMMAND[0],
        lambda meta: str(meta["command"]),
    ),
    "instrument named": (
        lambda meta: len(meta.get("instruments") or ()) == 1,
        prompts.INSTRUMENT[0],
        lambda meta: str(meta["instruments"][0]),
    ),
}


def _events(answer: Answer, rank: Rank | None, events: Clips) -> dict[str, Score]:
    """Events named, of all sets and of each where there are several; calibration; labels among the five likeliest."""
    waveforms, wanted = events.waveforms(), events.facts("event")
    captions = answer(waveforms, CAPTION_PROMPT)
    named = [names_event(reply.text, event) for reply, event in zip(captions, wanted, strict=True)]
    rows = {"event named in the caption": wilson_interval(named)}
    labels = sorted({event_name(event) for event in (*wanted, *EVENTS)})
    ranked = rank(waveforms, prompts.EVENT[0], labels) if rank and waveforms else []
    among = [event_name(event) in best[:5] for best, event in zip(ranked, wanted, strict=False)]
    if among:
        rows["event among the five likeliest labels"] = wilson_interval(among)
    sets = events.facts("set")
    for name in sorted(set(map(str, sets))) if len(set(sets)) > 1 else ():
        own = [place for place, each in enumerate(sets) if str(each) == name]
        rows[f"event named in the caption, {name}"] = wilson_interval([named[place] for place in own])
        if among:
            rows[f"event among the five likeliest labels, {name}"] = wilson_interval([among[place] for place in own])
    sure = [(reply.confidence, hit) for reply, hit in zip(captions, named, strict=True) if reply.confidence is not None]
    if sure:
        rows["calibration error of captions"] = bootstrap_interval(np.array(sure, np.float64), calibration_error)
    return rows


def _languages(answer: Answer, test: ShardSet, limit: int | None) -> dict[str, Score]:
    """The spoken language, of as many clips of each language as the rarest has, 20 at least where there are so many."""
    found: dict[str, list[int]] = defaultdict(list)
    clips = Clips(test, lambda meta: LANGUAGES.get(meta.get("language", "")) is not None)
    for place, language in zip(clips.ids, clips.facts("language"), strict=True):
        found[LANGUAGES[language].lower()].append(place)
    if len(found) < 2:
        return {}
    most = min(limit or 100, max(20, min(map(len, found.values()))))
    chosen = [(name, int(ids[int(p)])) for name, ids in sorted(found.items()) for p in _spread(len(ids), most)]
    answers = answer([test.read(place).waveform for _, place in chosen], prompts.LANGUAGE[0])
    right = [split_words(reply.text) == split_words(name) for reply, (name, _) in zip(answers, chosen, strict=True)]
    return {f"language named, {len(found)} languages": wilson_interval(right)}


def _spread(count: int, most: int) -> npt.NDArray[np.float64]:
    return np.linspace(0, count - 1, min(count, most))


def _slots(answer: Answer, clips: Clips) -> dict[str, Score]:
    """Parts of spoken orders, each asked for; the interval resamples orders."""
    counts = []
    waveforms = clips.waveforms()
    for name, ways in prompts.SLOTS.items():
        asked = [place for place, meta in enumerate(clips.metas) if name in meta["slots"]]
        replies = answer([waveforms[place] for place in asked], ways[0]) if asked else []
        for place, reply in zip(asked, replies, strict=True):
            hit = split_words(reply.text) == split_words(str(clips.metas[place]["slots"][name]))
            counts.append((place, hit))
    if not counts:
        return {}
    values = np.array([(hit, 1) for _, hit in counts], np.float64)
    groups = [str(place) for place, _ in counts]
    score = bootstrap_interval(values, lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum()), groups=groups)
    return {"part of an order": score}


def _steady(answer: Answer, rng: np.random.Generator) -> dict[str, Score]:
    """Generated silence, tones and noise: whether the caption names no event, speech or music."""
    clips = []
    for number in range(STEADY_CLIPS):
        length = int(rng.uniform(1.0, 6.0) * mixing.SAMPLE_RATE)
        kind = number % 4
        if kind == 0:
            clip = mixing.gain(mixing.noise(length, rng), -100.0) if number % 8 else np.zeros(length, np.float32)
        elif kind == 1:
            hertz = np.exp(rng.uniform(np.log(60), np.log(7000)))
            clip = np.sin(2 * np.pi * hertz * np.arange(length) / mixing.SAMPLE_RATE).astype(np.float32)
        else:
            clip = mixing.noise(length, rng, 0.0 if kind == 2 else float(rng.choice([0.5, 1.0, 1.5, 2.0])))
        clips.append(clip if kind == 0 else mixing.to_level(clip, float(rng.uniform(-40, -12))))
    quiet = [not names_source(reply.text) for reply in answer([mixing.limit_peak(c) for c in clips], CAPTION_PROMPT)]
    return {"nothing invented in silence, tones and noise": wilson_interval(quiet)}


def _transcripts(answer: Answer, utterances: Clips) -> dict[str, Score]:
    """Word error rate of transcripts; of a model that declines open speech, how often it does."""
    transcripts = answer(utterances.waveforms(), TRANSCRIBE_PROMPT)
    declined = [reply.text.lower().startswith(OPEN_SPEECH) for reply in transcripts]
    rows = {"word error rate": _word_error_rate(transcripts, utterances)}
    return rows | ({"open speech not written down": wilson_interval(declined)} if any(declined) else {})


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
        [
            split_words(found.text)[:1] == [kind]
            for found, kind in zip(answer(clips, CATEGORY_PROMPT), truth, strict=True)
        ]
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
    right = [split_words(a.text)[:1] == [GENDERS[meta["gender"]]] for a, (meta, _) in zip(answers, known, strict=True)]
    adults = [hit for hit, (meta, _) in zip(right, known, strict=True) if (meta.get("age") or 0) >= ADULT]
    children = [hit for hit, (meta, _) in zip(right, known, strict=True) if 0 < (meta.get("age") or 0) < ADULT]
    rows = {"gender of the speaker": wilson_interval(right)}
    rows |= {"gender of adult speakers": wilson_interval(adults)} if adults else {}
    return rows | ({"gender of children": wilson_interval(children)} if children else {})


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
        [names_speech(c.text) and names_event(c.text, e) for c, e in zip(captions, events.facts("event"), strict=True)]
    )


def _mixture(front: Waveform, back: Waveform, rng: np.random.Generator) -> Waveform:
    back = mixing.crop_energetic(back, rng, len(front)) if len(back) > len(front) else mixing.loop(back, len(front))
    return mixing.limit_peak(mixing.mix(front, back, float(rng.uniform(0.0, 10.0))))


def _word_error_rate(transcripts: Sequence[Reply], utterances: Clips) -> Score:
    """Corpus word error rate; the interval resamples speakers."""
    counts = []
    for found, text in zip(transcripts, utterances.facts("text"), strict=True):
        is_none = found.text.rstrip(".").lower() == NO_SPEECH or found.text.lower().startswith(OPEN_SPEECH)
        spoken = [] if is_none else split_words(found.text)
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
