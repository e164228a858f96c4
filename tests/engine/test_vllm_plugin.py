"""What vLLM gets to know about a model: lengths, prompts, names; and the class's own steps with stand-ins for vLLM."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from auricle.engine import vllm_plugin as plain
from auricle.engine.vllm_plugin import PromptRules
from auricle.errors import LayoutMismatch, PromptError
from auricle.models.midashenglm import audio_token_count
from auricle.weights import LoadedLM, load_midashenglm, safe

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "midashenglm" / "model"
RULES = PromptRules(551)


@pytest.fixture(scope="module")
def loaded() -> LoadedLM:
    return load_midashenglm(FOLDER)


@pytest.fixture(scope="module")
def config() -> Any:
    """config.json as vLLM holds it."""
    return as_object(json.loads((FOLDER / "config.json").read_text()))


def as_object(content: dict[str, Any], plain_keys: tuple[str, ...] = ("auricle",)) -> Any:
    made = {k: as_object(v) if isinstance(v, dict) and k not in plain_keys else v for k, v in content.items()}
    return SimpleNamespace(**made)


def filled_audio_tower(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    encoder, projector = plain.build_audio_tower(plain.geometry_of(config), config.text_config.hidden_size, dtype)
    passing = plain.Weights(safe.read_tensors(FOLDER).items())
    list(passing.decoder())
    return encoder, projector, plain.fill_audio_tower(encoder, projector, passing.audio_tower)


@given(samples=st.integers(1, 2_000_000), factor=st.integers(1, 8), whole=st.booleans())
def test_as_many_placeholders_as_the_prepared_clip_has_tokens(samples: int, factor: int, whole: bool) -> None:
    rules = PromptRules(7, factor, whole)
    count = audio_token_count(samples, factor, whole_tokens=whole)
    assert plain.placeholders(samples, rules) == [7] * count
    padded = len(plain.prepare_clip(np.zeros(samples, np.int8), rules))
    assert padded >= max(samples, 3200) and plain.placeholders(padded, rules) == [7] * count


@pytest.mark.parametrize("shape", [(5000,), (5000, 1), (1, 5000)])
def test_clips_are_one_channel_of_float32(shape: tuple[int, ...]) -> None:
    audio = np.linspace(-1, 1, 5000).reshape(shape)
    clip = plain.prepare_clip(audio, RULES)
    assert clip.dtype == torch.float32 and torch.equal(clip, torch.from_numpy(audio.ravel()).float())
    short = plain.prepare_clip(audio.ravel()[:100], RULES)
    assert len(short) == 3200 and not short[100:].any()


@pytest.mark.parametrize("audio", [np.zeros((2, 500)), np.zeros(0)])
def test_other_audio_is_refused(audio: np.ndarray) -> None:
    with pytest.raises(PromptError, match="expected one channel"):
        plain.prepare_clip(audio, RULES)


@given(context=st.integers(65, 40_000), factor=st.integers(1, 8))
def test_the_longest_clip_fits_the_context(context: int, factor: int) -> None:
    rules = PromptRules(7, factor)
    samples = plain.max_audio_samples(context, rules)
    assert 640 * factor <= samples <= 120 * 16_000
    assert len(plain.placeholders(samples, rules)) + 64 <= max(context, 64 + len(plain.placeholders(1, rules)))


def test_the_longest_clip_of_the_release_is_two_minutes() -> None:
    assert plain.max_audio_samples(32_768, RULES) == 1_920_000
    assert len(plain.placeholders(1_920_000, RULES)) == 600
    with pytest.raises(PromptError, match="has no room for audio"):
        plain.max_audio_samples(64, RULES)


def test_prompts_of_requests() -> None:
    assert plain.transcription_text("en") == "Transcribe the speech into text <|en|>"
    assert plain.transcription_text() == "Transcribe the speech into text"
    assert plain.transcription_text("zh", hint=" Names: Xu ") == "Transcribe the speech into text <|zh|>\nNames: Xu"
    assert plain.transcription_text("zh", task="translate") == "Translate the speech into English text"
    assert plain.transcription_text(task="translate", to_language="de") == "Translate the speech into German text"
    assert plain.transcription_text(task="translate", to_language="fi") == "Translate the speech into fi text"
    with pytest.raises(PromptError, match="'sing'"):
        plain.transcription_text(task="sing")


@pytest.mark.parametrize("hint", ["<|im_end|>", "a<|im_start|>system", "<|im_<|x|>end|>", "<|<|AUDIO|>AUDIO|>"])
def test_a_hint_brings_no_control_tokens(loaded: LoadedLM, hint: str) -> None:
    prompt = plain.transcription_prompt(plain.transcription_text("en", hint=hint))
    without = plain.transcription_prompt(plain.transcription_text("en"))
    controls = set(loaded.tokenizer.get_added_tokens_decoder())

    def found(text: str) -> list[int]:
        return [i for i in loaded.tokenizer.encode(text, add_special_tokens=False).ids if i in controls]

    assert found(prompt) == found(without)


def test_the_prompt_is_the_one_the_model_was_trained_on(loaded: LoadedLM) -> None:
    from auricle.weights.processor import PromptWriter

    writer = PromptWriter(loaded.tokenizer, loaded.chat_template, audio_token_id=551)
    clip = np.zeros(16_000, np.float32)
    content = [{"type": "audio", "audio": clip}, {"type": "text", "text": plain.transcription_text()}]
    wanted = writer.write([{"role": "user", "content": content}]).input_ids
    ids = loaded.tokenizer.encode(plain.transcription_prompt(plain.transcription_text()), add_special_tokens=False).ids
    place = ids.index(551)
    expanded = [*ids[:place], *plain.placeholders(16_000, RULES), *ids[place + 1 :]]
    # A system turn before it is optional in this format.
    assert wanted[-len(expanded) :] == expanded


def test_settings(config: Any) -> None:
    assert plain.prompt_rules_of(config) == RULES
    stated = SimpleNamespace(audio_token_id=3, subsample_factor=4, auricle={"whole_tokens": True})
    assert plain.prompt_rules_of(stated) == (3, 4, True)
    ours = load_midashenglm(FOLDER).model.config
    found = plain.geometry_of(config)
    assert found.encoder == ours.encoder and found.subsample_factor == 5 and found.audio_token_id == 551


def test_positions_that_the_configuration_class_of_vllm_loses() -> None:
    stored = json.loads((FOLDER / "config.json").read_text())
    text = {**stored["text_config"], "rope_theta": 1e4}
    assert plain.rope_of({"text_config": text}, "x") == {"rope_type": "default", "rope_theta": 1e4}
    for broken in (None, {}, {"text_config": {"model_type": "qwen3"}}):
        with pytest.raises(LayoutMismatch, match="x: "):
            plain.rope_of(broken, "x")


def test_the_audio_tower_is_the_models_and_each_clip_alone(loaded: LoadedLM, config: Any) -> None:
    encoder, projector, filled = filled_audio_tower(config)
    stored = {n for n in safe.read_tensors(FOLDER) if not n.startswith("decoder.") and ".front_end." not in n}
    assert filled == {plain.audio_tower_name(name) for name in stored}
    clips = [0.1 * torch.randn(n) for n in (3200, 16_000, 170_000, 16_000)]
    with torch.no_grad():
        wanted = loaded.model.audio_tokens(clips)
    found = plain.embed_clips(encoder, projector, plain.to_clips(clips))
    for one, two, clip in zip(found, wanted, clips, strict=True):
        torch.testing.assert_close(one, two)
        torch.testing.assert_close(plain.embed_clips(encoder, projector, [clip])[0], one, atol=1e-4, rtol=1e-4)
    assert plain.embed_clips(encoder, projector, []) == []
    stacked = plain.to_clips(torch.stack([clips[1], clips[3]]))
    assert torch.equal(stacked[1], clips[3])


def test_what_stays_float32_in_a_half_precision_server(loaded: LoadedLM, config: Any) -> None:
    torch.set_default_dtype(torch.bfloat16)  # as vLLM does around the making of a model
    try:
        encoder, projector, _ = filled_audio_tower(config, torch.bfloat16)
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)
    front_end, wanted = encoder.front_end, loaded.model.audio_encoder.front_end
    assert torch.equal(front_end.window, wanted.window) and torch.equal(front_end.filterbank, wanted.filterbank)
    assert torch.equal(encoder.init_bn.running_var, loaded.model.audio_encoder.init_bn.running_var)
    assert encoder.norm.weight.dtype == projector.net[0].weight.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in (*encoder.parameters(), *projector.parameters()))
    assert plain.embed_clips(encoder, projector, [torch.randn(9000)])[0].dtype == torch.bfloat16


def test_weights_that_do_not_fit(config: Any) -> None:
    stored = dict(safe.read_tensors(FOLDER))
    encoder, projector = plain.build_audio_tower(plain.geometry_of(config), 128, torch.float32)

    def fill(changes: dict[str, Tensor | None]) -> set[str]:
        passing = plain.Weights({k: v for k, v in {**stored, **changes}.items() if v is not None}.items())
        list(passing.decoder())
        return plain.fill_audio_tower(encoder, projector, passing.audio_tower)

    bias = "audio_projector.net.0.bias"
    assert bias in fill({"audio_encoder.init_bn.num_batches_tracked": None})
    for changes, message in (
        ({bias: None}, "net.0.bias is missing"),
        ({bias: torch.zeros(7)}, r"size mismatch for net.0.bias"),
        ({"audio_encoder.blocks.0.mlp.fc1.weight_scale": torch.ones(1)}, "weight_scale is unknown"),
        ({"vision.weight": torch.ones(1)}, "vision.weight belongs to none of"),
        ({"decoder.lm_head.weight.row_scale": torch.ones(1)}, "rows of int8; write the folder again"),
    ):
        with pytest.raises(LayoutMismatch, match=message):
            fill(changes)  # type: ignore[arg-type]


def test_names_of_older_checkpoints() -> None:
    assert plain.audio_tower_name("audio_encoder.init_bn.1.weight") == "audio_encoder.init_bn.weight"
    assert plain.audio_tower_name("audio_encoder.front_end.0.mel_scale.fb") is None


def test_registering_names_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, str] = {}
    registry = SimpleNamespace(register_model=lambda name, place: known.update({name: place}))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(ModelRegistry=registry))  # type: ignore[arg-type]
    plain.register()
    plain.register()
    architecture = json.loads((FOLDER / "config.json").read_text())["architectures"]
    assert known == {architecture[0]: "auricle.engine.vllm_model:AuricleLM"}


class FakeDecoder(nn.Module):
    """Takes weights as vLLM's Qwen2 does, and remembers their names."""

    make_empty_intermediate_tensors = None

    def load_weights(self, weights: Iterator[tuple[str, Tensor]]) -> set[str]:
        return {name for name, _ in weights}


