import pytest

from auricle.errors import DataError
from auricle.metrics import closed_qa

SONGS = ["A happy song", "A sad song", "Silence"]


@pytest.mark.parametrize(
    ("prediction", "choices", "number"),
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
def test_choices(prediction: str, choices: list[str], number: int | None) -> None:
    assert closed_qa.choice_of(prediction, choices) == number


def test_the_list_of_a_prompt() -> None:
    assert closed_qa.list_choices(SONGS[:2]) == "(A) A happy song\n(B) A sad song"


def test_the_released_rule_takes_words_of_other_choices_for_wrong() -> None:
    assert closed_qa.is_right_compat("A sad song", "a sad, slow song", SONGS)
    assert not closed_qa.is_right_compat("A sad song", "a sad and a happy song", SONGS)
    assert not closed_qa.is_right_compat("A", "", SONGS) and closed_qa.is_right_compat("b", "B, clearly", [])


def test_answers_are_letters_if_all_of_them_are() -> None:
    choices = [["C", "D"], ["x", "y"]]
    assert closed_qa.right_choices(["B", "a"], choices) == [1, 0]
    assert closed_qa.right_choices(["C", "Y!"], choices) == [0, 1]
    with pytest.raises(DataError, match="question 2: answer 'z' is 0 of the choices"):
        closed_qa.right_choices(["C", "z"], choices)


@pytest.mark.parametrize(
    ("answer", "prediction", "right"),
    [
        ("yes", "Yes, it is.", True),
        ("yes", "yes and no", False),
        ("no", "not at all", False),
        ("two dogs", "two dogs", True),
    ],
)
def test_answers_without_choices(answer: str, prediction: str, right: bool) -> None:
    assert closed_qa.contains_answer(answer, prediction) is right
