"""int8 layers: exact integers, rows that know nothing of each other, and honest refusals."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from auricle.errors import ConfigError
from auricle.models import int8
from auricle.models.int8 import Int8Linear, has_int8_kernel, round_rows

pytestmark = pytest.mark.skipif(not has_int8_kernel(), reason="no FBGEMM on this CPU")


def restored(weight: Tensor) -> Tensor:
    """The rounded weights in float64."""
    rows, scale = round_rows(weight)
    return rows.double() * scale.double()[:, None]


def worst(found: Tensor, wanted: Tensor) -> float:
    """Largest relative error of a row."""
    return float(((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max())


@given(
    rows=st.integers(1, 20),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    passes=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**31),
)
def test_a_row_gives_the_same_bits_in_any_batch(rows: int, inputs: int, outputs: int, passes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layer = Int8Linear(torch.randn(outputs, inputs, generator=generator), passes=passes)
    x = torch.randn(rows, inputs, generator=generator) * torch.logspace(-8, 8, rows)[:, None]
    together = layer(x)
    assert all(torch.equal(layer(x[row : row + 1])[0], together[row]) for row in range(rows))
    assert torch.equal(layer(x.flip(0)).flip(0), together)


@pytest.mark.parametrize(("passes", "bound"), [(2, 2e-4), (1, 3e-2)])
@pytest.mark.parametrize("biased", [True, False])
def test_two_passes_round_only_the_weights(passes: int, bound: float, biased: bool) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(300, 511), torch.randn(300) if biased else None, torch.randn(40, 511)
    wanted = F.linear(x.double(), restored(weight), None if bias is None else bias.double())
    error = worst(Int8Linear(weight, bias, passes=passes)(x), wanted)
    assert error < bound
    assert passes == 2 or error > 2e-4
    rounding = worst(F.linear(x.double(), restored(weight)), F.linear(x.double(), weight.double()))
    assert 1e-3 < rounding < 2e-2


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_products_do_not_overflow(sign: float) -> None:
    # Everything at the end of its range: sums of two products come within 2 % of what 16 bits hold.
    layer = Int8Linear(torch.full((40, 2048), 0.5))
    found = layer(torch.full((3, 2048), 7 * sign))
    torch.testing.assert_close(found, torch.full((3, 40), 7168 * sign), rtol=1e-6, atol=0)


def test_rounding_of_weights() -> None:
    weight = torch.tensor([[1.0, -0.5, 0.25], [0.0, 0.0, 0.0], [-2.0, 2.0, 1e-30]])
    rows, scale = round_rows(weight)
    assert rows.tolist() == [[127, -64, 32], [0, 0, 0], [-127, 127, 0]] and rows.dtype == torch.int8
    torch.testing.assert_close(scale, torch.tensor([1 / 127, 1.0, 2 / 127]))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="NaN or infinite"):
            round_rows(torch.tensor([[1.0, bad]]))


def test_a_broken_row_breaks_alone() -> None:
    torch.manual_seed(1)
    layer, x = Int8Linear(torch.randn(8, 16)), torch.randn(4, 16)
    whole = layer(x)
    x[1, 3], x[2, 0] = float("nan"), float("inf")
    found = layer(x)
    assert torch.equal(found[[0, 3]], whole[[0, 3]])
    assert bool(found[1].isnan().all()) and not bool(found[2].isfinite().any())
    assert torch.equal(layer(torch.zeros(2, 16)), torch.zeros(2, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shapes_and_types(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    layer = Int8Linear(torch.randn(6, 10, dtype=dtype), torch.randn(6, dtype=dtype))
    x = torch.randn(2, 3, 10, dtype=dtype)
    found = layer(x)
    assert found.shape == (2, 3, 6) and found.dtype == dtype
    assert torch.equal(found[1, 2], layer(x[1, 2]))
    assert layer(x[:0]).shape == (0, 3, 6) and layer(x[:0]).dtype == dtype
    assert (layer.in_features, layer.out_features) == (10, 6) and "passes=2" in repr(layer)
    assert not layer.state_dict() and not list(layer.parameters())


def test_threads_change_no_bit() -> None:
    torch.manual_seed(3)
    layer, x = Int8Linear(torch.randn(512, 256)), torch.randn(33, 256)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = layer(x)
        torch.set_num_threads(2)
        assert torch.equal(layer(x), one)
    finally:
        torch.set_num_threads(before)


def test_global_settings_are_left_alone() -> None:
    before = torch.backends.quantized.engine
    Int8Linear(torch.ones(2, 2))
    assert torch.backends.quantized.engine == before


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="passes is 3"):
        Int8Linear(torch.ones(2, 2), passes=3)
    monkeypatch.setattr(int8, "has_int8_kernel", lambda: False)
    with pytest.raises(ConfigError, match="FBGEMM"):
        Int8Linear(torch.ones(2, 2))
