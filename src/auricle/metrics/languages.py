"""Codes of languages: ISO 639-1, 639-2 and 639-3, alone or with a script and a region, to one short form.

Source of the codes: the tables of ISO 639-3, iso639-3.sil.org.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from auricle.errors import DataError

_TAG = re.compile(r"([A-Za-z]{2,3})(?:[-_][A-Za-z]{4})?(?:[-_](?:[A-Za-z]{2}|\d{3}))?(?:[-_][A-Za-z0-9]{4,8})*")
_SAME = {"cmn": "zh"}  # a member of a group of languages that is meant by the group's code
_COUNTRIES = {  # codes of countries that are often taken for their language, and name none
    "cn": "zh", "cz": "cs", "dk": "da", "gr": "el", "jp": "ja", "kh": "km", "ua": "uk", "vn": "vi",
}  # fmt: skip


class _Codes(NamedTuple):
    short: Mapping[str, str]  # of each code of three letters that has one: the code of two
    known: frozenset[str]


@cache
def _codes() -> _Codes:
    table = json.loads((files("auricle.metrics") / "iso_639.json").read_text(encoding="utf-8"))
    pairs = {name: dict(pair.split(":") for pair in " ".join(table[name]).split()) for name in list(table)[:2]}
    short = {three: two for two, three in pairs["two_letters"].items()}
    short |= {old: short.get(three, three) for old, three in pairs["bibliographic"].items()}
    known = frozenset({*pairs["two_letters"], *short, *" ".join(table["three_letters"]).split()})
    return _Codes({**short, **_SAME}, known)


def language_code(language: str) -> str:
    """The shortest ISO 639 code of a language.

    Args:
        language: a code of two or three letters in any case; a script, a region or a variant behind it is left out.

    Raises:
        DataError: there is no such code.

    >>> [language_code(each) for each in ("en_US", "zho", "cmn-Hans-CN", "ger", "yue")]
    ['en', 'zh', 'zh', 'de', 'yue']
    """
    match = _TAG.fullmatch(language)
    base = match[1].lower() if match else ""
    codes = _codes()
    if base not in codes.known:
        meant = f", perhaps {_COUNTRIES[base]!r}" if base in _COUNTRIES else ""
        raise DataError(
            f"lang is {language[:40]!r}, expected an ISO 639 code as 'en', 'zho' or 'pt-BR'{meant}; correct the row"
        )
    return codes.short.get(base, base)
