"""The worst answers of each task as examples of a page, with players of their clips."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from auricle.audio.decode import decode
from auricle.evaluate.tables import TaskRow
from auricle.evaluate.worst_answers import FindAudio, WorstAnswer, audio_of, worst_answers
from auricle.pages.players import Example, Fact, Player, Players
from auricle.pages.render import bounded

EXCERPT_S = 10.0  # of each clip in the page
MAX_PLAYER_BYTES = 7 << 20  # of all players together; those beyond it are left out
MAX_TEXT = 600  # characters of a reference or an answer


class Worst(NamedTuple):
    """A task, by the strict rule where it was scored by both."""

    title: str
    rule: str
    notes: list[str]  # models without answers, and why
    examples: list[Example]


def worst_examples(
    rows: Sequence[TaskRow], count: int, *, roots: Sequence[Path] = (), with_players: bool = True
) -> list[Worst]:
    """The worst answers of each task, whose rows are strict ones first; ``roots`` are as for `audio_of`.

    Raises:
        DataError: a file of answers is damaged.
    """
    clips = _Clips(roots) if with_players else None
    found: dict[str, Worst] = {}
    for row in rows:
        if row.task not in found:
            worst = worst_answers(row, count)
            notes = [f"{model}: {why}" for model, why in worst.unknown.items()]
            found[row.task] = Worst(
                row.title, row.scoring_rule, notes, [_example(row, each, clips) for each in worst.items]
            )
    return list(found.values())


class _Clips:
    """Finds the clips of results and makes players of them."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots, self._players = roots, Players(seconds=EXCERPT_S, max_bytes=MAX_PLAYER_BYTES)
        self._known: dict[str, FindAudio] = {}

    def player(self, row: TaskRow, audio: str) -> Player:
        for result in row.results.values():
            key = f"{result.task}\0{result.run.get('source', '')}"
            find = self._known.setdefault(key, audio_of(result, self._roots))
            if (content := find(audio)) is not None:
                return self._players.player(partial(_start, content))
        return Player("", "clip not found; name its folder with --audio")


def _start(content: bytes) -> npt.NDArray[np.float32]:
    return decode(content, stop_s=EXCERPT_S).waveform


def _example(row: TaskRow, each: WorstAnswer, clips: _Clips | None) -> Example:
    return Example(
        player=None if clips is None else clips.player(row, each.audio),
        name=bounded(each.audio, 80),
        note=each.group.replace("_", " "),
        facts=[
            Fact("Reference", [bounded(text, MAX_TEXT) for text in each.references[:5]]),
            *([Fact("Prompt", [bounded(each.question, MAX_TEXT)])] if each.question else []),
            *(
                Fact(
                    model,
                    [bounded(own.prediction, MAX_TEXT) if own.prediction.strip() else "(no answer)"],
                    own.grade.text,
                )
                for model, own in each.answers.items()
            ),
        ],
    )
