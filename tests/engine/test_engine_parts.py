"""The parts of the engine: text of growing answers, memory of rows, caches, grouping."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import Tensor

from auricle.engine.detokenizer import Detokenizer
from auricle.engine.engine import Engine
from auricle.engine.kv_cache import BLOCK, PrefixCache, Rows, name_blocks
from auricle.engine.loglikelihood import group_continuations
from auricle.engine.request import SamplingParams
from auricle.engine.sampling import Sampler, choose
from auricle.engine.scheduler import Prefill
from auricle.listen.model import AudioLM
from auricle.models.qwen import QwenConfig, QwenForCausalLM
from auricle.weights.processor import Prompt

TEXTS = st.text(alphabet="ab é漢😀\n<|", max_size=30)


def spelled(tokenizer: Tokenizer, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[str, list[int], bool]:
    text = Detokenizer(tokenizer, stop)
    returned = []
    for token in ids:
        returned += text.add(token, -1.0)
        if text.is_stopped:
            break
    returned += text.close()
    return "".join(token.text for token in returned), [token.id for token in returned], text.is_stopped


@given(text=TEXTS, cut=st.integers(0, 30))
@settings(max_examples=50, derandomize=True)
def test_pieces_make_the_text(model: AudioLM, text: str, cut: int) -> None:
    tokenizer = model.loaded.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:cut]  # often within a character
    assert spelled(tokenizer, ids) == (tokenizer.decode(ids), ids, False)


@given(text=TEXTS, stop=st.lists(st.text(alphabet="ab é漢", min_size=1, max_size=3), min_size=1, max_size=3))
@settings(max_examples=100, derandomize=True)
def test_text_ends_before_the_first_stop_string(model: AudioLM, text: str, stop: list[str]) -> None:
    tokenizer = model.loaded.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    text = tokenizer.decode(ids)
    cuts = [text.find(word) for word in stop if word in text]
    found, kept, is_stopped = spelled(tokenizer, ids, tuple(stop))
    assert is_stopped == bool(cuts)
    assert found == text[: min(cuts, default=len(text))]
    assert kept == ids[: len(kept)] and tokenizer.decode(kept).startswith(found.removesuffix("\ufffd"))


def small_decoder() -> QwenForCausalLM:
    config = QwenConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return QwenForCausalLM(config)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, derandomize=True)
def test_rows_keep_their_memory(seed: int) -> None:
    rng, rows = random.Random(seed), Rows(small_decoder())
    mirror: list[Tensor] = []
    for _ in range(12):
        if mirror and rng.random() < 0.4:
            row = rng.randrange(len(mirror))
            rows.leave(row)
            last = mirror.pop()
            if row < len(mirror):
                mirror[row] = last
        else:
            length = rng.randint(1, 200)
            memory = torch.randn(1, 2, 1, 1, length + 3, 4)
            rows.join(memory, length, length + rng.randint(0, 100))
            mirror.append(memory[:, :, 0, :, :length])
        assert rows.lengths == [each.shape[3] for each in mirror]
        for row, each in enumerate(mirror):
            assert torch.equal(rows.cache[:, :, row, :, : each.shape[3]], each)
            assert not rows.cache[:, :, row, :, each.shape[3] :].any()


def test_prefixes_are_found_and_bounded() -> None:
    memory = torch.randn(1, 2, 1, 1, 5 * BLOCK, 4)
    size = memory.nbytes // 5
    cache = PrefixCache(6 * size)
    tokens = np.arange(5 * BLOCK)
    names = name_blocks(tokens)
    assert len(names) == 5 and cache.match(names) == 0
    cache.write(names[:2], 0, memory)
    cache.write(names, 2, memory)
    assert cache.match(names) == 5 and cache.num_bytes == 5 * size
    found = torch.zeros_like(memory)
    cache.read(names[:3], found)
    assert torch.equal(found[..., : 3 * BLOCK, :], memory[..., : 3 * BLOCK, :])
    assert not found[..., 3 * BLOCK :, :].any()
    changed = tokens.copy()
    changed[BLOCK] = -1  # all names behind a change are others
    others = name_blocks(changed)
    assert others[0] == names[0] and not set(others[1:]) & set(names)
    cache.write(others[:3], 1, memory)
    assert cache.num_bytes == 6 * size and cache.match(names) == 4 and cache.match(others) == 3
    assert name_blocks(tokens[: BLOCK - 1]) == []
    nothing = PrefixCache(size - 1)
    nothing.write(names, 0, memory)
    assert len(nothing) == 0


def test_clips_are_encoded_once_and_the_cache_is_bounded(model: AudioLM) -> None:
    lm = model.loaded.model
    noises = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (4000, 16_000, 9000)]
    audio = lm.config.audio_token_id
    counts = [len(tokens) for tokens in lm.audio_tokens(noises)]
    prompt = Prompt([1, *[audio] * counts[0], 2, *[audio] * counts[1], *[audio] * counts[2], 3], noises)
    engine = Engine(model.loaded, audio_cache_mb=1)
    checked = engine.check(prompt, 1)

    def embed(engine: Engine, start: int) -> Tensor | Exception:
        (found,) = engine._embed([Prefill(checked, start, len(checked.ids))])
        return found

    with torch.inference_mode():
        wanted = lm.embed(torch.tensor([prompt.input_ids]), noises)[0]
        for start in range(len(prompt.input_ids)):
            torch.testing.assert_close(embed(engine, start), wanted[start:], atol=1e-5, rtol=0)
        assert engine.encoded_clips == 3
        small = Engine(model.loaded, audio_cache_mb=(engine._audio.num_bytes - 1) / 1e6)
        embed(small, 0)
        assert small._audio.num_bytes <= small._audio.max_bytes
        embed(small, len(prompt.input_ids) - 1)  # no clip is needed
        assert small.encoded_clips == 3
        embed(small, 0)
        assert small.encoded_clips == 4  # the first was dropped


def test_samples_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 0.5]]).repeat(4000, 1)
    rows = [Sampler(SamplingParams(do_sample=True, seed=seed), frozenset()) for seed in range(4000)]
    chosen, logprobs, failed = choose(rows, logits)
    shares = torch.bincount(torch.tensor(chosen), minlength=4) / 4000
    torch.testing.assert_close(shares, logits[0].softmax(-1), atol=0.03, rtol=0)
    assert logprobs[0] == pytest.approx(logits[0].log_softmax(-1)[chosen[0]].item()) and not failed


@given(lengths=st.lists(st.integers(0, 9), max_size=12), most=st.integers(1, 12))
@settings(max_examples=30, derandomize=True)
def test_continuations_are_grouped(lengths: list[int], most: int) -> None:
    groups = list(group_continuations([[0] * n for n in lengths], most))
    assert [index for group in groups for index in group] == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in group) <= most or len(group) == 1 for group in groups)
