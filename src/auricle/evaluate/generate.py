"""Questions → replies of a model: answers in the cache are not generated again, and new ones are kept at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from auricle.audio.decode import as_clip
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, DataError
from auricle.evaluate.answer_cache import AnswerCache, KeptAnswer, answer_key
from auricle.evaluate.questions import Question
from auricle.evaluate.sources import NamedBytes
from auricle.listen.outputs import Answer, Output
from auricle.metrics.closed_qa import LETTERS, choice_of

if TYPE_CHECKING:
    from auricle.listen.model import AudioLM

Offer: TypeAlias = Literal["texts", "letters"]


class Reply(NamedTuple):
    """The answer to a question, or why there is none."""

    text: str | None  # None: there is no answer
    error: str | None  # why there is none
    complete: bool  # the whole clip was processed


class AnswersQuestions(Protocol):
    """A model that answers questions, as `auricle.listen.model.AudioLM` does."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides its answers."""

    def ask_each(
        self,
        requests: Iterable[tuple[Any, Sequence[str]]],
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
    ) -> Iterator[Any]:
        """For each clip a list of answers with ``text`` and ``receipt``, or its error."""


def generate_answers(
    model: AnswersQuestions,
    questions: Sequence[Question],
    *,
    cache: AnswerCache | None = None,
    sampling: SamplingParams | None = None,
    batch_size: int = 8,
    on_reply: Callable[[Question, Reply], None] | None = None,
) -> list[Reply]:
    """The replies of a model, which gets each clip once with all its open questions; a clip that fails is an error.

    Args:
        model: an audio language model.
        questions: in any order; those whose audio files have one name are about one clip.
        cache: answers of earlier runs, which are reused; new ones are added at once, errors are not. None: nothing is
            kept.
        sampling: None: greedy.
        batch_size: questions in one batch, of any clips; audio files are read as batches need them.
        on_reply: called for every question as soon as its reply is known.

    Returns:
        Replies in the order of the questions.

    Raises:
        DataError: an answer cannot be kept.
        ConfigError: a setting out of range.
    """
    chosen = sampling or SamplingParams()
    key_of = partial(answer_key, model.fingerprint, sampling=chosen)
    pending = _Pending(questions, key_of, cache, on_reply)
    for result in model.ask_each(pending.requests(), batch_size=batch_size, sampling=chosen):
        pending.take(result)
    replies = [reply for reply in pending.replies if reply is not None]
    if len(replies) < len(questions):
        raise AuricleError(f"{model.model}: gave {len(replies)} results for {len(questions)} questions; it is broken")
    return replies


class _Pending:
    """Questions without a reply."""

    def __init__(
        self,
        questions: Sequence[Question],
        key_of: Callable[[str, str], str],
        cache: AnswerCache | None,
        on_reply: Callable[[Question, Reply], None] | None,
    ) -> None:
        self.replies: list[Reply | None] = [None] * len(questions)
        self._questions, self._key_of, self._cache, self._on_reply = questions, key_of, cache, on_reply
        self._waiting: deque[dict[str, list[int]]] = deque()  # of each request places by key, in the order of results

    def requests(self) -> Iterator[tuple[Any, list[str]]]:
        """Clips with their open questions; those with a cached answer, and unreadable clips, get their reply here."""
        for places in _by_clip(self._questions):
            audio = self._questions[places[0]].audio
            try:
                content = audio.read()
            except AuricleError as error:
                self._reply(places, _failed(audio.name, error))
                continue
            if still_open := self._open(places, sha256(content).hexdigest()):
                self._waiting.append(still_open)
                prompts = [self._questions[at].prompt for at, *_ in still_open.values()]
                yield NamedBytes(content, audio.name), prompts

    def take(self, result: Any) -> None:
        """The result of the oldest request."""
        request = self._waiting.popleft()
        if isinstance(result, AuricleError):
            places = [at for own in request.values() for at in own]
            self._reply(places, _failed(self._questions[places[0]].audio.name, result))
            return
        for (key, places), answer in zip(request.items(), result, strict=True):
            kept = KeptAnswer(answer.text, answer.receipt.complete)
            if self._cache is not None:
                kept = self._cache.add(key, kept)
            self._reply(places, Reply(kept.text, None, kept.complete))

    def _open(self, places: Sequence[int], digest: str) -> dict[str, list[int]]:
        """Places of questions without an answer, by key; duplicated questions have one key."""
        found: dict[str, list[int]] = {}
        for at in places:
            key = self._key_of(self._questions[at].prompt, digest)
            kept = None if self._cache is None else self._cache.get(key)
            if kept is not None:
                self._reply([at], Reply(kept.text, None, kept.complete))
            else:
                found.setdefault(key, []).append(at)
        return found

    def _reply(self, places: Sequence[int], reply: Reply) -> None:
        for at in places:
            self.replies[at] = reply
            if self._on_reply is not None:
                self._on_reply(self._questions[at], reply)


