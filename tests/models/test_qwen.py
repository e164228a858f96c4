"""The decoder against `transformers`: every form of its forward, gradients, caches, adapters."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from auricle.errors import ConfigError
from auricle.models.qwen import Linear, QwenConfig, QwenForCausalLM
from auricle.models.qwen_attention import Segment, plan
from auricle.models.stock_decoder import Decoder, StockDecoder

transformers = pytest.importorskip("transformers", reason="the reference of the decoder")

GEOMETRY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,  # of the default 0.02 the layers would add next to nothing
}
ROPE = {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
LENGTHS = [7, 12, 30]
NEW = 4
RELATIVE = 1e-5  # of the largest value, float32


def seeded(make: Callable[..., Any], config: Any) -> Any:
    torch.manual_seed(0)
    network = make(config).eval()
    for name, parameter in network.named_parameters():  # new gains and biases have no effect
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    return network


def qwen2(**settings: Any) -> Any:
    return seeded(transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**{**GEOMETRY, **ROPE, **settings}))


def qwen3(**settings: Any) -> Any:
    return seeded(
        transformers.Qwen3ForCausalLM, transformers.Qwen3Config(**{**GEOMETRY, **ROPE, "head_dim": 32, **settings})
    )


def sliding() -> Any:
    return qwen2(use_sliding_window=True, sliding_window=8, max_window_layers=1)


def llama() -> Any:
    return seeded(transformers.LlamaForCausalLM, transformers.LlamaConfig(**GEOMETRY))


def ours(stock: Any) -> QwenForCausalLM:
    """The same weights in our decoder."""
    config = stock.config
    is_qwen3 = config.model_type == "qwen3"
    decoder = QwenForCausalLM(
        QwenConfig(
            **GEOMETRY,
            head_dim=32 if is_qwen3 else 0,
            qkv_bias=not is_qwen3,
            qk_norm=is_qwen3,
            sliding_window=config.sliding_window,
            max_window_layers=config.max_window_layers,
            tie_word_embeddings=config.tie_word_embeddings,
        )
    )
    decoder.load_state_dict(stock.state_dict())
    return decoder.to(stock.dtype).train(stock.training)


class Adapted(nn.Module):
    """A linear layer with a low-rank side branch, as adapters put in place of plain ones."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def adapt(decoder: Any) -> Any:
    torch.manual_seed(1)
    for layer in decoder.model.layers:
        layer.self_attn.q_proj = Adapted(layer.self_attn.q_proj)
        layer.mlp.down_proj = Adapted(layer.mlp.down_proj)
    return decoder.eval()


STOCK = {"qwen2": qwen2, "qwen3": qwen3, "sliding": sliding, "tied": lambda: qwen2(tie_word_embeddings=True)}
every = pytest.mark.parametrize("family", STOCK)


def check(found: Tensor, wanted: Tensor, relative: float = RELATIVE) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= relative * wanted.abs().max()


@torch.inference_mode()
def step_by_step(decoder: Decoder, sequences: list[Tensor]) -> list[Tensor]:
    """Read all sequences but their end together in two portions, then the end as rows of one cache."""
    caches = [decoder.new_cache(1, 64) for _ in sequences]
    found: list[list[Tensor]] = [[] for _ in sequences]
    for part in range(2):
        segments = []
        for sequence, cache in zip(sequences, caches, strict=True):
            start, stop = (0, 5) if part == 0 else (5, len(sequence) - NEW)
            positions = torch.arange(start, stop)[None]
            segments.append(Segment(sequence[None, start:stop], positions, cache, start, stop))
        for own, hidden in zip(found, decoder.read(segments), strict=True):
            own.append(hidden[0])
    rows, lengths = torch.cat(caches, 2), torch.tensor([len(s) - NEW for s in sequences])
    for _ in range(NEW):
        keys = int(lengths.max()) + 1
        ahead = torch.arange(keys)[None] > lengths[:, None]
        mask = torch.zeros(ahead.shape, dtype=rows.dtype).masked_fill(ahead, -torch.inf)[:, None, None]
        new = torch.stack([sequence[length] for sequence, length in zip(sequences, lengths, strict=True)])[:, None]
        (hidden,) = decoder.read([Segment(new, lengths[:, None], rows, lengths, keys, mask)])
        for own, row in zip(found, hidden, strict=True):
            own.append(row)
        lengths = lengths + 1
    return [torch.cat(own) for own in found]


