import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import ConfigError
from auricle.models.dasheng import Dasheng, DashengConfig
from auricle.models.mae import MAEConfig, MaskedAutoencoder, sample_mask


@given(
    st.integers(1, 30), st.sampled_from([1, 2, 3, 4]), st.floats(0.05, 0.95), st.integers(1, 4), st.integers(0, 1000)
)
def test_a_mask_parts_the_tokens(groups: int, group: int, ratio: float, batch: int, seed: int) -> None:
    length = groups * group
    noise = torch.rand(batch, groups, generator=torch.Generator().manual_seed(seed))
    mask = sample_mask(noise, length, ratio=ratio, group=group)
    keep = int(length * (1 - ratio))
    assert mask.kept.shape == (batch, keep) and mask.hidden.shape == mask.restore.shape == (batch, length)
    for kept, hidden, restore in zip(mask.kept.tolist(), mask.hidden.tolist(), mask.restore.tolist(), strict=True):
        assert sorted([*kept, *(i for i, is_hidden in enumerate(hidden) if is_hidden)]) == list(range(length))
        assert sorted(restore) == list(range(length)) and [restore[i] for i in kept] == list(range(keep))
        # Groups hide together; the one at the border may be parted.
        mixed = [g for g in range(groups) if 0 < sum(hidden[g * group : (g + 1) * group]) < group]
        assert len(mixed) <= (1 if keep % group else 0)


def test_every_group_is_hidden_equally_often() -> None:
    torch.manual_seed(0)
    hidden = sample_mask(torch.rand(4000, 12), 24, ratio=0.75, group=2).hidden.mean(0)
    assert (hidden - 0.75).abs().max() < 0.04


def test_lengths_that_do_not_fit_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="7 tokens cannot be masked in groups of 2"):
        sample_mask(torch.rand(1, 3), 7, ratio=0.5, group=2)


@pytest.fixture
def model() -> MaskedAutoencoder:
    torch.manual_seed(0)
    encoder = Dasheng(DashengConfig(embed_dim=32, depth=1, num_heads=2))
    return MaskedAutoencoder(encoder, MAEConfig(embed_dim=16, depth=1, num_heads=2)).train()


def test_the_loss_is_of_hidden_patches_alone(model: MaskedAutoencoder) -> None:
    waves, noise = torch.randn(3, 12_800) * 0.1, torch.rand(3, 10)
    out = model(waves, noise)
    target = out.target
    normed = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    wanted = (out.prediction - normed).square().mean(-1)[out.mask.hidden.bool()].mean()
    torch.testing.assert_close(out.loss, wanted)
    assert out.latent.shape == (3, 5, 32) and out.prediction.shape == (3, 20, 256)
    assert out.loss.dtype == torch.float32


def test_hidden_patches_cannot_be_seen(model: MaskedAutoencoder) -> None:
    """Changing the sound under a hidden token moves no prediction, once the norm's statistics are fixed."""
    model.eval()
    wave, noise = torch.randn(1, 12_800) * 0.1, torch.rand(1, 10)
    first = model(wave, noise)
    hidden = first.mask.hidden[0].view(-1, 2).bool().all(1)
    run = next(i for i in range(8) if hidden[i : i + 3].all())  # frames overlap their neighbours' samples
    changed = wave.clone()
    changed[0, (2 * run + 2) * 640 : (2 * run + 4) * 640] *= -0.5
    second = model(changed, noise)
    assert not torch.allclose(first.target, second.target)
    torch.testing.assert_close(first.prediction, second.prediction)


@pytest.mark.parametrize("target", ["patch", "global", "none"])
def test_every_target_trains_every_parameter(model: MaskedAutoencoder, target: str) -> None:
    other = MaskedAutoencoder(model.encoder, MAEConfig(embed_dim=16, depth=1, num_heads=2, target=target))  # type: ignore[arg-type]
    other(torch.randn(2, 12_800) * 0.1).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in other.parameters())


def test_crops_beyond_the_positions_are_refused(model: MaskedAutoencoder) -> None:
    with pytest.raises(ConfigError, match=r"crop has 275 tokens, the encoder 252 positions: crop to 10\.08 s"):
        model(torch.zeros(1, 176_000))
    with pytest.raises(ConfigError, match="mask_ratio"):
        MAEConfig(mask_ratio=1.0)
    with pytest.raises(ConfigError, match="not a multiple of num_heads"):
        MAEConfig(embed_dim=10, num_heads=4)
