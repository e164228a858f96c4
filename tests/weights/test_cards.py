"""Model cards hold the given facts and read back the same."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.errors import WeightsError
from auricle.weights import Card, read_card
from auricle.weights.cards import render_card

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


def test_round_trip(tmp_path: Path) -> None:
    card = Card(
        name="auricle-tiny",
        summary="Recognises a little.",
        license="apache-2.0",
        datasets=("ESC-10 (CC BY)", "FSDD (CC BY-SA 4.0)"),
        metrics={"accuracy": 0.93, "WER": {"value": 0.2, "interval": [0.1, 0.3]}},
        limits=("no music theory",),
        seed=7,
        config={"steps": 100, "lr": 3e-4},
        base_model="mispeech/dasheng-base",
    )
    text = render_card(card)
    (tmp_path / "README.md").write_text(text)
    assert read_card(tmp_path) == card
    for fact in (
        "# auricle-tiny",
        "ESC-10 (CC BY)",
        "| accuracy | 0.93 |",
        "- no music theory",
        "steps: 100",
        "seed: 7",
    ):
        assert fact in text
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "apache-2.0" and front["base_model"] == "mispeech/dasheng-base"


@settings(max_examples=30)
@given(words, words, st.lists(words), st.dictionaries(words, st.floats(allow_nan=False)), st.none() | st.integers())
def test_any_words_survive(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    summary: str,
    lines: list[str],
    metrics: dict[str, float],
    seed: int | None,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    card = Card(name=name, summary=summary, datasets=tuple(lines), limits=tuple(lines), metrics=metrics, seed=seed)
    (folder / "README.md").write_text(render_card(card), encoding="utf-8")
    assert read_card(folder) == card


def test_cards_of_others(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"README\.md: no such file"):
        read_card(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: mit\ntags: [a]\ndatasets:\n- x\n---\n# Hello\n")
    card = read_card(tmp_path)
    assert (card.license, card.tags, card.datasets, card.name) == ("mit", ("a",), ("x",), tmp_path.name)
    (tmp_path / "README.md").write_text("# No front matter\n")
    assert read_card(tmp_path).license == "unknown"
    for front in ("[1", "- 1"):
        (tmp_path / "README.md").write_text(f"---\n{front}\n---\n")
        with pytest.raises(WeightsError, match="front matter"):
            read_card(tmp_path)
