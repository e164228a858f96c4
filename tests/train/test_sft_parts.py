"""The loss in chunks and low-rank updates, each alone."""

import importlib
import math
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from auricle.errors import ConfigError, MissingExtra
from auricle.models.qwen import Linear, QwenConfig, QwenForCausalLM
from auricle.train import lora
from auricle.train.chunked_loss import chunked_loss


@pytest.fixture(scope="module")
def decoder() -> QwenForCausalLM:
    torch.manual_seed(0)
    return QwenForCausalLM(
        QwenConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    ).eval()


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_the_loss_in_chunks_is_the_loss(chunk: int) -> None:
    torch.manual_seed(1)
    head = nn.Linear(8, 30)
    hidden, targets = torch.randn(11, 8, requires_grad=True), torch.randint(30, (11,))
    seen: list[int] = []

    def counted(states: torch.Tensor) -> torch.Tensor:
        seen.append(len(states))
        return head(states)

    loss = chunked_loss(counted, hidden, targets, chunk)
    whole = F.cross_entropy(head(hidden), targets)
    torch.testing.assert_close(loss, whole)
    wanted = torch.autograd.grad(whole, [hidden, *head.parameters()])
    for mine, theirs in zip(torch.autograd.grad(loss, [hidden, *head.parameters()]), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert max(seen) == min(chunk, 11) and sum(seen) == 22  # every chunk is made again for its gradients


def adapted_layer(base: nn.Linear, dropout: float = 0.0) -> tuple[nn.Module, Any, Any]:
    """A model of one layer with an update of rank 2 scaled by 8 / 2, and the update's parameters."""
    model = nn.Sequential(base)
    lora.adapt(model, [lora.ALL_LINEAR], rank=2, alpha=8.0, dropout=dropout)
    return model, *lora.updates(model)["0"]


def test_an_update_starts_at_nothing_and_adds_its_product() -> None:
    torch.manual_seed(0)
    base = nn.Linear(6, 4)
    model, low, high = adapted_layer(base)
    model.eval()
    x = torch.randn(5, 6)
    assert torch.equal(model(x), base(x)) and not base.weight.requires_grad
    assert low.abs().max() <= 1 / math.sqrt(6) and low.std() > 0
    nn.init.normal_(high)
    merged = base.weight + 4.0 * high @ low
    torch.testing.assert_close(model(x), F.linear(x, merged, base.bias))


def test_dropout_is_of_the_update_alone() -> None:
    base = nn.Linear(64, 4)
    model, _, high = adapted_layer(base, dropout=0.5)
    x = torch.randn(3, 64)
    assert torch.equal(model(x), base(x))
    nn.init.normal_(high)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_targets_are_chosen_by_name(decoder: QwenForCausalLM) -> None:
    import copy

    chosen = lora.adapt(copy.deepcopy(decoder), ["q_proj", "v_proj"], rank=2, alpha=4)
    assert chosen == [f"model.layers.{i}.self_attn.{name}_proj" for i in (0, 1) for name in "qv"]
    every = copy.deepcopy(decoder)
    assert len(lora.adapt(every, [lora.ALL_LINEAR], rank=2, alpha=4)) == 14
    assert type(every.lm_head) is Linear and len(lora.updates(every)) == 14
    with pytest.raises(ConfigError, match=r"no linear layer is called c_attn; the layers are down_proj, .*all-linear"):
        lora.adapt(copy.deepcopy(decoder), ["c_attn"], rank=2, alpha=4)


class Rounded(nn.Module):
    """Stands in for a layer of bitsandbytes, which needs a GPU."""

    def __init__(self, width: int, out: int, **how: Any) -> None:
        super().__init__()
        self.in_features, self.out_features, self.how = width, out, how


def test_quantized_weights_need_a_gpu_and_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2, bias=False))
    lora.adapt(module, [lora.ALL_LINEAR], rank=1, alpha=1)
    with pytest.raises(ConfigError, match=r"sft.quantize=4 needs a CUDA device, this run is on 'cpu'"):
        lora.quantize(module, 4, "cpu")
    with pytest.raises(ConfigError, match="expected 4 or 8 bits"):
        lora.quantize(module, 3, "cuda")
    real = importlib.import_module

    def absent(name: str, *rest: Any) -> ModuleType:
        if name == "bitsandbytes":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"bitsandbytes.*auricle\[qlora\]"):
        lora.quantize(module, 8, "cuda")

    def kept(value: torch.Tensor, **how: Any) -> nn.Parameter:
        return nn.Parameter(value, requires_grad=False)

    layers = SimpleNamespace(Linear4bit=Rounded, Linear8bitLt=Rounded, Params4bit=kept, Int8Params=kept)
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(nn=layers))
    lora.quantize(module, 4, "cuda:0")
    first, second = (module[i].base_layer for i in (0, 1))
    assert isinstance(first, Rounded) and first.how["quant_type"] == "nf4" and first.bias.shape == (4,)
    assert isinstance(second, Rounded) and second.weight.shape == (2, 4) and not hasattr(second, "bias")
    lora.quantize(module, 8, "cuda")
