"""Objective ``caption``: answer prompts about scenes, end to end (MiDashengLM, stage 1).

Every example is a scene mixed on the fly from packed clips, a prompt about it and the answer its facts give.
"""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.data.scenes import Pools, make_scene
from auricle.data.wording import example
from auricle.errors import ConfigError
from auricle.files import read_regular
from auricle.models.dasheng import DashengConfig, to_patches
from auricle.models.mae import PATCH_VALUES
from auricle.models.midashenglm import IGNORE, MiDashengLM, MiDashengLMConfig, audio_token_count
from auricle.models.qwen import QwenConfig
from auricle.train import facts
from auricle.train.config import CaptionSettings, RunConfig
from auricle.train.objective import Batch, Objective, open_clips, run_card
from auricle.train.pairs import scene_config
from auricle.train.teacher import Taught, TeacherHead, load_teacher
from auricle.weights import load_dasheng, load_midashenglm, safe, save_midashenglm
from auricle.weights.cards import MAX_AUDIO_KEY
from auricle.weights.processor import PromptWriter
from auricle.weights.text_tokenizers import MAX_TOKENIZER_BYTES, open_tokenizer

# Qwen's turns; the audio is where the message puts it.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class CaptionObjective(Objective):
    """Encoder, projector and decoder trained together; loss on the answer and its end of turn alone."""

    network: MiDashengLM

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        self.clips = open_clips(config)
        self.scenes = scene_config(config.scenes)
        self.pools = Pools(self.clips, self.scenes.set_weights, self.scenes.event_weights)
        if not Path(config.caption.tokenizer).is_file():
            raise ConfigError(f"caption.tokenizer {config.caption.tokenizer!r} is no file; expected a tokenizer.json")
        content = read_regular(config.caption.tokenizer, MAX_TOKENIZER_BYTES)
        self.tokenizer = open_tokenizer(content, config.caption.tokenizer)
        audio_token = self._id("<|AUDIO|>")
        self.end_of_turn = self._id("<|im_end|>")
        self.network = _build(config.caption, self.tokenizer.get_vocab_size(), audio_token)
        self.writer = PromptWriter(
            self.tokenizer,
            CHAT_TEMPLATE,
            audio_token_id=audio_token,
            subsample_factor=self.network.config.subsample_factor,
            whole_tokens=self.network.config.whole_tokens,
        )
        width = self.network.config.encoder.embed_dim
        self.heads: facts.FactHeads | None = None
        if config.caption.ctc_weight or config.caption.tag_weight:
            self.heads = facts.FactHeads(width, facts.tag_weights(self.pools.labels))
        self.rebuild = nn.Linear(width, PATCH_VALUES) if config.caption.rebuild_weight else None
        self.teach = load_teacher(config.caption.teacher).teach if config.caption.teacher else None
        self.teacher_head = TeacherHead(width) if config.caption.teacher else None

    def _id(self, token: str) -> int:
        number = self.tokenizer.token_to_id(token)
        if number is None:
            raise ConfigError(f"tokenizer {self.config.caption.tokenizer} lacks the token {token}")
        return int(number)

    def train(self, mode: bool = True) -> "CaptionObjective":
        """Training mode, with the batch-norm of the front end kept at its pre-trained statistics."""
        super().train(mode)
        self.network.audio_encoder.init_bn.eval()
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        clips: list[Tensor],
        blanks: list[Tensor],
        gains: list[Tensor],
        letters: list[Tensor],
        tags: Tensor,
        taught: list[list[Tensor]],
    ) -> Tensor:
        """Mean loss () of prompts with answers.

        Args:
            input_ids: (B, L) prompts and answers.
            attention_mask: (B, L), 1 = token.
            labels: (B, L), `IGNORE` outside the answers.
            clips: waveforms (N_i,).
            blanks: rectangles (k, 4) of each log-mel to blank.
            gains: (n_i, H) of the audio tokens, dropped ones 0; empty without dropout.
            letters: of the speech in each clip, (k_i,); see `auricle.train.facts`.
            tags: (B, K) of the scenes.
            taught: what the teacher found in each clip, as in `Taught`; empty without one.
        """
        settings = self.config.caption
        network = self.network
        encoder = network.audio_encoder
        padded = [network.pad(clip) for clip in clips]
        whole = encoder.mel(padded)
        mels = [_blank(mel, rectangles) for mel, rectangles in zip(whole, blanks, strict=True)]
        frames = encoder.encode_mels(mels, [len(clip) for clip in padded])[-1]
        tokens = network.audio_projector(frames)
        if gains and self.training:
            tokens = [token * gain for token, gain in zip(tokens, gains, strict=True)]
        hidden = network.decode(network.place(input_ids, tokens), attention_mask)
        loss = network.next_token_loss(hidden, labels)
        if self.heads is not None:
            letter_loss, tag_loss = self.heads(frames, letters, tags)
            loss = loss + settings.ctc_weight * letter_loss + settings.tag_weight * tag_loss
        if self.rebuild is not None:
            patches = torch.cat([to_patches(encoder.init_bn(mel[None]))[0] for mel in whole])
            loss = loss + settings.rebuild_weight * F.mse_loss(self.rebuild(torch.cat(frames)).float(), patches)
        if self.teacher_head is not None:
            loss = loss + settings.teacher_weight * self.teacher_head(frames, [Taught(*found) for found in taught])
        return loss

    def make_batch(self, step: int, start: int, stop: int) -> Batch:
        """Examples ``start … stop`` of the batch of ``step``."""
        rows, clips, blanks, gains, letters, tags = [], [], [], [], [], []
        for place in range(start, stop):
            rng = np.random.default_rng((self.config.seed, step, place))
            scene = make_scene(self.pools, rng, self.scenes)
            prompt, answer = example(scene, rng)
            content = [{"type": "audio", "audio": scene.waveform}, {"type": "text", "text": prompt}]
            written = self.writer.write([{"role": "user", "content": content}])
            reply = [*self.tokenizer.encode(answer, add_special_tokens=False).ids, self.end_of_turn]
            rows.append((written.input_ids, reply))
            clips.append(torch.from_numpy(scene.waveform))
            blanks.append(self._sample_blanks(len(scene.waveform), rng))
            letters.append(facts.letters(scene))
            tags.append(facts.tags(scene, self.pools.labels))
            if self.config.caption.dropout:
                gains.append(self._sample_gains(len(scene.waveform), rng))
        taught = self.teach(clips) if self.teach else []
        inputs = {
            **_pad_right(rows),
            "clips": clips,
            "blanks": blanks,
            "gains": gains,
            "letters": letters,
            "tags": torch.stack(tags),
            "taught": [list(found) for found in taught],
        }
        return Batch(inputs, sum(len(reply) for _, reply in rows), sum(map(len, clips)) / 16_000)

    def _sample_blanks(self, num_samples: int, rng: np.random.Generator) -> Tensor:
        """Rectangles (first frame, past frame, first band, past band) to blank: SpecAugment, arXiv 1904.08779."""
        frames = 1 + num_samples // 160
        settings = self.config.caption
        rectangles = []
        longest = min(int(100 * settings.time_mask_s), frames // 5)
        for _ in range(2 if longest else 0):
            width = int(rng.integers(longest + 1))
            start = int(rng.integers(frames - width + 1))
            rectangles.append((start, start + width, 0, 64))
        for _ in range(2 if settings.freq_mask else 0):
            width = int(rng.integers(settings.freq_mask + 1))
            low = int(rng.integers(64 - width + 1))
            rectangles.append((0, frames, low, low + width))
        return torch.tensor(rectangles, dtype=torch.long).reshape(-1, 4)

    def _sample_gains(self, num_samples: int, rng: np.random.Generator) -> Tensor:
        """Dropout of a clip's audio tokens, sampled here so that it depends on the example and not on the process."""
        share = self.config.caption.dropout
        model = self.network.config
        count = audio_token_count(num_samples, model.subsample_factor, whole_tokens=model.whole_tokens)
        shape = (count, self.network.decoder.config.hidden_size)
        return torch.from_numpy((rng.random(shape, dtype=np.float32) >= share) / np.float32(1.0 - share))

    def lr_scale(self, name: str) -> float:
        """``encoder_lr_scale`` of the encoder."""
        return self.config.caption.encoder_lr_scale if name.startswith("network.audio_encoder.") else 1.0

    def provenance(self) -> dict[str, str]:
        """Of the clips, the tokenizer and the teacher."""
        teacher = self.config.caption.teacher
        found = {"teacher": safe.sha256(teacher)} if teacher else {}
        found["tokenizer"] = sha256(self.tokenizer.to_str().encode()).hexdigest()
        return found | {"data": self.clips.manifest_hash}

    def export(self, folder: Path) -> None:
        """The model in the official MiDashengLM layout."""
        save_midashenglm(
            folder,
            self.network,
            self.tokenizer.to_str(),
            CHAT_TEMPLATE,
            card=run_card(self.config, self.clips.manifest_hash),
            generation={
                "do_sample": False,
                "eos_token_id": self.end_of_turn,
                "pad_token_id": self._id("<|endoftext|>"),
                MAX_AUDIO_KEY: self.scenes.max_s,
            },
        )


def _build(settings: CaptionSettings, vocabulary: int, audio_token: int) -> MiDashengLM:
    if settings.init:
        return load_midashenglm(settings.init, dtype="float32").model
    source = None
    geometry = DashengConfig(embed_dim=settings.embed_dim, depth=settings.depth, num_heads=settings.num_heads)
    if settings.encoder:
        source = load_dasheng(settings.encoder, dtype="float32")
        geometry = source.config
    text = QwenConfig(
        vocab_size=vocabulary,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_attention_heads,
        num_key_value_heads=settings.num_key_value_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rope_theta=10_000.0,
    )
    config = MiDashengLMConfig(
        encoder=replace(geometry, attend="whole"), text=text, audio_token_id=audio_token, whole_tokens=True
    )
    model = MiDashengLM(config)
    if source is not None:
        model.audio_encoder.load_state_dict(source.state_dict())
    return model


def _blank(mel: Tensor, rectangles: Tensor) -> Tensor:
    """Set rectangles of a log-mel (64, T) to its mean."""
    filled = mel.clone()
    mean = mel.mean()
    for start, stop, low, high in rectangles.tolist():
        filled[low:high, start:stop] = mean
    return filled


def _pad_right(rows: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
    """Prompt and reply ids of each row → ``input_ids``, ``attention_mask``, ``labels``, all (B, L)."""
    length = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORE)
    for row, (prompt, reply) in enumerate(rows):
        whole = torch.tensor([*prompt, *reply])
        ids[row, : len(whole)] = whole
        mask[row, : len(whole)] = 1
        labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
