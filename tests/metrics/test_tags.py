import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import DataError
from auricle.metrics import tags
from auricle.metrics.tags import LabelMatcher, plain, single_label, split_labels


def test_a_label_is_found_by_whole_words_and_the_longest_name() -> None:
    matcher = LabelMatcher(["cat", "bass", "bass guitar", "guitar", "male", "female"], {"cat": ["kitten", "house cat"]})
    assert single_label("A Kitten, meowing", matcher) == single_label("the house-cat", matcher) == "cat"
    assert single_label("concatenate", matcher) is None and single_label("female voice", matcher) == "female"
    assert single_label("Bass guitar.", matcher) == "bass guitar"
    assert single_label("bass and guitar", matcher) is None  # two labels are no answer
    assert matcher.find("guitar, then bass guitar and guitar") == ["guitar", "bass guitar"]


def test_a_name_belongs_to_one_label() -> None:
    with pytest.raises(DataError, match="'kitty' names 'cat' and 'tiger'"):
        LabelMatcher(["cat", "tiger"], {"cat": ["kitty"], "tiger": ["kitty"]})
    with pytest.raises(DataError, match="expected words"):
        LabelMatcher(["..."])


@pytest.mark.parametrize(
    ("answer", "gender"),
    [("It's a woman.", "female"), ("The man speaks", "male"), ("a man and a woman", None), ("human", None), ("", None)],
)
def test_genders(answer: str, gender: str | None) -> None:
    assert single_label(answer, tags.gender_matcher()) == gender


@pytest.mark.parametrize(
    ("answer", "gender"),
    [("A female voice.", "female"), ("Male", "male"), ("male and female", "male and female"), ("human", "human")],
)
def test_genders_by_the_released_rule(answer: str, gender: str) -> None:
    assert tags.gender_of_compat(answer) == gender


def test_a_label_within_a_word_by_the_released_rule() -> None:
    assert tags.contains_label_compat(" Cat ", "concatenate") and not tags.contains_label_compat("dog", "cat")


def test_several_labels_are_split_by_signs_then_by_names() -> None:
    matcher = LabelMatcher(["Vehicle horn and car horn and honking", "Dog", "Domestic sounds, home sounds"])
    known, unknown = split_labels("Vehicle horn, car horn, honking; dog\ndomestic sounds and home sounds", matcher)
    assert known == {plain(name) for name in matcher.names} and unknown == 0
    assert split_labels("dog, unicorn, dragon", matcher) == ({"dog"}, 2) and split_labels("", matcher) == (set(), 0)


@pytest.mark.parametrize(
    ("answer", "dataset", "model", "expected"),
    [
        ("Dog;Cat", "AudioSet", "MiDashengLM", ["dog", "cat"]),
        ("Dog, Cat", "AudioSet", "Qwen2.5-Omni", ["dog", "cat"]),
        ("Dog_bark - loud; Cat", "FSD50K", "qwen", ["dog bark and loud", "cat"]),
        ("Dog - loud", "AudioSet", "qwen", ["dog, loud"]),
        ("Dog_bark, Cat", "FSD50K", "Kimi-Audio", ["dog bark", "cat"]),
        ("a, b, and c", "FSD50K", "MiDashengLM", ["a and b and c"]),
    ],
)
def test_released_splitting_goes_by_names(answer: str, dataset: str, model: str, expected: list[str]) -> None:
    assert tags.split_labels_compat(answer, dataset=dataset, model=model) == expected


SCRIPTS = {  # letters of scripts, with the marks that belong to them
    "latin": "abcdezé", "greek": "αβγδε", "cyrillic": "абвгд", "arabic": "ابتثج\u064e\u0650", "hebrew": "אבגד\u05b0",
    "devanagari": "कखगघ\u093e\u0940\u094b\u0902", "tamil": "கஙச\u0bbe\u0bc0",
    "bengali": "কখগ\u09be\u09c7", "hangul": "가나다라", "thai": "กขคง\u0e31\u0e35\u0e48",
    "lao": "ກຂຄ\u0eb1\u0eb5", "khmer": "កខគ\u17b6\u17b8", "burmese": "ကခဂ\u102b\u102d",
    "han": "狗叫雨声汽车", "kana": "いぬのこえピア",
}  # fmt: skip
WITHOUT_SPACES = ("thai", "lao", "khmer", "burmese", "han", "kana")


