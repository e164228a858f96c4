"""How well a model answers held-out rows, while it is fine-tuned and afterwards.

Two metrics: *exact*, the greedy answer equals the reference but for case, spacing and a final period; and *choice*, for
rows with options: the reference is the most likely of them under the model. Exact answers depend on the form as well,
choices on the content alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from auricle.audio.decode import as_clip
from auricle.audio.facts import Clip
from auricle.engine.engine import generate
from auricle.engine.request import SamplingParams
from auricle.errors import AuricleError, DataError
from auricle.models.midashenglm import MiDashengLM
from auricle.train.config import RunConfig
from auricle.train.sft_data import Row, read_rows
from auricle.train.sft_examples import Conversation, lay
from auricle.weights import LoadedLM, load_midashenglm

_BATCH = 16  # rows scored at once


class RowScore(NamedTuple):
    """The prediction of a model for one row."""

    row: Row
    prediction: str
    exact: bool
    choice: str | None  # most likely option; None without options


def score_rows(loaded: LoadedLM, rows: Sequence[Row], *, max_new_tokens: int = 32) -> list[RowScore]:
    """Predictions of a model for rows, compared with their answers.

    Returns:
        One result a row, in order.

    Raises:
        AudioError: a recording cannot be read.
    """
    writer = Conversation(loaded)
    found = []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        clips = [as_clip(row.audio) for row in part]
        prompts = [writer.prompt(row, clip) for row, clip in zip(part, clips, strict=True)]
        answers = generate(
            loaded.model,
            prompts,
            SamplingParams(max_new_tokens=max_new_tokens),
            eos_token_ids=loaded.eos_token_ids,
        )
        choices = _choose(loaded.model, writer, part, clips)
        for row, answer, choice in zip(part, answers, choices, strict=True):
            prediction = loaded.tokenizer.decode(answer.ids).strip()
            found.append(RowScore(row, prediction, _plain(prediction) == _plain(row.answer), choice))
    return found


@torch.inference_mode()
def _choose(model: MiDashengLM, writer: Conversation, rows: Sequence[Row], clips: Sequence[Clip]) -> list[str | None]:
    """The most likely option of each row, its end of turn included."""
    chosen = [i for i, row in enumerate(rows) if row.options]
    if not chosen:
        return [None] * len(rows)
    device = model.decoder.device
    audio = model.audio_tokens([torch.from_numpy(clips[i].waveform).to(device) for i in chosen])
    examples, tokens, owners = [], [], []
    for i, own in zip(chosen, audio, strict=True):
        for option in rows[i].options:
            candidate = replace(rows[i], turns=(*rows[i].turns[:-1], ("assistant", option)))
            example = writer.example(candidate, clips[i])
            ends = len(writer.reply(option))
            examples.append(example._replace(places=example.places[-ends:], targets=example.targets[-ends:]))
            tokens.append(own)
            owners += [len(examples) - 1] * ends
    inputs = lay(examples, packed=False)
    ids, mask = inputs["input_ids"].to(device), inputs["attention_mask"].to(device)
    hidden = model.decode(model.place(ids, tokens), mask).flatten(0, 1)[inputs["places"].to(device)]
    each = model.decoder.lm_head(hidden).float().log_softmax(-1).gather(1, inputs["targets"].to(device)[:, None])[:, 0]
    sums = torch.zeros(len(examples), device=device).index_add(0, torch.tensor(owners, device=device), each)
    parts = iter(sums.split([len(row.options) for row in rows if row.options]))
    return [row.options[int(next(parts).argmax())] if row.options else None for row in rows]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def heldout_probe(config: RunConfig) -> Callable[[nn.Module], dict[str, Any]]:
    """A probe of the loop: ``exact``, and ``choice`` where every row has options, over the rows of ``sft.heldout``.

    Raises:
        DataError: a row cannot be understood, or no recording can be read.
    """
    settings = config.sft
    rows = [row for name in settings.heldout for row in read_rows(name, prompt=settings.prompt, system=settings.system)]
    rows = [row for row in rows if _is_readable(row)]
    if not rows:
        raise DataError(f"sft.heldout {', '.join(settings.heldout)}: no recording can be read")
    if settings.heldout_rows and len(rows) > settings.heldout_rows:
        rows = [rows[int(place)] for place in np.linspace(0, len(rows) - 1, settings.heldout_rows)]
    base: list[LoadedLM] = []  # tokenizer and template, read when they are first needed

    def probe(network: nn.Module) -> dict[str, Any]:
        if not base:
            base.append(load_midashenglm(settings.init, dtype=settings.dtype))
        assert isinstance(network, MiDashengLM)
        base[0] = replace(base[0], model=network)
        found = score_rows(base[0], rows, max_new_tokens=settings.max_new_tokens)
        figures = {"exact": sum(result.exact for result in found) / len(found)}
        if all(row.options for row in rows):
            figures["choice"] = sum(result.choice == result.row.answer for result in found) / len(found)
        return {**figures, "heldout_n": len(found)}

    return probe


def _is_readable(row: Row) -> bool:
    try:
        as_clip(row.audio)
    except AuricleError:
        return False
    return True
