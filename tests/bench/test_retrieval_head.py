import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.bench.retrieval_head import (
    MAX_SCALE,
    Captioned,
    RetrievalHead,
    RetrievalSettings,
    contrastive_loss,
    evaluate_retrieval,
    train_retrieval,
)
from auricle.errors import ConfigError, DataError

WORDS, DIM = 20, 8
SMALL = RetrievalSettings(epochs=6, batch_size=16, width=32)
SCALE = torch.tensor(math.log(1 / 0.07))


def captioned(clips: int = 20, captions: int = 3, seed: int = 0) -> Captioned:
    """Clip i sounds like its number and is described by its word, among others that say nothing."""
    generator = torch.Generator().manual_seed(seed)
    owners = torch.arange(clips).repeat_interleave(captions)
    noise = torch.randint(WORDS, (len(owners), 2), generator=generator) + WORDS
    tokens = [
        [int(owner) % WORDS, *row.tolist()][: 2 + int(owner) % 2] for owner, row in zip(owners, noise, strict=True)
    ]
    kinds = torch.randn(WORDS, DIM, generator=torch.Generator().manual_seed(1))
    audio = kinds[torch.arange(clips) % WORDS] + 0.1 * torch.randn(clips, DIM, generator=generator)
    return Captioned(audio, tokens, owners)


@given(st.integers(0, 1000))
def test_strict_loss_is_that_of_cosines(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    audio, text = torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    cosines = F.cosine_similarity(audio[:, None], text[None], dim=-1) / 0.07
    expected = -(cosines.log_softmax(1).diagonal().mean() + cosines.log_softmax(0).diagonal().mean()) / 2
    loss = contrastive_loss(audio, text, SCALE)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    longer = contrastive_loss(audio * 3, text * torch.arange(1.0, 6)[:, None], SCALE)
    assert longer.item() == pytest.approx(loss.item(), rel=1e-4)  # lengths do not count
    compat = contrastive_loss(audio, text, SCALE, mode="compat")
    assert contrastive_loss(audio * 3, text, SCALE, mode="compat").item() != pytest.approx(compat.item(), rel=1e-2)


def test_captions_of_one_clip_are_no_negatives() -> None:
    generator = torch.Generator().manual_seed(0)
    audio, text = torch.randn(3, 4, generator=generator), torch.randn(4, 4, generator=generator)
    owners = torch.tensor([0, 1, 2, 0])
    loss = contrastive_loss(audio[owners], text, SCALE, owners=owners)
    similarity = (F.normalize(audio[owners], dim=1) @ F.normalize(text, dim=1).t()) / 0.07
    parts = []
    for logits in (similarity, similarity.t()):
        for row in range(4):
            kept = [column for column in range(4) if column == row or owners[column] != owners[row]]
            parts.append(logits[row, kept].logsumexp(0) - logits[row, row])
    assert loss.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-4)
    assert loss < contrastive_loss(audio[owners], text, SCALE)
    with_owners, without = (
        contrastive_loss(audio[owners], text, SCALE, owners=each, mode="compat") for each in (owners, None)
    )
    assert torch.equal(with_owners, without)


def test_the_trained_temperature_has_a_limit() -> None:
    audio, text = torch.randn(4, 3), torch.randn(4, 3)
    at_limit = contrastive_loss(audio, text, torch.tensor(math.log(MAX_SCALE)))
    assert torch.equal(contrastive_loss(audio, text, torch.tensor(50.0)), at_limit)


def test_padding_says_nothing() -> None:
    torch.manual_seed(0)
    head = RetrievalHead(DIM, WORDS, width=16)
    alone = head.embed_text(torch.tensor([[3, 4]]), torch.ones(1, 2, dtype=torch.bool))
    padded = head.embed_text(torch.tensor([[3, 4, 9, 9]]), torch.tensor([[True, True, False, False]]))
    assert torch.allclose(alone, padded, atol=1e-6)
    assert head.embed_audio(torch.randn(5, DIM).half()).shape == (5, 16)
    assert head.log_scale.item() == pytest.approx(SCALE.item())


@pytest.mark.parametrize("mode", ["strict", "compat"])
def test_words_of_clips_are_learned(mode: str) -> None:
    fixed = RetrievalSettings(mode=mode, epochs=6, batch_size=16, width=32, rate=1e-2)  # type: ignore[arg-type]
    seen: list[int] = []
    head, scores = train_retrieval(
        captioned(), captioned(seed=5), vocabulary=2 * WORDS, settings=fixed, on_epoch=lambda e, s: seen.append(e)
    )
    to_text, to_audio = evaluate_retrieval(head, captioned(seed=5))
    assert seen == list(range(6)) and len(scores) == 6
    assert (to_text.r1 + to_audio.r1) / 2 == pytest.approx(max(scores))  # the best epoch is what comes back
    assert max(scores) > 0.5  # chance is 1 in 20
    assert not head.training


@settings(max_examples=3)
@given(st.integers(0, 100))
def test_training_repeats_itself_and_leaves_the_random_state(seed: int) -> None:
    fixed = RetrievalSettings(epochs=1, batch_size=16, width=8, seed=seed)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, _ = train_retrieval(captioned(), captioned(), vocabulary=2 * WORDS, settings=fixed)
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(2)
    two, _ = train_retrieval(captioned(), captioned(), vocabulary=2 * WORDS, settings=fixed)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_a_last_batch_of_one_is_left_out() -> None:
    head, _ = train_retrieval(captioned(17, 1), captioned(4), vocabulary=2 * WORDS, settings=SMALL)
    assert all(torch.isfinite(part).all() for part in head.state_dict().values())


def test_what_is_refused() -> None:
    for values in ({"mode": "loose"}, {"epochs": 0}, {"batch_size": 1}, {"rate": 0.0}, {"seed": -1}):
        with pytest.raises(ConfigError):
            RetrievalSettings(**values)  # type: ignore[arg-type]
    audio = torch.zeros(2, 3)
    with pytest.raises(DataError, match="no tokens"):
        Captioned(audio, [[1], []], torch.tensor([0, 1]))
    with pytest.raises(DataError, match="do not fit"):
        Captioned(audio, [[1]], torch.tensor([0, 1]))
    with pytest.raises(DataError, match=r"clips 0 … 1"):
        Captioned(audio, [[1]], torch.tensor([2]))
    with pytest.raises(DataError, match="right tokenizer"):
        train_retrieval(captioned(), captioned(), vocabulary=WORDS)
    with pytest.raises(DataError, match="at least two"):
        train_retrieval(captioned(1, 1), captioned(), vocabulary=2 * WORDS)
