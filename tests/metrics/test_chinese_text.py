import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.metrics.chinese_text import cardinal, digit_by_digit, read_aloud, read_aloud_compat


@pytest.mark.parametrize(
    ("number", "expected"),
    [("10", "十"), ("12", "十二"), ("110", "一百一十"), ("1001", "一千零一"), ("20000", "两万"), ("0.50", "零点五零")],
)
def test_quantities(number: str, expected: str) -> None:
    assert cardinal(number) == expected


def test_digits() -> None:
    assert digit_by_digit("2０24年") == "二零二四"


def test_a_number_is_read_at_its_place() -> None:
    assert read_aloud("共1,000,000元，圆周率3.1415926") == "共一百万元，圆周率三点一四一五九二六".replace("，", " ")
    # The first 6 of the text is in 76, which the released rule therefore breaks.
    assert read_aloud("85块976角6座") == "八十五块九百七十六角六座" and "七六角" in read_aloud_compat("85块976角6座")
    assert read_aloud("P2P在2024年3月5日打13812345678") == "P2P在二零二四年三月五日打一三八一二三四五六七八"


@given(st.text(alphabet="0123456789年月日元块%/.-个万ab二 ", max_size=25))
def test_any_text_can_be_read(text: str) -> None:
    for found in (read_aloud(text), read_aloud_compat(text)):
        assert not any(each in found for each in "%/.-") and not any(
            each.isdecimal() for each in found.replace("2", "")
        )
