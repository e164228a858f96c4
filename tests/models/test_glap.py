import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from auricle.audio.logmel import LogMel
from auricle.errors import ClipTooShort, ConfigError
from auricle.models.dasheng import DashengConfig
from auricle.models.glap import Glap, GlapConfig, cut_chunks, score
from auricle.models.sonar import SonarConfig

RULES = ("framemean", "v013", "zeropad")
CHUNK = 40  # mel frames; 10 tokens
TEXT = SonarConfig(vocab_size=50, width=16, depth=2, num_heads=2, hidden=32, max_tokens=24)


def build(**options: object) -> Glap:
    torch.manual_seed(5)
    audio = DashengConfig(embed_dim=32, depth=2, num_heads=2, target_length=CHUNK)
    model = Glap(GlapConfig(audio=audio, text=TEXT, embed_dim=8, **options)).eval()  # type: ignore[arg-type]
    for tensor in (*model.parameters(), model.audio_encoder.init_bn.running_mean):
        tensor.data += 0.3 * torch.randn_like(tensor)
    return model


@pytest.fixture(scope="module")
def model() -> Glap:
    return build()


def noise(num_samples: int, seed: int = 0, level: float = 0.1) -> Tensor:
    return level * torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))


@given(
    clips=st.lists(st.tuples(st.integers(480, 30_000), st.sampled_from([1e-5, 0.1, 1.0])), min_size=2, max_size=5),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_a_clip_depends_on_itself_alone(model: Glap, clips: list[tuple[int, float]], rule: str, seed: int) -> None:
    waves = [noise(n, seed + i, level) for i, (n, level) in enumerate(clips)]
    with torch.inference_mode():
        together = model.embed_audio(waves, pooling=rule)  # type: ignore[arg-type]
        alone = torch.cat([model.embed_audio([w], pooling=rule) for w in waves])  # type: ignore[arg-type]
    assert together.shape == (len(waves), 8) and together.dtype == torch.float32
    assert (together - alone).abs().max() <= 2e-5
    assert torch.allclose(together.norm(dim=1), torch.ones(len(waves)))


@given(
    texts=st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=24), min_size=2, max_size=8),
)
@settings(max_examples=30)
def test_a_text_depends_on_itself_alone(model: Glap, texts: list[list[int]]) -> None:
    with torch.inference_mode():
        together, alone = model.embed_text(texts), torch.cat([model.embed_text([ids]) for ids in texts])
    assert (together - alone).abs().max() <= 1e-5


def test_framemean_is_the_mean_over_all_frames(model: Glap) -> None:
    waves = [noise(n, n) for n in (500, 6_400, 6_560, 20_000)]
    with torch.inference_mode():
        expected = torch.stack([frames.mean(0) for frames in model.audio_encoder.encode(waves)])
        assert (model.pool_audio(waves) - expected).abs().max() <= 1e-5


def test_one_frame_over_a_chunk_changes_nothing_but_in_the_old_rules(model: Glap) -> None:
    under, over = noise(6_399), noise(6_400)  # 40 mel frames, and 41
    with torch.inference_mode():
        cosines = {
            rule: float((model.embed_audio([under], pooling=rule) * model.embed_audio([over], pooling=rule)).sum())  # type: ignore[arg-type]
            for rule in RULES
        }
    assert cosines["framemean"] >= 0.999
    assert cosines["v013"] < 0.999 and cosines["zeropad"] < 0.999


def test_rules_agree_up_to_a_chunk(model: Glap) -> None:
    with torch.inference_mode():
        first, *others = (model.embed_audio([noise(6_399)], pooling=rule) for rule in RULES)  # type: ignore[arg-type]
    assert all(torch.equal(first, other) for other in others)


