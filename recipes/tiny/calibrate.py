"""Make the confidence of a model the share of its answers that are right, and draw how far it is from that.

Usage: python recipes/tiny/calibrate.py SHARDS MODEL [--limit N] [--unsure-below P] [--device NAME]
(shards of validation clips, on which the model was not trained and will not be measured; a folder with a model, whose
generation_config.json and README.md get the maps and their table, and which gets calibration.svg)

Asks for captions, answers, transcripts and labels of clips whose facts are known, as `auricle heldout` does and by its
rules. Speech that the model was not trained to write down counts as a wrong transcript.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import auricle
from auricle.bench.heldout import (
    CATEGORY_PROMPT,
    GENDER_PROMPT,
    GENDERS,
    QUESTIONS,
    Clips,
    has_slots,
    is_event,
    is_utterance,
)
from auricle.data import prompts
from auricle.data.shards import ShardSet
from auricle.data.vocabulary import EVENTS, LANGUAGES, event_name
from auricle.data.wording import (
    CAPTION_PROMPT,
    NO_SPEECH,
    OPEN_SPEECH,
    TRANSCRIBE_PROMPT,
    names_event,
    names_music,
    names_speech,
)
from auricle.files import write_json, write_text
from auricle.listen import AudioLM
from auricle.listen.confidence import Calibration
from auricle.metrics.calibration import LogisticMap, calibration_error, fit_map, reliability
from auricle.metrics.normalisers import split_words
from auricle.weights import Card, read_card, safe
from auricle.weights.cards import CALIBRATION_FIGURE, render_card
from auricle.weights.generation_config import (
    CALIBRATION_KEYS,
    OFFSET_KEYS,
    OPEN_SPEECH_KEY,
    SLOPE_KEYS,
    UNSURE_KEY,
)

Facts = Mapping[str, Any]
Rows = npt.NDArray[np.float64]  # (n, 2): confidence, and whether right

KINDS = ("speech", "sound", "music")
FOLDS = 5  # what is said after calibration is of answers that its map was not fitted to
LEAST = 10  # right answers, and wrong ones, that a map needs
UNSURE_BELOW = 0.5  # rather wrong than right
LIMIT = 200  # clips of one question


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, the clips that it is about, and whether a text is a right answer."""

    prompt: str
    wanted: Callable[[Facts], bool]
    is_right: Callable[[str, Facts], bool]


def says(text: str, answer: str) -> bool:
    """Whether an answer has exactly these words."""
    return split_words(text) == split_words(answer)


def starts(text: str, answer: str) -> bool:
    """Whether an answer starts with this word."""
    return split_words(text)[:1] == [answer]


def is_captioned(caption: str, meta: Facts) -> bool:
    """Whether a caption names what is heard: the event, or speech, or music."""
    if meta["kind"] == "sound":
        return names_event(caption, meta["event"])
    return names_speech(caption) if meta["kind"] == "speech" else names_music(caption)


def is_written(text: str, meta: Facts) -> bool:
    """Whether a transcript is exact, of speech that models of this recipe write down."""
    return not is_utterance(dict(meta)) and says(text, meta["text"])


def of_kind(kind: str) -> Callable[[Facts], bool]:
    """Clips of a kind that can be captioned."""
    return lambda meta: meta.get("kind") == kind and (kind != "sound" or bool(meta.get("event")))


CAPTIONS = [Question(CAPTION_PROMPT, of_kind(kind), is_captioned) for kind in KINDS]
TRANSCRIPTS = [
    Question(TRANSCRIBE_PROMPT, lambda meta: bool(meta.get("text")) and not is_utterance(dict(meta)), is_written),
    Question(TRANSCRIBE_PROMPT, lambda meta: is_utterance(dict(meta)), is_written),
]
ANSWERS = [
    *(Question(CATEGORY_PROMPT, of_kind(kind), lambda text, meta: starts(text, meta["kind"])) for kind in KINDS),
    Question(prompts.EVENT[0], lambda meta: is_event(dict(meta)), lambda text, meta: names_event(text, meta["event"])),
    Question(
        GENDER_PROMPT,
        lambda meta: meta.get("gender") in GENDERS,
        lambda text, meta: starts(text, GENDERS[meta["gender"]]),
    ),
    Question(
        prompts.LANGUAGE[0],
        lambda meta: meta.get("kind") == "speech" and bool(LANGUAGES.get(meta.get("language") or "")),
        lambda text, meta: says(text, LANGUAGES[meta["language"]]),
    ),
    *(
        Question(prompt, wanted, lambda text, meta, expected=expected: says(text, expected(meta)))  # type: ignore[misc]
        for wanted, prompt, expected in QUESTIONS.values()
    ),
    *(
        Question(
            ways[0],
            lambda meta, name=name: has_slots(meta) and name in meta["slots"],  # type: ignore[misc]
            lambda text, meta, name=name: says(text, str(meta["slots"][name])),  # type: ignore[misc]
        )
        for name, ways in prompts.SLOTS.items()
    ),
]


