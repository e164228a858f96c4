"""Serving through vLLM: what our model class there needs to know, in functions that need no vLLM.

The entry point ``vllm.general_plugins`` calls `register` in every process of vLLM, which then takes
`auricle.engine.vllm_model.AuricleLM` for folders whose ``config.json`` names `ARCHITECTURE`, in place of its own class.
What ours does otherwise: clips are encoded packed and unpadded in float32 waveforms, so a clip's tokens depend on the
clip alone; the folder needs no remote code; LoRA adapters of the decoder and ``/v1/audio/transcriptions`` work; and
memory is measured with clips of two minutes instead of ten seconds.

Written against the interfaces of vLLM 0.33. It has not run there: only this file's functions and, with stand-ins for
vLLM, the class's own steps are tested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import LayoutMismatch, PromptError
from auricle.models.midashenglm import audio_token_count, padded_length

if TYPE_CHECKING:
    from auricle.models.dasheng import Dasheng, DashengConfig
    from auricle.models.midashenglm import AudioProjector

ARCHITECTURE = "MiDashengLMModel"  # of every published config.json and of ours
MODEL_CLASS = "auricle.engine.vllm_model:AuricleLM"
PLACEHOLDER = "<|audio_bos|><|AUDIO|><|audio_eos|>"  # of one clip in a prompt; the second is repeated for each token
MAX_AUDIO_S = 120.0  # of one clip; memory is reserved for it. Training saw 30 s at most (arXiv 2508.03983)
TRANSCRIPTION_S = 30  # vLLM cuts longer recordings at quiet places
_TEXT_TOKENS = 64  # of a context that audio leaves free
# Languages of MiDashengLM's speech data with a share of their own (arXiv 2508.03983, fig. 6), by ISO 639-1 code.
LANGUAGES = {
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "id": "Indonesian",
    "ko": "Korean",
    "pt": "Portuguese",
    "th": "Thai",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
# A word between <| and |> may be a control token of the decoder, which a request must not bring along.
_CONTROL = re.compile(r"<\|[^|<>]*\|>")
_AUDIO_TOWER = ("audio_encoder.", "audio_projector.")
_DECODER = "decoder."


class PromptRules(NamedTuple):
    """What decides how many audio tokens a clip has in a prompt."""

    audio_token_id: int
    subsample_factor: int = 5
    whole_tokens: bool = False


def register() -> None:
    """Let vLLM know our class; called by vLLM, any number of times."""
    from vllm import ModelRegistry  # type: ignore[import-not-found]

    # By name: imported in this process, torch could touch CUDA before vLLM forks.
    ModelRegistry.register_model(ARCHITECTURE, MODEL_CLASS)


def prompt_rules_of(config: Any) -> PromptRules:
    """The rules in a ``config.json`` as vLLM holds it, an object with attributes."""
    ours = getattr(config, "auricle", None) or {}
    return PromptRules(int(config.audio_token_id), int(config.subsample_factor), bool(ours.get("whole_tokens", False)))


class AudioGeometry(NamedTuple):
    """Encoder and projector; the decoder is vLLM's."""

    encoder: DashengConfig
    audio_token_id: int
    subsample_factor: int
    whole_tokens: bool


def geometry_of(config: Any) -> AudioGeometry:
    """The geometry of encoder and projector from a ``config.json`` as vLLM holds it.

    Raises:
        ConfigError: an impossible geometry.
    """
    from auricle.models.dasheng import DashengConfig

    stated, rules = config.audio_encoder_config, prompt_rules_of(config)
    encoder = DashengConfig(
        embed_dim=stated.embed_dim,
        depth=stated.depth,
        num_heads=stated.num_heads,
        mlp_ratio=stated.mlp_ratio,
        qkv_bias=stated.qkv_bias,
        init_values=stated.init_values,
        target_length=stated.target_length,
        attend="whole",
    )
    return AudioGeometry(encoder, *rules)