def sequences(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [(0.3 * torch.randn(n + NEW, 64, generator=generator)).to(dtype) for n in LENGTHS]


@torch.inference_mode()
def alone(stock: Any, sequence: Tensor) -> Tensor:
    return stock.model(inputs_embeds=sequence[None]).last_hidden_state[0]


@every
def test_names_and_shapes_are_those_of_the_checkpoints(family: str) -> None:
    stock = STOCK[family]()
    decoder = ours(stock)
    wanted = {name: tensor.shape for name, tensor in stock.state_dict().items()}
    assert {name: tensor.shape for name, tensor in decoder.state_dict().items()} == wanted
    assert sum(p.numel() for p in decoder.parameters()) == sum(p.numel() for p in stock.parameters())
    assert (decoder.device, decoder.dtype) == (torch.device("cpu"), torch.float32)
    assert decoder.get_input_embeddings() is decoder.model.embed_tokens


@every
@torch.inference_mode()
def test_logits_of_padded_batches(family: str) -> None:
    stock = STOCK[family]()
    decoder = ours(stock)
    ids = torch.randint(96, (3, 20), generator=torch.Generator().manual_seed(2))
    check(decoder(ids), stock(ids).logits)
    mask = torch.ones_like(ids)
    mask[0, :7], mask[1, 12:] = 0, 0  # on the left, on the right, none
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    wanted = stock(ids, attention_mask=mask, position_ids=positions).logits
    check(decoder(ids, mask)[mask == 1], wanted[mask == 1])
    assert not decoder.decode(decoder.model.embed_tokens(ids), mask)[mask == 0].any()


@every
@torch.inference_mode()
def test_packed_sequences_are_each_as_if_alone(family: str) -> None:
    stock = STOCK[family]()
    decoder = ours(stock)
    parts = sequences()
    packed = decoder.decode_packed(torch.cat(parts)[None], plan([len(part) for part in parts]))
    check(packed[0], torch.cat([alone(stock, part) for part in parts]))


@every
@pytest.mark.parametrize("with_adapter", [False, True])
def test_cached_states_are_those_of_transformers(family: str, with_adapter: bool) -> None:
    stock = STOCK[family]()
    decoder = ours(stock)
    if with_adapter:
        stock, decoder = adapt(stock), adapt(decoder)
    for sequence, found in zip(sequences(), step_by_step(decoder, sequences()), strict=True):
        check(found, alone(stock, sequence))


@pytest.mark.parametrize("make", [qwen2, qwen3, sliding, llama])
@pytest.mark.parametrize("with_adapter", [False, True])
def test_a_stock_decoder_reads_as_it_does_itself(make: Callable[[], Any], with_adapter: bool) -> None:
    stock = adapt(make()) if with_adapter else make()
    decoder = StockDecoder(stock)
    for sequence, found in zip(sequences(), step_by_step(decoder, sequences()), strict=True):
        torch.testing.assert_close(found, alone(stock, sequence), atol=1e-5, rtol=0)
    with torch.inference_mode():
        row = sequences()[0][None]
        assert torch.equal(decoder.decode(row)[0], alone(stock, row[0]))
    assert decoder.get_input_embeddings() is stock.get_input_embeddings()
    assert (decoder.device, decoder.dtype) == (stock.device, stock.dtype)


def test_a_model_without_those_parts_is_no_decoder() -> None:
    with pytest.raises(ConfigError, match="Linear keeps its layers elsewhere"):
        StockDecoder(nn.Linear(2, 2))


@every
def test_greedy_ids_are_those_of_generate(family: str) -> None:
    stock = STOCK[family]()
    decoder = ours(stock)
    prompt = torch.randint(96, (1, 9), generator=torch.Generator().manual_seed(3))
    how = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 24, "do_sample": False}
    wanted = stock.generate(prompt, **how, eos_token_id=None, pad_token_id=0)[0, 9:]
    cache, ids, found = decoder.new_cache(1, 64), prompt, []
    with torch.inference_mode():
        for start in (0, *range(9, 32)):
            positions = torch.arange(start, start + ids.shape[1])[None]
            keys = start + ids.shape[1]
            (hidden,) = decoder.read([Segment(decoder.model.embed_tokens(ids), positions, cache, start, keys)])
            ids = decoder.lm_head(hidden[:, -1]).argmax(-1)[None]
            found.append(int(ids))
    assert found == wanted.tolist()


