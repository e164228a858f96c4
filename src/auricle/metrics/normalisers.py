"""Transcripts → the tokens an error rate counts, by language.

========  =========================================================  ==================================================
          compat                                                     strict
========  =========================================================  ==================================================
en        Whisper's English normaliser, then its basic one: words    Whisper's English normaliser: words
zh        `chinese_text.read_aloud_compat`: characters               NFKC, `chinese_text.read_aloud`: characters
yue       simplified, Whisper's basic one: characters                simplified, then as zh
ja, th …  Whisper's basic one, which takes marks apart: words        NFKC, letters, marks and digits: characters
others    Whisper's basic one: words                                 the same, marks kept: words
========  =========================================================  ==================================================

Source of compat: `wer/compute_wer.py` of github.com/xiaomi-research/dasheng-lm, whose if-else chain sends all but zh
through the basic normaliser, English too.
"""

import re
import unicodedata
import warnings
from collections.abc import Callable
from functools import cache
from typing import Literal, TypeAlias

from auricle.errors import ConfigError, DataError, MissingExtra
from auricle.metrics.chinese_text import read_aloud, read_aloud_compat
from auricle.metrics.scoring_rule import ScoringRule

Unit: TypeAlias = Literal["word", "character", "mixed"]

# Written without spaces between words, so that an error rate of words depends on who put the spaces.
UNSPACED = ("zh", "yue", "ja", "th", "lo", "km", "my", "bo")
_COMPAT_CHARACTERS = ("zh", "yue")
_SPECIAL = re.compile(r"<\|.*?\|>")  # of a decoder's vocabulary, as <|en|>
_BRACKETED = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)|（[^（）]*）")  # said about the sound, not in it
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z]{2,4})?")
# Characters that are words by themselves in mixed text: Han with its extensions, kana.
_ALONE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def tokens(text: str, language: str, *, protocol: ScoringRule = "strict", unit: Unit | None = None) -> list[str]:
    """What an error rate compares.

    Args:
        text: a transcript.
        language: ISO 639 code, ``en``, ``zh``, ``yue``, ``zh-CN``, …
        protocol: see above.
        unit: of the strict rule; None: characters for `UNSPACED`, words for others. ``mixed`` takes Han and kana one
            by one and everything else by words, for speech that switches languages.

    Raises:
        DataError: no language code.
        MissingExtra: what reads English is not installed.
        ConfigError: what reads Cantonese is not.
    """
    if not _LANGUAGE.fullmatch(language):
        raise DataError(f"lang is {language!r}, expected an ISO 639 code as 'en', 'zh', 'yue' or 'th'; correct the row")
    if protocol == "compat":
        return _compat_tokens(normalise_compat(text, language), language)
    said = normalise(text, language)
    if (unit or own_unit(language)) == "word":
        return said.split()
    if unit == "mixed":
        return _ALONE.sub(lambda match: f" {match[0]} ", said).split()
    return list("".join(said.split()))


def own_unit(language: str) -> Unit:
    """What the strict rule counts in a language."""
    return "character" if _base(language) in UNSPACED else "word"


def normalise(text: str, language: str) -> str:
    """The strict rule: one spelling for what sounds the same; errors as in `tokens`."""
    base = _base(language)
    said = _SPECIAL.sub(" ", text)
    if base == "en":
        return english()(said)
    said = _BRACKETED.sub(" ", unicodedata.normalize("NFKC", said)).casefold()
    if base in ("zh", "yue"):
        said = simplified()(said) if base == "yue" else said
        # Two ways to say 2, and two signs of 0, that no hearer would call an error.
        said = read_aloud(said).replace("两", "二").replace("〇", "零")
    return " ".join(_without_marks(said).split())


def _without_marks(text: str) -> str:
    """Punctuation and symbols become spaces; an apostrophe within a word goes without trace."""
    text = re.sub(r"(?<=\w)['’ʼ](?=\w)", "", text)
    return "".join(" " if unicodedata.category(each)[0] in "PS" else each for each in text)


def normalise_compat(text: str, language: str) -> str:
    """The released rule, to the character; errors as in `tokens`."""
    said = without_special(text, language)
    if language == "zh":
        return read_aloud_compat(said)
    if language == "yue":
        said = simplified()(said)
    if language == "en":
        said = english()(said)
    return basic()(said)


def without_special(text: str, language: str) -> str:
    """``<|…|>`` and runs of spaces → one space, none before !,.?;: or in front; in zh none at all."""
    said = re.sub(r"\s+", " ", _SPECIAL.sub(" ", text))
    said = re.sub(r" ?([!,.?;:])", r"\1", said).lstrip(" ")
    return re.sub(r"\s+", "", said) if language == "zh" else said


def _compat_tokens(said: str, language: str) -> list[str]:
    # A token of nothing but punctuation is none; symbols are, and what was lower-cased already may fold once more.
    kept = [token for token in said.split(" ") if not all(unicodedata.category(each)[0] == "P" for each in token)]
    found = " ".join(kept).lower().split()
    return list("".join(found)) if language in _COMPAT_CHARACTERS else found


def _base(language: str) -> str:
    return re.split(r"[-_]", language)[0]


@cache
def english() -> Callable[[str], str]:
    """Whisper's normaliser of English, of the package whisper-normalizer.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        raise MissingExtra("normalising English transcripts (whisper-normalizer)", "judge") from None
    normaliser: Callable[[str], str] = EnglishTextNormalizer()
    return normaliser


@cache
def basic() -> Callable[[str], str]:
    """Whisper's normaliser of other languages, of transformers."""
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    normaliser: Callable[[str], str] = BasicTextNormalizer()
    return normaliser


@cache
def simplified() -> Callable[[str], str]:
    """Traditional → simplified characters and words of the mainland, of the package zhconv.

    It is in no extra, for its tables are under the GPL.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            # It leaves its table open when it reads it, which is here.
            warnings.simplefilter("ignore")
            import zhconv

            zhconv.convert("", "zh-cn")
    except ImportError:
        raise ConfigError(
            "reading Cantonese transcripts needs the package zhconv, whose tables are GPL-2.0-or-later; where that "
            "is no hindrance: pip install zhconv"
        ) from None
    return lambda text: str(zhconv.convert(text, "zh-cn"))
