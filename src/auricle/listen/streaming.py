"""An answer piece by piece, and the whole of it afterwards."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from auricle.audio.resample import SAMPLE_RATE
from auricle.engine.request import SamplingParams
from auricle.listen.aggregate import Aggregation, check_reduction
from auricle.listen.conclusions import answer_heard
from auricle.listen.hearing import Heard, Reply
from auricle.listen.long_audio import open_sound
from auricle.listen.outputs import Answer
from auricle.listen.tasks import Mind


class AnswerStream:
    """Iterator over pieces of text; close it, or leave its ``with``, to stop early."""

    def __init__(self, pieces: Generator[str, None, Answer]) -> None:
        """Take over a generator of pieces that returns the answer."""
        self._pieces = pieces
        self.answer: Answer | None = None  # once the last piece has come

    def __iter__(self) -> Iterator[str]:
        """Iterate over the pieces that are left."""
        return self

    def __next__(self) -> str:
        """Wait for the next piece."""
        try:
            return next(self._pieces)
        except StopIteration as end:
            self.answer = self.answer or end.value
            raise StopIteration from None

    def __enter__(self) -> AnswerStream:
        """Use as a context, so that a source is closed at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.close()

    def close(self) -> None:
        """Stop answering and close the source."""
        self._pieces.close()


def stream_answer(
    mind: Mind, source: Any, question: str, *, sampling: SamplingParams, reduce: Aggregation, window_s: float | None
) -> Generator[str, None, Answer]:
    """Answer a question about every window of a sound, in order.

    Args:
        mind: the model.
        source: one sound.
        question: asked of every window.
        sampling: how tokens are chosen.
        reduce: how the windows' answers become one.
        window_s: longest window, s.

    Yields:
        Pieces of text; between the answers of two windows a line break.

    Returns:
        The answer.

    Raises:
        AuricleError: what `auricle.listen.model.AudioLM.ask` raises.
    """
    check_reduction(reduce)
    sound = open_sound(source, max_samples=mind.samples(window_s), limits=mind.hearing.limits)
    try:
        heard = Heard(sound, [question])
        most = int(mind.max_prompt_s * SAMPLE_RATE)
        for place, windows in enumerate(heard.take(most)):
            if place:
                yield "\n"
            prompt = mind.hearing.prompt(windows, question, sampling.max_new_tokens, heard.facts)
            ids, logprob = [], 0.0
            for token in mind.answering.engine.stream(prompt, sampling):
                ids.append(token.id)
                logprob += token.logprob
                if token.text:
                    yield token.text
            text = mind.answering.text(ids)
            heard.replies[place, 0] = Reply(text=text, mean_logprob=logprob / max(len(ids), 1))
        return answer_heard(heard, mind.hearing, 0, question, reduce, mind.answering.asking_text(mind.hearing))
    finally:
        sound.close()