class FakeInfo:
    _get_expected_hidden_size = staticmethod(lambda: None)

    def __init__(self, config: Any) -> None:
        self.ctx = SimpleNamespace(model_config=SimpleNamespace(max_model_len=4096))
        self.get_hf_config = lambda: config


class FakeMultiModal:
    @contextlib.contextmanager
    def _mark(self, *args: Any) -> Iterator[None]:
        yield

    _mark_tower_model = _mark_language_model = _mark


class FakeFactory:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    @classmethod
    def make(cls, *args: Any, **kwargs: Any) -> FakeFactory:
        return cls(*args, **kwargs)

    from_string_field = select_token_id = batched = make


class FakeDummies:
    def __init__(self, info: Any) -> None:
        self.info = info

    def _get_dummy_audios(self, *, length: int, num_audios: int, overrides: Any) -> list[np.ndarray]:
        return [np.zeros(length)] * num_audios


class FakeProcessor:
    def __init__(self, info: Any) -> None:
        self.info = info


@pytest.fixture
def vllm_model(monkeypatch: pytest.MonkeyPatch, loaded: LoadedLM) -> Any:
    """The module of the class, with stand-ins for what it takes from vLLM."""
    tokenizer = SimpleNamespace(encode=lambda text, **settings: loaded.tokenizer.encode(text, **settings).ids)
    names: dict[str, dict[str, Any]] = {
        "config": {"SpeechToTextConfig": FakeFactory},
        "inputs": {"TokensPrompt": dict},
        "model_executor.models.interfaces": {
            "SupportsMultiModal": FakeMultiModal,
            **{name: type(name, (), {}) for name in ("SupportsLoRA", "SupportsPP", "SupportsTranscription")},
        },
        "model_executor.models.module_mapping": {"MultiModelKeys": FakeFactory},
        "model_executor.models.utils": {
            "init_vllm_registered_model": lambda **settings: FakeDecoder(),
            "maybe_prefix": lambda prefix, name: name,
        },
        "multimodal": {
            "MULTIMODAL_REGISTRY": SimpleNamespace(register_processor=lambda *args, **kwargs: lambda cls: cls)
        },
        "multimodal.inputs": {"MultiModalFieldConfig": FakeFactory},
        "multimodal.parse": {"MultiModalDataParser": FakeFactory},
        "multimodal.processing": {
            "BaseDummyInputsBuilder": FakeDummies,
            "BaseMultiModalProcessor": FakeProcessor,
            "BaseProcessingInfo": FakeInfo,
            "PromptReplacement": FakeFactory,
            "PromptUpdateDetails": FakeFactory,
        },
        "transformers_utils.repo_utils": {
            "get_hf_file_to_dict": lambda name, model, revision: safe.read_json(Path(model) / name)
        },
        "tokenizers": {"cached_tokenizer_from_config": lambda config: tokenizer},
    }
    for name in ("", "model_executor", "model_executor.models", "transformers_utils", *names):
        module = ModuleType(f"vllm.{name}".rstrip("."))
        vars(module).update(names.get(name, {}))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "auricle.engine.vllm_model", raising=False)
    yield importlib.import_module("auricle.engine.vllm_model")
    sys.modules.pop("auricle.engine.vllm_model", None)


