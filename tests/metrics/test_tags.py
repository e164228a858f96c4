import pytest

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