def rope_of(settings: Mapping[str, Any] | None, source: str) -> dict[str, Any]:
    """Rotary positions of a stored ``config.json`` in transformers' form; vLLM's own configuration class loses them.

    Raises:
        LayoutMismatch: no such file, or a decoder that is no plain Qwen2.
    """
    from auricle.weights.lm_layouts import text_settings

    if settings is None:
        raise LayoutMismatch(f"{source}: config.json cannot be read; check the folder, or download the model again")
    return {"rope_type": "default", "rope_theta": text_settings(settings.get("text_config"), source)["rope_theta"]}


def build_audio_tower(config: AudioGeometry, hidden_size: int, dtype: torch.dtype) -> tuple[Dasheng, AudioProjector]:
    """Encoder and projector in evaluation mode, of ``dtype`` save what stays float32, on the default device."""
    from auricle.models.dasheng import Dasheng
    from auricle.models.midashenglm import AudioProjector

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # vLLM builds in the model's type, which would round window and filters
    try:
        encoder = Dasheng(config.encoder)
        projector = AudioProjector(config.encoder.embed_dim, hidden_size, config.subsample_factor)
        encoder.to(dtype).init_bn.float()
        projector.to(dtype)
    finally:
        torch.set_default_dtype(before)
    return encoder.eval().requires_grad_(False), projector.eval().requires_grad_(False)


def prepare_clip(audio: Any, rules: PromptRules) -> Tensor:
    """One clip (N,) or (N, 1) of 16 kHz samples, any real type → float32 (N',) padded as the model expects it.

    Raises:
        PromptError: no samples, or several channels.
    """
    samples = np.squeeze(np.asarray(audio, dtype=np.float32))
    samples = samples[None] if samples.ndim == 0 else samples
    if samples.ndim != 1 or not samples.size:
        raise PromptError(f"audio of shape {np.shape(audio)}; expected one channel of at least one sample at 16 kHz")
    length = padded_length(samples.size, rules.subsample_factor, whole_tokens=rules.whole_tokens)
    return torch.from_numpy(np.pad(samples, (0, length - samples.size)))


def placeholders(num_samples: int, rules: PromptRules) -> list[int]:
    """Token ids that stand for a clip of ``num_samples`` samples in a prompt."""
    count = audio_token_count(num_samples, rules.subsample_factor, whole_tokens=rules.whole_tokens)
    return [rules.audio_token_id] * count


def max_audio_samples(context: int, rules: PromptRules) -> int:
    """Samples of the longest clip: `MAX_AUDIO_S`, or what a context of so many tokens holds beside some text.

    Raises:
        PromptError: the context holds no audio.
    """
    room = context - _TEXT_TOKENS
    if room < 1:
        raise PromptError(f"a context of {context} tokens has no room for audio; expected more than {_TEXT_TOKENS}")
    samples_per_token = SAMPLE_RATE // 25 * rules.subsample_factor
    return min(int(MAX_AUDIO_S * SAMPLE_RATE), room * samples_per_token)


def transcription_text(
    language: str | None = None, *, task: str = "transcribe", to_language: str | None = None, hint: str = ""
) -> str:
    """The question behind a transcription or translation request.

    Args:
        language: ISO 639-1 code of what is spoken; None: unknown.
        task: ``transcribe`` or ``translate``.
        to_language: ISO 639-1 code to translate into; English by default.
        hint: words of the request; control tokens in it are taken out.

    Raises:
        PromptError: another task.

    Source: the prompts of MiDashengLM's published evaluation; the one for translation is ours.
    """
    if task == "transcribe":
        text = "Transcribe the speech into text" + (f" <|{language}|>" if language else "")
    elif task == "translate":
        into = LANGUAGES.get(to_language or "en", to_language)
        text = f"Translate the speech into {into} text"
    else:
        raise PromptError(f"unknown task {task!r}; expected transcribe or translate")
    hint = _without_controls(hint)
    return f"{text}\n{hint}" if hint else text


