"""Objective ``sft``: fine-tune an audio language model on prompts and answers (MiDashengLM, stages 2 and 3, or yours).

Encoder, projector and decoder each learn as a whole, by low-rank updates, or not at all. The examples of a batch are
packed end to end (`auricle.models.qwen_attention`), as are their clips, and the loss is on answers and the end of their
turns alone. The batch norm of the front end keeps its statistics.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auricle.audio.decode import as_clip
from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import AuricleError, DataError
from auricle.files import write_text
from auricle.models.midashenglm import MiDashengLM
from auricle.models.qwen_attention import Layout
from auricle.train import lora
from auricle.train.chunked_loss import chunked_loss
from auricle.train.config import RunConfig, SftSettings
from auricle.train.objective import Batch, Objective, run_card
from auricle.train.sft_data import Row, Sources
from auricle.train.sft_examples import Conversation, Example, lay
from auricle.weights import load_midashenglm, save_midashenglm
from auricle.weights.adapters import write_adapter
from auricle.weights.cards import MAX_AUDIO_KEY
from auricle.weights.lm_layouts import midashenglm_to_hub

PARTS = {"encoder": "audio_encoder", "projector": "audio_projector", "decoder": "decoder"}
_TRIES = 100  # rows looked at for one example


class SftObjective(Objective):
    """A MiDashengLM with updates."""

    network: MiDashengLM

    def __init__(self, config: RunConfig) -> None:
        """Read the manifests, load the model, and prepare what is to learn."""
        super().__init__()
        self.config, self.settings = config, config.sft
        self.sources = Sources(self.settings, config.seed)
        self.loaded = load_midashenglm(self.settings.init, dtype=self.settings.dtype)
        self.network = self.loaded.model
        self.adapted = choose(self.network, self.settings)
        if self.settings.quantize:
            lora.quantize(self.network.decoder, self.settings.quantize, config.device)
        if self.settings.checkpoint_blocks:
            self.network.decoder.gradient_checkpointing_enable()
        self.writer = Conversation(self.loaded)
        self._frame_cache: dict[int, Tensor] = {}
        self._room = self.settings.remember_mb * 1_000_000  # bytes left in the cache
        self._skip_file: Path | None = None
        self._lock = threading.Lock()  # batches are made in several threads

    def train(self, mode: bool = True) -> "SftObjective":
        """Training mode of what learns; frozen parts and the batch norm of the front end stay as in use."""
        super().train(mode)
        for name, part in PARTS.items():
            if getattr(self.settings, name) == "frozen":
                self.network.get_submodule(part).eval()
        self.network.audio_encoder.init_bn.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What learns alone: the rest is in the model that training started from."""
        learned = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in super().state_dict(*args, **kwargs).items() if name in learned}

    def forward(
        self,
        input_ids: Tensor,
        clips: list[Tensor],
        places: Tensor,
        targets: Tensor,
        noise: int,
        recordings: list[int],
        attention_mask: Tensor | None = None,
        layout: Layout | None = None,
    ) -> Tensor:
        """Mean loss () of the tokens of answers.

        Args:
            input_ids: (1, M) examples end to end; without packing (B, L), padded on the right.
            clips: waveforms (N_i,), one an example.
            places: (n,) in the flattened rows, of tokens whose successor carries loss.
            targets: (n,) those successors.
            noise: seed of the dropout.
            recordings: number of each clip's file.
            attention_mask: (B, L), 1 = token; without packing only.
            layout: of the packed examples.
        """
        network = self.network
        with _seeded(noise, input_ids.device):
            embeddings = network.place(input_ids, self._audio_tokens(clips, recordings))
            if layout is None:
                hidden = network.decode(embeddings, attention_mask)
            else:
                hidden = network.decoder.decode_packed(embeddings, layout)
            wanted = hidden.flatten(0, 1)[places]
            return chunked_loss(network.decoder.lm_head, wanted, targets, self.settings.loss_chunk)

    def _audio_tokens(self, clips: list[Tensor], recordings: list[int]) -> list[Tensor]:
        """Audio tokens (n_i, H) of clips."""
        network, is_frozen = self.network, self.settings.encoder == "frozen"
        padded = [network.pad(clip) for clip in clips]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not is_frozen):
            if is_frozen and self.settings.remember_mb:
                frames = [self._frames(*pair) for pair in zip(padded, recordings, strict=True)]
            else:
                frames = network.audio_encoder.encode(padded)
        return network.audio_projector(frames)

    def _frames(self, clip: Tensor, recording: int) -> Tensor:
        """Frames (P, D) of a clip, cached; encoded alone, so that they are the same to the bit whenever computed."""
        found = self._frame_cache.get(recording)
        if found is None:
            (found,) = self.network.audio_encoder.encode([clip])
            if self._room >= found.nbytes:
                self._frame_cache[recording] = found
                self._room -= found.nbytes
        return found

    def make_batch(self, step: int, start: int, stop: int) -> Batch:
        """Examples ``start … stop`` of the batch of ``step``."""
        sampled = self.sources.batch(step, self.config.batch_size, self.settings.bucket)
        examples = [self._example(int(sampled[i][0]), int(sampled[i][1]), step, i) for i in range(start, stop)]
        noise = int(np.random.SeedSequence((self.config.seed, step, start)).generate_state(1)[0])
        inputs = {
            **lay(examples, packed=self.settings.packing),
            "noise": noise,
            "recordings": [example.recording for example in examples],
        }
        seconds = sum(len(example.waveform) for example in examples) / SAMPLE_RATE
        return Batch(inputs, sum(len(example.targets) for example in examples), seconds)

    def _example(self, source: int, number: int, step: int, place: int) -> Example:
        """A row; one whose audio fails only now is left out, and another of its source takes its place."""
        rows = self.sources.rows[source]
        rng = np.random.default_rng((self.config.seed, step, place))
        for _ in range(_TRIES):
            row = rows[number]
            try:
                return self._read(row)
            except AuricleError as error:
                self._leave_out(row, str(error))
            number = int(rng.integers(len(rows)))
        raise DataError(f"{_TRIES} rows of {self.settings.train[source]} in a row failed, the last: {row.where}")

    def _read(self, row: Row) -> Example:
        clip = as_clip(row.audio)
        if len(clip.waveform) > self.settings.max_audio_s * SAMPLE_RATE:
            raise DataError(f"{row.audio}: lasts longer than its header states and than sft.max_audio_s")
        example = self.writer.example(row, clip)._replace(recording=self.sources.recordings[row.audio])
        context = self.network.decoder.config.max_position_embeddings
        if len(example.ids) > context:
            raise DataError(f"{row.where}: {len(example.ids)} tokens, the model's context holds {context}")
        return example

    def _leave_out(self, row: Row, reason: str) -> None:
        with self._lock:
            self.sources.leave_out(row, reason)
            if self._skip_file is not None:
                _write_skipped(self._skip_file, self.sources)

    def prepare_output(self, out: Path) -> None:
        """Name what is left out, in ``skipped.jsonl``."""
        self._skip_file = out / "skipped.jsonl"
        _write_skipped(self._skip_file, self.sources)

    def log_values(self) -> dict[str, float]:
        """How many rows were left out so far, if any."""
        count = sum(self.sources.skipped.values())
        return {"skipped": count} if count else {}

    def lr_scale(self, name: str) -> float:
        """``encoder_lr_scale`` and ``projector_lr_scale`` of these parts."""
        settings = self.settings
        scales = {"audio_encoder": settings.encoder_lr_scale, "audio_projector": settings.projector_lr_scale}
        return scales.get(name.split(".")[1], 1.0)

    def provenance(self) -> dict[str, str]:
        """Of the manifests, and of the starting model where that was computed."""
        model = self.loaded.identity["sha256"]
        return {"data": self.sources.manifest_hash, **({"model": str(model)} if model else {})}

    def export(self, folder: Path) -> None:
        """The model, updates merged, in the official layout; beside it, in ``adapter``, the updates in PEFT's."""
        card = run_card(self.config, self.sources.manifest_hash)
        card = replace(card, config={**card.config, "left_out": sum(self.sources.skipped.values())})
        model = self.network
        if self.adapted:
            adapter = self.write_adapter(folder.with_name("adapter"))
            model = load_midashenglm(self.settings.init, dtype="float32", adapter=adapter).model
        stored = self.loaded
        save_midashenglm(
            folder,
            model,
            stored.tokenizer.to_str(pretty=True),
            stored.chat_template,
            card=card,
            generation={
                "do_sample": False,
                "eos_token_id": list(stored.eos_token_ids),
                "pad_token_id": stored.pad_token_id,
                MAX_AUDIO_KEY: self.settings.max_audio_s,
            },
            audio_tokens=stored.audio_tokens,
        )

    def write_adapter(self, folder: Path) -> Path:
        """The updates, and the parts that learned as a whole, as a PEFT adapter of ``sft.init``."""
        settings = self.settings
        saved = [part for name, part in PARTS.items() if getattr(settings, name) == "full"]
        whole = {
            name: value
            for name, value in (midashenglm_to_hub(self.network) if saved else {}).items()
            if name.split(".")[0] in saved
        }
        return write_adapter(
            folder,
            {name: (low.detach(), high.detach()) for name, (low, high) in lora.updates(self.network).items()},
            whole,
            alpha=settings.alpha,
            dropout=settings.dropout,
            base="/".join(Path(settings.init).parts[-2:]),
            modules_to_save=saved,
        )


