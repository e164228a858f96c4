"""The model class that vLLM runs; imported by vLLM alone, see `auricle.engine.vllm_plugin`."""

# vLLM is never installed where this is checked: its names are unknown to the type checker.
# mypy: disable-error-code="import-not-found, misc, no-untyped-call"

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import BatchFeature
from vllm.config import SpeechToTextConfig
from vllm.inputs import TokensPrompt
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP, SupportsTranscription
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import MultiModalDataParser
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdateDetails,
)
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.transformers_utils.repo_utils import get_hf_file_to_dict

from auricle.audio.resample import SAMPLE_RATE
from auricle.engine import vllm_plugin as plain


class AuricleProcessingInfo(BaseProcessingInfo):
    """Limits and lengths."""

    def get_data_parser(self) -> Any:
        """Any rate becomes 16 kHz, any channels one."""
        return MultiModalDataParser(
            target_sr=SAMPLE_RATE, target_channels=1, expected_hidden_size=self._get_expected_hidden_size()
        )

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Any number of clips."""
        return {"audio": None}

    def get_supported_mm_processor_kwargs(self) -> dict[str, set[str]]:
        """None: there is no processor to set."""
        return {"text_kwargs": set(), "audio_kwargs": set()}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """Audio tokens of the longest clip."""
        return {"audio": len(plain.placeholders(self.max_samples(), self.rules()))}

    def rules(self) -> plain.PromptRules:
        """What decides the lengths of prompts."""
        return plain.prompt_rules_of(self.get_hf_config())

    def max_samples(self) -> int:
        """Samples of the longest clip."""
        return plain.max_audio_samples(self.ctx.model_config.max_model_len, self.rules())


class AuricleDummyInputs(BaseDummyInputsBuilder):
    """Prompts to measure memory with."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """A placeholder for each clip."""
        return plain.PLACEHOLDER * mm_counts.get("audio", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]) -> Any:
        """Clips of the greatest length."""
        count = mm_counts.get("audio", 0)
        samples = self.info.max_samples()
        return {"audio": self._get_dummy_audios(length=samples, num_audios=count, overrides=mm_options.get("audio"))}


class AuricleProcessor(BaseMultiModalProcessor):
    """Clips → tensors, placeholders → as many as a clip has audio tokens; no processor of transformers takes part."""

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]) -> Any:
        # Waveforms stay float32: vLLM's way through transformers would cast them to the model's type.
        rules = self.info.rules()
        clips = [plain.prepare_clip(audio, rules) for audio in hf_data["audio"]]
        return BatchFeature({"input_values": clips, "audio_length": torch.tensor([len(clip) for clip in clips])})

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Mapping[str, Any]:
        return {name: MultiModalFieldConfig.batched("audio") for name in ("input_values", "audio_length")}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[Any]:
        rules = self.info.rules()
        lengths = out_mm_kwargs.get_data().get("audio_length", ())

        def replacement(index: int) -> Any:
            ids = plain.placeholders(int(lengths[index]), rules)
            return PromptUpdateDetails.select_token_id(ids, embed_token_id=rules.audio_token_id)

        return [PromptReplacement(modality="audio", target=[rules.audio_token_id], replacement=replacement)]


@MULTIMODAL_REGISTRY.register_processor(AuricleProcessor, info=AuricleProcessingInfo, dummy_inputs=AuricleDummyInputs)
class AuricleLM(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP, SupportsTranscription):
    """Our encoder and projector, whole on every rank, before vLLM's Qwen2."""

    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    supported_languages = plain.LANGUAGES
    _mark_tower_model: Any  # vLLM's
    _mark_language_model: Any

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """Build; vLLM loads the weights afterwards."""
        super().__init__()
        described = vllm_config.model_config
        self.config = described.hf_config
        text = self.config.text_config
        stored = get_hf_file_to_dict("config.json", described.model, described.revision)
        text.rope_parameters = plain.rope_of(stored, described.model)
        with self._mark_tower_model(vllm_config, "audio"):
            self.audio_encoder, self.audio_projector = plain.build_audio_tower(
                plain.geometry_of(self.config), text.hidden_size, described.dtype
            )
        with self._mark_language_model(vllm_config):
            self.decoder: Any = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=text,
                prefix=maybe_prefix(prefix, "decoder"),
                architectures=["Qwen3ForCausalLM" if text.model_type == "qwen3" else "Qwen2ForCausalLM"],
            )
        self.make_empty_intermediate_tensors = self.decoder.make_empty_intermediate_tensors

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """What stands for a clip in a chat message."""
        if modality.startswith("audio"):
            return plain.PLACEHOLDER
        raise ValueError(f"{modality} is not supported; expected audio")

    def get_mm_mapping(self) -> Any:
        """Which part is which; adapters are for the language model."""
        return MultiModelKeys.from_string_field(
            language_model="decoder", connector="audio_projector", tower_model="audio_encoder"
        )

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Clips → audio tokens."""
        values = kwargs.get("input_values")
        if values is None:
            return []
        device = next(self.audio_projector.parameters()).device
        clips = [clip.to(device) for clip in plain.to_clips(values)]
        return tuple(plain.embed_clips(self.audio_encoder, self.audio_projector, clips))

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: object,
    ) -> Any:
        """One step of the decoder."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.decoder.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Hidden states → logits."""
        return self.decoder.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Tensors of an official folder → this model; returns the names that were filled."""
        passing = plain.Weights(weights)
        filled = {f"decoder.{name}" for name in self.decoder.load_weights(passing.decoder())}
        return filled | plain.fill_audio_tower(self.audio_encoder, self.audio_projector, passing.audio_tower)

    @classmethod
    def get_speech_to_text_config(cls, model_config: Any, task_type: str) -> Any:
        """How recordings are cut."""
        return SpeechToTextConfig(max_audio_clip_s=plain.TRANSCRIPTION_S, sample_rate=SAMPLE_RATE)

    @classmethod
    def get_num_audio_tokens(cls, audio_duration_s: float, stt_config: Any, model_config: Any) -> int | None:
        """Audio tokens of a recording."""
        samples = max(1, int(audio_duration_s * SAMPLE_RATE))
        return len(plain.placeholders(samples, plain.prompt_rules_of(model_config.hf_config)))

    @classmethod
    def get_generation_prompt(cls, stt_params: Any) -> Any:
        """A transcription or translation request → a prompt with its audio."""
        text = plain.transcription_text(
            stt_params.language,
            task=stt_params.task_type,
            to_language=stt_params.to_language,
            hint=stt_params.request_prompt,
        )
        tokenizer = cached_tokenizer_from_config(stt_params.model_config)
        ids = tokenizer.encode(plain.transcription_prompt(text), add_special_tokens=False)
        return TokensPrompt(prompt_token_ids=ids, multi_modal_data={"audio": stt_params.audio})
