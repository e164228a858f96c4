"""Transcripts to the tokens that an error rate counts, by language.

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

from auricle.errors import ConfigError, MissingExtra
from auricle.metrics.characters import marks, visible
from auricle.metrics.chinese_text import read_aloud, read_aloud_compat
from auricle.metrics.languages import language_code
from auricle.metrics.scoring_rule import ScoringRule

Unit: TypeAlias = Literal["word", "character", "mixed"]

# Written without spaces between words, so that an error rate of words depends on who put the spaces.
UNSPACED = ("zh", "yue", "wuu", "nan", "hak", "gan", "hsn", "lzh", "ja", "th", "lo", "km", "my", "bo", "dz")
_COMPAT_CHARACTERS = ("zh", "yue")
_SPECIAL = re.compile(r"<\|.*?\|>")  # of a decoder's vocabulary, as <|en|>
_BRACKETED = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)|（[^（）]*）")  # notes about the audio, as [laughter]
# Characters that are words by themselves in mixed text: Han with its extensions, kana.
_ALONE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def split_words(text: str) -> list[str]:
    """Lower-case words without punctuation; apostrophes and combining marks stay.

    >>> split_words("It's three o'clock!")
    ["it's", 'three', "o'clock"]
    """
    return re.sub(rf"[^\w{marks()}' ]+", " ", visible(text.lower())).split()


def tokens(text: str, language: str, *, scoring_rule: ScoringRule = "strict", unit: Unit | None = None) -> list[str]:
    """The tokens of a transcript that an error rate compares.

    Args:
        text: a transcript.
        language: see `auricle.metrics.languages.language_code`; compat knows ``en``, ``zh`` and ``yue`` in these forms
            only.
        scoring_rule: see above.
        unit: of the strict rule; None: characters for `UNSPACED`, words for others. ``mixed`` takes Han and kana one
            by one and everything else by words, for speech that switches languages.

    Raises:
        DataError: no code of a language.
        MissingExtra: whisper-normalizer is needed and not installed.
        ConfigError: zhconv is needed and not installed.

    >>> tokens("Selamat <|id|> pagi, (ya)", "id"), tokens("你好！", "zh")
    (['selamat', 'pagi'], ['你', '好'])
    """
    language_code(language)
    if scoring_rule == "compat":
        return _compat_tokens(normalise_compat(text, language), language)
    # Whisper's English normaliser leaves stops and signs of currencies behind that belong to no word.
    normal = " ".join(word for word in normalise(text, language).split() if any(map(_is_said, word)))
    if (unit or own_unit(language)) == "word":
        return normal.split()
    if unit == "mixed":
        return _ALONE.sub(lambda match: f" {match[0]} ", normal).split()
    return list("".join(normal.split()))


def own_unit(language: str) -> Unit:
    """The unit that the strict rule counts in a language."""
    return "character" if language_code(language) in UNSPACED else "word"


def normalise(text: str, language: str) -> str:
    """The text by the strict rule: one spelling for what is pronounced alike; errors as in `tokens`.

    Invisible characters go, joiners and soft hyphens without a trace; a space of no width separates words.
    """
    base = language_code(language)
    text = visible(_SPECIAL.sub(" ", text.replace("\u200b", " ")))
    if base == "en":
        return english()(text)
    text = _BRACKETED.sub(" ", unicodedata.normalize("NFKC", text)).casefold()
    if base in ("zh", "yue"):
        text = simplified()(text) if base == "yue" else text
        # Two readings of 2, and two characters for 0, none of which is an error.
        text = read_aloud(text).replace("两", "二").replace("〇", "零")
    return " ".join(_without_marks(text).split())


def _without_marks(text: str) -> str:
    """Punctuation, symbols and control characters become spaces; an apostrophe within a word is deleted."""
    text = re.sub(r"(?<=\w)['’ʼ](?=\w)", "", text)
    return "".join(each if _is_said(each) else " " for each in text)


def normalise_compat(text: str, language: str) -> str:
    """The text by the released rule, to the character; errors as in `tokens`."""
    text = without_special(text, language)
    if language == "zh":
        return read_aloud_compat(text)
    if language == "yue":
        text = simplified()(text)
    if language == "en":
        text = english()(text)
    return basic()(text)


def without_special(text: str, language: str) -> str:
    """``<|…|>`` and runs of spaces to one space, none before !,.?;: or in front; in zh none at all."""
    text = re.sub(r"\s+", " ", _SPECIAL.sub(" ", text))
    text = re.sub(r" ?([!,.?;:])", r"\1", text).lstrip(" ")
    return re.sub(r"\s+", "", text) if language == "zh" else text


def _compat_tokens(text: str, language: str) -> list[str]:
    # A token of punctuation alone is dropped, one of symbols is not; lower-casing once more may change the text.
    kept = [token for token in text.split(" ") if not all(unicodedata.category(each)[0] == "P" for each in token)]
    found = " ".join(kept).lower().split()
    return list("".join(found)) if language in _COMPAT_CHARACTERS else found


def _is_said(letter: str) -> bool:
    return unicodedata.category(letter)[0] not in "PSC"


@cache
def english() -> Callable[[str], str]:
    """Whisper's normaliser of English, from the package whisper-normalizer.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        raise MissingExtra("normalising English transcripts (whisper-normalizer)", "evaluate") from None
    normaliser: Callable[[str], str] = EnglishTextNormalizer()
    return normaliser


@cache
def basic() -> Callable[[str], str]:
    """Whisper's normaliser of other languages, from the package whisper-normalizer.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
    except ImportError:
        raise MissingExtra("normalising transcripts by the released rule (whisper-normalizer)", "evaluate") from None
    normaliser: Callable[[str], str] = BasicTextNormalizer()
    return normaliser


@cache
def simplified() -> Callable[[str], str]:
    """Traditional to simplified characters and words of the mainland, from the package zhconv.

    It is in no extra, since its tables are under the GPL.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            # It reads its table here and leaves the file open.
            warnings.simplefilter("ignore")
            import zhconv

            zhconv.convert("", "zh-cn")
    except ImportError:
        raise ConfigError(
            "normalising Cantonese transcripts needs the package zhconv, whose tables are GPL-2.0-or-later; if that "
            "licence suits you: pip install zhconv"
        ) from None
    return lambda text: str(zhconv.convert(text, "zh-cn"))