def answered(model: AudioLM, shards: ShardSet, questions: Sequence[Question], limit: int) -> Rows:
    """Ask all questions; what is no transcript by the model's own words is left out of the transcripts."""
    rows = []
    for question in questions:
        clips = Clips(shards, question.wanted, limit)
        for result, meta in zip(_asked(model, clips, question.prompt), clips.metas, strict=True):
            is_declined = result.text.lower().startswith((NO_SPEECH, OPEN_SPEECH))
            if result.confidence is not None and not (question.prompt == TRANSCRIBE_PROMPT and is_declined):
                rows.append((result.confidence, question.is_right(result.text, meta)))
    return np.array(rows, np.float64).reshape(-1, 2)


def _asked(model: AudioLM, clips: Clips, prompt: str) -> Iterator[Any]:
    for result in model.ask_many(clips.waveforms(), prompt):
        if isinstance(result, auricle.AuricleError):
            raise result
        yield result


def chosen(model: AudioLM, shards: ShardSet, limit: int) -> Rows:
    """Let the model choose labels of events and of kinds."""
    events = Clips(shards, lambda meta: is_event(dict(meta)), limit)
    labels = sorted({event_name(event) for event in (*events.facts("event"), *EVENTS)})
    asked = [(events, prompts.EVENT[0], labels, [event_name(event) for event in events.facts("event")])]
    for kind in KINDS:
        clips = Clips(shards, of_kind(kind), limit)
        asked.append((clips, CATEGORY_PROMPT, list(KINDS), [kind] * len(clips.ids)))
    rows = []
    for clips, prompt, options, right in asked:
        for result, label in zip(model.choose_many(clips.waveforms(), prompt, options), right, strict=True):
            if isinstance(result, auricle.AuricleError):
                raise result
            rows.append((result.confidence, result.text == label))
    return np.array(rows, np.float64).reshape(-1, 2)