@st.composite
def script_words(draw: st.DrawFn) -> tuple[str, str]:
    script = draw(st.sampled_from(sorted(SCRIPTS)))
    letters = [each for each in SCRIPTS[script] if unicodedata.category(each)[0] != "M"]
    word = draw(st.sampled_from(letters)) + draw(st.text(SCRIPTS[script], min_size=1, max_size=5))
    return script, word


@given(st.text())
def test_words_are_found_once_for_all(text: str) -> None:
    assert tags.folded(tags.folded(text)) == tags.folded(text) and plain(plain(text)) == plain(text)


@given(st.text(st.characters(categories=["L", "M", "N"]), min_size=1))
def test_letters_marks_and_digits_are_never_dropped(text: str) -> None:
    kept = [each for each in tags.folded(text) if unicodedata.category(each)[0] in "LMN"]
    assert "".join(plain(text).split()) == "".join(kept)


@given(script_words(), script_words())
def test_names_that_differ_stay_different(one: tuple[str, str], two: tuple[str, str]) -> None:
    same = unicodedata.normalize("NFKC", one[1]) == unicodedata.normalize("NFKC", two[1])
    assert (plain(one[1]) == plain(two[1])) == same
    matcher = LabelMatcher([one[1], two[1]])
    assert [single_label(each, matcher) for each in (one[1], two[1])] == [matcher.key(one[1]), matcher.key(two[1])]


@given(script_words(), st.sampled_from(["", " ", "，", "!"]))
def test_a_name_needs_spaces_around_it_where_its_script_has_them(name: tuple[str, str], sign: str) -> None:
    script, word = name
    matcher, other = LabelMatcher([word]), {"latin": "q", "kana": "ぬ"}.get(script, SCRIPTS[script][0])
    found = matcher.find(f"{other}{sign}{word}{sign}{other}")
    assert found == ([plain(word)] if sign or script in WITHOUT_SPACES else [])


@pytest.mark.parametrize(
    ("labels", "answer", "label"),
    [
        (["C", "D"], "C#", None),
        (["C", "C#", "C++"], "It is C++.", "c++"),
        (["C", "C#", "C++"], "C♯", "c#"),
        (["C", "C#", "C++"], "the note C", "c"),
        (["-5 dB", "5 dB"], "about −5 dB", "-5 db"),
        (["-5 dB", "5 dB"], "5 dB", "5 db"),
        (["5 dB"], "0.5 dB", None),
        (["A", "A-", "A+"], "grade A-", "a -"),
        (["5", "5%"], "5 %", "5 %"),
        (["yes!", "yes?"], "yes!", "yes !"),
        (["B", "B♭"], "B♭ major", "b♭"),
        (["पानी", "पीना"], "यह पीना है", "पीना"),
        (["狗叫", "下雨"], "这是狗叫的声音。", "狗叫"),
        (["หมา", "แมว"], "เสียงหมาเห่า", "หมา"),
        (["ด", "ดี"], "ดี", "ดี"),
        (["ก"], "กา", None),  # a vowel belongs to its consonant
        (["ក"], "ខ្ក", None),  # stacked below another
        (["ギタ"], "ギター", None),
        (["می‌خواهم"], "من میخواهم", "میخواهم"),
    ],
)
def test_signs_and_marks_of_names(labels: list[str], answer: str, label: str | None) -> None:
    assert single_label(answer, LabelMatcher(labels)) == label


def test_signs_that_join_words_make_no_other_label() -> None:
    matcher = LabelMatcher(["Bass-guitar", "bass guitar", "Horn, car", "horn (car)"])
    assert set(matcher.names) == {"bass guitar", "horn car"}
