"""Mandarin text normalisation: digits, dates, money, telephone numbers, fractions and percentages become characters.

Two rules over the same readings: `read_aloud_compat` equals the normaliser behind published Chinese error rates, with
its faults; `read_aloud` replaces each number at its place.

Source: the behaviour of cn_tn of github.com/speechio/chinese_text_normalization (Apache-2.0), all options off; its
lists of currency and measure words are taken over as facts.
"""

import re
from collections.abc import Callable
from functools import partial
from re import Match
from string import punctuation

DIGITS = "零一二三四五六七八九"
# Powers of ten that have a character; beyond 亿 each is worth ten thousand of the one before.
_UNITS = {1: "十", 2: "百", 3: "千", **{4 * (place + 1): unit for place, unit in enumerate("万亿兆京垓秭穰沟涧正载")}}
_MODERN = {power: unit for power, unit in _UNITS.items() if power <= 8}  # current usage: 一万亿, not 一兆
# Number words before 元 and 块, and money by themselves; matched first, so of 3万块 the match is 3万.
_SCALES = ("亿", "千万", "百万", "万", "千", "百")
_MONEY = (*_SCALES, *(f"{scale}{unit}" for unit in ("元", "块") for scale in (*_SCALES, "")), "角", "毛", "分")
# Measure words: a number before one of them is a quantity, however many digits it has.
_MEASURES = (
    *"匹张座回场尾条个首阙阵网炮顶丘棵只支袭辆挑担颗壳窠曲墙群腔砣客贯扎捆刀令打手罗坡山岭江溪钟队单双对出口头脚板",
    *"跳枝件贴针线管名位身堂课本页家户层丝毫厘分钱两斤铢石钧锱忽寸尺丈里寻常铺程撮勺合升斗盘碗碟叠桶笼盆盒杯斛锅",
    *"簋篮罐瓶壶卮盏箩箱煲啖袋钵年月日季刻时周天秒旬纪岁世更夜春夏秋冬代伏辈丸泡粒幢堆根道面片块",
    *("千克", "毫克", "微克", "千米", "分米", "厘米", "毫米", "微米", "小时"),
)
_CHINESE_MARKS = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃《》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰"
    "〾〿–—‘’‛“”„‟…‧﹏·〈〉-"
)
_BLANKS = str.maketrans(dict.fromkeys(_CHINESE_MARKS + punctuation, " "))


def _any(words: tuple[str, ...]) -> str:
    return f"(?:{'|'.join(words)})"


_MONEY_PATTERN = rf"\d+(?:\.\d+)?[多余几]?{_any(_MONEY)}(?:\d{_any(_MONEY)}?)?"
_DATE_PATTERN = r"(?:(?:[089]\d|(?:19|20)\d{2})年)?(?:\d{1,2}月(?:\d{1,2}[日号])?)?"
_MOBILE_PATTERN = r"(?:\+?86 ?)?1(?:[38]\d|5[0-35-9]|7[678]|9[89])\d{8}"
_FIXED_PATTERN = r"(?:0(?:10|2[1-3]|[3-9]\d{2})-?)?[1-9]\d{6,7}"
_MEASURE_PATTERN = rf"(\d+(?:\.\d+)?)[多余几]?{_any(_MEASURES)}"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_INITIALS = re.compile(r"([a-zA-Z]+)二([a-zA-Z]+)")  # P2P, B2B: the two of an abbreviation stays a digit


def digit_by_digit(text: str) -> str:
    """Each digit by its name, full-width ones too; other characters are left out.

    >>> digit_by_digit("2024")
    '二零二四'
    """
    return "".join(DIGITS[int(each)] for each in text if each.isdecimal())


def cardinal(number: str, *, units: dict[int, str] | None = None) -> str:
    """A number of decimal digits, with or without a point, as a quantity.

    A leading 2 before 百, 千 and greater is 两; 一十 at the front is 十.

    Args:
        number: digits, one point at most.
        units: powers of ten that have a character; the released scale by default.

    >>> cardinal("10086"), cardinal("0.5")
    ('一万零八十六', '零点五')
    """
    whole, point, decimals = number.partition(".")
    table = _UNITS if units is None else units
    symbols = _quantity(whole, table) if len(whole) > 1 else [DIGITS[int(each)] for each in whole]
    names = set(table.values())
    for at, symbol in enumerate(symbols[:-1]):
        before = symbols[at - 1] if at else None
        if symbol == "二" and symbols[at + 1] in names - {"十"} and (before is None or before in names - {"十"}):
            symbols[at] = "两"
    spoken = "".join(symbols)
    if point:
        spoken += "点" + digit_by_digit(decimals)
    if spoken.startswith("点"):
        spoken = f"零{spoken}"
    return spoken[1:] if spoken.startswith("一十") else spoken


