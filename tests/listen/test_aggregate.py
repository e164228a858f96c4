import pytest

from auricle.errors import ConfigError
from auricle.listen.aggregate import aggregate_answers, asks_existence, check_aggregation, merge_equal
from auricle.listen.outputs import Segment


def segments(*texts: str, seconds: float = 10.0) -> list[Segment]:
    return [
        Segment(start_s=i * seconds, stop_s=(i + 1) * seconds, text=text, mean_logprob=-1.0 - i)
        for i, text in enumerate(texts)
    ]


def no_model(question: str) -> str:
    raise AssertionError("the model was called")


@pytest.mark.parametrize(
    ("question", "answers", "whole", "rule"),
    [
        ("Who?", ["a man"], "a man", ""),
        ("Who?", ["a man", "A man."], "a man", "all agree"),
        ("Is there speech?", ["no", "yes", "no"], "yes", "any"),
        ("Is there speech?", ["no", "no"], "no", "all agree"),
        ("Is the music fast?", ["no", "yes", "no"], "no", "majority (20.0 s of 30.0 s)"),
        ("Which sounds?", ["a dog", "rain", "a dog"], "a dog; rain", "distinct"),
        ("Who?", ["", ""], "", ""),
        ("Who?", ["", "a man", ""], "a man", "all agree"),
    ],
)
def test_the_fitting_rule(question: str, answers: list[str], whole: str, rule: str) -> None:
    text, stated = aggregate_answers(question, segments(*answers), "auto", no_model)
    assert text == whole and stated.startswith(rule) and bool(stated) == bool(rule)


def test_a_majority_is_one_of_time() -> None:
    long_no = [Segment(start_s=0, stop_s=30, text="no"), *segments("yes", "yes", seconds=2.0)]
    assert aggregate_answers("Is it fast?", long_no, "majority", no_model)[0] == "no"


def test_a_summary_prompt_holds_all_answers() -> None:
    questions: list[str] = []

    def ask(question: str) -> str:
        questions.append(question)
        return "both"

    assert aggregate_answers("Who?", segments("a man", "a dog"), "summary", ask) == ("both", "summary by the model")
    assert "0-10 s: a man" in questions[0] and "10-20 s: a dog" in questions[0]
    assert questions[0].count("Who?") == 2
    with pytest.raises(ConfigError, match="majority"):
        check_aggregation("mean")


def test_questions_for_something_present() -> None:
    present = ["Is there a dog?", "Do you hear music?", "is anyone speaking?", "Can rain be heard?", "Is a dog audible"]
    assert all(map(asks_existence, present))
    assert not any(map(asks_existence, ["Is the speaker male?", "Is it quiet?", "How many people speak?"]))


def test_equal_neighbours_are_one_segment() -> None:
    by_rule = Segment(start_s=40, stop_s=50, text="b")
    merged = merge_equal([*segments("a", "a", "b", "a"), by_rule])
    assert [(s.start_s, s.stop_s, s.text, s.mean_logprob) for s in merged] == [
        (0, 20, "a", -1.5),
        (20, 30, "b", -3.0),
        (30, 40, "a", -4.0),
        (40, 50, "b", None),
    ]