@every
def test_gradients_are_those_of_transformers(family: str) -> None:
    stock = STOCK[family]()
    decoder = ours(stock)
    ids = torch.randint(96, (3, 20), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    weights = torch.randn(3, 20, 96, generator=torch.Generator().manual_seed(5)) * mask[:, :, None]
    (stock(ids, attention_mask=mask).logits * weights).sum().backward()
    (decoder(ids, mask) * weights).sum().backward()
    wanted = dict(stock.named_parameters())
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and wanted[name].grad is not None
        if name.endswith("k_proj.bias"):  # shifts all scores of a query alike but for the rotation
            torch.testing.assert_close(parameter.grad, wanted[name].grad, atol=1e-4, rtol=1e-3)
        else:
            check(parameter.grad, wanted[name].grad, 2e-5)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_checkpointed_blocks_give_the_same_gradients(family: str) -> None:
    kept = ours(STOCK[family]()).train()
    again = copy.deepcopy(kept)
    again.gradient_checkpointing_enable()
    parts = sequences()
    layout = plan([len(part) for part in parts])
    for decoder in (kept, again):
        decoder.decode_packed(torch.cat(parts)[None], layout).square().sum().backward()
    for one, other in zip(kept.model.parameters(), again.model.parameters(), strict=True):
        if one.grad is None:
            assert other.grad is None
        else:
            assert other.grad is not None and torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_bfloat16_is_as_close_as_transformers_own(family: str) -> None:
    """To the float32 states; rounding in another order is no error."""
    exact = STOCK[family]()
    stock = STOCK[family]().bfloat16()
    decoder = ours(stock)
    parts = sequences(torch.bfloat16)
    with torch.inference_mode():
        packed = decoder.decode_packed(torch.cat(parts)[None], plan([len(part) for part in parts]))[0]
    rows = packed.split([len(part) for part in parts])
    for sequence, cached, row in zip(parts, step_by_step(decoder, parts), rows, strict=True):
        wanted, theirs = alone(exact, sequence.float()), alone(stock, sequence).float()
        allowed = 1.5 * (theirs - wanted).norm()
        assert cached.dtype == row.dtype == torch.bfloat16
        assert (cached.float() - wanted).norm() <= allowed and (row.float() - wanted).norm() <= allowed
        assert torch.cosine_similarity(cached.float(), theirs, dim=-1).min() > 0.999


@torch.inference_mode()
def test_the_rotary_table_grows() -> None:
    stock = qwen2()
    decoder = ours(stock)
    cache = decoder.new_cache(1, 400)
    sequence = 0.3 * torch.randn(1, 400, 64, generator=torch.Generator().manual_seed(2))
    for start, stop in ((0, 100), (100, 400)):
        segment = Segment(sequence[:, start:stop], torch.arange(start, stop)[None], cache, start, stop)
        (found,) = decoder.read([segment])
    check(found[0], alone(stock, sequence[0])[100:])


def test_training_goes_on_after_answering() -> None:
    """A table of angles made in inference mode could not be saved for a backward pass."""
    decoder = ours(qwen2())
    with torch.inference_mode():
        decoder(torch.tensor([[1, 2, 3]]))
    decoder(torch.tensor([[1, 2, 3]])).sum().backward()
    assert decoder.model.embed_tokens.weight.grad is not None


def test_autocast_trains_in_bfloat16() -> None:
    decoder, ids = ours(qwen3()), torch.randint(96, (2, 30), generator=torch.Generator().manual_seed(6))
    mask = torch.ones_like(ids)
    mask[1, 17:] = 0
    exact = decoder.decode(decoder.model.embed_tokens(ids), mask)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = decoder.decode(decoder.model.embed_tokens(ids), mask)
    rounded.float().sum().backward()
    assert torch.cosine_similarity(rounded[mask == 1].float(), exact[mask == 1], dim=-1).min() > 0.999


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12))
def test_a_layout_finds_every_token_again(lengths: list[int]) -> None:
    layout = plan(lengths)
    flat = torch.cat([torch.empty(0, dtype=torch.long), *(places.flatten() for places in layout.groups)])
    assert torch.equal(flat[layout.back], torch.arange(sum(lengths)))
    assert layout.positions[0].tolist() == [at for length in lengths for at in range(length)]
    assert sum(len(places) for places in layout.groups) == sum(length > 0 for length in lengths)
    # What pads is a token of the same sequence, behind all of it.
    assert sum(places.numel() for places in layout.groups) <= sum(lengths) / 0.75 + len(lengths)


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_tokens_anywhere_in_a_row_are_a_sequence(lengths: list[int], seed: int) -> None:
    decoder = ours(qwen2())
    generator = torch.Generator().manual_seed(seed)
    mask = torch.stack([torch.rand(12, generator=generator).argsort().argsort() < length for length in lengths]).long()
    rows = 0.3 * torch.randn(len(lengths), 12, 64, generator=generator)
    with torch.inference_mode():
        found = decoder.decode(rows, mask)
        for row, kept, states in zip(rows, mask.bool(), found, strict=True):
            if kept.any():
                torch.testing.assert_close(states[kept], decoder.decode(row[kept][None])[0], atol=1e-5, rtol=0)


