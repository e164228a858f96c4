from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auricle.errors import ConfigError
from auricle.models.sonar import SonarConfig, SonarText, cut_groups, sine_positions
from auricle.models.text import FAMILIES, StockText, StockTextConfig, build_text_tower

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
DISTILBERT = {"vocab_size": 60, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40}


def stock(family: str, **options: Any) -> StockText:
    torch.manual_seed(1)
    geometry = DISTILBERT if family == "distilbert" else SMALL
    tower = build_text_tower(StockTextConfig(settings={"model_type": family, **geometry}, **options)).eval()
    for parameter in tower.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    assert isinstance(tower, StockText)
    return tower


@pytest.fixture(scope="module", params=FAMILIES)
def tower(request: pytest.FixtureRequest) -> StockText:
    return stock(request.param)


@given(texts=st.lists(st.lists(st.integers(3, 59), min_size=1, max_size=30), min_size=2, max_size=6))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_text_depends_on_itself_alone(tower: StockText, texts: list[list[int]]) -> None:
    with torch.inference_mode():
        together, alone = tower.encode(texts), torch.cat([tower.encode([ids]) for ids in texts])
    assert together.shape == (len(texts), 16) == (len(texts), tower.width)
    assert (together - alone).abs().max() <= 1e-5


def test_the_vector_is_the_mean_over_tokens(tower: StockText) -> None:
    with torch.inference_mode():
        states = tower.network(input_ids=torch.tensor([[5, 9, 7]])).last_hidden_state
        assert (tower.encode([[5, 9, 7]]) - states.mean(1)).abs().max() <= 1e-5


def test_length_one_where_asked_for() -> None:
    assert torch.allclose(stock("bert", normalise=True).encode([[5, 6], [7]]).norm(dim=1), torch.ones(2))


def test_longest_text() -> None:
    assert (stock("bert").max_tokens, stock("roberta").max_tokens, stock("bert", max_tokens=9).max_tokens) == (
        40,
        38,
        9,
    )
    stock("roberta").encode([[5] * 38])
    with pytest.raises(ConfigError, match="39 tokens; expected 1 to 38"):
        stock("roberta").encode([[5] * 39])


@pytest.mark.parametrize(
    "settings",
    [{"model_type": "gpt2"}, {"model_type": None}, {}, {"model_type": "bert", "hidden_size": 15, **DISTILBERT}],
)
def test_other_networks_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model_type is|no bert encoder"):
        build_text_tower(StockTextConfig(settings=settings))


def test_settings_cannot_choose_code_or_types() -> None:
    settings = {"model_type": "bert", **SMALL, "torch_dtype": "float16", "auto_map": {"AutoModel": "evil.Model"}}
    tower = build_text_tower(StockTextConfig(settings=settings))
    assert {p.dtype for p in tower.parameters()} == {torch.float32}


def test_sine_positions_are_counted_from_two() -> None:
    table = sine_positions(5, 8)
    assert table.shape == (5, 8)
    assert table[0, 0] == pytest.approx(0.909297, abs=1e-6) and table[0, 4] == pytest.approx(-0.416147, abs=1e-6)
    assert table[3, 3] == pytest.approx(5e-4, rel=1e-3)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=30), limit=st.integers(1, 100))
def test_groups_hold_every_text_once(lengths: list[int], limit: int) -> None:
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    groups = cut_groups(order, lengths, limit)
    assert [i for group in groups for i in group] == order
    assert all(len(group) == 1 or len(group) * max(lengths[i] for i in group) <= limit for group in groups)


def test_many_texts_in_their_order() -> None:
    torch.manual_seed(0)
    config = SonarConfig(vocab_size=90, width=16, depth=1, num_heads=2, hidden=16, max_tokens=100)
    tower = SonarText(config).eval()
    texts = [[(7 * i + k) % 90 for k in range(1 + 37 * i % 90)] for i in range(60)]  # 2700 tokens: several groups
    with torch.inference_mode():
        together = tower.encode(texts)
        for i in (0, 1, 31, 59):
            assert (together[i] - tower.encode([texts[i]])[0]).abs().max() <= 1e-5
