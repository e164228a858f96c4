import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from auricle.models import blocks
from auricle.models.blocks import Attention, Block, Linear, Spans, attend, linear, linear_gelu, plan_spans


@pytest.mark.parametrize("shape", [(7, 12), (3, 5, 12), (1, 12)])
@pytest.mark.parametrize("biased", [True, False])
def test_linear_is_torchs_forward_and_backward(shape: tuple[int, ...], biased: bool) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(shape), torch.randn(20, 12), *([torch.randn(20)] if biased else [])]
    ours = [tensor.clone().requires_grad_() for tensor in inputs]
    theirs = [tensor.clone().requires_grad_() for tensor in inputs]
    found, wanted = linear(*ours), F.linear(*theirs)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(wanted)
    (found * weight).sum().backward()
    (wanted * weight).sum().backward()
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, two.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not blocks._LINEAR_DTYPES, reason="this torch has no oneDNN linear layer")
def test_the_fast_path_is_taken_where_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    apply = blocks._OneDnnLinear.apply
    monkeypatch.setattr(blocks._OneDnnLinear, "apply", lambda *args: taken.append(1) or apply(*args))
    layer = Linear(4, 3)
    layer(torch.randn(5, 4))
    assert len(taken) == 1
    layer(torch.randn(1, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(5, 4)).dtype == torch.bfloat16
    layer.to(torch.bfloat16)(torch.randn(5, 4, dtype=torch.bfloat16))
    layer.double()(torch.randn(5, 4).double())
    assert len(taken) == 1


def test_linear_skips_gradients_nobody_asks_for() -> None:
    weight, bias = torch.randn(3, 4), torch.randn(3)
    x = torch.randn(5, 4, requires_grad=True)
    linear(x, weight, bias).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(5, 4))
    weight.requires_grad_()
    linear(x.detach(), weight, bias).sum().backward()
    assert weight.grad is not None and bias.grad is None


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_fused_gelu_is_the_exact_one(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(7, 12), torch.randn(20, 12), torch.randn(20)
    wanted = F.gelu(F.linear(x.double(), weight.double(), bias.double()))
    given = [tensor.to(dtype) for tensor in (x, weight, bias)]
    with torch.no_grad():
        fused = linear_gelu(*given)
    assert fused.dtype == dtype
    torch.testing.assert_close(fused.double(), wanted, atol=4 * tolerance, rtol=tolerance)
    torch.testing.assert_close(linear_gelu(*given), fused, atol=4 * tolerance, rtol=tolerance)  # with gradients


LENGTHS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(LENGTHS)
def test_planned_spans_hold_every_span_once(pairs: list[tuple[int, int]]) -> None:
    lengths, keys = [n for n, _ in pairs], [min(n, k) for n, k in pairs]
    order, spans = plan_spans(lengths, keys)
    assert sorted(order) == list(range(len(pairs)))
    laid = [(span.length, span.keys) for span in spans for _ in range(span.repeats)]
    assert laid == [(lengths[i], keys[i]) for i in order]
    assert len({(span.length, span.keys) for span in spans}) == len(spans)  # equal ones share a call
    assert plan_spans(lengths)[1] == plan_spans(lengths, lengths)[1]


def test_both_ways_to_attend_agree() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 8) for _ in range(3))
    fused = attend(query, key, value)
    inputs = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    torch.testing.assert_close(attend(*inputs), fused, atol=1e-6, rtol=1e-5)
    wanted = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    attend(*inputs).square().sum().backward()
    F.scaled_dot_product_attention(*wanted).square().sum().backward()
    for one, two in zip(inputs, wanted, strict=True):
        torch.testing.assert_close(one.grad, two.grad, atol=1e-5, rtol=1e-5)


@given(LENGTHS)
def test_packed_attention_is_masked_attention_of_each_span(pairs: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    layer = Attention(8, 2)
    order, spans = plan_spans([n for n, _ in pairs], [min(n, k) for n, k in pairs])
    parts = [torch.randn(pairs[i][0], 8) for i in order]
    with torch.no_grad():
        packed = layer(torch.cat(parts), spans).split([len(part) for part in parts])
        for part, found, i in zip(parts, packed, order, strict=True):
            torch.testing.assert_close(found, masked(layer, part, min(pairs[i])), atol=1e-5, rtol=1e-5)


def masked(layer: Attention, x: Tensor, keys: int) -> Tensor:
    """By the book, one query at a time."""
    query, key, value = (t.view(len(x), layer.num_heads, -1) for t in F.linear(x, *layer.qkv.parameters()).chunk(3, 1))
    rows = []
    for row in query:
        scores = torch.einsum("hc,khc->hk", row, key[:keys]) / row.shape[-1] ** 0.5
        rows.append(torch.einsum("hk,khc->hc", scores.softmax(-1), value[:keys]).flatten())
    return F.linear(torch.stack(rows), *layer.proj.parameters())


def test_layer_scale_gates_both_branches() -> None:
    x = torch.randn(4, 8)
    block = Block(8, 2, layer_scale=0.0)
    assert torch.equal(block(x, [Spans(1, 4, 4)]), x)
    assert not torch.equal(Block(8, 2)(x, [Spans(1, 4, 4)]), x)
