from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from auricle.models.qwen_decoder import PackedPass, Segment, choose_pass, is_plain_qwen2, new_memory, stock_pass

GEOMETRY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
LENGTHS = [7, 12, 30]
NEW = 4


def qwen(**settings: Any) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**{**GEOMETRY, **settings})).eval()


def sliding() -> Qwen2ForCausalLM:
    return qwen(use_sliding_window=True, sliding_window=8, max_window_layers=1)


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**GEOMETRY)).eval()


class Adapted(nn.Module):
    """A linear layer with a low-rank side branch, as adapters put in place of plain ones."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def adapted() -> Qwen2ForCausalLM:
    decoder = qwen()
    for layer in decoder.model.layers:
        layer.self_attn.q_proj = Adapted(layer.self_attn.q_proj)
        layer.mlp.down_proj = Adapted(layer.mlp.down_proj)
    return decoder.eval()


@torch.inference_mode()
def step_by_step(decoder: Any, run: Any, sequences: list[Tensor]) -> list[Tensor]:
    """Read all sequences but their end together in two portions, then the end as rows of one memory."""
    memories = [new_memory(decoder, 1, 64) for _ in sequences]
    found: list[list[Tensor]] = [[] for _ in sequences]
    for part in range(2):
        segments = []
        for sequence, memory in zip(sequences, memories, strict=True):
            begin, end = (0, 5) if part == 0 else (5, len(sequence) - NEW)
            positions = torch.arange(begin, end)[None]
            segments.append(Segment(sequence[None, begin:end], positions, memory, begin, end))
        for own, hidden in zip(found, run(segments), strict=True):
            own.append(hidden[0])
    rows, lengths = torch.cat(memories, 2), torch.tensor([len(s) - NEW for s in sequences])
    for _ in range(NEW):
        keys = int(lengths.max()) + 1
        hidden_places = torch.arange(keys)[None] > lengths[:, None]
        mask = torch.zeros(hidden_places.shape).masked_fill(hidden_places, -torch.inf)[:, None, None]
        new = torch.stack([sequence[length] for sequence, length in zip(sequences, lengths, strict=True)])[:, None]
        (hidden,) = run([Segment(new, lengths[:, None], rows, lengths, keys, mask)])
        for own, row in zip(found, hidden, strict=True):
            own.append(row)
        lengths = lengths + 1
    return [torch.cat(own) for own in found]


def test_only_what_is_known_is_read_lean() -> None:
    assert all(is_plain_qwen2(make()) for make in (qwen, adapted))
    assert not any(is_plain_qwen2(make()) for make in (sliding, llama))
    assert isinstance(choose_pass(qwen()), PackedPass)
    assert not isinstance(choose_pass(llama()), PackedPass)


@pytest.mark.parametrize(
    ("make", "way"),
    [*((make, stock_pass) for make in (qwen, adapted, sliding, llama)), (qwen, PackedPass), (adapted, PackedPass)],
)
def test_states_are_those_of_transformers(make: Any, way: Any) -> None:
    decoder = make()
    run = way(decoder)
    draw = torch.Generator().manual_seed(1)
    sequences = [0.3 * torch.randn(n + NEW, 64, generator=draw) for n in LENGTHS]
    for sequence, found in zip(sequences, step_by_step(decoder, run, sequences), strict=True):
        with torch.inference_mode():
            wanted = decoder.model(inputs_embeds=sequence[None]).last_hidden_state[0]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_the_rotary_table_grows() -> None:
    decoder = qwen()
    run, memory = PackedPass(decoder), new_memory(decoder, 1, 400)
    sequence = 0.3 * torch.randn(1, 400, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        for begin, end in ((0, 100), (100, 400)):
            (found,) = run([Segment(sequence[:, begin:end], torch.arange(begin, end)[None], memory, begin, end)])
        wanted = decoder.model(inputs_embeds=sequence).last_hidden_state
    torch.testing.assert_close(found[0], wanted[0, 100:], atol=1e-5, rtol=0)


def test_bfloat16_keeps_the_direction() -> None:
    decoder = qwen().bfloat16()
    sequence = torch.randn(20, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    (found,) = step_by_step(decoder, PackedPass(decoder), [sequence])
    with torch.inference_mode():
        wanted = decoder.model(inputs_embeds=sequence[None]).last_hidden_state[0]
    assert torch.cosine_similarity(found.float(), wanted.float(), dim=-1).min() > 0.999
