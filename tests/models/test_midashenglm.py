import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import ConfigError, PromptError
from auricle.models.dasheng import DashengConfig
from auricle.models.midashenglm import (
    IGNORE,
    MIN_CLIP_SAMPLES,
    MiDashengLM,
    MiDashengLMConfig,
    audio_token_count,
    padded_length,
)
from auricle.models.qwen import QwenConfig

# Released models, by the number of samples at 16 kHz: 0.5 s, 1 s, 7.3 s, 10 s, 12.4 s, 30 s, 31 s, 60 s, 10 min.
PUBLISHED = {
    8000: 2,
    16_000: 5,
    116_800: 36,
    160_000: 50,
    198_400: 62,
    480_000: 150,
    496_000: 155,
    960_000: 300,
    9_600_000: 3000,
}
AUDIO = 7


@pytest.fixture(scope="module")
def model() -> MiDashengLM:
    torch.manual_seed(0)
    text = QwenConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    encoder = DashengConfig(embed_dim=32, depth=1, num_heads=2, attend="whole")
    return MiDashengLM(MiDashengLMConfig(encoder=encoder, text=text, audio_token_id=AUDIO)).eval()


@pytest.mark.parametrize(("num_samples", "count"), PUBLISHED.items())
def test_published_token_counts(num_samples: int, count: int) -> None:
    assert audio_token_count(num_samples) == count


def test_short_clips_give_one_token(model: MiDashengLM) -> None:
    assert [audio_token_count(n) for n in (0, 1, 3039, 3040, 3200, 6239, 6240)] == [1, 1, 1, 1, 1, 1, 2]
    assert model.pad(torch.ones(100)).shape == (MIN_CLIP_SAMPLES,) and model.pad(torch.ones(100)).sum() == 100
    whole = torch.ones(5000)
    assert torch.equal(model.pad(whole), whole)
    with torch.inference_mode():
        assert len(model.audio_tokens([torch.ones(100) * 0.1])[0]) == 1


@given(st.integers(0, 2_000_000))
def test_a_model_of_whole_tokens_drops_no_sample(num_samples: int) -> None:
    length = padded_length(num_samples, whole_tokens=True)
    assert max(num_samples, MIN_CLIP_SAMPLES) <= length < max(num_samples, MIN_CLIP_SAMPLES) + 3200
    assert audio_token_count(num_samples, whole_tokens=True) * 3200 == length
    assert audio_token_count(num_samples) in (length // 3200, length // 3200 - 1)


def batch() -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Two prompts with audio of 5 and 2 tokens; the second is padded behind."""
    generator = torch.Generator().manual_seed(1)
    clips = [0.1 * torch.randn(n, generator=generator) for n in (16_000, 8000)]
    ids = torch.tensor([[1, AUDIO, AUDIO, AUDIO, AUDIO, AUDIO, 2, 3, 4, 5], [1, AUDIO, AUDIO, 2, 6, 8, 0, 0, 0, 0]])
    mask = torch.tensor([[1] * 10, [1] * 6 + [0] * 4])
    labels = torch.full_like(ids, IGNORE)
    labels[0, 8:], labels[1, 4:6] = ids[0, 8:], ids[1, 4:6]
    return ids, clips, labels, mask


def test_the_loss_is_the_mean_over_labelled_tokens_of_all_logits(model: MiDashengLM) -> None:
    ids, clips, labels, mask = batch()
    with torch.inference_mode():
        logits = model(ids, clips, mask)
        wanted = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)
        torch.testing.assert_close(model.loss(ids, clips, labels, mask), wanted, atol=1e-6, rtol=1e-5)


def test_a_prompt_in_a_batch_is_the_prompt_alone(model: MiDashengLM) -> None:
    ids, clips, _, mask = batch()
    with torch.inference_mode():
        together = model(ids, clips, mask)
        torch.testing.assert_close(together[:1], model(ids[:1], clips[:1]), atol=5e-5, rtol=0)
        torch.testing.assert_close(together[1:, :6], model(ids[1:, :6], clips[1:]), atol=5e-5, rtol=0)
        left = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids[1:, :6]], 1)
        behind = model(left, clips[1:], torch.tensor([[0] * 4 + [1] * 6]))
        torch.testing.assert_close(behind[:, 4:], together[1:, :6], atol=5e-5, rtol=0)


def test_audio_takes_the_places_of_its_tokens(model: MiDashengLM) -> None:
    ids, clips, _, _ = batch()
    with torch.inference_mode():
        embedded = model.embed(ids, clips)
        tokens = model.audio_tokens(clips)
        plain = model.decoder.get_input_embeddings()(ids)
    assert torch.equal(embedded[ids == AUDIO], torch.cat(tokens))
    assert torch.equal(embedded[ids != AUDIO], plain[ids != AUDIO])
    assert torch.equal(model.embed(ids[:, -2:], []), plain[:, -2:])


def test_numbers_that_do_not_fit_are_named(model: MiDashengLM) -> None:
    ids, clips, _, _ = batch()
    with pytest.raises(PromptError, match="hold 7 audio placeholders, the 1 clips give 5 audio tokens"):
        model.embed(ids, clips[:1])
    with pytest.raises(ConfigError, match="attend='whole'"):
        MiDashengLMConfig(encoder=DashengConfig(), text=model.config.text)
