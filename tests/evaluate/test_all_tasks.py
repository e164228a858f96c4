"""Every declared task: its metadata, its prompts, and a question from a manifest to a perfect score."""

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest

from auricle.evaluate.questions import read_questions
from auricle.evaluate.results import published_answers
from auricle.evaluate.run import Evaluator
from auricle.evaluate.scores import RULES, TaskKind
from auricle.evaluate.task import LanguageDomain, LanguageTask, language_tasks, read_language_tasks, slots
from auricle.metrics.paired import LOWER_IS_BETTER

from .fake_model import FakeModel

METRICS = {"error_rate", "accuracy", "mAP", "fense", "sbert", "date"}
TASKS = language_tasks()
every_task = pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])
# A clip that every task can use, and the reference of each kind.
FACTS: dict[str, Any] = {
    "text": "one", "lang": "en", "speaker": "s1", "question": "Which?", "choices": ["dog", "cat"], "answer": "B",
    "event": "dog", "gender": "m", "kind": "sound", "set": "speechocean762",
}  # fmt: skip


@every_task
def test_metadata(task: LanguageTask) -> None:
    assert task.title.strip() == task.title
    assert task.suite in {"midashenglm", "mecat", "official", "tiny"}
    assert [each.title for each in TASKS].count(task.title) == 1
    assert task.domain in get_args(LanguageDomain) and task.kind in get_args(TaskKind)
    assert {RULES[task.kind, "compat"].metric, RULES[task.kind, "strict"].metric} <= METRICS
    assert 8 <= task.max_new_tokens <= 256
    assert task.lang is None or (task.kind == "asr" and len(task.lang) == 2)
    assert all(names and label not in names for label, names in task.synonyms.items())
    assert not task.note or task.note.endswith(".")


@every_task
def test_published_scores_are_percent_and_in_a_table(task: LanguageTask) -> None:
    assert all(math.isfinite(value) and 0 < value <= 100 for value in task.published.values())
    assert bool(task.published) == (task.suite not in {"official", "tiny"})
    tables = [own[task.name] for table in published_answers() for own in table.scores.values() if task.name in own]
    assert bool(tables) == bool(task.published)
    for value in task.published.values():
        assert any(abs(value / 100 - own) < 1e-9 for own in tables)


@every_task
def test_prompts(task: LanguageTask) -> None:
    for template in task.prompts.values():
        filled = template.format(**dict.fromkeys(slots(template), "x"))
        assert filled.strip() and not set("{}") & set(filled)
    has_written = task.kind == "qa" and task.official != "voicebench"
    assert task.has_questions == (has_written or task.name in {"audiocaps_qa", "musicqa", "mecat_qa"})


@every_task
def test_a_declaration_gives_the_same_task(task: LanguageTask) -> None:
    content = json.loads(json.dumps(task.content()))
    stored = {"format": "auricle-language-tasks/1", "suites": [{"suite": task.suite, "tasks": [content]}]}
    (found,) = read_language_tasks(json.dumps(stored), "one.json")
    assert found == task and repr(found) == repr(task)


@pytest.mark.parametrize("scoring_rule", ["compat", "strict"])
@pytest.mark.parametrize(
    "task",
    [each for each in TASKS if each.kind not in ("caption", "mecat") and each.official is None],
    ids=lambda task: task.name,
)
def test_right_answers_have_a_perfect_score(task: LanguageTask, scoring_rule: Any, tmp_path: Path) -> None:
    label = {"gender": "male", "multitag": "Dog; Rain"}.get(task.kind, "dog")
    rows = [FACTS | {"audio": f"{at}.wav", "label": label} for at in range(2)]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for row in rows:
        (tmp_path / str(row["audio"])).write_bytes(str(row["audio"]).encode())
    questions = read_questions(task, tmp_path / "clips.jsonl")
    # Both clips have the same questions, but a composed one has its choices in another order.
    references = {(question.audio.name, question.prompt): question.row for question in questions}

    class Right(FakeModel):
        def answer(self, content: bytes, prompts: Any) -> Any:
            found = super().answer(content, prompts)
            for prompt, each in zip(prompts, found, strict=True):
                row = references[content.decode(), prompt]
                each.text = row.get("text") or row.get("answer") or ";".join(row["label"])
            return found

    evaluator = Evaluator(model=Right(), task=task)
    predictions = evaluator.predictions(questions, evaluator.generate(questions))
    scored = evaluator.score(predictions.parse("rows"), scoring_rule)
    assert scored.headline is not None
    assert scored.headline.value == (0.0 if scored.rule.metric in LOWER_IS_BETTER else 1.0)
