"""Stock encoders: equal to the library's own pipeline on one clip, and independent of the batch, of any length."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from auricle.errors import ConfigError, LayoutMismatch, UnknownModel
from auricle.models.encoders.random_encoders import RANDOM_ENCODERS, STOCK_SETTINGS, random_encoder
from auricle.models.encoders.speech import AstFrames, WaveEncoder, WhisperFrames, build_encoder
from auricle.models.frame_model import FrameModel, content_hash

TOLERANCE = 5e-5  # fp32
WAVES = [name for name in RANDOM_ENCODERS if name.startswith(("wav2vec2", "hubert", "wavlm", "data2vec"))]
STOCK = [*WAVES, "whisper-tiny", "ast-tiny"]


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> Tensor:
    return level * torch.randn(int(seconds * 16_000), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def encoders() -> dict[str, Any]:
    return {name: random_encoder(name) for name in STOCK}


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


def theirs(encoder: Any, clip: Tensor) -> Tensor:
    """One clip through the feature extractor and the network of transformers, (T, D) before any pooling."""
    import transformers

    kind, key = {
        WaveEncoder: (transformers.Wav2Vec2FeatureExtractor, "input_values"),
        WhisperFrames: (transformers.WhisperFeatureExtractor, "input_features"),
        AstFrames: (transformers.ASTFeatureExtractor, "input_values"),
    }[type(encoder)]
    extractor = kind(**encoder.front_end)
    inputs = extractor([clip.numpy()], sampling_rate=16_000, return_tensors="np")[key]
    return encoder.network(torch.from_numpy(np.asarray(inputs))).last_hidden_state[0]


@pytest.mark.parametrize("name", WAVES)
def test_wave_encoders_equal_transformers(encoders: dict[str, Any], name: str) -> None:
    clip = noise(1.7, level=0.01) + 0.05  # off zero and quiet, so that normalisation matters
    (frames,) = encoders[name].frames([clip])
    assert frames.shape == ((len(clip) - 400) // 320 + 1, 64)
    assert (frames - theirs(encoders[name], clip)).abs().max() <= TOLERANCE


def test_whisper_equals_transformers(encoders: dict[str, Any]) -> None:
    clip = noise(2.345)
    (frames,) = encoders["whisper-tiny"].frames([clip])
    assert len(frames) == -(-len(clip) // 320) == 118
    assert (frames - theirs(encoders["whisper-tiny"], clip)[:118]).abs().max() <= TOLERANCE


@pytest.mark.filterwarnings("ignore:At least one mel filter:UserWarning")
@pytest.mark.parametrize(("seconds", "count"), [(1.0, 10), (0.03, 1), (10.0, 100), (10.256, 101)])
def test_ast_equals_transformers(encoders: dict[str, Any], seconds: float, count: int) -> None:
    clip = noise(seconds)
    (frames,) = encoders["ast-tiny"].frames([clip])
    patches = theirs(encoders["ast-tiny"], clip)[2:].reshape(12, 101, 64)
    assert len(frames) == count
    assert (frames - patches.mean(0)[:count]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", STOCK)
@given(
    clips=st.lists(
        st.tuples(st.sampled_from([0.025, 0.4, 1.0, 1.01, 2.5]), st.sampled_from([1e-4, 0.1, 1.0])),
        min_size=2,
        max_size=4,
    ),
    seed=st.integers(0, 9),
)
@settings(max_examples=4)
def test_a_clip_depends_on_itself_alone(
    encoders: dict[str, Any], name: str, clips: list[tuple[float, float]], seed: int
) -> None:
    waves = [noise(seconds, seed + i, level) for i, (seconds, level) in enumerate(clips)]
    together = encoders[name].frames(waves)
    for wave, frames in zip(waves, together, strict=True):
        (alone,) = encoders[name].frames([wave])
        assert frames.shape == alone.shape
        assert (frames - alone).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", WAVES)
def test_plain_padding_would_be_seen(encoders: dict[str, Any], name: str) -> None:
    """The networks here feel their padding, so the property above can fail."""
    network, clip = encoders[name].network, noise(1.0)
    alone = network(clip[None]).last_hidden_state[0]
    padded = network(F.pad(clip, (0, 32_000))[None]).last_hidden_state[0]
    assert (padded[: len(alone)] - alone).abs().max() > 0.05


@pytest.mark.parametrize("name", ["wav2vec2-tiny", "hubert-tiny", "data2vec-tiny"])
def test_masked_padding_would_be_seen_too(encoders: dict[str, Any], name: str) -> None:
    network, clips = encoders[name].network, torch.stack([F.pad(noise(1.0), (0, 32_000)), noise(3.0, 1)])
    mask = torch.ones(2, 48_000, dtype=torch.long)
    mask[0, 16_000:] = 0
    padded = network(clips, attention_mask=mask).last_hidden_state[0, :49]
    assert (padded - network(clips[:1, :16_000]).last_hidden_state[0]).abs().max() > 0.005


def test_long_waves_are_cut_and_keep_the_clock(encoders: dict[str, Any]) -> None:
    encoder = encoders["wavlm-tiny"]  # which does not normalise, so a piece is a clip
    clip = noise(60.1)
    (frames,) = encoder.frames([clip])
    assert len(frames) == (len(clip) - 400) // 320 + 1
    (middle,) = encoder.frames([clip[480_000 : 2 * 480_000 + 80]])
    assert len(middle) == 1_500
    assert (frames[1_500:3_000] - middle).abs().max() <= TOLERANCE


@pytest.mark.parametrize("extra", [0, 79, 80, 399, 400, 720])
def test_no_frame_is_lost_or_doubled_at_a_cut(encoders: dict[str, Any], extra: int) -> None:
    (frames,) = encoders["wav2vec2-tiny"].frames([noise(30.0 + extra / 16_000)])
    assert len(frames) == (480_000 + extra - 400) // 320 + 1


def test_a_long_clip_is_normalised_whole(encoders: dict[str, Any]) -> None:
    encoder = encoders["wav2vec2-tiny"]
    clip = torch.cat([noise(30.0), noise(3.0, 1, level=0.001)])
    normalised = (clip - clip.mean()) / (clip.var(correction=0) + 1e-7).sqrt()
    expected = encoder.network(normalised[None, 480_000:]).last_hidden_state[0]
    assert (encoder.frames([clip])[0][1_500:] - expected).abs().max() <= TOLERANCE


def test_long_clips_of_whisper(encoders: dict[str, Any]) -> None:
    encoder, clip = encoders["whisper-tiny"], noise(31.0)
    (frames,) = encoder.frames([clip])
    assert len(frames) == 1_550
    assert (frames[1_500:] - encoder.frames([clip[480_000:]])[0]).abs().max() <= TOLERANCE


def test_long_clips_of_ast_keep_the_clock(encoders: dict[str, Any]) -> None:
    encoder, clip = encoders["ast-tiny"], noise(12.0)
    (frames,) = encoder.frames([clip])
    assert len(frames) == 1 + (1 + (192_000 - 400) // 160 - 8) // 10 == 120
    (rest,) = encoder.frames([clip[1_010 * 160 :]])
    assert (frames[101:] - rest).abs().max() <= TOLERANCE


@given(num_frames=st.integers(1, 5_000))
def test_ast_frames_follow_the_length(num_frames: int) -> None:
    encoder = AstFrames.__new__(AstFrames)
    encoder._window, encoder._stride, encoder._times = 1_024, 10, 101
    encoder.network = type("N", (), {"config": type("C", (), {"patch_size": 16})})  # type: ignore[assignment]
    count, more = encoder.num_frames(num_frames), encoder.num_frames(num_frames + 1)
    assert count <= more <= count + (2 if num_frames == 1_024 else 1)
    assert abs(count - num_frames / 10) <= 1.5


@pytest.mark.parametrize("name", STOCK)
def test_hidden_states_of_blocks(name: str) -> None:
    clip, first, second, both = noise(1.0), *(random_encoder(name, layers=x) for x in ((0,), (1,), (1, 0)))
    (a,), (b,), (mean,) = (encoder.frames([clip]) for encoder in (first, second, both))
    assert not torch.allclose(a, b, atol=1e-3)
    assert torch.allclose(mean, (a + b) / 2, atol=TOLERANCE)
    assert len({content_hash(encoder) for encoder in (first, second, both)}) == 3


@pytest.mark.parametrize("name", WAVES)
def test_a_block_is_the_librarys_hidden_state(encoders: dict[str, Any], name: str) -> None:
    clip = noise(1.0)
    inputs = encoders[name]._normalised(clip)[None]
    states = encoders[name].network(inputs, output_hidden_states=True).hidden_states
    (frames,) = random_encoder(name, layers=(0,)).frames([clip])
    assert (frames - states[1][0]).abs().max() <= TOLERANCE


def test_seeds_and_the_global_random_state() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    same, again, other = (
        random_encoder("hubert-tiny", 1),
        random_encoder("hubert-tiny", 1),
        random_encoder("hubert-tiny"),
    )
    assert torch.equal(torch.rand(3), expected)
    assert content_hash(same) == content_hash(again) != content_hash(other)


def test_a_random_dasheng_expects_decibels() -> None:
    encoder: Any = random_encoder("dasheng-tiny")
    assert encoder.network.init_bn.running_mean.unique().tolist() == [-20.0]
    assert encoder.network.init_bn.running_var.unique().tolist() == [400.0]
    with pytest.raises(UnknownModel, match="whisper-tiny"):
        random_encoder("whisper-huge")


def refuse(kind: type[Exception], match: str, name: str = "wav2vec2-tiny", **changed: Any) -> None:
    settings, front_end = STOCK_SETTINGS[name]
    arguments = {"front_end": front_end, "tensors": None, **{k: v for k, v in changed.items() if k != "settings"}}
    with pytest.raises(kind, match=match):
        build_encoder({**settings, **changed.get("settings", {})}, source="it", **arguments)


def test_what_is_no_such_encoder_is_refused(encoders: dict[str, Any]) -> None:
    tensors = dict(encoders["wav2vec2-tiny"].network.state_dict())
    gone = "encoder.layers.0.layer_norm.bias"
    refuse(ConfigError, "model_type is 'encodec'", settings={"model_type": "encodec"})
    refuse(ConfigError, "reads 8000 Hz", front_end={"sampling_rate": 8_000})
    refuse(ConfigError, "blocks 0 to 1", layers=(2,))
    refuse(ConfigError, "name each block once", layers=(1, 1))
    refuse(LayoutMismatch, r"1 missing \(encoder.layers.0", tensors=without(tensors, gone))
    refuse(LayoutMismatch, r"1 unknown \(surprise", tensors={**tensors, "surprise": torch.zeros(2)})
    refuse(LayoutMismatch, "of another shape", tensors={**tensors, "encoder.layer_norm.bias": torch.zeros(2)})
    refuse(ConfigError, "describes no wav2vec2 encoder", settings={"conv_dim": [32]})


def without(tensors: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    assert key in tensors
    return {name: tensor for name, tensor in tensors.items() if name != key}


def test_a_config_chooses_geometry_and_nothing_else(encoders: dict[str, Any]) -> None:
    settings, front_end = STOCK_SETTINGS["wav2vec2-tiny"]
    hostile = {
        "_attn_implementation": "someone/kernels",
        "attn_implementation": "someone/kernels",
        "auto_map": {"AutoModel": "evil.Model"},
        "quantization_config": {"quant_method": "bitsandbytes"},
        "torch_dtype": "float16",
        "add_adapter": True,
        "mask_time_prob": 0.9,
    }
    tensors = encoders["wav2vec2-tiny"].network.state_dict()
    encoder: FrameModel = build_encoder({**settings, **hostile}, front_end, tensors)
    assert torch.equal(encoder.frames([noise(0.5)])[0], encoders["wav2vec2-tiny"].frames([noise(0.5)])[0])