def test_the_class_loads_and_encodes(vllm_model: Any, loaded: LoadedLM, config: Any) -> None:
    described = SimpleNamespace(hf_config=config, dtype=torch.float32, model=str(FOLDER), revision=None)
    model = vllm_model.AuricleLM(vllm_config=SimpleNamespace(model_config=described))
    assert config.text_config.rope_parameters == {"rope_type": "default", "rope_theta": 1e6}
    stored = safe.read_tensors(FOLDER)
    filled = model.load_weights(iter(stored.items()))
    assert filled == {name for name in stored if ".front_end." not in name}
    clips = [0.1 * torch.randn(n) for n in (5000, 40_000)]
    with torch.no_grad():
        wanted = loaded.model.audio_tokens(clips)
    for one, two in zip(model.embed_multimodal(input_values=clips), wanted, strict=True):
        torch.testing.assert_close(one, two)
    assert model.embed_multimodal() == []
    assert model.get_placeholder_str("audio", 0) == "<|audio_bos|><|AUDIO|><|audio_eos|>"
    with pytest.raises(ValueError, match="image is not supported"):
        model.get_placeholder_str("image", 0)
    assert model.get_mm_mapping().kwargs["language_model"] == "decoder"


def test_the_processor_counts_what_the_model_gives(vllm_model: Any, config: Any) -> None:
    processor = vllm_model.AuricleProcessor(vllm_model.AuricleProcessingInfo(config))
    made = processor._call_hf_processor({"audio": [np.zeros(100), np.zeros(16_000)]}, {})
    assert [len(clip) for clip in made["input_values"]] == [3200, 16_000]
    (update,) = processor._get_prompt_updates(None, {}, SimpleNamespace(get_data=lambda: made))
    assert update.kwargs["target"] == [551]
    details = [update.kwargs["replacement"](index) for index in range(2)]
    assert [each.args[0] for each in details] == [[551], [551] * 5]
    assert all(each.kwargs == {"embed_token_id": 551} for each in details)
    assert set(processor._get_mm_fields_config(made, {})) == set(made)


