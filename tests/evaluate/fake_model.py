"""A model that costs nothing: its answers follow from the bytes of the audio file and the prompt."""

import json
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from auricle.errors import BrokenAudio
from auricle.evaluate.questions import Question
from auricle.evaluate.sources import AudioFile
from auricle.evaluate.task import LanguageTask

WORDS = ("dog", "cat", "rain", "music")
TASK = LanguageTask(
    name="toy",
    title="Toy",
    suite="toy",
    domain="sound",
    kind="tagging",
    prompts={"": "Which sound?"},
    max_new_tokens=5,
)


class FakeModel:
    """Counts its requests; clips that start with ``broken`` fail, those with ``cut`` are processed in part."""

    def __init__(self, *, fingerprint: str = "f" * 64, model: str = "fake", log: Path | None = None) -> None:
        self.model, self.fingerprint, self._log = model, fingerprint, log
        self.requests: list[tuple[str, tuple[str, ...]]] = []  # name of the clip, prompts

    @property
    def generated(self) -> int:
        return sum(len(prompts) for _, prompts in self.requests)

    def ask_each(
        self, requests: Iterable[tuple[Any, Sequence[str]]], *, batch_size: int = 8, sampling: Any = None, **ways: Any
    ) -> Iterator[Any]:
        # As the true one: a batch is read before the first of its answers comes.
        requests = iter(requests)
        while batch := list(islice(requests, batch_size)):
            for source, prompts in batch:
                self.requests.append((source.name, tuple(prompts)))
                if self._log is not None:
                    with self._log.open("a") as file:
                        file.write("".join(json.dumps([source.name, prompt]) + "\n" for prompt in prompts))
            for source, prompts in batch:
                yield self.answer(source.read(), prompts)

    def answer(self, content: bytes, prompts: Sequence[str]) -> Any:
        if content.startswith(b"broken"):
            return BrokenAudio("no audio in it")
        receipt = SimpleNamespace(complete=not content.startswith(b"cut"))
        return [SimpleNamespace(text=answer_of(content, prompt), receipt=receipt) for prompt in prompts]


def answer_of(content: bytes, prompt: str) -> str:
    digest = sha256(content + prompt.encode()).digest()
    return f"A {WORDS[digest[0] % len(WORDS)]}."


def audio_file(name: str, content: bytes | None = None) -> AudioFile:
    return AudioFile(name, lambda: name.encode(errors="surrogatepass") if content is None else content)


def question(name: str, prompt: str = "Which sound?", content: bytes | None = None, **row: Any) -> Question:
    """About a clip whose bytes are its name, unless they are given."""
    label = WORDS[sha256(name.encode(errors="surrogatepass")).digest()[1] % len(WORDS)]
    row = {"dataset_name": "Toy", "audio": name, "prompt": prompt, "label": [label], **row}
    return Question(audio=audio_file(name, content), prompt=prompt, field="", row=row)


def questions(number: int) -> list[Question]:
    """Two on every third clip."""
    found = []
    for at in range(number):
        found.append(question(f"{at}.wav"))
        if at % 3 == 0:
            found.append(question(f"{at}.wav", "Which one?"))
    return found
