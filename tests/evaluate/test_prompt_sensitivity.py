"""Scores under several prompts and orders of choices."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import ConfigError, DataError
from auricle.evaluate.prompt_sensitivity import prompt_sensitivity
from auricle.evaluate.prompt_variants import (
    WORDINGS,
    known_prompts,
    moved_choices,
    read_prompts,
    reworded,
    right_places,
)
from auricle.evaluate.questions import Question
from auricle.evaluate.run import Evaluator
from auricle.evaluate.scores import ScoringConfig
from auricle.evaluate.sources import AudioFile
from auricle.evaluate.task import load_language_task
from auricle.metrics.closed_qa import list_choices

from .toy_model import TONES, ToyModel, tone_bytes, tone_questions, tone_task

CLOSED = "{question}\n{choices}\nAnswer with a single Letter: "
PROMPTS = ("Which tone?", "Name the tone.", "High or low?")


class Half(ToyModel):
    """Understands one prompt for two tones only."""

    def answer(self, tone: str, prompt: str) -> str:
        return "nothing" if prompt == PROMPTS[1] and tone == "low" else super().answer(tone, prompt)


class Lettered(ToyModel):
    """Finds the tone among the choices, but takes the first one for every high tone."""

    def answer(self, tone: str, prompt: str) -> str:
        letters = {line[4:]: line[1] for line in prompt.splitlines() if line.startswith("(")}
        return "A" if tone == "high" else letters[tone]


def evaluator(model: Any, *, task: Any = None, **scoring: Any) -> Evaluator:
    return Evaluator(model=model, task=task or tone_task(), scoring=ScoringConfig(rounds=50, **scoring))


def closed_questions(count: int = 9, choices: tuple[str, ...] = tuple(TONES), **fields: Any) -> list[Question]:
    found = []
    for each in tone_questions(count):
        prompt = f"What is it?\n{list_choices(choices)}\nAnswer with a single Letter: "
        row = {**each.row, "prompt": prompt, "question": "What is it?", "choices": list(choices), **fields}
        row["answer"] = row.get("answer") or "ABC"[choices.index(each.row["label"][0])]
        found.append(Question(audio=each.audio, prompt=prompt, field="", row=row))
    return found


def test_scores_under_several_prompts() -> None:
    model = Half(not_understood=(PROMPTS[2],))
    names: list[str] = []
    found = prompt_sensitivity(evaluator(model), reworded(tone_questions(12), PROMPTS), on_variant=names.append)
    assert names == list(PROMPTS) == [each.name for each in found.variants]
    assert [each.score.value for each in found.variants] == pytest.approx([1, 2 / 3, 0])
    assert all(each.score.low <= each.score.value <= each.score.high for each in found.variants)
    assert (found.mean, found.low, found.high, found.best, found.worst) == (pytest.approx(5 / 9), 0, 1, 0, 2)
    assert found.deviation == pytest.approx(((4 / 9) ** 2 + (1 / 9) ** 2 + (5 / 9) ** 2) ** 0.5 / 2**0.5)
    assert (found.same_verdict, found.same_answer, found.always, found.never) == (0.0, 0.0, 0, 0)
    two = prompt_sensitivity(evaluator(model), reworded(tone_questions(12), PROMPTS[:2]))
    assert two.same_verdict == two.same_answer == pytest.approx(2 / 3)
    assert (two.always, two.never, two.item_range) == (8, 0, pytest.approx(1 / 3))
    content = json.loads(two.to_json())
    assert content["spread"] == pytest.approx(1 / 3) and content["asked"][1]["name"] == PROMPTS[1]


def test_of_error_rates_the_lowest_is_best() -> None:
    model = Half(not_understood=(PROMPTS[2],))
    task = tone_task(kind="asr")
    questions = [
        replace(each, row={**each.row, "text": each.row["label"][0], "lang": "en"}) for each in tone_questions(6)
    ]
    found = prompt_sensitivity(evaluator(model, task=task), reworded(questions, PROMPTS))
    assert [each.score.value for each in found.variants] == pytest.approx([0, 1 / 3, 1])
    assert (found.metric, found.best, found.worst, found.always) == ("error_rate", 0, 2, None)
    assert found.same_verdict == 0.0


def test_a_prompt_whose_answers_cannot_be_scored_is_named() -> None:
    class Mute(ToyModel):
        def answer(self, tone: str, prompt: str) -> str:
            return "" if prompt == PROMPTS[1] else tone

    questions = [replace(each, row={**each.row, "text": "low", "lang": "en"}) for each in tone_questions(3)]
    variants = reworded(questions, PROMPTS)
    with pytest.raises(DataError, match=r"^variant 'Name the tone\.': of 3 rows none"):
        prompt_sensitivity(evaluator(Mute(), task=tone_task(kind="asr"), scoring_rule="compat"), variants)
    assert prompt_sensitivity(evaluator(Mute(), task=tone_task(kind="asr")), variants).worst == 1


def test_several_questions_about_one_clip_are_matched_whatever_the_prompt() -> None:
    audio = AudioFile("a.wav", lambda: tone_bytes("low"))
    row = {"dataset_name": "T", "audio": "a.wav"}
    questions = [
        Question(audio=audio, prompt=label, field="", row={**row, "label": [label], "question": f"A {label} one?"})
        for label in ("low", "high")
    ]
    variants = reworded(questions, ["{question} Which?", "Which? {question}"])
    found = prompt_sensitivity(evaluator(ToyModel()), variants)
    assert (found.same_verdict, found.always, found.never) == (1.0, 1, 1)


def test_moved_choices_show_who_prefers_a_letter() -> None:
    task = tone_task(kind="qa", prompts={"": CLOSED})
    questions = closed_questions(9)
    fair = prompt_sensitivity(evaluator(ToyModel(), task=task), moved_choices(questions), "choices")
    assert (fair.same_verdict, fair.same_answer, fair.always, len(fair.variants)) == (1.0, 1.0, 9, 3)
    assert [each.chosen for each in fair.places] == pytest.approx([1 / 3] * 3)
    assert [each.accuracy.value for each in fair.places] == [1.0] * 3
    assert fair.unread == 0
    mute = prompt_sensitivity(
        evaluator(ToyModel(not_understood=(questions[0].prompt,)), task=task), moved_choices(questions), "choices"
    )
    assert mute.unread == pytest.approx(1 / 3) and mute.same_answer == 0
    model = Lettered()
    found = prompt_sensitivity(evaluator(model, task=task), moved_choices(questions), "choices")
    assert found.same_verdict == found.same_answer == pytest.approx(2 / 3)
    assert [each.letter for each in found.places] == ["A", "B", "C"]
    assert [each.chosen for each in found.places] == pytest.approx([5 / 9, 2 / 9, 2 / 9])
    assert [each.offered for each in found.places] == pytest.approx([1 / 3] * 3)
    assert [each.accuracy.value for each in found.places] == pytest.approx([1.0, 2 / 3, 2 / 3])
    assert found.kind == "choices" and json.loads(found.to_json())["places"][0]["accuracy"]["n"] == 9


@given(st.integers(2, 6), st.integers(0, 5), st.data())
def test_moving_choices_keeps_the_right_one(count: int, right: int, data: st.DataObject) -> None:
    words = st.sampled_from("red blue a B A12 ab".split())
    choices = tuple(data.draw(st.lists(words, min_size=count, max_size=count, unique=True)))
    right %= count
    answer = data.draw(st.sampled_from(["ABCDEF"[right], "abcdef"[right]]))
    prompt = f"What?\n{list_choices(choices)}\nLetter: "
    row = {"dataset_name": "S", "audio": "a", "prompt": prompt, "choices": list(choices), "answer": answer}
    question = Question(audio=AudioFile("a", bytes), prompt=prompt, field="", row=row)
    # A letter that is also the text of a choice is taken for the text.
    texts = [place for place, choice in enumerate(choices) if choice.lower() == answer.lower()]
    (right,) = texts or [right]
    assert right_places([question]) == [right]
    variants = moved_choices([question])
    assert len(variants) == count and variants[0].questions[0] is question
    places = []
    for by, variant in enumerate(variants):
        (moved,) = variant.questions
        (place,) = right_places([moved])
        places.append(place)
        assert moved.row["choices"][place] == choices[right] and moved.row["prompt"] == moved.prompt
        assert moved.prompt == f"What?\n{list_choices(choices[by:] + choices[:by])}\nLetter: "
    assert sorted(places) == list(range(count))


def test_answers_that_are_texts_stay() -> None:
    questions = closed_questions(1, answer="low")
    assert [each.questions[0].row["answer"] for each in moved_choices(questions)] == ["low"] * 3


def test_slots_of_a_prompt_are_filled() -> None:
    questions = closed_questions(2, lang="en")
    first, second = reworded(questions, ["{question} in <|{lang}|>\n{choices}\nLetter?", "Choose.\n{choices}"])
    assert first.questions[0].prompt == f"What is it? in <|en|>\n{list_choices(tuple(TONES))}\nLetter?"
    assert second.questions[1].row["prompt"] == second.questions[1].prompt == f"Choose.\n{list_choices(tuple(TONES))}"
    assert second.questions[1].row["choices"] == list(TONES)


def test_only_the_named_field_is_reworded() -> None:
    fields = [
        Question(audio=each.audio, prompt=field, field=field, row=each.row)
        for each in tone_questions(1)
        for field in ("long", "short")
    ]
    with pytest.raises(ConfigError, match="has the fields long, short; name the one"):
        reworded(fields, PROMPTS)
    with pytest.raises(ConfigError, match="no field 'speech'"):
        reworded(fields, PROMPTS, field="speech")
    assert [each.prompt for each in reworded(fields, PROMPTS, field="short")[1].questions] == ["long", PROMPTS[1]]


def test_what_cannot_be_compared_is_refused() -> None:
    for prompts in (PROMPTS[:1], [PROMPTS[0]] * 3, []):
        with pytest.raises(ConfigError, match="at least 2"):
            reworded(tone_questions(), prompts)
    with pytest.raises(ConfigError, match="found 1 variant, expected at least 2"):
        prompt_sensitivity(evaluator(ToyModel()), reworded(tone_questions(), PROMPTS)[:1])
    with pytest.raises(ConfigError, match=r"has choices in braces, which 0\.wav does not have; it has nothing"):
        reworded(tone_questions(), ["{choices}", "x"])
    with pytest.raises(DataError, match="without choices"):
        moved_choices(tone_questions())
    with pytest.raises(ConfigError, match="4 orders of choices, expected 2 to 3"):
        moved_choices(closed_questions(), 4)
    unlisted = [Question(audio=each.audio, prompt="Low?", field="", row=each.row) for each in closed_questions(1)]
    with pytest.raises(DataError, match="does not list the choices once"):
        moved_choices(unlisted)


def test_prompts_come_from_files_and_from_the_training_data(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("One?\r\n\n{question}\\n{choices}\n", encoding="utf-8")
    assert read_prompts(path) == ["One?", "{question}\n{choices}"]
    path.write_text("\n")
    with pytest.raises(DataError, match="holds no prompts"):
        read_prompts(path)
    assert known_prompts(tone_task()) == ["Which tone?", *WORDINGS["tagging"]]
    for task in (tone_task(kind="qa", prompts={"": CLOSED}), load_language_task("mecat_caption")):
        with pytest.raises(ConfigError, match="give a file of prompts"):
            known_prompts(task)
