import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.errors import DataError
from auricle.metrics import closed_qa, multilabel, ngrams, tags
from auricle.metrics.tags import LabelMatcher, plain, single_label, split_labels


def test_a_label_is_found_by_whole_words_and_the_longest_name() -> None:
    naming = LabelMatcher(["cat", "bass", "bass guitar", "guitar", "male", "female"], {"cat": ["kitten", "house cat"]})
    assert single_label("A Kitten, meowing", naming) == single_label("the house-cat", naming) == "cat"
    assert single_label("concatenate", naming) is None and single_label("female voice", naming) == "female"
    assert single_label("Bass guitar.", naming) == "bass guitar"
    assert single_label("bass and guitar", naming) is None  # two labels are no answer
    assert naming.find("guitar, then bass guitar and guitar") == ["guitar", "bass guitar"]


def test_names_must_tell_labels_apart() -> None:
    with pytest.raises(DataError, match="'kitty' names 'cat' and 'tiger'"):
        LabelMatcher(["cat", "tiger"], {"cat": ["kitty"], "tiger": ["kitty"]})
    with pytest.raises(DataError, match="expected words"):
        LabelMatcher(["..."])


@pytest.mark.parametrize(
    ("said", "gender"),
    [("It's a woman.", "female"), ("The man speaks", "male"), ("a man and a woman", None), ("human", None), ("", None)],
)
def test_genders(said: str, gender: str | None) -> None:
    assert single_label(said, tags.gender_matcher()) == gender


def test_several_labels_are_split_by_signs_then_by_names() -> None:
    naming = LabelMatcher(["Vehicle horn and car horn and honking", "Dog", "Domestic sounds, home sounds"])
    known, unknown = split_labels("Vehicle horn, car horn, honking; dog\ndomestic sounds and home sounds", naming)
    assert known == {plain(name) for name in naming.names} and unknown == 0
    assert split_labels("dog, unicorn, dragon", naming) == ({"dog"}, 2) and split_labels("", naming) == (set(), 0)


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


LABELS = st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=2, max_size=12)


@settings(max_examples=25)
@given(LABELS, st.randoms(use_true_random=False))
def test_average_precision_is_that_of_ranked_scores(expected: list[set[str]], random: object) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    found = [set(random.sample("abcd", random.randrange(4))) for _ in expected]  # type: ignore[attr-defined]
    names = sorted(set().union(*expected))
    table = [np.array([[name in row for name in names] for row in rows], int) for rows in (expected, found)]
    scored = multilabel.multilabel_scores(expected, found, rounds=5)
    assert scored.mAP.value == pytest.approx(metrics.average_precision_score(*table, average="macro"))
    if len(names) > 1:  # a single column would be taken for two classes
        assert scored.macro_f1.value == pytest.approx(metrics.f1_score(*table, average="macro", zero_division=0))
    assert set(scored.average_precision) == set(names)


def test_unknown_labels_are_wrong_but_make_no_class() -> None:
    scored = multilabel.multilabel_scores([["a"], ["b"]], [["a", "x"], ["b"]], rounds=5)
    assert scored.mAP.value == scored.macro_f1.value == 1 and scored.micro_f1.value == 4 / 5
    assert scored.unknown == 1 and scored.f1 == (2 / 3, 1)
    for references, answers in (([], []), ([["a"]], []), ([[]], [["a"]])):
        with pytest.raises(DataError, match="expected one answer for each"):
            multilabel.multilabel_scores(references, answers)


SONGS = ["A happy song", "A sad song", "Silence"]


@pytest.mark.parametrize(
    ("said", "choices", "number"),
    [
        ("B", SONGS, 1),
        ("(b)", SONGS, 1),
        ("Ｂ", SONGS, 1),
        ("B) A sad song", SONGS, 1),
        ("B. because of the minor key", SONGS, 1),
        ("The answer is (C).", SONGS, 2),
        ("Option: B", SONGS, 1),
        ("A sad song", SONGS, 1),  # whose A is an article
        ("I think it is a sad song.", SONGS, 1),
        ("A or B", SONGS, None),
        ("A) A sad song", SONGS, None),  # letter and text disagree
        ("E", SONGS, None),
        ("a happy song or a sad song", SONGS, None),
        ("", SONGS, None),
        ("no idea", SONGS, None),
        ("electric guitar", ["Guitar", "Electric guitar"], 1),
        ("same", ["same", "same"], None),
    ],
)
def test_choices(said: str, choices: list[str], number: int | None) -> None:
    assert closed_qa.choice_of(said, choices) == number


def test_answers_are_letters_if_all_of_them_are() -> None:
    choices = [["C", "D"], ["x", "y"]]
    assert closed_qa.right_choices(["B", "a"], choices) == [1, 0]
    assert closed_qa.right_choices(["C", "Y!"], choices) == [0, 1]
    with pytest.raises(DataError, match="question 2: answer 'z' is 0 of the choices"):
        closed_qa.right_choices(["C", "z"], choices)


@pytest.mark.parametrize(
    ("answer", "said", "right"),
    [
        ("yes", "Yes, it is.", True),
        ("yes", "yes and no", False),
        ("no", "not at all", False),
        ("two dogs", "two dogs", True),
    ],
)
def test_answers_without_choices(answer: str, said: str, right: bool) -> None:
    assert closed_qa.contains_answer(answer, said) is right


def test_runs_of_words() -> None:
    assert ngrams.sentence_bleu("A dog barks loud", ["a dog barks loud"]) == [1.0] * 4
    assert ngrams.sentence_bleu("", ["a"]) == ngrams.sentence_bleu("a", []) == [0.0] * 4
    short = ngrams.sentence_bleu("a dog", ["a dog barks at night"])
    assert short[:2] == pytest.approx([np.exp(-1.5)] * 2) and short[2:] == [0.0, 0.0]
    assert ngrams.sentence_chrf("dog", ["cat", "dog"]) == 1.0
    found = ngrams.corpus_bleu(["a dog barks at night", "x"], [["a dog barks at night"], ["y"]], rounds=50)
    assert found.low <= found.value <= found.high and found.n == 2
