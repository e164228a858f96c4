import re
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from auricle.metrics.characters import is_following, is_mark, is_unspaced, marks, visible

CHARACTERS = st.characters(min_codepoint=1, max_codepoint=sys.maxunicode)


@given(CHARACTERS)
def test_marks_are_those_of_unicode(letter: str) -> None:
    combines = unicodedata.category(letter)[0] == "M"
    assert is_mark(letter) == combines and bool(re.fullmatch(f"[{marks()}]", letter)) <= combines
    assert not combines or re.fullmatch(f"[{marks()}]", letter) or visible(letter) == ""
    assert is_unspaced(letter) <= (not combines) and combines <= is_following(letter)


@given(st.text(CHARACTERS))
def test_what_is_invisible_goes_and_nothing_else(text: str) -> None:
    kept = visible(text)
    assert visible(kept) == kept and all(unicodedata.category(each) != "Cf" for each in kept)
    gone = [each for each in text if each not in kept]
    assert all(unicodedata.category(each) in ("Cf", "Mn") for each in gone)


def test_joiners_selectors_and_marks_of_direction_go() -> None:
    assert visible("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645") == "\u0645\u06cc\u062e\u0648\u0627\u0647\u0645"
    assert visible("so\u00adft \u200frtl\u202c \u2764\ufe0f") == "soft rtl \u2764"
    assert visible("\u0e35\u0947e\u0301") == "\u0e35\u0947e\u0301"  # vowel signs and accents stay


def test_scripts_without_spaces() -> None:
    assert all(map(is_unspaced, "\u72d7\u304b\u30ab\u0e01\u0e81\u1780\u1000\u0f40"))
    assert not any(map(is_unspaced, "a\u0915\ud55c\u0627\u03b1"))
