"""The audio language models of `transformers` that need no code of their checkpoints, with the limits of each.

What a class does with a long clip was read in transformers 5.24.0: some processors cut it without a word. `cut` says
where the limit is found; longer clips are windowed before the processor sees them, and the number of audio tokens is
checked behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from auricle.errors import WeightsError
from auricle.listen.capabilities import VERBS, Capabilities

Cut: TypeAlias = Literal["chunk", "max_audio_len", "none"] | float
_ROOM = 0.75  # share of the context that audio may take, where nothing else limits it
_TRANSCRIPT_FORM: Mapping[str, Any] = {"return_format": "transcription_only"}


@dataclass(frozen=True, kw_only=True, slots=True)
class StockClass:
    """One class of models."""

    title: str
    model: str  # name of the class in transformers
    processor: str
    tokens_per_s: float | None  # audio tokens; None: the same number for clips of any length
    # Where clips are cut: at the `chunk_length` of the feature extractor, at the `max_audio_len` of the processor, at
    # a number of seconds, or nowhere.
    cut: Cut
    several_clips: bool = True
    transcribes_alone: bool = False  # it takes no prompt
    has_transcription_prompt: bool = False  # the processor writes the prompt of transcripts itself
    speaks_language: bool = False  # that prompt may name the language
    transcript_form: Mapping[str, Any] | None = field(default=None, hash=False)  # of the processor's `decode`
    has_vision: bool = False  # the processor is built without its image and video parts
    is_tested: bool = True  # whether a model of random weights is run in the tests
    limit_s: float = 600.0  # longest clip where the files say nothing, for the list of models

    def capabilities(self, max_audio_s: float, sample_rate: int = 16_000) -> Capabilities:
        """What a model of this class can be asked for."""
        return Capabilities(
            verbs=("transcribe",) if self.transcribes_alone else VERBS,
            max_audio_s=max_audio_s,
            sample_rate=sample_rate,
            token_logprobs=not self.transcribes_alone,
            system_turns=not self.transcribes_alone,
            several_clips=self.several_clips,
        )

    def longest_s(self, processor: Any, context: int | None) -> float:
        """The longest clip that the processor of a model takes whole, s.

        Args:
            processor: of the model.
            context: tokens that the decoder can read; None: not stated.

        Raises:
            WeightsError: the processor does not state its limit.
        """
        limits = [float(self.cut)] if isinstance(self.cut, int | float) else []
        if self.cut in ("chunk", "max_audio_len"):
            holder, name = {"chunk": ("feature_extractor", "chunk_length")}.get(str(self.cut), ("", "max_audio_len"))
            found = getattr(getattr(processor, holder) if holder else processor, name, None)
            if not isinstance(found, int | float) or found < 1:
                raise WeightsError(f"{self.title}: its processor states {name} {found!r}; expected seconds")
            limits.append(float(found))
        if context and self.tokens_per_s:
            limits.append(_ROOM * context / self.tokens_per_s)
        return min(limits, default=self.limit_s)


_QWEN_OMNI: dict[str, Any] = {
    "title": "Qwen2.5-Omni",
    "model": "Qwen2_5OmniThinkerForConditionalGeneration",
    "processor": "Qwen2_5OmniProcessor",
    "tokens_per_s": 25.0,
    "cut": "chunk",
    "has_vision": True,
    "limit_s": 300.0,  # the chunk_length of the published extractor, which nobody has read here
}
_QWEN3_OMNI: dict[str, Any] = {
    "title": "Qwen3-Omni",
    "model": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "processor": "Qwen3OmniMoeProcessor",
    "tokens_per_s": 13.0,
    "cut": "none",
    "has_vision": True,
    "limit_s": 3600.0,
}

# By model_type of config.json.
STOCK_CLASSES: Mapping[str, StockClass] = {
    "qwen2_audio": StockClass(
        title="Qwen2-Audio",
        model="Qwen2AudioForConditionalGeneration",
        processor="Qwen2AudioProcessor",
        tokens_per_s=25.0,
        cut="chunk",  # without a word
        limit_s=30.0,
    ),
    "qwen2_5_omni": StockClass(**_QWEN_OMNI),
    "qwen2_5_omni_thinker": StockClass(**_QWEN_OMNI),
    "qwen3_omni_moe": StockClass(**_QWEN3_OMNI),
    "qwen3_omni_moe_thinker": StockClass(**_QWEN3_OMNI),
    "qwen3_asr": StockClass(
        title="Qwen3-ASR",
        model="Qwen3ASRForConditionalGeneration",
        processor="Qwen3ASRProcessor",
        tokens_per_s=13.0,
        cut="none",
        several_clips=False,
        transcribes_alone=True,
        has_transcription_prompt=True,
        speaks_language=True,
        transcript_form=_TRANSCRIPT_FORM,
        limit_s=1200.0,
    ),
    "audioflamingo3": StockClass(
        title="Audio Flamingo 3",
        model="AudioFlamingo3ForConditionalGeneration",
        processor="AudioFlamingo3Processor",
        tokens_per_s=25.0,
        cut="max_audio_len",  # with a line in the log
        several_clips=False,
        has_transcription_prompt=True,
        limit_s=600.0,
    ),
    "musicflamingo": StockClass(
        title="Music Flamingo",
        model="MusicFlamingoForConditionalGeneration",
        processor="MusicFlamingoProcessor",
        tokens_per_s=25.0,
        cut="max_audio_len",
        several_clips=False,
        limit_s=1200.0,
    ),
    "glmasr": StockClass(
        title="GLM-ASR",
        model="GlmAsrForConditionalGeneration",
        processor="GlmAsrProcessor",
        tokens_per_s=12.5,
        cut="max_audio_len",
        several_clips=False,
        has_transcription_prompt=True,
        limit_s=655.0,
    ),
    "granite_speech": StockClass(
        title="Granite Speech",
        is_tested=False,  # its feature extractor needs torchaudio, which transformers asks for
        model="GraniteSpeechForConditionalGeneration",
        processor="GraniteSpeechProcessor",
        tokens_per_s=10.0,
        cut="none",
        several_clips=False,
        limit_s=600.0,
    ),
    "gemma3n": StockClass(
        title="Gemma 3n",
        is_tested=False,
        model="Gemma3nForConditionalGeneration",
        processor="Gemma3nProcessor",
        tokens_per_s=None,
        cut=29.9,  # 2997 frames; the rest is cut without a word
        limit_s=29.9,
    ),
    "phi4_multimodal": StockClass(
        title="Phi-4-multimodal",
        is_tested=False,
        model="Phi4MultimodalForCausalLM",
        processor="Phi4MultimodalProcessor",
        tokens_per_s=12.5,
        cut="none",
        limit_s=600.0,
    ),
}