@given(frames=st.integers(1, 130), length=st.sampled_from([4, 40]))
def test_chunks_are_the_whole(frames: int, length: int) -> None:
    mel = torch.arange(frames)[None].expand(64, -1)
    num_samples = 160 * (frames - 1) + 7
    chunks = cut_chunks(mel, num_samples, length)
    assert torch.equal(torch.cat([c.mel for c in chunks], 1), mel)
    assert [c.is_rest for c in chunks] == [len(chunks) > 1 and c.mel.shape[1] < length for c in chunks]
    assert [num_samples - c.num_samples for c in chunks] == [160 * length * i for i in range(len(chunks))]


def test_both_paths_can_be_differentiated(model: Glap) -> None:
    model.zero_grad()
    audio, text = model([noise(5_000), noise(9_000, 1)], [[1, 2, 3], [4]])
    score(audio, text).diagonal().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # A key's bias moves all logits of a query alike, which the softmax does not see.
    assert [name for name in without if not name.endswith("k_proj.bias")] == []


def test_gradient_of_filled_chunks(model: Glap) -> None:
    model.zero_grad()
    model.embed_audio([noise(9_000)], pooling="v013")[0, 0].backward()
    assert model.audio_encoder.time_pos_embed.grad is not None
    assert model.audio_encoder.time_pos_embed.grad.abs().amax((0, 1, 2)).min() > 0


def test_crumbs_and_wrong_settings_are_refused(model: Glap) -> None:
    with pytest.raises(ClipTooShort, match="480"):
        model.embed_audio([torch.zeros(479)])
    with pytest.raises(ConfigError, match="pooling is 'mean', expected one of framemean, v013, zeropad"):
        model.embed_audio([noise(800)], pooling="mean")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="pooling"):
        GlapConfig(pooling="")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="one length"):
        model.embed_audio([noise(800), noise(900)], batch_floor=True)
    with pytest.raises(ConfigError, match="no texts"):
        model.embed_text([])
    with pytest.raises(ConfigError, match="text 1 has 0 tokens; expected 1 to 24"):
        model.embed_text([[1], []])
    with pytest.raises(ConfigError, match="25 tokens"):
        model.embed_text([[1] * 25])
    with pytest.raises(ConfigError, match="from 3 to 50; expected 0 to 49"):
        model.embed_text([[3, 50]])
    with pytest.raises(ConfigError, match="num_heads"):
        SonarConfig(width=15, num_heads=2)


def test_calibration(model: Glap) -> None:
    cosine = torch.tensor([[-1.0, 0.7, 1.0]])
    with pytest.raises(ConfigError, match="without the scale and bias"):
        model.probability(cosine)
    calibrated = build()
    calibrated.set_calibration(20.0, -14.0)
    assert {"logit_scale", "logit_bias"} <= calibrated.state_dict().keys()
    found = calibrated.probability(cosine)
    assert found[0, 1] == pytest.approx(0.5) and found[0, 0] < 1e-9 and found[0, 2] > 0.99


def test_a_stored_front_end_survives_casts() -> None:
    model = build(stored_front_end=True)
    assert {"audio_encoder.front_end.window", "audio_encoder.front_end.filterbank"} <= model.state_dict().keys()
    front_end = model.audio_encoder.front_end
    front_end.window.mul_(0.5)
    window = front_end.window.clone()
    model.bfloat16()
    assert torch.equal(front_end.window, window) and front_end.filterbank.dtype == torch.float32
    assert not torch.equal(window, LogMel().window)


def test_bfloat16_stays_near(model: Glap) -> None:
    small = build().bfloat16()
    small.audio_encoder.init_bn.float()
    with torch.inference_mode():
        waves, texts = [noise(9_000), noise(20_000, 1)], [[1, 2, 3], [7]]
        assert F.cosine_similarity(small.embed_audio(waves), model.embed_audio(waves)).min() > 0.99
        assert F.cosine_similarity(small.embed_text(texts), model.embed_text(texts)).min() > 0.99
        assert small.embed_text(texts).dtype == torch.float32