def _quantity(whole: str, units: dict[int, str]) -> list[str]:
    """Symbols of a whole number; a run of zeros inside is read once, zeros at the end are not read."""
    bare = whole.lstrip("0")
    if not bare:
        return []
    if len(bare) == 1:
        return [*(["零"] if len(whole) > 1 else []), DIGITS[int(bare)]]
    power = max(each for each in units if each < len(bare))
    head = _quantity(whole[:-power], units)
    return [*head, units[power], *_quantity(bare[-power:], units)]


def _date(found: str) -> str:
    spoken = ""
    for part in re.findall(r"\d+\D", found):
        number, unit = part[:-1], part[-1]
        spoken += (digit_by_digit(number) if unit == "年" else cardinal(number)) + unit
    return spoken


def _each_number(found: str) -> str:
    return _NUMBER.sub(lambda match: cardinal(match[0]), found)


def _fraction(found: str) -> str:
    above, _, below = found.partition("/")
    return f"{cardinal(below)}分之{cardinal(above)}"


def _percentage(found: str) -> str:
    return f"百分之{cardinal(found.removesuffix('%'))}"


_modern = partial(cardinal, units=_MODERN)


# In the order of search: pattern, whose first group is replaced; its reading.
_COMPAT: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(rf"\D+({_DATE_PATTERN})"), _date),
    (re.compile(rf"\D+({_MONEY_PATTERN})"), _each_number),
    (re.compile(rf"\D({_MOBILE_PATTERN})\D"), digit_by_digit),
    (re.compile(rf"\D({_FIXED_PATTERN})\D"), digit_by_digit),
    (re.compile(r"(\d+/\d+)"), _fraction),
    (re.compile(r"(\d+(?:\.\d+)?%)"), _percentage),
    (re.compile(_MEASURE_PATTERN), cardinal),
    (re.compile(r"(\d{4,32})"), digit_by_digit),
    (re.compile(r"(\d+(?:\.\d+)?)"), cardinal),
)


def read_aloud_compat(text: str) -> str:
    """The text as the released normaliser writes it, to the character.

    Each match replaces its *first* occurrence in the text, so equal digits elsewhere may be replaced instead;
    punctuation becomes spaces.
    """
    spoken = f"^{text}$"
    for pattern, reading in _COMPAT:
        spoken = spoken.replace("％", "%") if reading is _percentage else spoken
        for found in pattern.findall(spoken):
            spoken = spoken.replace(found, reading(found), 1) if found else spoken
    for match in list(_INITIALS.finditer(spoken)):
        spoken = spoken.replace(match[0], f"{match[1]}2{match[2]}", 1)
    return spoken.lstrip("^").rstrip("$").translate(_BLANKS)


# The same by place, with what the released patterns miss: years of any age, decimals of any length, more units.
_QUANTITIES = _any((*_MEASURES, *_MONEY, "米", "公斤", "公里", "公分", "公升", "公顷", "美元", "度", "倍", "赫兹"))
_YEAR = r"(?:[12]\d{3}|[089]\d)年"
_MONTH = r"\d{1,2}月(?:\d{1,2}[日号])?"
_STRICT: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(rf"(?<!\d)(?:{_YEAR}(?:{_MONTH})?|{_MONTH})"), _date),
    (re.compile(rf"(?<![\d.]){_MOBILE_PATTERN}(?!\d)"), digit_by_digit),
    (re.compile(rf"(?<![\d.]){_FIXED_PATTERN}(?![\d.])(?!{_QUANTITIES})"), digit_by_digit),
    (re.compile(r"\d+/\d+"), _fraction),
    (re.compile(r"\d+(?:\.\d+)?%"), _percentage),
    (re.compile(rf"\d+(?:\.\d+)?(?=[多余几]?{_QUANTITIES})|\d+\.\d+"), _modern),
    (re.compile(r"\d{4,}"), digit_by_digit),
    (re.compile(r"\d+"), _modern),
)


def read_aloud(text: str) -> str:
    """The text with each number replaced at its place, thousands separators left out; punctuation becomes spaces.

    Differs from: `read_aloud_compat`, which reads 1,000 as 一 and a space, and 3.1415926 as 三 一四一五九二六.

    Args:
        text: in NFKC form, so that digits are ASCII.

    >>> read_aloud("共1,000元")
    '共一千元'
    """
    spoken = _THOUSANDS.sub("", text)
    for pattern, reading in _STRICT:
        spoken = pattern.sub(_at(reading), spoken)
    return _INITIALS.sub(r"\g<1>2\g<2>", spoken).translate(_BLANKS)


_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def _at(reading: Callable[[str], str]) -> Callable[[Match[str]], str]:
    return lambda match: reading(match[0])
