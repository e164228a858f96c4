import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import DataError
from auricle.metrics.languages import language_code


@pytest.mark.parametrize(
    ("code", "short"),
    [
        *(("cmn", "zh"), ("zho", "zh"), ("chi", "zh"), ("zh-CN", "zh"), ("zh_Hant_TW", "zh"), ("cmn-Hans-CN", "zh")),
        *(("jpn", "ja"), ("tha", "th"), ("khm", "km"), ("lao", "lo"), ("mya", "my"), ("bur", "my"), ("bod", "bo")),
        *(("eng", "en"), ("EN", "en"), ("en_US", "en"), ("ger", "de"), ("deu", "de"), ("es-419", "es"), ("yue", "yue")),
        *(("ckb", "ckb"), ("nan", "nan"), ("sr-Latn-RS", "sr"), ("de-CH-1996", "de"), ("fil", "fil")),
    ],
)
def test_codes_of_two_and_three_letters_with_script_and_region(code: str, short: str) -> None:
    assert language_code(code) == short


@pytest.mark.parametrize(
    ("code", "message"),
    [
        *(("jp", "perhaps 'ja'"), ("cn", "perhaps 'zh'"), ("cz", "perhaps 'cs'"), ("xx", "'xx'"), ("qqz", "'qqz'")),
        *(("", "''"), ("English", "'English'"), ("en-", "'en-'"), ("und", "'und'"), ("e", "'e'"), ("zh CN", "'zh CN'")),
    ],
)
def test_other_codes_are_refused(code: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"lang is .*{message}"):
        language_code(code)


@given(st.text(max_size=12))
def test_any_text_is_a_code_or_refused(text: str) -> None:
    try:
        short = language_code(text)
    except DataError:
        return
    assert language_code(short) == short and short.isascii() and 2 <= len(short) <= 3
