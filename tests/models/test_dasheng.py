import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from auricle.errors import ClipTooShort, ConfigError
from auricle.models.dasheng import MIN_SAMPLES, SIZES, Dasheng, DashengConfig, num_tokens, to_patches

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def small(**changes: object) -> Dasheng:
    torch.manual_seed(0)
    model = Dasheng(DashengConfig(**{**SMALL, **changes})).eval()  # type: ignore[arg-type]
    nn.init.normal_(model.init_bn.running_mean, -20, 5)
    nn.init.uniform_(model.init_bn.running_var, 50, 200)
    return model


@pytest.fixture(scope="module")
def model() -> Dasheng:
    return small()


def clip(seconds: float, seed: int = 0) -> torch.Tensor:
    """Noise whose level rises and falls, so that floors differ."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(max(MIN_SAMPLES, int(16_000 * seconds)), generator=generator)
    return noise * torch.linspace(0.001, 0.5, len(noise)) ** (1 + seed % 3)


CLIPS = st.lists(
    st.tuples(st.one_of(st.floats(0.03, 3.0), st.floats(3.0, 40.0)), st.integers(0, 5)), min_size=1, max_size=5
)


@settings(max_examples=15)
@given(CLIPS)
def test_a_clip_is_encoded_as_if_it_were_alone(model: Dasheng, sampled: list[tuple[float, int]]) -> None:
    clips = [clip(seconds, seed) for seconds, seed in sampled]
    with torch.inference_mode():
        together = model.encode(clips)
        for wave, found in zip(clips, together, strict=True):
            assert found.shape == (num_tokens(len(wave)), 32)
            (alone,) = model.encode([wave])
            assert (found - alone).abs().max() <= 5e-5


@settings(max_examples=10)
@given(st.floats(0.03, 10.08))
def test_the_two_chunk_rules_agree_on_short_clips(model: Dasheng, seconds: float) -> None:
    old = small(long_clips="v004")
    with torch.inference_mode():
        assert torch.equal(old.encode([clip(seconds)])[0], model.encode([clip(seconds)])[0])


def test_the_two_chunk_rules_differ_on_long_ones(model: Dasheng) -> None:
    old = small(long_clips="v004")
    with torch.inference_mode():
        ours, theirs = model.encode([clip(15.0)])[0], old.encode([clip(15.0)])[0]
        first = model.encode([clip(15.0)[: 1008 * 160]])[0]
    assert ours.shape == theirs.shape and not torch.allclose(ours[252:], theirs[252:], atol=1e-3)
    # Chunks do not see each other (the front end does, by one frame and the clip's own dB floor).
    torch.testing.assert_close(ours[:250], theirs[:250], atol=1e-5, rtol=1e-4)
    assert len(first) == 252


def test_equal_batches_give_the_same_either_way(model: Dasheng) -> None:
    waves = torch.stack([clip(1.5, seed) for seed in range(3)])
    with torch.inference_mode():
        torch.testing.assert_close(model(waves), torch.stack(model.encode(list(waves))), atol=5e-5, rtol=0)


def test_padding_behind_stated_lengths_is_not_attended_to(model: Dasheng) -> None:
    short = clip(1.0)
    padded = nn.functional.pad(short, (0, 16_000))
    with torch.inference_mode():
        masked = model(padded[None], torch.tensor([len(short)]))[0]
        unmasked = model(padded[None])[0]
        alone = model.encode([short])[0]
    # All but the last mel frames, which padding reaches.
    torch.testing.assert_close(masked[:20], alone[:20], atol=1e-2, rtol=0)
    assert (masked[:20] - alone[:20]).abs().max() < (unmasked[:20] - alone[:20]).abs().max()


@pytest.mark.parametrize("num_samples", [480, 639, 640, 16_000, 161_280, 161_281, 200_000])
def test_tokens_by_the_formula(model: Dasheng, num_samples: int) -> None:
    assert num_tokens(num_samples) == (1 + num_samples // 160) // 4
    with torch.inference_mode():
        assert len(model.encode([clip(num_samples / 16_000)[:num_samples]])[0]) == num_tokens(num_samples)


def test_a_clip_without_a_token_is_refused(model: Dasheng) -> None:
    with pytest.raises(ClipTooShort, match=r"clip has 479 samples; one token needs 480 \(30 ms"):
        model.encode([clip(1.0), torch.zeros(MIN_SAMPLES - 1)])
    assert len(model.encode([clip(0.03)])[0]) == 1


def test_layers_are_the_states_behind_blocks(model: Dasheng) -> None:
    clips = [clip(0.5), clip(12.0)]
    with torch.inference_mode():
        first, second, final = model.encode_layers(clips, (0, 1))
        for state, normed in zip(second, final, strict=True):
            torch.testing.assert_close(model.norm(state), normed)
    assert [len(state) for state in first] == [num_tokens(len(wave)) for wave in clips]
    assert not torch.allclose(first[0], second[0])


def test_patches_run_over_mel_and_then_time() -> None:
    mel = torch.arange(64 * 9.0).view(1, 64, 9)
    patches = to_patches(mel)
    assert patches.shape == (1, 2, 256)
    assert patches[0, 1, 5 * 4 + 3] == mel[0, 5, 7]


@pytest.mark.parametrize(("size", "count"), [("base", 85_447_808), ("0.6b", 630_333_568), ("1.2b", 1_134_047_360)])
def test_released_sizes(size: str, count: int) -> None:
    with torch.device("meta"):
        model = Dasheng(SIZES[size])
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_tagging_head_reads_the_mean_of_the_frames() -> None:
    model = small(outputdim=5)
    assert model.outputlayer is not None
    with torch.inference_mode():
        frames = model.encode([clip(1.0), clip(2.0)])
        logits = model.logits(frames)
        torch.testing.assert_close(logits[1], model.outputlayer(frames[1].mean(0)))
    assert logits.shape == (2, 5)
    with pytest.raises(ConfigError, match="no tagging head"):
        small().logits(frames)


@pytest.mark.parametrize("changes", [{"num_heads": 5}, {"target_length": 1006}])
def test_impossible_geometries(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="is not a multiple of"):
        DashengConfig(**changes)