def _by_clip(questions: Sequence[Question]) -> list[list[int]]:
    """Places of the questions on each clip, in the order in which clips first occur."""
    found: dict[str, list[int]] = {}
    for at, question in enumerate(questions):
        found.setdefault(question.audio.name, []).append(at)
    return list(found.values())


def _failed(name: str, error: AuricleError) -> Reply:
    text = str(error)
    return Reply(None, text if name in text else f"{name}: {text}", False)


# --- transcribing


class TranscribingLM:
    """A model that takes no prompt, on a task of transcripts: it transcribes each clip in its language."""

    def __init__(self, model: "AudioLM", questions: Sequence[Question]) -> None:
        """Take the languages of questions; one of Chinese is told as zh, as the task states it."""
        self._model = model
        self._languages = {question.audio.name: question.row.get("lang") for question in questions}

    @property
    def model(self) -> str:
        """Its name."""
        return self._model.model

    @property
    def fingerprint(self) -> str:
        """That of the model, told the language."""
        return sha256(f"{self._model.fingerprint} transcribes".encode()).hexdigest()

    def ask_each(
        self,
        requests: Iterable[tuple[Any, Sequence[str]]],
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
    ) -> Iterator[list[Output] | AuricleError]:
        """As `AudioLM.ask_each`; the prompts are not used."""
        most = None if sampling is None else sampling.max_new_tokens
        for source, prompts in requests:
            language = self._languages.get(source.name)
            options: dict[str, Any] = {"language": language, "max_new_tokens": most, "batch_size": batch_size}
            for found in self._model.transcribe_many([source], **options):
                yield found if isinstance(found, AuricleError) else [found] * len(prompts)


# --- choosing


class ChoosingLM:
    """A model whose answers to closed questions are their likeliest choices, see `AudioLM.choose`.

    A model that answers outside the choices fails a closed question whatever it knows; the likeliest choice shows what
    it knows.
    """

    def __init__(self, model: "AudioLM", questions: Sequence[Question], offer: Offer) -> None:
        """Take the choices of questions.

        Args:
            model: whose log-likelihoods decide.
            questions: with ``question`` and ``choices`` in their rows.
            offer: ``texts``: the prompt is the question alone, and each choice is scored as the whole answer;
                ``letters``: the prompt lists the choices as ``(A) …``, and any of their names counts for them.

        Raises:
            DataError: a question without choices.
        """
        self._model, self._offer = model, offer
        self._rows = {question.prompt: question.row for question in questions}
        if open_question := next((each for each in questions if not each.row.get("choices")), None):
            raise DataError(
                f"{open_question.audio.name}: {open_question.prompt!r} has no choices; only closed questions can be "
                "answered by choosing, let the model answer this task in its own words"
            )
        # Answers take the form of the references: by the published rule the words of a wrong choice would count too.
        self._lettered = all(row["answer"] in LETTERS[: len(row["choices"])] for row in self._rows.values())

    @property
    def model(self) -> str:
        """Its name, and that it chooses: its results are not those of free answers."""
        return f"{self._model.model}, choosing among {self._offer}"

    @property
    def fingerprint(self) -> str:
        """Differs from that of the model, as the answers do."""
        return sha256(f"{self._model.fingerprint} chooses among {self._offer}".encode()).hexdigest()

    def ask_each(
        self,
        requests: Iterable[tuple[Any, Sequence[str]]],
        *,
        batch_size: int = 8,
        sampling: SamplingParams | None = None,
    ) -> Iterator[list[Answer] | AuricleError]:
        """As `AudioLM.ask_each`; no tokens are generated."""
        for source, prompts in requests:
            try:
                clip = as_clip(source, limits=self._model.limits)
                yield [self._choose(clip, prompt) for prompt in prompts]
            except AuricleError as error:
                yield error

    def _choose(self, clip: Any, prompt: str) -> Answer:
        row = self._rows[prompt]
        choices: list[str] = row["choices"]
        chosen = self._model.choose(clip, row["question"], choices, letters=self._offer == "letters")
        letter, place = LETTERS[choices.index(chosen.answer)], choices.index(chosen.answer)
        text = letter if self._lettered and choice_of(letter, choices) == place else chosen.answer
        return Answer(text=text, segments=chosen.segments, receipt=chosen.receipt)
