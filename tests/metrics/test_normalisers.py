import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import ConfigError, DataError, MissingExtra
from auricle.metrics import normalisers
from auricle.metrics.characters import visible
from auricle.metrics.normalisers import split_words, tokens


def test_words_lose_case_and_punctuation() -> None:
    assert split_words("  Mark, is GOING... to-see\n 'elephants'! ") == [
        "mark",
        "is",
        "going",
        "to",
        "see",
        "'elephants'",
    ]
    assert split_words("it's three o'clock.") == ["it's", "three", "o'clock"]
    assert split_words("नमस्ते दुनिया।") == ["नमस्ते", "दुनिया"]
    assert split_words("...") == [] and split_words("") == []


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Selamat <|id|> pagi, [tertawa] (ya)", "id", ["selamat", "pagi"]),
        ("L’été c'est fini", "fr", ["lété", "cest", "fini"]),
        ("東京タワー、３階", "ja", list("東京タワー3階")),
        ("我有２个，1,000元（笑）", "zh", list("我有二个一千元")),
        ("两百〇五", "zh", list("二百零五")),
        ("हिन्दी भाषा", "hi", ["हिन्दी", "भाषा"]),
        ("نمی\u200cخواهم \u200fبروم\u202c", "fa", ["نمیخواهم", "بروم"]),
        ("ខ្ញុំ\u200bស្រលាញ់", "khm", list("ខ្ញុំស្រលាញ់")),
        ("Donau\u00addampf – schiff ...", "deu", ["donaudampf", "schiff"]),
        ("你好", "cmn", ["你", "好"]),
        ("สวัสดี", "tha", list("สวัสดี")),
    ],
)
def test_strict_tokens(text: str, language: str, expected: list[str]) -> None:
    assert tokens(text, language) == expected


def test_strict_tokens_of_english_keep_signs_that_are_read() -> None:
    pytest.importorskip("whisper_normalizer")
    assert tokens("It costs $5.50, that's 50%!", "en") == ["it", "costs", "$5.50", "that", "is", "50%"]


@pytest.mark.parametrize(
    "text", ["I don't know...", "i do not … know", "I do not\u00ad know .", "“I” do not - know!", "- I don't know"]
)
def test_marks_alone_are_no_words_of_english(text: str) -> None:
    pytest.importorskip("whisper_normalizer")
    assert tokens(text, "en") == tokens(text, "eng") == tokens(text, "en_US") == ["i", "do", "not", "know"]


@given(
    st.text(),
    st.sampled_from(["id", "ja", "th", "fa", "hi", "km"]),
    st.text(st.characters(categories=["Cf"]), max_size=3),
)
def test_invisible_characters_change_no_token(text: str, language: str, invisible: str) -> None:
    invisible = invisible.replace("\u200b", "")  # the space of no width separates words
    half = len(text) // 2
    assert tokens(text[:half] + invisible + text[half:], language) == tokens(visible(text), language)
    assert all(any(unicodedata.category(each)[0] not in "PSC" for each in token) for token in tokens(text, language))


def test_strict_tokens_of_cantonese() -> None:
    pytest.importorskip("zhconv")
    assert tokens("我哋去飲茶！", "yue") == list("我哋去饮茶")


def test_mixed_speech_counts_characters_and_words() -> None:
    assert tokens("我用 Python 写code。", "zh", unit="mixed") == ["我", "用", "python", "写", "code"]
    assert tokens("我用 Python", "zh", unit="character") == list("我用python")


@pytest.mark.parametrize("language", ["", "English", "<|en|>", "e", "jp", "cn", "xx"])
def test_an_unknown_language_is_refused(language: str) -> None:
    with pytest.raises(DataError, match="expected an ISO 639 code"):
        tokens("text", language)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, normaliser, kind, words in (
        ("whisper_normalizer.english", normalisers.english, MissingExtra, r"auricle\[evaluate\]"),
        ("zhconv", normalisers.simplified, ConfigError, "pip install zhconv"),
    ):
        normaliser.cache_clear()
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(kind, match=words):
            normaliser()
        monkeypatch.undo()


def test_the_parts_of_the_rules() -> None:
    assert normalisers.normalise("Selamat <|id|> pagi!", "id") == "selamat pagi"
    assert normalisers.normalise_compat("12 个", "zh") == "十二个"
    assert normalisers.without_special("a <|en|> , b", "en") == "a, b"
    assert normalisers.without_special("你 <|zh|> 好", "zh") == "你好"
    assert [normalisers.own_unit(language) for language in ("id", "zh-CN", "th")] == ["word", "character", "character"]


def test_whispers_basic_normaliser() -> None:
    pytest.importorskip("whisper_normalizer")
    assert normalisers.basic()("Ça va? (rires) [bruit]") == "ça va "