def choose(network: MiDashengLM, settings: SftSettings) -> list[str]:
    """Freeze a model but for what is to learn, in place; names of the layers that got updates.

    Raises:
        ConfigError: a target that the decoder does not have.
    """
    network.requires_grad_(False)
    for name, part in PARTS.items():
        how = getattr(settings, name)
        module = network.get_submodule(part)
        if how == "full":
            module.requires_grad_(True).float()
        elif how == "lora":
            targets = settings.targets if name == "decoder" else [lora.ALL_LINEAR]
            place = network.audio_encoder.blocks if name == "encoder" else module
            lora.adapt(place, targets, rank=settings.rank, alpha=settings.alpha, dropout=settings.dropout)
    if network.audio_encoder.outputlayer is not None:  # tags, which are not used
        network.audio_encoder.outputlayer.requires_grad_(False)
    return list(lora.updates(network))


@contextmanager
def _seeded(noise: int, device: torch.device) -> Iterator[None]:
    """Random numbers that depend on the batch alone: dropout is the same however a run was interrupted."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(noise)
        yield


def _write_skipped(file: Path, sources: Sources) -> None:
    lines = [
        json.dumps({"row": where, "reason": reason}, ensure_ascii=False, allow_nan=False)
        for where, reason in sources.reports
    ]
    write_text(file, "".join(line + "\n" for line in lines))
