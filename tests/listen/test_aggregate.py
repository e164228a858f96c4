import pytest

from auricle.errors import ConfigError
from auricle.listen.aggregate import asks_existence, check_reduction, merge_alike, reduce_answers
from auricle.listen.outputs import Segment


def segments(*texts: str, seconds: float = 10.0) -> list[Segment]:
    return [
        Segment(start_s=i * seconds, stop_s=(i + 1) * seconds, text=text, mean_logprob=-1.0 - i)
        for i, text in enumerate(texts)
    ]


def unasked(question: str) -> str:
    raise AssertionError("the model was asked")


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
    text, told = reduce_answers(question, segments(*answers), "auto", unasked)
    assert text == whole and told.startswith(rule) and bool(told) == bool(rule)


def test_a_majority_is_one_of_time() -> None:
    long_no = [Segment(start_s=0, stop_s=30, text="no"), *segments("yes", "yes", seconds=2.0)]
    assert reduce_answers("Is it fast?", long_no, "majority", unasked)[0] == "no"


def test_a_summary_is_asked_of_the_model_with_all_answers() -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "both"

    assert reduce_answers("Who?", segments("a man", "a dog"), "summary", ask) == ("both", "summary by the model")
    assert "0-10 s: a man" in asked[0] and "10-20 s: a dog" in asked[0] and asked[0].count("Who?") == 2
    with pytest.raises(ConfigError, match="majority"):
        check_reduction("mean")


def test_what_is_asked_to_be_there() -> None:
    there = ["Is there a dog?", "Do you hear music?", "is anyone speaking?", "Can rain be heard?", "Is a dog audible"]
    assert all(map(asks_existence, there))
    assert not any(map(asks_existence, ["Is the speaker male?", "Is it quiet?", "How many people speak?"]))


def test_neighbours_alike_are_one_segment() -> None:
    ruled = Segment(start_s=40, stop_s=50, text="b")
    merged = merge_alike([*segments("a", "a", "b", "a"), ruled])
    assert [(s.start_s, s.stop_s, s.text, s.mean_logprob) for s in merged] == [
        (0, 20, "a", -1.5),
        (20, 30, "b", -3.0),
        (30, 40, "a", -4.0),
        (40, 50, "b", None),
    ]
