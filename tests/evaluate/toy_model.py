"""A model that costs nothing: it names the tone of a clip, and only understands some prompts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from auricle.audio.decode import as_clip
from auricle.encode.receipt import Receipt, Span
from auricle.errors import AuricleError
from auricle.evaluate.corruptions import wav_bytes
from auricle.evaluate.questions import Question
from auricle.evaluate.sources import AudioFile
from auricle.evaluate.task import LanguageTask
from auricle.listen.outputs import Answer

TONES = {"low": 300.0, "middle": 1000.0, "high": 5000.0}


def tone_bytes(label: str, seed: int = 0, seconds: float = 0.3) -> bytes:
    at = np.arange(int(16_000 * seconds)) / 16_000
    noise = 0.001 * np.random.default_rng(seed).standard_normal(at.size)
    return wav_bytes((0.2 * np.sin(2 * np.pi * TONES[label] * at) + noise).astype(np.float32))


def nearest_tone(waveform: np.ndarray) -> str:
    """The tone nearest to the strongest frequency; nothing where it is too soft."""
    if np.abs(waveform).max(initial=0.0) < 0.01:
        return "nothing"
    hz = int(np.abs(np.fft.rfft(waveform, 16_000)).argmax())
    return min(TONES, key=lambda label: abs(TONES[label] - hz))


@dataclass
class ToyModel:
    """Answers with the tone, in words that depend on the prompt."""

    model: str = "toy"
    fingerprint: str = "f" * 64
    not_understood: tuple[str, ...] = ()  # prompts
    prompts: list[str] = field(default_factory=list)  # of all requests

    def ask_each(
        self, requests: Iterable[tuple[Any, Sequence[str]]], **settings: Any
    ) -> Iterator[list[Answer] | AuricleError]:
        for source, prompts in requests:
            self.prompts += prompts
            try:
                clip = as_clip(source)
            except AuricleError as error:
                yield error
                continue
            receipt = Receipt(
                file="a", duration_s=1.0, sample_rate=16_000, channels=1, read=(Span(start_s=0.0, stop_s=1.0),)
            )
            tone = nearest_tone(clip.waveform)
            yield [Answer(text=self.answer(tone, prompt), segments=(), receipt=receipt) for prompt in prompts]

    def answer(self, tone: str, prompt: str) -> str:
        return "?" if prompt in self.not_understood else tone


def tone_task(**settings: Any) -> LanguageTask:
    own: dict[str, Any] = {
        "name": "tones",
        "title": "Tones <b>& more</b>",
        "suite": "toy",
        "domain": "sound",
        "kind": "tagging",
        "prompts": {"": "Which tone?"},
    }
    return LanguageTask(**{**own, **settings})


def tone_questions(count: int = 9, prompt: str = "Which tone?", **fields: Any) -> list[Question]:
    found = []
    for number in range(count):
        label = list(TONES)[number % 3]
        audio = AudioFile(f"{number}.wav", lambda label=label, number=number: tone_bytes(label, number))
        row = {"dataset_name": "Tones", "audio": audio.name, "prompt": prompt, "label": [label], **fields}
        found.append(Question(audio=audio, prompt=prompt, field="", row=row))
    return found