def transcription_prompt(question: str, placeholder: str = PLACEHOLDER) -> str:
    """A question (of `transcription_text`) about one clip in the authors' format, audio first as in training."""
    return f"<|im_start|>user\n{placeholder}{question}<|im_end|>\n<|im_start|>assistant\n"


def to_clips(input_values: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Waveforms as vLLM hands them over, stacked (n, N) where equally long, else a list → clips (N_i,) float32."""
    return [clip.reshape(-1).float() for clip in input_values]


@torch.inference_mode()
def embed_clips(encoder: Dasheng, projector: AudioProjector, clips: Sequence[Tensor]) -> list[Tensor]:
    """Prepared clips (N_i,) → audio tokens (n_i, H), packed: each clip as if it were alone."""
    return projector(encoder.encode(clips)) if clips else []


def audio_tower_name(name: str) -> str | None:
    """Name of a checkpoint's tensor in `Dasheng` and `AudioProjector`; None for those that are computed, not loaded."""
    if name.startswith(("audio_encoder.front_end.", "audio_encoder.outputlayer.")):
        return None
    return re.sub(r"^audio_encoder\.init_bn\.1\.", "audio_encoder.init_bn.", name)


class Weights:
    """A checkpoint's tensors: the decoder's are passed on one by one, those of encoder and projector are kept."""

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """``tensors``: names as stored, and values."""
        self._tensors = tensors
        self.audio_tower: dict[str, Tensor] = {}

    def decoder(self) -> Iterator[tuple[str, Tensor]]:
        """Names without ``decoder.``; all must be taken before `audio_tower` is whole.

        Raises:
            LayoutMismatch: a tensor that belongs to neither, or rows of int8, which only our own reader knows.
        """
        from auricle.weights.compressed import ROW_SCALE

        for name, tensor in self._tensors:
            if name.endswith(ROW_SCALE):
                raise LayoutMismatch(f"{name}: rows of int8; write the folder again: auricle convert --dtype bfloat16")
            if name.startswith(_DECODER):
                yield name.removeprefix(_DECODER), tensor
            elif not name.startswith(_AUDIO_TOWER):
                raise LayoutMismatch(
                    f"{name} belongs to none of {', '.join((*_AUDIO_TOWER, _DECODER))}: another model's weights"
                )
            elif (ours := audio_tower_name(name)) is not None:
                self.audio_tower[ours] = tensor


def fill_audio_tower(encoder: Dasheng, projector: AudioProjector, tensors: Mapping[str, Tensor]) -> set[str]:
    """Copy tensors into encoder and projector, biases included; returns the names that were filled.

    Raises:
        LayoutMismatch: names or shapes that do not fit.
    """
    filled: set[str] = set()
    for prefix, module in zip(_AUDIO_TOWER, (encoder, projector), strict=True):
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        # A counter of training batches, which some exporters leave out.
        expected = {key for key in module.state_dict() if not key.endswith("num_batches_tracked")}
        if missing := sorted(expected - own.keys()):
            raise LayoutMismatch(
                f"{prefix}{missing[0]} is missing, with {len(missing) - 1} more; download the model again"
            )
        try:
            unknown = module.load_state_dict(own, strict=False).unexpected_keys
        except RuntimeError as error:
            raise LayoutMismatch(
                f"{prefix}*: {str(error).splitlines()[-1].strip()}; is config.json this model's?"
            ) from None
        if unknown:
            raise LayoutMismatch(f"{prefix}{unknown[0]} is unknown; this checkpoint is another model's, or quantised")
        filled |= {prefix + key for key in own}
    return filled


def _without_controls(text: str) -> str:
    """Text without anything between <| and |>, however it is nested."""
    while _CONTROL.search(text):
        text = _CONTROL.sub("", text)
    return text.strip()
