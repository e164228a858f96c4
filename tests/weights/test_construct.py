"""Networks without memory, and how they get their tensors."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from auricle.errors import LayoutMismatch
from auricle.models.dasheng import DashengConfig
from auricle.models.midashenglm import MiDashengLM, MiDashengLMConfig
from auricle.models.qwen import QwenConfig
from auricle.weights.construct import LazyTensor, fill, made, on_meta, own_dtype, skip_init

TEXT = QwenConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
CONFIG = MiDashengLMConfig(encoder=DashengConfig(embed_dim=32, depth=2, num_heads=4, attend="whole"), text=TEXT)


def test_initial_values_are_skipped_inside_only() -> None:
    with skip_init():
        state = torch.get_rng_state()
        torch.nn.Linear(50, 50)
        torch.nn.Embedding(50, 50)
        assert torch.equal(torch.get_rng_state(), state)
    linear = torch.nn.Linear(50, 50)
    assert not torch.equal(torch.get_rng_state(), state)
    assert 0 < linear.weight.abs().max() <= 50**-0.5


@pytest.mark.parametrize("context", [skip_init, on_meta])
def test_nothing_is_sampled_for_a_whole_model(context: type) -> None:
    state = torch.get_rng_state()
    with context():
        MiDashengLM(CONFIG)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_sampled_where_transformers_puts_functions_of_its_own() -> None:
    """It replaces those of torch.nn.init while it initialises a network."""
    transformers: Any = pytest.importorskip("transformers", reason="stock networks")
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    state = torch.get_rng_state()
    with skip_init():
        transformers.BertModel(config)
    assert torch.equal(torch.get_rng_state(), state)


def test_parameters_are_on_meta_and_what_is_computed_is_real() -> None:
    with on_meta():
        model = MiDashengLM(CONFIG)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    front_end, plain = model.audio_encoder.front_end, MiDashengLM(CONFIG).audio_encoder.front_end
    assert torch.equal(front_end.window, plain.window) and torch.equal(front_end.filterbank, plain.filterbank)


def test_building_on_meta_imports_no_compiler() -> None:
    """The meta device of some operations costs a second of imports; ours are not among them."""
    import subprocess

    code = (
        "import sys; from auricle.weights import load_midashenglm; load_midashenglm('auricle-tiny')\n"
        "print([name for name in ('sympy', 'torch._dynamo', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def state_of(model: MiDashengLM) -> dict[str, Any]:
    state: dict[str, Any] = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    state["decoder.lm_head.weight"] = state["decoder.model.embed_tokens.weight"]
    return state


def empty() -> MiDashengLM:
    with on_meta():
        return MiDashengLM(CONFIG)


def test_tensors_that_keep_their_type_are_not_copied() -> None:
    torch.manual_seed(0)
    state = state_of(MiDashengLM(CONFIG))
    model = empty()
    fill(model, state, torch.float32, torch.device("cpu"), "x")
    for name, tensor in model.state_dict().items():
        assert tensor.data_ptr() == state[name].data_ptr() and torch.equal(tensor, state[name])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_each_tensor_is_made_once_and_cast() -> None:
    torch.manual_seed(0)
    state, calls = state_of(MiDashengLM(CONFIG)), []

    def lazily(name: str, tensor: Tensor) -> LazyTensor:
        def make() -> Tensor:
            calls.append(name)
            return tensor

        return LazyTensor(tensor.shape, tensor.dtype, make)

    lazy = {name: lazily(name, tensor) for name, tensor in state.items()}
    lazy["decoder.lm_head.weight"] = lazy["decoder.model.embed_tokens.weight"]
    model = empty()
    fill(model, lazy, torch.bfloat16, torch.device("cpu"), "x")
    assert sorted(calls) == sorted(set(lazy) - {"decoder.lm_head.weight"})
    found = model.state_dict()
    assert found["decoder.lm_head.weight"].data_ptr() == found["decoder.model.embed_tokens.weight"].data_ptr()
    for name, tensor in found.items():
        kept = torch.float32 if "init_bn" in name else torch.bfloat16
        assert tensor.dtype == (kept if tensor.is_floating_point() else torch.int64)
        assert torch.equal(tensor, state[name].to(tensor.dtype))


def test_a_tensor_of_another_shape_is_named() -> None:
    state = state_of(MiDashengLM(CONFIG))
    state["decoder.model.norm.weight"] = torch.ones(31)
    with pytest.raises(LayoutMismatch, match=r"x: decoder.model.norm.weight is \(31,\), expected \(32,\)"):
        fill(empty(), state, torch.float32, torch.device("cpu"), "x")


def test_the_type_of_a_checkpoint_is_that_of_most_numbers() -> None:
    half, full = torch.zeros(100, dtype=torch.bfloat16), torch.zeros(50)
    assert own_dtype({"a": half, "b": full}) == torch.bfloat16
    assert own_dtype({"a": half, "b": full, "c": full}) == torch.float32
    assert own_dtype({"a": half.half()}) == own_dtype({"a": torch.zeros(9, dtype=torch.int64)}) == torch.float32
    lazy = LazyTensor(torch.Size((1000,)), torch.bfloat16, lambda: half)
    assert own_dtype({"a": lazy, "b": full}) == torch.bfloat16 and made(lazy) is half


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4, device="cpu"))
        self.register_buffer("angles", torch.arange(4.0))


def test_a_stated_device_is_kept() -> None:
    with on_meta():
        net = Net()
    assert net.weight.device.type == "cpu" and torch.equal(net.get_buffer("angles"), torch.arange(4.0))
