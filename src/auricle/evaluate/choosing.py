"""Closed questions answered by weighing their choices, so that every answer names one.

A model that talks past the choices fails a closed question whatever it knows; the likeliest choice shows what it knows.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from auricle.audio.decode import as_clip
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, DataError
from auricle.evaluate.question import Question
from auricle.listen.aggregate import Aggregation
from auricle.listen.model import AudioLM
from auricle.listen.outputs import Answer
from auricle.metrics.closed_qa import LETTERS

Offer: TypeAlias = Literal["texts", "letters"]


class ChoosingLM:
    """Stands in for a listener whose answers to closed questions are chosen, see `AudioLM.choose`."""

    def __init__(self, listener: AudioLM, questions: Sequence[Question], offer: Offer) -> None:
        """Take the choices of questions.

        Args:
            listener: the model.
            questions: with ``question`` and ``choices`` in their rows.
            offer: ``texts``: the question alone is asked, and each choice weighed as its whole answer; ``letters``: the
                choices are listed as ``(A) …``, and whatever names one of them counts for it.

        Raises:
            DataError: a question without choices.
        """
        self._listener, self._offer = listener, offer
        self._rows = {question.prompt: question.row for question in questions}
        if open_question := next((each for each in questions if not each.row.get("choices")), None):
            raise DataError(
                f"{open_question.sound.name}: {open_question.prompt!r} has no choices; only closed questions can be "
                "answered by choosing, let the model answer this task in its own words"
            )
        # Answers take the form of the references: by the published rule the words of a wrong choice would count too.
        self._lettered = all(row["answer"] in LETTERS[: len(row["choices"])] for row in self._rows.values())

    @property
    def model(self) -> str:
        """Its name, and that it chooses: its results are not those of the listener."""
        return f"{self._listener.model}, choosing among {self._offer}"

    @property
    def fingerprint(self) -> str:
        """Another one than the listener's: its answers are others."""
        return sha256(f"{self._listener.fingerprint} chooses among {self._offer}".encode()).hexdigest()

    def ask_each(
        self,
        requests: Iterable[tuple[Any, Sequence[str]]],
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> Iterator[list[Answer] | AuricleError]:
        """As `AudioLM.ask_each`; nothing is decoded, so only ``window_s`` matters."""
        for source, prompts in requests:
            try:
                clip = as_clip(source, limits=self._listener.limits)
                yield [self._choose(clip, prompt, window_s) for prompt in prompts]
            except AuricleError as error:
                yield error

    def _choose(self, clip: Any, prompt: str, window_s: float | None) -> Answer:
        row = self._rows[prompt]
        choices: list[str] = row["choices"]
        chosen = self._listener.choose(
            clip, row["question"], choices, letters=self._offer == "letters", window_s=window_s
        )
        text = LETTERS[choices.index(chosen.answer)] if self._lettered else chosen.answer
        return Answer(text=text, segments=chosen.segments, receipt=chosen.receipt)
