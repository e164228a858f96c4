import sys
from pathlib import Path

import pytest

from auricle.errors import ConfigError, LayoutMismatch, MissingExtra, WeightsError
from auricle.weights.text_tokenizers import SPM_FILE, NllbTokenizer, StockTokenizer, nllb_languages

from .conftest import FIXTURES

FILE = FIXTURES / "glap" / "spm.model"
LONG = "the sound of a dog can be heard " * 20


@pytest.fixture
def nllb() -> NllbTokenizer:
    pytest.importorskip("sentencepiece")
    return NllbTokenizer(FILE)


@pytest.fixture
def stock(tmp_path: Path) -> StockTokenizer:
    """A tokenizer that asks for padding and truncation, as those of sentence-transformers do."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "dog": 4, "barks": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return StockTokenizer(tmp_path / "tokenizer.json", max_tokens=6, languages=["eng_Latn"])


def test_languages() -> None:
    languages = nllb_languages()
    assert len(languages) == len(set(languages)) == 202
    numbers = {code: 256_001 + i for i, code in enumerate(languages)}
    known = {"ace_Arab": 256_001, "cat_Latn": 256_034, "deu_Latn": 256_042, "eng_Latn": 256_047, "fra_Latn": 256_057}
    known |= {"jpn_Jpan": 256_079, "nld_Latn": 256_127, "spa_Latn": 256_161, "zho_Hans": 256_200, "zul_Latn": 256_202}
    assert numbers.items() >= known.items()


@pytest.mark.parametrize(
    ("language", "near"),
    [("eng_latn", "eng_Latn"), ("de", "deu_Latn"), ("zho_Hanz", "zho_Hans"), ("en", "eng_Latn"), ("", "ace_Arab")],
)
def test_unknown_languages_list_near_ones(nllb: NllbTokenizer, language: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"language is '{language}'; did you mean .*{near}.*202 of them"):
        nllb.encode(["a dog"], language=language)


def test_a_long_text_keeps_its_end(nllb: NllbTokenizer) -> None:
    whole = nllb.encode([LONG])[0]
    assert 100 < len(whole) <= 514 and (whole[0], whole[-1]) == (256_047, 3)
    short = NllbTokenizer(FILE, max_tokens=20)
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 20 tokens"):
        cut, other = short.encode([LONG, "a dog"])
    assert cut == [*whole[:19], 3] and other == nllb.encode(["a dog"])[0]
    with pytest.warns(UserWarning, match="not read"):
        assert NllbTokenizer(FILE, max_tokens=20, keep_end=False).encode([LONG]) == [whole[:20]]


def test_a_text_is_tokenized_alone(nllb: NllbTokenizer) -> None:
    texts = ["a dog", "", "狗的声音", LONG]
    assert nllb.encode(texts) == [nllb.encode([text])[0] for text in texts]


def test_damaged_and_absent_models(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    with pytest.raises(WeightsError, match=r"no\.model: cannot be read"):
        NllbTokenizer(tmp_path / "no.model").encode(["a"])
    (tmp_path / "bad.model").write_bytes(b"<html>" * 50)
    with pytest.raises(WeightsError, match=r"bad\.model: is no sentencepiece model"):
        NllbTokenizer(tmp_path / "bad.model").encode(["a"])
    with pytest.raises(LayoutMismatch, match="holds 220 pieces, expected 256000"):
        NllbTokenizer(FILE, vocab_size=256_206).encode(["a"])
    NllbTokenizer(FILE, vocab_size=426).encode(["a"])


def test_absent_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    tokenizer = NllbTokenizer(FILE)
    assert "deu_Latn" in tokenizer.languages and len(tokenizer.fingerprint) == 64
    with pytest.raises(MissingExtra, match=r"pip install 'auricle\[align\]'"):
        tokenizer.encode(["a"])


def test_stock_tokenizer(stock: StockTokenizer, tmp_path: Path) -> None:
    assert stock.encode(["dog barks loud", "dog"]) == [[2, 4, 5, 1, 3], [2, 4, 3]]
    for _ in range(2):  # the limit is set for one call only
        with pytest.warns(UserWarning, match="1 of 2 texts are longer than 6 tokens"):
            assert stock.encode(["dog " * 9, "dog"]) == [[2, 4, 4, 4, 4, 3], [2, 4, 3]]
    with pytest.raises(ConfigError, match="language is 'deu_Latn'; did you mean eng_Latn"):
        stock.encode(["dog"], language="deu_Latn")
    assert StockTokenizer(stock.file, max_tokens=6).encode(["dog"], language="deu_Latn") == [[2, 4, 3]]


@pytest.mark.parametrize("content", [b"{}", b"\xff\xfe", None])
def test_damaged_stock_tokenizers(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"tokenizer\.json: (is no tokenizer|cannot be read|the tokenizer fails)"):
        StockTokenizer(tmp_path / "tokenizer.json", max_tokens=6).encode(["dog"])


def test_saved_tokenizers_are_the_same(nllb: NllbTokenizer, stock: StockTokenizer, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    nllb.save(tmp_path / "out")
    stock.save(tmp_path / "out")
    assert NllbTokenizer(tmp_path / "out" / SPM_FILE).fingerprint == nllb.fingerprint
    again = StockTokenizer(tmp_path / "out" / "tokenizer.json", max_tokens=6)
    assert again.fingerprint == stock.fingerprint and again.encode(["dog"]) == stock.encode(["dog"])
