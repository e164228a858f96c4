"""An answer in pieces while it is generated, and the whole of it afterwards."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from auricle.listen.long_audio import open_recording
from auricle.listen.pipeline import reply_of

if TYPE_CHECKING:
    from auricle.listen.outputs import Output
    from auricle.listen.pipeline import Task


class AnswerStream:
    """Iterator over pieces of text; close it, or leave its ``with``, to stop early."""

    def __init__(self, pieces: Generator[str, None, Any]) -> None:
        self._pieces = pieces
        self.answer: Output | None = None  # set after the last piece

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


def stream_answer(task: Task, source: Any, question: str) -> Generator[str, None, Any]:
    """Answer a question about every window of a source, in order.

    Yields:
        Pieces of text; between the answers of two windows a line break.

    Returns:
        The result of the task; of one with several questions, that of the first.

    Raises:
        AuricleError: as `auricle.listen.model.AudioLM.ask`.
    """
    engine = task.model.engine
    recording = open_recording(source, [question], task.windowing, task.model.limits)
    try:
        for place, windows in enumerate(recording.take()):
            if place:
                yield "\n"
            reply = task.rule(windows[0]) if len(windows) == 1 else None
            if reply is not None:
                yield reply.text
            else:
                prompt = task.prompt(recording, windows, question)
                request = engine.submit(prompt, task.sampling, is_streamed=True)
                yield from (token.text for token in engine.follow(request) if token.text)
                reply = reply_of(engine.result(request))
            recording.replies[place, 0] = reply
        found = task.result(recording)
        return found[0] if isinstance(found, list) else found
    finally:
        recording.close()