def test_packed_examples_do_not_see_each_other() -> None:
    decoder = ours(qwen2())
    lengths = [3, 17, 1, 16, 9, 5]
    embeddings = torch.randn(1, sum(lengths), 64, generator=torch.Generator().manual_seed(7)).requires_grad_()
    packed = decoder.decode_packed(embeddings, plan(lengths))
    parts = [decoder.decode(part) for part in embeddings.split(lengths, dim=1)]
    torch.testing.assert_close(packed, torch.cat(parts, dim=1), atol=2e-6, rtol=0)
    weights = torch.randn_like(packed)
    mine, theirs = (
        torch.autograd.grad((found * weights).sum(), embeddings, retain_graph=True)[0]
        for found in (packed, torch.cat(parts, dim=1))
    )
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_new_weights_are_sampled_once() -> None:
    torch.manual_seed(0)
    config = QwenConfig(**{**GEOMETRY, "initializer_range": 0.02}, tie_word_embeddings=True)
    decoder = QwenForCausalLM(config)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    for layer in [decoder.model.embed_tokens, *(m for m in decoder.model.modules() if isinstance(m, Linear))]:
        assert torch.equal(layer.weight, nn.init.normal_(torch.empty(layer.weight.shape), std=0.02))
    assert torch.equal(torch.get_rng_state(), state)
    assert decoder.lm_head.weight is decoder.model.embed_tokens.weight
    biases = [p for name, p in decoder.named_parameters() if name.endswith("bias")]
    assert len(biases) == 6 and not any(bias.any() for bias in biases)
    assert all(bool((p == 1).all()) for name, p in decoder.named_parameters() if "norm" in name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 3}, "4 is not a multiple of num_key_value_heads 3"),
        ({"num_hidden_layers": 0}, "sizes of at least 1"),
        ({"head_dim": 15}, "head_dim is 15; rotary positions need an even width"),
    ],
)
def test_impossible_geometries(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QwenConfig(**{**GEOMETRY, **changes})


# PEFT asks transformers for an attribute that has been renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_puts_adapters_in(tmp_path: Any) -> None:
    """By the usual target names; what they learn has the names of adapters of the published checkpoints."""
    peft = pytest.importorskip("peft", reason="adapters of PEFT")
    decoder = ours(qwen2())
    ids = torch.tensor([[1, 2, 3, 4]])
    before = decoder(ids)
    settings = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(decoder, settings)
    learning = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert learning == {
        f"base_model.model.model.layers.{layer}.self_attn.{kind}_proj.lora_{matrix}.default.weight"
        for layer in (0, 1)
        for kind in "qv"
        for matrix in "AB"
    }
    assert torch.equal(adapted(ids), before)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    changed = adapted(ids)
    assert not torch.allclose(changed, before)
    changed.sum().backward()
    assert all(p.grad is not None and p.grad.any() for name, p in adapted.named_parameters() if name in learning)
    with torch.inference_mode():
        (hidden,) = decoder.read(
            [Segment(decoder.model.embed_tokens(ids), torch.arange(4)[None], decoder.new_cache(1, 8), 0, 4)]
        )
        torch.testing.assert_close(decoder.lm_head(hidden), changed, atol=1e-5, rtol=0)
    adapted.save_pretrained(tmp_path)
    stock = peft.PeftModel.from_pretrained(qwen2(), tmp_path)
    check(changed.detach(), stock(ids).logits.detach())
    torch.testing.assert_close(adapted.merge_and_unload()(ids), changed, atol=1e-5, rtol=0)
