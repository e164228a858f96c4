"""Zero-shot classification: prompts for labels, ensembles of prompts, and the labels of a clip."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.audio.limits import check_seconds
from auricle.data.untrusted_json import check_characters
from auricle.encode.receipt import Receipt
from auricle.errors import AuricleError, ConfigError, DataError, check_number
from auricle.models.glap import SCORE_SCALE

SLOT = "{label}"  # of a template
# Prompts by domain. Source: README of GLAP; "none" is the label alone.
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "sound": ("The sound of {label} can be heard.",),
    "music": ("The music in the style of {label}.",),
    "speech": ("{label}",),
    "none": ("{label}",),
}
# Factor of cosines before the softmax where the model has none: the inverse of GLAP's temperature at the start of its
# training; the trained one was never published.
DEFAULT_SCALE = 1 / 0.07
ENGLISH = "eng_Latn"
_MAX_LABELS_BYTES = 1 << 24  # of a file of labels

EmbedText = Callable[[Sequence[str]], Tensor]  # m texts → (m, D) of length 1


class Aligns(Protocol):
    """What zero-shot classification needs of an audio–text model: see `auricle.encode.aligner.Aligner`."""

    model: Any  # with ``logit_scale`` and ``logit_bias``, () or None: see `auricle.models.glap.Glap`

    def audio_many(self, sources: Any) -> Iterator[Any]:
        """Clips → for each a result with ``.values`` (D,) and ``.receipt``, or an error."""

    def text(self, strings: Sequence[str], *, language: str) -> Tensor:
        """Texts → (m, D) of length 1."""

    def probability(self, scores: Tensor) -> Tensor:
        """Scores of a calibrated model → probabilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextScores:
    """How well a clip and some texts fit."""

    scores: Mapping[str, float]  # text -> 100 × cosine; comparable within one model only
    probabilities: Mapping[str, float] | None  # calibrated, 0 to 1; None: the model is not calibrated
    receipt: Receipt

    def as_dict(self) -> dict[str, Any]:
        """Give it as a JSON-able dict."""
        shares = None if self.probabilities is None else dict(self.probabilities)
        return {"scores": dict(self.scores), "probabilities": shares, "receipt": self.receipt.as_dict()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompts:
    """Prompts of labels."""

    templates: tuple[str, ...] = TEMPLATES["none"]  # sentences with one `SLOT` each; all are used
    # label -> words for it, all of them used; a label without any is used itself
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    language: str = ENGLISH  # of the words, see `auricle.encode.aligner.Aligner.text`

    def __post_init__(self) -> None:
        if not self.templates:
            raise ConfigError(f"found no templates; give one such as {TEMPLATES['sound'][0]!r}")
        for template in self.templates:
            if template.count(SLOT) != 1:
                raise ConfigError(f"template {template!r} has {template.count(SLOT)} slots; expected one {SLOT}")
            check_characters(template, "a template")
        for label, phrases in self.phrases.items():
            for phrase in phrases:
                check_characters(phrase, f"a phrase of {label!r}")
            if not all(phrase.strip() for phrase in phrases):
                raise ConfigError(f"the words for {label!r} are {phrases!r}; expected phrases, none empty")

    def of(self, label: str) -> tuple[str, ...]:
        """Every prompt of a label, each once: its phrases in each template."""
        phrases = self.phrases.get(label) or (words_of(label),)
        return tuple(dict.fromkeys(t.replace(SLOT, phrase) for t in self.templates for phrase in phrases))


@dataclass(frozen=True, kw_only=True, slots=True)
class Classification:
    """The labels of a clip."""

    labels: tuple[str, ...]  # best first: one, or with ``multi`` those that reach the threshold
    scores: Mapping[str, float]  # 100 × cosine of every label, best first; comparable within one model only
    # 0 to 1, in the order of `scores`. Of one label among all: softmax over them. With ``multi``: calibrated, or None
    # where the model is not calibrated
    probabilities: Mapping[str, float] | None
    scale: float | None  # factor of cosines before the softmax; None: with ``multi``
    threshold: float | None  # with ``multi`` the least score; None: one label among all
    receipt: Receipt

    def as_dict(self) -> dict[str, Any]:
        """Give it as a JSON-able dict."""
        return {
            "labels": list(self.labels),
            "scores": dict(self.scores),
            "probabilities": None if self.probabilities is None else dict(self.probabilities),
            "scale": self.scale,
            "threshold": self.threshold,
            "receipt": self.receipt.as_dict(),
        }


def words_of(label: str) -> str:
    """A label as words: underscores are spaces."""
    return " ".join(label.replace("_", " ").split())


def parse_labels(text: str) -> list[str]:
    """Labels between commas; one that contains a comma is in quotation marks.

    Raises:
        ConfigError: one is empty, or given twice.
    """
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ConfigError(f"labels {text!r} cannot be split ({error}); write dog,rain,sea waves") from None
    return check_labels([label.strip() for row in rows for label in row])


def read_labels(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Labels of a file, and the words for those that have some.

    A text file has one label a line and, after tabs, phrases that are used instead of it. A ``.json`` file holds a
    list of labels, or an object of labels with a phrase or a list of them.

    Raises:
        DataError: it cannot be read, or is none of these.
        ConfigError: a label is empty or given twice.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_LABELS_BYTES + 1)
        if len(content) > _MAX_LABELS_BYTES:
            raise DataError(f"{path}: more than {_MAX_LABELS_BYTES} bytes; expected a file of labels")
        text = content.decode("utf-8-sig")
        rows = _json_rows(text, path) if path.suffix.lower() == ".json" else _text_rows(text)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no labels ({error}); expected UTF-8 text, one a line, or JSON") from None
    check_labels([label for label, _ in rows])
    return {label: phrases for label, phrases in rows}


def check_labels(labels: Sequence[str]) -> list[str]:
    """Labels, checked.

    Raises:
        ConfigError: there are none, one is empty, or one is given twice.
    """
    if isinstance(labels, str) or not labels or not all(label.strip() for label in labels):
        shown = labels if isinstance(labels, str) else list(labels)[:8]
        raise ConfigError(f"labels are {shown!r}; expected a list of at least one, none of them empty")
    for label in labels:
        check_characters(label, "a label")
    if twice := [label for label, count in Counter(labels).items() if count > 1]:
        raise ConfigError(f"label {twice[0]!r} is given twice; leave one out")
    return list(labels)


def embed_labels(embed: EmbedText, labels: Sequence[str], prompts: Prompts) -> Tensor:
    """One vector for each label: the mean over the vectors of its prompts, at length 1.

    Args:
        embed: texts → (m, D) float32 of length 1; called once, with each different prompt.
        labels: C of them.
        prompts: of the labels.

    Returns:
        (C, D) float32.
    """
    texts = [prompts.of(label) for label in labels]
    places = {text: place for place, text in enumerate(dict.fromkeys(text for own in texts for text in own))}
    vectors = F.normalize(embed(list(places)).float(), dim=1)
    return F.normalize(torch.stack([vectors[[places[text] for text in own]].mean(0) for own in texts]), dim=1)


def score_many(
    aligner: Aligns, sources: Iterable[Any], texts: Sequence[str], *, language: str = ENGLISH
) -> Iterator[TextScores | AuricleError]:
    """Score many clips against the same texts; one that fails yields its error in its place, and the others continue.

    Raises:
        PromptError: an empty text, or none at all.
    """
    vectors = F.normalize(aligner.text(list(texts), language=language).float(), dim=1)
    is_calibrated = _calibration(aligner)[0] is not None

    def scored(result: Any) -> TextScores | AuricleError:
        if isinstance(result, AuricleError):
            return result
        scores = SCORE_SCALE * vectors @ F.normalize(result.values.float(), dim=0)
        shares = aligner.probability(scores).tolist() if is_calibrated else None
        return TextScores(
            scores={text: round(value, 4) for text, value in zip(texts, scores.tolist(), strict=True)},
            probabilities=None if shares is None else dict(zip(texts, (round(s, 6) for s in shares), strict=True)),
            receipt=result.receipt,
        )

    return map(scored, _heard(aligner, sources))


def classify_many(
    aligner: Aligns,
    sources: Iterable[Any],
    labels: Sequence[str],
    *,
    prompts: Prompts | None = None,
    multi: bool = False,
    threshold: float | None = None,
    scale: float | None = None,
) -> Iterator[Classification | AuricleError]:
    """Classify many clips; one that fails yields its error in its place, and the others continue.

    Args:
        aligner: see `Aligns`.
        sources: anything `auricle.audio.decode.as_clip` takes.
        labels: to choose from; underscores are read as spaces.
        prompts: None: the labels alone.
        multi: decide each label separately; a clip may have several, or none.
        threshold: with ``multi``, least score (100 × cosine) of a label; None: the score of probability one half by the
            model's calibration.
        scale: without ``multi``, factor of cosines before the softmax; None: that of the model's training, or
            `DEFAULT_SCALE` where it is unknown.

    Raises:
        ConfigError: impossible labels or prompts, a single label without ``multi``, or no threshold for a model
            without calibration.
    """
    names, prompts = check_labels(labels), prompts or Prompts()
    if not multi and len(names) < 2:
        raise ConfigError(f"{names[0]!r} is the only label; give more labels, or decide it with multi")
    if scale is not None:
        check_number("scale", scale, least=1e-9, most=1e9, expected="a number above 0")
    if threshold is not None:
        check_number("threshold", threshold, least=-1e9, most=1e9)
    own_scale, own_threshold = _calibration(aligner)
    if multi and threshold is None and own_threshold is None:
        raise ConfigError("this model was stored without calibration, so it has no threshold; give one")
    language = prompts.language
    vectors = embed_labels(lambda texts: aligner.text(texts, language=language), names, prompts)

    def classified(result: Any) -> Classification | AuricleError:
        if isinstance(result, AuricleError):
            return result
        scores = SCORE_SCALE * vectors @ F.normalize(result.values.float(), dim=0)
        if multi:
            least = own_threshold if threshold is None else threshold
            shares = None if own_threshold is None else aligner.probability(scores)
            return _ranked(names, scores, shares, result.receipt, threshold=least)
        factor = scale or own_scale or DEFAULT_SCALE
        shares = (factor / SCORE_SCALE * scores.double()).softmax(0)
        return _ranked(names, scores, shares, result.receipt, scale=factor)

    return map(classified, _heard(aligner, sources))


def classify(aligner: Aligns, source: Any, labels: Sequence[str], **settings: Any) -> Classification:
    """Classify one clip; arguments and errors as `classify_many`.

    Raises:
        AudioError: it cannot be read.
    """
    (result,) = classify_many(aligner, [source], labels, **settings)
    if isinstance(result, AuricleError):
        raise result
    return result


def _heard(aligner: Aligns, sources: Iterable[Any]) -> Iterator[Any]:
    """Embeddings, or errors: also of clips that are too short to say anything of them."""
    for result in aligner.audio_many(sources):
        if not isinstance(result, AuricleError):
            spans = (*result.receipt.read, *result.receipt.dropped)
            first, last = min(each.start_s for each in spans), max(each.stop_s for each in spans)
            try:
                check_seconds(round(last - first, 4), result.receipt.file)
            except AuricleError as error:
                yield error
                continue
        yield result


def _calibration(aligner: Aligns) -> tuple[float | None, float | None]:
    """The scale of the model's loss, and the score at which its probability is one half; None: not stored."""
    scale, bias = aligner.model.logit_scale, aligner.model.logit_bias
    if scale is None or bias is None:
        return None, None
    return float(scale), -SCORE_SCALE * float(bias) / float(scale)


def _ranked(
    names: Sequence[str],
    scores: Tensor,
    shares: Tensor | None,
    receipt: Receipt,
    *,
    scale: float | None = None,
    threshold: float | None = None,
) -> Classification:
    order = scores.argsort(descending=True, stable=True).tolist()
    found = {names[i]: round(float(scores[i]), 4) for i in order}
    holding = order[:1] if threshold is None else [i for i in order if float(scores[i]) >= threshold]
    return Classification(
        labels=tuple(names[i] for i in holding),
        scores=found,
        probabilities=None if shares is None else {names[i]: round(float(shares[i]), 6) for i in order},
        scale=scale,
        threshold=threshold,
        receipt=receipt,
    )


def _text_rows(text: str) -> list[tuple[str, tuple[str, ...]]]:
    rows = [[cell.strip() for cell in line.split("\t")] for line in text.splitlines() if line.strip()]
    return [(row[0], tuple(cell for cell in row[1:] if cell)) for row in rows]


def _json_rows(text: str, path: Path) -> list[tuple[str, tuple[str, ...]]]:
    stored = json.loads(text, object_pairs_hook=list)  # pairs, so that a label that is given twice is seen
    rows = []
    for row in stored if isinstance(stored, list) else [stored]:
        label, phrases = row if isinstance(row, tuple) else (row, [])
        listed = [phrases] if isinstance(phrases, str) else phrases
        if not isinstance(label, str) or not isinstance(listed, list) or not all(isinstance(p, str) for p in listed):
            raise DataError(f"{path}: found {row!r:.80}; expected a label, or a label with a phrase or a list of them")
        rows.append((label, tuple(listed)))
    return rows
