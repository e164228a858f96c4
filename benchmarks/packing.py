"""Time a fine-tuning step on examples of mixed lengths: packed against padded, in alternation.

python benchmarks/packing.py [--model auricle-tiny] [--examples 6] [--rounds 5] [--json] [-o FILE]

Loss and gradients, float32, in CPU seconds of one thread, which a busy machine disturbs less than wall time. Updates in
the decoder, as stage 3 of MiDashengLM; answers are transcripts, 2.5 words a second. Rows:

- whole model: encoder and projector learn, too. Padded as the published toolkit trains: clips and rows to the longest.
- decoder: a frozen encoder whose frames are kept in memory. Padded: rows to the longest.

Clips of 1-30 s, either log-spread (two thirds under 10 s, like MiDashengLM's training data) or evenly spread.

Tokens are those of the examples, audio and text, without padding: the same on both sides.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import torch
from pairs import machine, options, spread, write
from torch import Tensor

from auricle.train.config import RunConfig, load_config
from auricle.train.sft import SftObjective

RATE = 16_000  # Hz
WORDS = "a man speaks while rain falls on a roof and a dog barks twice far away".split()


class Padded(SftObjective):
    """Clips padded to the longest, with their lengths as a mask, and rows to the longest: the reference's way."""

    def __init__(self, config: RunConfig) -> None:
        """Decode without a mask: on the right, padding changes nothing for the tokens before it."""
        super().__init__(config)
        decoder = self.network.decoder
        # Without the mask padding is computed like any token; on the right it changes nothing for the others.
        self.network.decode = lambda embeddings, mask: decoder.decode(embeddings)

    def _audio_tokens(self, clips: list[Tensor], recordings: list[int]) -> list[Tensor]:
        if self.settings.encoder == "frozen":
            return super()._audio_tokens(clips, recordings)
        padded = [self.network.pad(clip) for clip in clips]
        lengths = torch.tensor([len(clip) for clip in padded])
        frames = self.network.audio_encoder(torch.nn.utils.rnn.pad_sequence(padded, batch_first=True), lengths)
        counts = [(1 + n // 160) // 4 // self.network.config.subsample_factor for n in lengths.tolist()]
        return [own[:n] for own, n in zip(self.network.audio_projector(list(frames)), counts, strict=True)]


def write_examples(folder: Path, count: int, spacing: str) -> Path:
    """A manifest of ``count`` clips of noise, 1-30 s."""
    rng = np.random.default_rng(0)
    rows = []
    durations_s = (np.geomspace if spacing == "log" else np.linspace)(1.0, 30.0, count)
    for number, seconds in enumerate(durations_s.tolist()):
        file = folder / f"{spacing}-{number}.wav"
        soundfile.write(file, 0.1 * rng.standard_normal(int(RATE * seconds)), RATE)
        answer = " ".join(rng.choice(WORDS, round(2.5 * seconds)))
        rows.append({"audio": file.name, "prompt": "Transcribe the speech.", "answer": answer})
    path = folder / f"{spacing}-spread.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make(manifest: Path, args: argparse.Namespace, *, packed: bool, whole: bool) -> SftObjective:
    """One side of a comparison; both start from the same weights."""
    part = "full" if whole else "frozen"
    changes = [
        "objective=sft",
        f"batch_size={args.examples}",
        f"sft.init={args.model}",
        f"sft.train=[{manifest}]",
        f"sft.encoder={part}",
        f"sft.projector={part}",
        "sft.dropout=0.0",
        "sft.bucket=1",
        "sft.remember_mb=1000",
        f"sft.packing={str(packed).lower()}",
    ]
    torch.manual_seed(0)
    return (SftObjective if packed else Padded)(load_config(None, changes)).train()


def step(objective: SftObjective, inputs: dict[str, Any]) -> float:
    """Loss and gradients."""
    objective.zero_grad()
    loss = objective(**inputs)
    loss.backward()
    return loss.item()


def cpu_seconds(objective: SftObjective, inputs: dict[str, Any]) -> float:
    """Of one step."""
    start = time.process_time()
    step(objective, inputs)
    return time.process_time() - start


def compare(manifest: Path, args: argparse.Namespace, *, whole: bool) -> dict[str, Any]:
    """One row."""
    sides = [make(manifest, args, packed=packed, whole=whole) for packed in (True, False)]
    batches = [side.make_batch(0, 0, args.examples).inputs for side in sides]
    losses = [step(side, inputs) for side, inputs in zip(sides, batches, strict=True)]
    # Padding changes the frames at the end of a clip, so only rows can agree closely.
    found, allowed = abs(losses[0] - losses[1]), 0.05 if whole else 1e-5
    assert found < allowed, f"the losses {losses} disagree"
    pairs = []
    for turn in range(args.rounds):  # who goes first changes; both have run once
        spent = {side: cpu_seconds(sides[side], batches[side]) for side in ((0, 1), (1, 0))[turn % 2]}
        pairs.append((spent[0], spent[1]))
    tokens, cells = batches[0]["input_ids"].numel(), batches[1]["input_ids"].numel()
    return {
        "name": f"{'whole model' if whole else 'decoder'}, {manifest.stem}",
        "speedup": spread([padded / packed for packed, padded in pairs]),
        "packed_tokens_per_cpu_s": round(tokens / median(packed for packed, _ in pairs), 1),
        "padded_tokens_per_cpu_s": round(tokens / median(padded for _, padded in pairs), 1),
        "tokens": tokens,
        "cells_padded": cells,
        "difference_of_loss": found,
        "target": 1.8,
        "rounds": args.rounds,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__, rounds=5)
    parser.add_argument("--model", default="auricle-tiny")
    parser.add_argument("--examples", type=int, default=6)
    args = parser.parse_args()
    facts = machine()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        log, even = (write_examples(Path(folder), args.examples, spacing) for spacing in ("log", "even"))
        rows = [compare(manifest, args, whole=whole) for manifest in (log, even) for whole in (True, False)]
    write({"rows": rows, "model": args.model, "examples": args.examples, "threads": 1, **facts}, args)


if __name__ == "__main__":
    main()
