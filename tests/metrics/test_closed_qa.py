import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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


CHOICES = ["dog barking", "rain", "car horn", "speech"]
BARE = [
    "B",
    "b",
    "(B)",
    "(b)",
    "[B]",
    "{B}",
    "【B】",
    "（B）",
    "Ｂ",
    "Ⓑ",
    "B.",
    "b.",
    "B)",
    "B:",
    "<B>",
    "'B'",
    '"B"',
    "“B”",
    "«B»",
]
MARKED = [
    "**B**",
    "**(B)**",
    "_B_",
    "`B`",
    "$B$",
    "\\boxed{B}",
    "$\\boxed{\\text{B}}$",
    "\\(\\mathbf{B}\\)",
    "<b>B</b>",
]
LEADS = [
    *("", "Answer: ", "answer:", "The answer is ", "The correct answer is ", "Final answer: ", "Option ", "Answer = "),
    *(
        "**Answer:** ",
        "### Answer: ",
        "So, the answer is: ",
        "Answer:\n\n",
        "I choose ",
        "I would pick ",
        "It is ",
        "答案：",
    ),
    *("答案是", "正解は", "정답은 ", "Réponse : ", "La respuesta es ", "Die Antwort ist "),
]
ENDS = ["", ".", "\n", "\nBecause water drips.", " because it drips.", ", as it drips."]


@given(st.sampled_from(BARE + MARKED), st.sampled_from(LEADS), st.sampled_from(ENDS))
def test_a_letter_is_read_in_every_form(form: str, lead: str, end: str) -> None:
    may_be_a_word = lead == "" and form == "b" and end[:1] in (" ", ",")
    assert closed_qa.choice_of(f"{lead}{form}{end}", CHOICES) == (None if may_be_a_word else 1)


@given(st.sampled_from(BARE + MARKED), st.sampled_from(LEADS), st.sampled_from(["dog barking", "car horn", "speech"]))
def test_no_letter_is_read_where_the_text_says_another(form: str, lead: str, text: str) -> None:
    for prediction in (f"{lead}{form} {text}", f"{lead}{form}: {text}.", f"{lead}{form}\n{text}"):
        assert closed_qa.choice_of(prediction, CHOICES) in (None, CHOICES.index(text))


@given(st.permutations("ABCD"), st.sampled_from([" or ", " and ", "/", ", "]), st.sampled_from(LEADS))
def test_two_letters_are_no_answer(letters: list[str], between: str, lead: str) -> None:
    one, two = letters[:2]
    for prediction in (
        f"{lead}{one}{between}{two}",
        f"{lead}({one}){between}({two})",
        f"{lead}**{one}**{between}**{two}**",
    ):
        assert closed_qa.choice_of(prediction, CHOICES) is None


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=5))
@example("", ["0", "A{"])
def test_any_text_names_one_choice_or_none(text: str, choices: list[str]) -> None:
    number = closed_qa.choice_of(text, choices)
    assert number is None or 0 <= number < len(choices)
    for at, choice in enumerate(choices):
        if [*closed_qa.same_choices(choice, choices)] == [at]:
            assert closed_qa.choice_of(choice, choices) == at


@pytest.mark.parametrize(
    ("prediction", "number"),
    [
        ("The answer is a dog", None),
        ("It is A dog", None),
        ("A dog can be excluded; the answer is B", 1),
        ("The answer is not B", None),
        ("I can't choose B.", None),
        ("not (B)", None),
        ("(A) is wrong, the answer is B", 1),
        ("The answer is (B) rain, not (A) dog barking", 1),
        ("The answer is A. No, the answer is B.", None),
        ("The answer is B. Note that A is a common distractor.", 1),
        ('{"answer": "B", "reason": "drops"}', 1),
        ("<answer>B</answer>", 1),
        ("B - rain", 1),
        ("B is correct.", 1),
        ("\u200bB\u200b", 1),
        ("I", None),
        ("E.", None),
    ],
)
def test_letters_in_sentences(prediction: str, number: int | None) -> None:
    assert closed_qa.choice_of(prediction, CHOICES) == number


@pytest.mark.parametrize(
    ("choices", "prediction", "number"),
    [
        (["C", "C#", "D", "D#"], "C", 0),
        (["C", "C#", "D", "D#"], "C♯", 1),
        (["C", "C#", "D", "D#"], "**D**", 2),
        (["C", "C#", "D", "D#"], "(C)", None),  # the third by its letter, the first by its text
        (["C", "C#", "D", "D#"], "The answer is C", None),
        (["C", "C#", "D", "D#"], "(B)", 1),
        (["D", "B", "A", "C"], "A", 2),
        (["Speaker B", "Speaker A"], "B", None),
        (["Speaker B", "Speaker A"], "(B)", 1),
        (["C major", "D major", "A minor"], "It is C.", None),
        (["A cat", "The dog", "A cow"], "A", 0),
        (["The dog", "A cat", "A cow"], "A", 0),
        (["yes!", "yes?"], "yes?", 1),
        (["狗叫", "下雨"], "这是下雨的声音。", 1),
        (["पानी", "पीना"], "पीना", 1),
        (["-5 dB", "5 dB"], "It is 5 dB.", 1),
    ],
)
def test_texts_that_are_letters_or_differ_in_signs(choices: list[str], prediction: str, number: int | None) -> None:
    assert closed_qa.choice_of(prediction, choices) == number


def test_answers_are_texts_if_all_of_them_are() -> None:
    assert closed_qa.right_choices(["D", "A"], [["D", "B", "A", "C"], ["A", "B"]]) == [0, 0]
    assert closed_qa.right_choices(["A", "C"], [["C", "C#", "D", "D#"]] * 2) == [0, 2]
    assert closed_qa.right_choices(["C#", "c"], [["C", "C#"]] * 2) == [1, 0]
    assert closed_qa.is_answer("b", ["dog", "cat"]) and closed_qa.is_answer("Cat!", ["dog", "cat"])
    assert not closed_qa.is_answer("c", ["dog", "cat"]) and not closed_qa.is_answer("cat", ["cat", "Cat!"][1:] * 2)
    assert closed_qa.same_choices("cat", ["Cat!", "CAT", "cat"]) == [2]
    with pytest.raises(DataError, match="question 2: answer 'B' is 0 of the choices"):
        closed_qa.right_choices(["dog", "B"], [["dog", "cat"]] * 2)


def test_an_answer_without_choices_keeps_its_signs_and_marks() -> None:
    assert closed_qa.contains_answer("C#", "It is C#.") and not closed_qa.contains_answer("C", "It is C#.")
    assert closed_qa.contains_answer("狗", "有狗叫") and not closed_qa.contains_answer("पानी", "पीना")
