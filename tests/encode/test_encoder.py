from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.encode import encoder as room
from auricle.encode.encoder import Embedding, Encoder, load_encoder
from auricle.errors import AudioError, ClipTooShort, ConfigError
from auricle.models.dasheng import Dasheng, DashengConfig, num_tokens
from auricle.models.frame_model import DashengFrames

from ..conftest import FOLDER

TOLERANCE = 5e-5  # fp32


def noise(num_samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(DashengFrames(Dasheng(DashengConfig(embed_dim=64, depth=2, num_heads=2)).eval()))


def network_of(encoder: Encoder) -> Dasheng:
    assert isinstance(encoder.model, DashengFrames)
    return encoder.model.network


@pytest.mark.parametrize("threads", [1, 2])
@given(
    clips=st.lists(st.tuples(st.floats(0.1, 40), st.sampled_from([1e-4, 0.1, 1.0])), min_size=2, max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=6, deadline=None)
def test_a_clip_depends_on_itself_alone(
    encoder: Encoder, threads: int, clips: list[tuple[float, float]], seed: int
) -> None:
    waves = [noise(int(s * 16_000), seed + i, level) for i, (s, level) in enumerate(clips)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        frames, lengths = encoder.encode(waves)
        pooled = encoder.embed(waves)
        alone = [encoder.encode([wave])[0][0] for wave in waves]
    finally:
        torch.set_num_threads(before)
    assert lengths.tolist() == [num_tokens(len(wave)) for wave in waves]
    for row, length, single, mean in zip(frames, lengths, alone, pooled, strict=True):
        assert (row[:length] - single).abs().max() <= TOLERANCE
        assert (row[length:] == 0).all()
        assert (mean - single.mean(0)).abs().max() <= TOLERANCE


def test_the_xares_contract(encoder: Encoder) -> None:
    assert (encoder.sampling_rate, encoder.output_dim, encoder.hop_size_in_ms) == (16_000, 64, 40)
    waves = torch.from_numpy(np.stack([noise(16_000, 1), noise(16_000, 2)]))
    frames = encoder(waves)
    assert frames.shape == (2, 25, 64) and frames.dtype == torch.float32 and not frames.requires_grad
    assert torch.equal(encoder(waves[0]), encoder(waves[0].numpy())) and encoder(waves[0]).shape == (1, 25, 64)
    assert (encoder(waves[:1]) - frames[:1]).abs().max() <= TOLERANCE
    assert (encoder(waves.double()) - frames).abs().max() <= TOLERANCE
    assert (encoder.encode([*waves])[0] - frames).abs().max() <= TOLERANCE


@pytest.mark.parametrize("shape", [(), (0, 16_000), (1, 1, 16_000)])
def test_other_shapes_are_refused(encoder: Encoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"expected \(N,\) or \(B, N\)"):
        encoder(torch.zeros(shape))


def test_integers_and_crumbs_are_refused(encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="int16"):
        encoder(torch.zeros(16_000, dtype=torch.int16))
    with pytest.raises(ClipTooShort):
        encoder(torch.zeros(479))


def test_files_and_bytes_and_waveforms(encoder: Encoder, wavs: list[Path]) -> None:
    embedding = encoder.embed([wavs[1], str(wavs[1]), wavs[1].read_bytes()])
    assert embedding.shape == (3, 64)
    assert (embedding - embedding[0]).abs().max() <= TOLERANCE


def test_nothing_in_nothing_out(encoder: Encoder) -> None:
    frames, lengths = encoder.encode([])
    assert frames.shape == (0, 0, 64) and lengths.shape == (0,)
    assert encoder.embed([]).shape == (0, 64)


def test_many_go_in_packed_batches_and_keep_their_order(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BATCH_SECONDS", 2.0)
    sizes = []
    frames = Encoder._frames
    monkeypatch.setattr(Encoder, "_frames", lambda self, waves: sizes.append(len(waves)) or frames(self, waves))
    seconds = [0.5, 0.5, 1.0, 5.0, 0.01, 0.5]
    sources = [noise(int(s * 16_000), i) for i, s in enumerate(seconds)]
    results = list(encoder.embed_many([*sources[:2], "missing.wav", *sources[2:]], frames=True))
    assert sizes == [3, 1, 2]
    assert isinstance(results.pop(2), AudioError)
    assert all(isinstance(result, Embedding) for result in results)
    assert [result.receipt.duration_s for result in results] == seconds
    assert [len(result.values) for result in results] == [12, 12, 25, 125, 1, 12]
    assert results[4].receipt.padded_s == 0.02 and all(result.receipt.complete for result in results)


def test_the_first_failure_is_raised_where_all_are_wanted(encoder: Encoder) -> None:
    for verb in (encoder.encode, encoder.embed):
        with pytest.raises(AudioError, match=r"missing\.wav"):
            verb([noise(16_000), "missing.wav"])


def test_earlier_layers(encoder: Encoder) -> None:
    wave, network = noise(16_000), network_of(encoder)
    last = Encoder(DashengFrames(network, [1]))(wave)
    assert not torch.allclose(last, Encoder(DashengFrames(network, [0]))(wave), atol=1e-2)
    with torch.inference_mode():
        assert torch.allclose(network.norm(last), encoder(wave), atol=TOLERANCE)
    with pytest.raises(ConfigError, match="blocks 0 to 1"):
        DashengFrames(network, [2])


def test_a_language_models_encoder_can_be_loaded(wavs: list[Path]) -> None:
    exact, coarse = (load_encoder(str(FOLDER / "model"), dtype=dtype) for dtype in ("float32", "bfloat16"))
    one, other = exact.embed(wavs[:3]), coarse.embed(wavs[:3])
    assert one.dtype == other.dtype == torch.float32
    assert torch.cosine_similarity(one, other).min() > 0.999


def test_the_fingerprint_follows_weights_and_settings(encoder: Encoder) -> None:
    torch.manual_seed(0)
    config = DashengConfig(embed_dim=64, depth=2, num_heads=2)
    network = Dasheng(config).eval()
    same = Encoder(DashengFrames(network), name="another name")
    assert same.fingerprint == encoder.fingerprint and len(same.fingerprint) == 64
    assert Encoder(DashengFrames(network, [0])).fingerprint != encoder.fingerprint
    with torch.no_grad():
        network.norm.bias[3] += 1e-3
    assert same.fingerprint == encoder.fingerprint  # computed once, so an encoder must not change
    assert Encoder(DashengFrames(network)).fingerprint != encoder.fingerprint


def test_receipts_of_other_encoders_state_their_own_frames() -> None:
    wave = noise(16_160)
    (result,) = load_encoder("random:wav2vec2-tiny").embed_many([wave], frames=True)
    assert len(result.values) == result.receipt.audio_tokens == 50
    assert (result.receipt.read[0].start_s, result.receipt.read[0].stop_s) == (0.0, 1.0)
    assert [(span.start_s, span.stop_s) for span in result.receipt.dropped] == [(1.0, 1.01)]
    (short,) = load_encoder("log-mel").embed_many([wave[:100]])
    assert short.receipt.padded_s == round(157 / 16_000, 4) and short.receipt.dropped == ()
    assert short.receipt.read[0].stop_s == round(100 / 16_000, 4)


def test_the_rate_of_an_encoder_is_checked(encoder: Encoder) -> None:
    other = DashengFrames(network_of(encoder))
    other.sampling_rate = 44_100
    with pytest.raises(ConfigError, match="44100 Hz"):
        Encoder(other)
    with pytest.raises(ClipTooShort, match="256 samples; one frame needs 257"):
        load_encoder("log-mel")(noise(256))


@pytest.mark.parametrize("source", ["a.wav", Path("a.wav"), b"RIFF", None, 3])
def test_one_source_is_no_list_of_them(encoder: Encoder, source: object) -> None:
    for verb in (encoder.embed, encoder.encode, lambda one: list(encoder.embed_many(one))):
        with pytest.raises(ConfigError, match=r"expected a list of them: write \[source\]"):
            verb(source)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["auricle-tiny-encoder", "log-mel"])
def test_the_default_type_of_the_caller_changes_nothing(name: str) -> None:
    clip = 0.1 * np.random.default_rng(3).standard_normal(16_000).astype(np.float32)
    expected = load_encoder(name).embed([clip])
    torch.set_default_dtype(torch.float64)
    try:
        found = load_encoder(name).embed([clip])
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=1e-5)