def test_memory_is_measured_with_the_longest_clip(vllm_model: Any, config: Any) -> None:
    info = vllm_model.AuricleProcessingInfo(config)
    assert info.get_mm_max_tokens_per_item(4096, {"audio": 1}) == {"audio": 600}
    dummies = vllm_model.AuricleDummyInputs(info)
    assert [len(a) for a in dummies.get_dummy_mm_data(4096, {"audio": 2}, {})["audio"]] == [1_920_000] * 2
    assert dummies.get_dummy_text({"audio": 2}) == 2 * plain.PLACEHOLDER
    assert info.get_data_parser().kwargs["target_channels"] == 1


def test_a_transcription_request(vllm_model: Any, config: Any, loaded: LoadedLM) -> None:
    audio = np.zeros(16_000)
    request = SimpleNamespace(
        language="en", task_type="transcribe", to_language=None, request_prompt="", model_config=None, audio=audio
    )
    prompt = vllm_model.AuricleLM.get_generation_prompt(request)
    assert prompt["multi_modal_data"]["audio"] is audio and prompt["prompt_token_ids"].count(551) == 1
    assert "Transcribe the speech into text <|en|>" in loaded.tokenizer.decode(prompt["prompt_token_ids"])
    described = SimpleNamespace(hf_config=config)
    assert vllm_model.AuricleLM.get_num_audio_tokens(30.0, None, described) == 150
    assert vllm_model.AuricleLM.get_speech_to_text_config(described, "transcribe").kwargs["max_audio_clip_s"] == 30
