"""Questions → replies of a model: what lies in the cache is not asked again, and what is new goes into it at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError
from auricle.evaluate.answer_cache import AnswerCache, KeptAnswer, answer_key
from auricle.evaluate.question import NamedBytes, Question
from auricle.listen.aggregate import Aggregation


class Reply(NamedTuple):
    """What became of a question."""

    text: str | None  # None: there is no answer
    error: str | None  # why there is none
    complete: bool  # the whole sound was heard


class AsksEach(Protocol):
    """A model that takes questions, as `auricle.listen.model.AudioLM` does."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all of it that decides its answers."""

    def ask_each(
        self,
        requests: Iterable[tuple[Any, Sequence[str]]],
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
        reduce: Aggregation = "auto",
        window_s: float | None = None,
    ) -> Iterator[Any]:
        """Of each sound a list of answers with ``text`` and ``receipt``, or its error."""


def ask_questions(
    model: AsksEach,
    questions: Sequence[Question],
    *,
    cache: AnswerCache | None = None,
    sampling: SamplingParams | None = None,
    batch_size: int = 8,
    reduce: Aggregation = "auto",
    window_s: float | None = None,
    on_answer: Callable[[Question, Reply], None] | None = None,
) -> list[Reply]:
    """Ask, each sound once for all its open questions; one that fails leaves its error, and the others go on.

    Args:
        model: a listener.
        questions: in any order; those whose sounds have one name are about one sound.
        cache: answers of earlier runs, which are taken over; new ones are added as they come, errors are not. None:
            nothing is kept.
        sampling: how tokens are chosen; None: greedily.
        batch_size: questions in one batch, of any sounds; sounds are read as batches need them.
        reduce: how answers to the windows of a long sound become one.
        window_s: longest window, s; None: the model's.
        on_answer: told of every question as soon as its reply is known.

    Returns:
        Replies in the order of the questions.

    Raises:
        DataError: an answer cannot be kept.
        ConfigError: a setting out of range.
    """
    chosen = sampling or SamplingParams()
    key_of = partial(answer_key, model.fingerprint, sampling=chosen, reduce=reduce, window_s=window_s)
    asking = _Asking(questions, key_of, cache, on_answer)
    requests = asking.requests()
    for result in model.ask_each(requests, batch_size=batch_size, sampling=chosen, reduce=reduce, window_s=window_s):
        asking.take(result)
    replies = [reply for reply in asking.replies if reply is not None]
    if len(replies) < len(questions):
        raise AuricleError(f"{model.model}: gave {len(replies)} results for {len(questions)} questions; it is broken")
    return replies


class _Asking:
    """Questions on their way to the model and back."""

    def __init__(
        self,
        questions: Sequence[Question],
        key_of: Callable[[str, str], str],
        cache: AnswerCache | None,
        on_answer: Callable[[Question, Reply], None] | None,
    ) -> None:
        self.replies: list[Reply | None] = [None] * len(questions)
        self._questions, self._key_of, self._cache, self._on_answer = questions, key_of, cache, on_answer
        self._waiting: deque[dict[str, list[int]]] = deque()  # of each request places by key, in the order of results

    def requests(self) -> Iterator[tuple[Any, list[str]]]:
        """Sounds with their open questions; what needs no asking is settled on the way."""
        for places in _by_sound(self._questions):
            sound = self._questions[places[0]].sound
            try:
                content = sound.read()
            except AuricleError as error:
                self._settle(places, _failed(sound.name, error))
                continue
            if still_open := self._open(places, sha256(content).hexdigest()):
                self._waiting.append(still_open)
                prompts = [self._questions[at].prompt for at, *_ in still_open.values()]
                yield NamedBytes(content, sound.name), prompts

    def take(self, result: Any) -> None:
        """What came back of the oldest request."""
        asked = self._waiting.popleft()
        if isinstance(result, AuricleError):
            places = [at for own in asked.values() for at in own]
            self._settle(places, _failed(self._questions[places[0]].sound.name, result))
            return
        for (key, places), answer in zip(asked.items(), result, strict=True):
            said = KeptAnswer(answer.text, answer.receipt.complete)
            if self._cache is not None:
                said = self._cache.add(key, said)
            self._settle(places, Reply(said.text, None, said.complete))

    def _open(self, places: Sequence[int], digest: str) -> dict[str, list[int]]:
        """Places of questions without an answer, by key; the same asked twice is one."""
        found: dict[str, list[int]] = {}
        for at in places:
            key = self._key_of(self._questions[at].prompt, digest)
            kept = None if self._cache is None else self._cache.get(key)
            if kept is not None:
                self._settle([at], Reply(kept.text, None, kept.complete))
            else:
                found.setdefault(key, []).append(at)
        return found

    def _settle(self, places: Sequence[int], reply: Reply) -> None:
        for at in places:
            self.replies[at] = reply
            if self._on_answer is not None:
                self._on_answer(self._questions[at], reply)


def _by_sound(questions: Sequence[Question]) -> list[list[int]]:
    """Places of the questions on each sound, in the order in which sounds first come."""
    found: dict[str, list[int]] = {}
    for at, question in enumerate(questions):
        found.setdefault(question.sound.name, []).append(at)
    return list(found.values())


def _failed(name: str, error: AuricleError) -> Reply:
    text = str(error)
    return Reply(None, text if name in text else f"{name}: {text}", False)
