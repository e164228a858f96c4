"""An answer in pieces while it is generated, and the whole of it afterwards."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from auricle.listen.long_audio import Reply, open_recording
from auricle.listen.outputs import Answer
from auricle.listen.pipeline import window_prompt

if TYPE_CHECKING:
    from auricle.listen.verbs import Questions


class AnswerStream:
    """Iterator over pieces of text; close it, or leave its ``with``, to stop early."""

    def __init__(self, pieces: Generator[str, None, Answer]) -> None:
        self._pieces = pieces
        self.answer: Answer | None = None  # set after the last piece

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self.answer = self.answer or end.value
            raise StopIteration from None

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering and close the source."""
        self._pieces.close()


def stream_answer(task: Questions, source: Any, question: str) -> Generator[str, None, Answer]:
    """Answer a question about every window of a source, in order.

    Yields:
        Pieces of text; between the answers of two windows a line break.

    Returns:
        The answer.

    Raises:
        AuricleError: as `auricle.listen.model.AudioLM.ask`.
    """
    model = task.model
    recording = open_recording(source, [question], task.windowing, model.limits)
    try:
        for place, windows in enumerate(recording.take()):
            if place:
                yield "\n"
            tokens = []
            for token in model.engine.stream(window_prompt(task, recording, windows, question), task.sampling):
                tokens.append(token)
                if token.text:
                    yield token.text
            text = "".join(token.text for token in tokens).strip()
            mean = sum(token.logprob for token in tokens) / max(len(tokens), 1)
            recording.replies[place, 0] = Reply(text=text, mean_logprob=mean)
        return task.result(recording)[0]
    finally:
        recording.close()
