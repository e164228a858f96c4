"""Characters that matching of texts in all scripts depends on, as parts of regular expressions.

Python's ``\\w`` has no combining marks, so that it cuts words of Hindi or Thai at every vowel sign.
"""

import unicodedata
from collections.abc import Iterable
from functools import cache

# Scripts without spaces between words: radicals and Han with its extensions, kana, Thai, Lao, Tibetan, Burmese, Khmer.
_UNSPACED = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x19E0, 0x19FF), (0x2E80, 0x2FDF), (0x3005, 0x3007),
    (0x3021, 0x3029), (0x3031, 0x30FF), (0x31C0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F), (0xF900, 0xFAFF), (0x16FE0, 0x16FFF), (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF),
)  # fmt: skip
# Letters that belong to the syllable before them, as marks do, or after them: vowels of Thai and Lao, the long vowel of
# kana.
_FOLLOWING = "\u0e30\u0e32\u0e45\u0eb0\u0eb2\u30fc"
# The last two stack the next consonant of Burmese and Khmer.
LEADING = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4\u1039\u17d2"
_SELECTORS = {0x034F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}  # marks that nobody sees


@cache
def marks() -> str:
    """Combining marks that `visible` keeps, as ranges within brackets."""
    return _ranges(code for code in range(0x20000) if unicodedata.category(chr(code))[0] == "M")


def is_mark(letter: str) -> bool:
    """Whether a character combines with the one before it."""
    return bool(letter) and unicodedata.category(letter)[0] == "M"


def is_unspaced(letter: str) -> bool:
    """Whether a character is a letter or digit of a script without spaces between words; marks are none."""
    return bool(letter) and not is_mark(letter) and any(first <= ord(letter) <= last for first, last in _UNSPACED)


def is_following(letter: str) -> bool:
    """Whether a character cannot start a word behind an unspaced one."""
    return bool(letter) and (is_mark(letter) or letter in _FOLLOWING)


def visible(text: str) -> str:
    """A text without format characters and variation selectors: joiners, soft hyphens, marks of direction, …

    The joiners of Persian and of Indic scripts go too: they shape letters, and are often left out.

    >>> visible("soft\\u00adhyphen")
    'softhyphen'
    """
    if text.isascii():
        return text
    return "".join(each for each in text if unicodedata.category(each) != "Cf" and ord(each) not in _SELECTORS)


def _ranges(codes: Iterable[int]) -> str:
    found: list[list[int]] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in found)