def folds_of(right: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The fold of each answer; each fold has its share of right and of wrong ones."""
    order = np.argsort(np.asarray(right), kind="stable")
    folds = np.empty(len(order), np.int64)
    folds[order] = np.arange(len(order)) % FOLDS
    return folds


def is_enough(rows: Rows) -> bool:
    """Whether a map can be fitted."""
    return bool(min(rows[:, 1].sum(), (1 - rows[:, 1]).sum()) >= LEAST)


def applied(rows: Rows, found: LogisticMap) -> Rows:
    """The rows with another confidence."""
    return np.array([(found(confidence), right) for confidence, right in rows.tolist()], np.float64).reshape(-1, 2)


def calibrate(model: AudioLM, shards: ShardSet, *, limit: int) -> tuple[dict[str, float], dict[str, tuple[Rows, Rows]]]:
    """Fit a map for each kind of result.

    Returns:
        Settings for generation_config.json; and the rows of each kind, as they are and calibrated by maps that were
        fitted to other answers.
    """
    settings: dict[str, float] = {}
    rows: dict[str, tuple[Rows, Rows]] = {}
    for kind, questions in (("caption", CAPTIONS), ("answer", ANSWERS), ("transcript", TRANSCRIPTS), ("label", ())):
        before = answered(model, shards, questions, limit) if questions else chosen(model, shards, limit)
        if not is_enough(before):
            continue
        fitted = fit_map(before)
        settings |= {SLOPE_KEYS[kind]: round(fitted.slope, 4), OFFSET_KEYS[kind]: round(fitted.offset, 4)}
        folds, after = folds_of(before[:, 1]), before.copy()
        for fold in range(FOLDS):
            after[folds == fold] = applied(before[folds == fold], fit_map(before[folds != fold]))
        rows[kind] = before, after
    return settings, rows


def table_of(before: Rows, after: Rows, unsure_below: float) -> dict[str, float]:
    """What the card says of a kind."""
    right, is_unsure = after[:, 1] > 0.5, after[:, 0] < unsure_below
    return {
        "answers": len(after),
        "right": round(float(right.mean()), 4),
        "error_before": round(calibration_error(before), 4),
        "error_after": round(calibration_error(after), 4),
        "unsure_of_right": round(float(is_unsure[right].mean()), 4),
        "unsure_of_wrong": round(float(is_unsure[~right].mean()), 4),
    }


# --- the figure

_SIDE, _GAP, _TOP = 130, 46, 34  # of a panel, in pixels
_INK = {"before": "#D55E00", "after": "#0072B2"}  # Okabe and Ito 2008


def figure(rows: Mapping[str, tuple[Rows, Rows]]) -> str:
    """A reliability diagram of each kind: the share that is right over the confidence, before and after."""
    width, height = _GAP + len(rows) * (_SIDE + _GAP), _TOP + _SIDE + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11" role="img" aria-label="Reliability diagrams">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for place, (kind, pair) in enumerate(rows.items()):
        parts.append(f'<g transform="translate({_GAP + place * (_SIDE + _GAP)} {_TOP})">{_panel(kind, pair)}</g>')
    for place, (name, ink) in enumerate(_INK.items()):
        x, y = _GAP + 90 * place, height - 6
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{ink}"/><text x="{x + 9}" y="{y}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(kind: str, pair: tuple[Rows, Rows]) -> str:
    end = _SIDE
    parts = [
        f'<text x="{end / 2}" y="-10" text-anchor="middle">{kind}, {len(pair[0])} answers</text>',
        f'<path d="M0 0V{end}H{end}V0ZM0 {end}L{end} 0" fill="none" stroke="#999"/>',
        f'<text x="-4" y="{end}" text-anchor="end">0</text><text x="-4" y="9" text-anchor="end">1</text>',
        f'<text x="{end / 2}" y="{end + 14}" text-anchor="middle">confidence</text>',
        f'<text transform="translate(-12 {end / 2}) rotate(-90)" text-anchor="middle">share right</text>',
    ]
    for ink, rows in zip(_INK.values(), pair, strict=True):
        for each in reliability(rows):
            radius = 2 + 5 * (each.n / len(rows)) ** 0.5
            x, y = end * each.confidence, end * (1 - each.right)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{ink}" fill-opacity=".6"/>')
    return "".join(parts)


# --- the model's folder


def declare(
    folder: Path, settings: Mapping[str, float], rows: Mapping[str, tuple[Rows, Rows]], *, unsure_below: float
) -> dict[str, dict[str, float]]:
    """Write maps, bound, card and figure into the model's folder, and its checksums anew where it has some."""
    file = folder / "generation_config.json"
    stated = {key: value for key, value in safe.read_json(file).items() if key not in CALIBRATION_KEYS}
    if SLOPE_KEYS["transcript"] in settings:
        stated.pop(OPEN_SPEECH_KEY, None)  # it was a bound on the confidence of before; now it is that of doubt
    write_json(file, {**stated, **settings, UNSURE_KEY: unsure_below})
    table = {kind: table_of(*pair, unsure_below) for kind, pair in rows.items()}
    card = read_card(folder) if (folder / "README.md").is_file() else Card(name=folder.name)
    write_text(folder / CALIBRATION_FIGURE, figure(rows))
    write_text(folder / "README.md", render_card(replace(card, calibration=table)))
    if (folder / safe.SUMS).is_file():
        safe.write_checksums(folder)
    return table


def main() -> None:
    """Parse, ask, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--limit", type=int, default=LIMIT, help="most clips of one question")
    parser.add_argument("--unsure-below", type=float, default=UNSURE_BELOW)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.shards.resolve().name == "test":
        parser.error(f"{options.shards} holds clips to measure with; give those for validation")
    if not 0 <= options.unsure_below <= 1:
        parser.error(f"--unsure-below is {options.unsure_below}; expected 0 to 1")
    model = auricle.load(str(options.model), device=options.device)
    model.calibration = Calibration()  # another fit starts from what the model gives
    settings, rows = calibrate(model, ShardSet(options.shards), limit=options.limit)
    if left := [kind for kind in SLOPE_KEYS if kind not in rows]:
        print(f"as they were: {', '.join(left)}; a map needs {LEAST} right and {LEAST} wrong answers", file=sys.stderr)
    if not rows:
        return
    table = declare(options.model, settings, rows, unsure_below=options.unsure_below)
    print(json.dumps({"settings": settings, UNSURE_KEY: options.unsure_below, "table": table}, indent=1))


if __name__ == "__main__":
    main()
