"""Conversations about recordings → tokens that carry loss, and batches of them.

Shape legend: M tokens of all examples, B examples, L the longest of them, n tokens that carry loss.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from auricle.audio.facts import Clip
from auricle.errors import DataError
from auricle.models.qwen_attention import plan
from auricle.train.sft_data import Row
from auricle.weights.loaders import LoadedLM, prompt_writer
from auricle.weights.processor import Message, Prompt


class Example(NamedTuple):
    """A row as the decoder sees it."""

    ids: list[int]  # of the whole conversation, each audio placeholder once per audio token
    places: list[int]  # of the tokens whose successor carries loss
    targets: list[int]  # those successors
    waveform: Tensor  # (N,)
    recording: int = -1  # number of its file in the run


class Conversation:
    """Rows → tokens, by the chat template and tokenizer of one model."""

    def __init__(self, loaded: LoadedLM) -> None:
        self._writer = prompt_writer(loaded)
        self._tokenizer, self._end = loaded.tokenizer, loaded.eos_token_ids[0]
        self._controls = [token.content for token in loaded.tokenizer.get_added_tokens_decoder().values()]

    def prompt(self, row: Row, clip: Clip) -> Prompt:
        """What precedes the last answer."""
        return self._writer.write(_messages(row, clip)[:-1])

    def reply(self, text: str) -> list[int]:
        """The tokens of an answer, and the one that ends its turn.

        Raises:
            DataError: it spells a control token.
        """
        if found := [name for name in self._controls if name in text]:
            raise DataError(f"the answer {text[:60]!r} holds the control token {found[0]}; take it out")
        return [*self._tokenizer.encode(text, add_special_tokens=False).ids, self._end]

    def example(self, row: Row, clip: Clip) -> Example:
        """A row whose every answer carries loss; neither prompts nor the headers of turns do.

        Raises:
            DataError: an answer that holds a control token, or that a later turn would show in other tokens.
        """
        messages = _messages(row, clip)
        prompt = self.prompt(row, clip)
        ids = [*prompt.input_ids, *self.reply(row.answer)]
        places: list[int] = []
        targets: list[int] = []
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            start = len(self._writer.write(messages[:turn]).input_ids)
            reply = self.reply(message["content"])
            if ids[start : start + len(reply)] != reply:
                raise DataError(f"{row.where}: the tokens of answer {message['content'][:60]!r} change in later turns")
            places += range(start - 1, start + len(reply) - 1)
            targets += reply
        return Example(ids, places, targets, prompt.clips[0])


def _messages(row: Row, clip: Clip) -> list[Message]:
    first, *rest = row.turns
    # Audio first is the trained order.
    question: Message = {
        "role": "user",
        "content": [{"type": "audio", "audio": clip}, {"type": "text", "text": first[1]}],
    }
    system: list[Message] = [{"role": "system", "content": row.system}] if row.system else []
    return [*system, question, *({"role": role, "content": text} for role, text in rest)]


def lay(examples: Sequence[Example], *, packed: bool) -> dict[str, Any]:
    """Tensors of a batch: examples end to end, or (B, L) padded on the right.

    Returns:
        ``input_ids``, ``clips``, ``places`` (n,) in the flattened rows and ``targets`` (n,); packed also ``layout``
        (`auricle.models.qwen_attention.Layout`), else ``attention_mask`` (B, L).
    """
    lengths = [len(example.ids) for example in examples]
    width = max(lengths)
    starts = [sum(lengths[:i]) if packed else i * width for i in range(len(examples))]
    inputs: dict[str, Any] = {
        "clips": [example.waveform for example in examples],
        "places": torch.tensor([start + at for start, e in zip(starts, examples, strict=True) for at in e.places]),
        "targets": torch.tensor([token for example in examples for token in example.targets]),
    }
    if packed:
        ids = torch.tensor([[token for example in examples for token in example.ids]])
        return {**inputs, "input_ids": ids, "layout": plan(lengths)}
    rows = [[*example.ids, *[0] * (width - len(example.ids))] for example in examples]
    mask = [[1] * length + [0] * (width - length) for length in lengths]
    return {**inputs, "input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}
