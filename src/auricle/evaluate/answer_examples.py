"""The worst answers as a part of a page, with players of their sounds.

Sounds are decoded and encoded anew before they stand in the page, and together they are bounded.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from auricle.audio.excerpt import encode_excerpt
from auricle.errors import AuricleError
from auricle.evaluate.tables import TaskRow
from auricle.evaluate.worst_answers import FindAudio, WorstAnswer, WorstAnswers, audio_of, worst_answers
from auricle.pages.page import shown, table

EXCERPT_S = 10.0  # of each sound in the page
MAX_PAGE_SOUNDS = 7 << 20  # bytes of all players together; those beyond it are left out
MAX_TEXT = 600  # characters of a reference or an answer


class Players:
    """Players of sounds, until their bytes are used up."""

    def __init__(self, roots: Sequence[Path]) -> None:
        """See `auricle.evaluate.worst_answers.audio_of`."""
        self._roots, self._left = roots, MAX_PAGE_SOUNDS
        self._known: dict[str, FindAudio] = {}

    def player(self, row: TaskRow, audio: str) -> str:
        """A player, or in words why there is none."""
        content = self._find(row, audio)
        if content is None:
            return "<small>sound not found</small>"
        try:
            sound = base64.b64encode(encode_excerpt(io.BytesIO(content), seconds=EXCERPT_S)).decode()
        except AuricleError:
            return "<small>sound cannot be read</small>"
        player = f'<audio controls preload="none" src="data:audio/ogg;base64,{sound}"></audio>'
        if len(player) > self._left:
            return "<small>left out, to keep the page small</small>"
        self._left -= len(player)
        return player

    def _find(self, row: TaskRow, audio: str) -> bytes | None:
        for result in row.results.values():
            key = f"{result.task}\0{result.run.get('source', '')}"
            find = self._known.setdefault(key, audio_of(result, self._roots))
            if (content := find(audio)) is not None:
                return content
        return None


def worst_section(rows: Sequence[TaskRow], count: int, players: Players | None) -> str:
    """HTML of the worst answers of each task, by the strict protocol where it was scored by both.

    Args:
        rows: strict ones first.
        count: items of a task.
        players: of their sounds; None: none are played.

    Raises:
        DataError: a file of answers is damaged.
    """
    parts, done = [], set[str]()
    for row in rows:  # strict first
        if row.task in done:
            continue
        done.add(row.task)
        found = worst_answers(row, count)
        parts.append(
            f"<h3>{shown(row.title)} <small class='note'>{row.protocol}</small></h3>" + _examples(row, found, players)
        )
    if not parts:
        return ""
    heard = f" The first {EXCERPT_S:g} s of a sound can be heard." if players else ""
    return f"<h2>Worst answers</h2><p>Of each task the items that models lost most by.{heard}</p>" + "".join(parts)


def _examples(row: TaskRow, found: WorstAnswers, players: Players | None) -> str:
    notes = "".join(f'<p class="note">{shown(model)}: {shown(why)}.</p>' for model, why in found.unknown.items())
    if not found.items:
        return notes or '<p class="note">No answer lost anything.</p>'
    body = [_example(row, each, players) for each in found.items]
    return notes + table(["Sound", "Should be", "Answers"], body)


def _example(row: TaskRow, each: WorstAnswer, players: Players | None) -> list[str]:
    player = "" if players is None else players.player(row, each.audio)
    group = f"<br><small>{shown(each.group.replace('_', ' '))}</small>" if each.group else ""
    asked = f"<small>{bounded(each.question)}</small>" if each.question else ""
    references = "<br>".join(map(bounded, each.references[:5]))
    answers = "".join(
        f'<span class="said"><span class="who">{shown(model)}</span> '
        f'<span class="tag">{shown(own.grade.text)}</span><br>'
        f"{bounded(own.prediction) if own.prediction.strip() else '<small>(no answer)</small>'}</span>"
        for model, own in each.answers.items()
    )
    sound = f"<td>{player}<br><code>{bounded(each.audio, 80)}</code>{group}</td>"
    return [sound, f'<td class="text">{references}{asked}</td>', f'<td class="text">{answers}</td>']


def bounded(text: str, length: int = MAX_TEXT) -> str:
    """A text as a page may hold it, cut where it is too long."""
    return shown(text if len(text) <= length else f"{text[: length - 1]}…")
