"""Robustness cards: from corrupted audio to the page."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auricle.errors import ConfigError, DataError
from auricle.evaluate.answer_cache import AnswerCache
from auricle.evaluate.corruptions import CORRUPTIONS, find_corruption
from auricle.evaluate.predictions import read_predictions
from auricle.evaluate.questions import Question
from auricle.evaluate.robustness import Card, area_under, crossings, read_card, robustness_card
from auricle.evaluate.robustness_page import plot_cards, write_cards
from auricle.evaluate.run import Evaluator, run_task
from auricle.evaluate.scores import RULES, Scored, ScoringConfig, measure
from auricle.evaluate.sources import AudioFile
from auricle.metrics.intervals import Score
from auricle.metrics.paired import Measured, Part, pair
from auricle.pages.plots import svg

from .toy_model import ToyModel, tone_bytes, tone_questions, tone_task

NAN = math.nan


def evaluator(model: Any = None, *, task: Any = None, cache: Any = None, **scoring: Any) -> Evaluator:
    config = ScoringConfig(rounds=50, **scoring)
    return Evaluator(model=model or ToyModel(), task=task or tone_task(), cache=cache, scoring=config)


def card_of(*conditions: str, **settings: Any) -> Card:
    return robustness_card(evaluator(**settings), tone_questions(), [find_corruption(text) for text in conditions])


def test_a_card_reports_what_noise_does() -> None:
    levels: list[tuple[str, float]] = []
    card = robustness_card(
        evaluator(),
        tone_questions(12),
        [find_corruption("white-noise=40,-40"), find_corruption("gain=-80,10")],
        on_level=lambda name, level: levels.append((name, level)),
    )
    assert levels == [("white-noise", 40), ("white-noise", -40), ("gain", -80), ("gain", 10)]
    assert (card.clean.value, card.metric, card.questions, card.clips) == (1.0, "accuracy", 12, 12)
    noise, gain = card.curves
    mild, loud = noise.levels
    assert (mild.retention.value, mild.difference.value, mild.score.value) == (1.0, 0.0, 1.0)
    # In noise that drowns them, all tones are where the noise happens to be strongest, mostly high.
    assert loud.score.value < 0.7
    assert loud.retention.value == pytest.approx(loud.score.value) == pytest.approx(1 + loud.difference.value)
    assert loud.difference.low <= loud.difference.value <= loud.difference.high < 0
    assert noise.area == pytest.approx((1 + loud.score.value) / 2)
    assert noise.falls[0.9][0].level == pytest.approx(40 - 80 * 0.1 / (1 - loud.score.value))
    assert [each.retention.value for each in gain.levels] == [0.0, 1.0]
    assert {each.direction: each.level for each in gain.falls[0.5]} == {"down": -40.0, "up": None}


def test_each_clip_is_one_request_at_each_level_and_never_again(tmp_path: Path) -> None:
    model = ToyModel()
    with AnswerCache(tmp_path) as cache:
        card = card_of("clipping=10", "speed=0.9,1.1", model=model, cache=cache)
    assert len(model.prompts) == 9 * 4
    with AnswerCache(tmp_path) as cache:
        assert card_of("clipping=10", "speed=0.9,1.1", model=model, cache=cache).to_json() == card.to_json()
        assert len(model.prompts) == 9 * 4
        card_of("clipping=20", "speed=0.9,1.1", model=model, cache=cache)
    assert len(model.prompts) == 9 * 5


def test_error_rates_are_compared_by_what_they_leave_to_one() -> None:
    task = tone_task(kind="asr", lang="en")
    questions = tone_questions(12, text="high", lang="en")  # a third is right
    found = robustness_card(evaluator(task=task), questions, [find_corruption("gain=-80,20")])
    assert found.metric == "error_rate" and found.clean.value == pytest.approx(2 / 3)
    soft, loud = found.curves[0].levels
    assert soft.score.value == 1.0 and soft.retention.value == 0.0 and soft.difference.value == pytest.approx(1 / 3)
    assert loud.retention.value == 1.0


def test_nothing_is_left_of_nothing() -> None:
    card = card_of("gain=10", model=ToyModel(not_understood=("Which tone?",)))
    (curve,) = card.curves
    assert math.isnan(curve.levels[0].retention.value) and math.isnan(curve.area) and curve.falls[0.5] == ()
    assert json.loads(card.to_json())["conditions"][0]["area"] is None
    assert plot_cards([card]).axes  # a panel without a known point


def test_clips_that_cannot_be_read_are_counted() -> None:
    broken = AudioFile("broken.wav", lambda: b"no audio")
    row = {**tone_questions(1)[0].row, "audio": "broken.wav"}
    questions = [*tone_questions(3), Question(audio=broken, prompt="Which tone?", field="", row=row)]
    with pytest.raises(DataError, match=r"broken\.wav"):
        robustness_card(evaluator(), questions, [find_corruption("gain=10")])
    card = robustness_card(evaluator(missing="worst"), questions, [find_corruption("gain=10")])
    assert (card.clean.value, card.clean_failed, card.curves[0].levels[0].failed) == (0.75, 1, 1)


def test_a_level_that_cannot_be_scored_is_named() -> None:
    class Mute(ToyModel):
        def answer(self, tone: str, prompt: str) -> str:
            return "" if tone == "nothing" else tone

    task, questions = tone_task(kind="asr"), tone_questions(3, text="low", lang="en")
    with pytest.raises(DataError, match=r"^gain, -80 dB: of 3 rows none"):
        robustness_card(
            evaluator(Mute(), task=task, scoring_rule="compat"), questions, [find_corruption("gain=10,-80")]
        )


def test_what_cannot_be_measured_is_refused() -> None:
    for conditions in ([], [find_corruption("gain"), find_corruption("gain=10")]):
        with pytest.raises(ConfigError, match="each once"):
            robustness_card(evaluator(), tone_questions(), conditions)
    with pytest.raises(DataError, match="no questions"):
        robustness_card(evaluator(), [], [find_corruption("gain")])


def test_areas_and_falls_by_hand() -> None:
    snr, pad, kbps, speed = (CORRUPTIONS[name] for name in ("white-noise", "padding", "opus", "speed"))
    assert area_under(snr, {20: 1.0, 10: 0.8, -10: 0.2}) == pytest.approx((10 * 0.9 + 20 * 0.5) / 30)
    assert area_under(pad, {2: 0.5}) == pytest.approx(0.75)  # clean audio is the level 0
    assert area_under(kbps, {64: 1.0, 16: 0.5, 8: 0.0}) == pytest.approx((2 * 0.75 + 1 * 0.25) / 3)
    assert area_under(kbps, {64: 0.7}) == 0.7
    assert crossings(kbps, {64: 1.0, 16: 0.0}, 0.5)[0].level == pytest.approx(32)
    ((way, level, mildest),) = crossings(snr, {20: 1.0, 10: 0.8, -10: 0.2}, 0.9)
    assert (way, level, mildest) == ("down", 15.0, False)
    assert crossings(snr, {20: 0.3, 10: 0.95}, 0.5)[0] == ("down", 20, True)
    assert crossings(pad, {1: 0.9, 2: 1.1}, 0.9)[0] == ("up", None, False)
    assert [tuple(each) for each in crossings(speed, {0.8: 0.0, 1.2: 1.0}, 0.5)] == [
        ("down", pytest.approx(0.9), False),
        ("up", None, False),
    ]
    assert [each.direction for each in crossings(speed, {0.8: 0.0}, 0.5)] == ["down"]
    assert crossings(CORRUPTIONS["telephone"], {1: 0.8, 4: 0.4}, 0.5) == (("up", 4, False),)  # there is no 3.25th call


@given(st.lists(st.floats(0, 1.5), min_size=2, max_size=6), st.sampled_from(["white-noise", "reverb", "opus"]))
def test_areas_lie_within_and_falls_between_levels(values: list[float], name: str) -> None:
    condition = CORRUPTIONS[name]
    points = dict(zip(condition.levels, values, strict=False))
    every = [*points.values(), *([1.0] if condition.neutral is not None else [])]
    assert min(every) - 1e-9 <= area_under(condition, points) <= max(every) + 1e-9
    for share in (0.9, 0.5):
        (found,) = crossings(condition, points, share)
        assert (found.level is None) == all(value >= share for value in every)
        if found.level is not None:
            assert min(*points, condition.neutral or 0) <= found.level <= max(points)


def test_pairing_is_by_item_and_group() -> None:
    def measured(values: dict[str, float]) -> Measured:
        share = sum(values.values()) / len(values)
        parts = {"": Part(1.0, {name: (value, 1.0) for name, value in values.items()})}
        return Measured("accuracy", Score(share, NAN, NAN, len(values)), "accuracy", parts)

    rng = np.random.default_rng(0)
    before = {str(at): 1.0 for at in range(100)} | {"only before": 0.0}
    after = {str(at): float(rng.random() < 0.5) for at in range(100)} | {"only after": 1.0}
    found = pair(measured(before), measured(after), {})
    share = sum(after[str(at)] for at in range(100)) / 100
    assert found.lost == 2 and found.difference.n == 100
    assert found.difference.value == pytest.approx(share - 1) and found.retention.value == pytest.approx(share)
    assert found.retention.high - found.retention.low == pytest.approx(4 * 0.05, rel=0.2)
    in_two = pair(measured(before), measured(after), {str(at): f"speaker {at // 50}" for at in range(100)})
    assert in_two.retention.value == pytest.approx(share)
    assert in_two.retention.high - in_two.retention.low < 0.15  # two halves that are much alike


def test_items_have_the_names_of_files_of_predictions(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"dataset_name": "S", "audio": "a", "prompt": "p", "question": "q", "label": ["x"]},
        {"dataset_name": "S", "audio": "a", "prompt": "r", "label": ["x"]},
        {"dataset_name": "S", "audio": "b", "prompt": "p", "label": ["x"], "speaker": "z"},
    ]
    audio = {name: AudioFile(name, lambda: tone_bytes("low")) for name in "ab"}
    questions = [Question(audio=audio[row["audio"]], prompt=row["prompt"], field="", row=row) for row in rows]
    done = run_task(evaluator(), questions, tmp_path)
    assert done.folder is not None
    names = [row.item for row in read_predictions(done.folder / "answers.jsonl", "tagging").rows]
    assert evaluator().evaluate(questions).items == names == ["S · a · q", "S · a · r", "b"]


def test_map_keeps_its_own_retention_and_pairs_by_f1() -> None:
    def scored(value: float, f1: float) -> Scored:
        return Scored(
            kind="multitag",
            scoring_rule="strict",
            rule=RULES["multitag", "strict"],
            scores={"mAP": Score(value, NAN, NAN, 2)},
            items={"f1": {"a": f1, "b": f1}},
        )

    found = pair(measure(scored(0.8, 1.0)), measure(scored(0.2, 0.5)), {})
    assert found.retention.value == pytest.approx(0.25) and math.isnan(found.retention.low)
    assert found.difference.value == -0.5


def test_captions_are_measured_by_the_nearest_metric() -> None:
    def scored(*names: str) -> Scored:
        return Scored(
            kind="caption",
            scoring_rule="strict",
            rule=RULES["caption", "strict"],
            scores={name: Score(0.5, 0.4, 0.6, 1) for name in names},
            items={name: {"a": 0.5} for name in names},
        )

    assert measure(scored("sbert", "fense")).metric == "fense"
    alone = measure(scored("sbert"))  # without a detector of errors there is no FENSE
    assert (alone.metric, alone.paired_metric, alone.parts[""].items) == ("sbert", "sbert", {"a": (0.5, 1.0)})


def test_mecat_is_weighted_as_its_overall_score() -> None:
    from auricle.evaluate.mecat import GROUPS, caption_score

    def scored(values: dict[str, float], *, all_groups: bool) -> Scored:
        overall = caption_score(values)
        return Scored(
            kind="mecat",
            scoring_rule="compat",
            rule=RULES["mecat", "compat"],
            scores={"date": Score(overall or 0.0, NAN, NAN, 9)} if all_groups else {},
            parts={name: {"date": Score(value, value, value, 1)} for name, value in values.items()},
            items={f"{name}.date": {"clip": value} for name, value in values.items()},
            settings={"kind": "caption"},
        )

    before = {group.name: 0.5 + at / 30 for at, group in enumerate(GROUPS)}
    after = {name: value / 2 for name, value in before.items()}
    found = pair(*(measure(scored(values, all_groups=True)) for values in (before, after)), {})
    assert found.difference.value == pytest.approx((caption_score(after) or 0) - (caption_score(before) or 0))
    assert found.retention.value == pytest.approx(0.5)
    few = {name: before[name] for name in list(before)[:2]}
    one = measure(scored(few, all_groups=False))
    assert one.metric == "mean of date" and one.score.value == pytest.approx(sum(few.values()) / 2)


def test_cards_come_back_from_their_files(tmp_path: Path) -> None:
    card = card_of("gain=-80,10", "white-noise=0")
    path = tmp_path / "card.json"
    path.write_text(card.to_json())
    assert read_card(path).to_json() == card.to_json()
    stored = json.loads(card.to_json())
    for broken, match in [
        ({"format": "other"}, "format is 'other', expected 'auricle-robustness/1'"),
        ({"conditions": [{"name": "x"}]}, r"has no conditions\[0\].title"),
        (
            {"conditions": [{**stored["conditions"][0], "name": "x"}]},
            "corruption 'x', expected some of white-noise",
        ),
        ({"rounds": "50"}, "rounds is '50', expected a whole number"),
        ({"clean": {**stored["clean"], "low": None}}, "clean .*expected low before high, or neither"),
        ({"odd": 1}, "unknown field odd"),
    ]:
        path.write_text(json.dumps({**stored, **broken}))
        with pytest.raises(DataError, match=match):
            read_card(path)


def test_the_page_shows_every_model_and_nothing_that_acts(tmp_path: Path) -> None:
    cards = [
        card_of("gain=-80,10", "white-noise=30,0", model=ToyModel(model="one <script>alert(1)</script>")),
        card_of("opus=32", model=ToyModel(model="two")),
    ]
    paths = write_cards(cards, tmp_path)
    assert [path.name for path in paths] == [
        "robustness.html",
        "robustness.tones-strict.svg",
        "robustness.tones-strict.png",
    ]
    page = paths[0].read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "<b>& more" not in page
    assert page.count("<svg") == 1 and "Content-Security-Policy" in page and "White noise" in page and "two" in page
    assert paths[1].read_text() == svg(plot_cards(cards), "figure0")  # the same cards, the same bytes
    assert paths[1].read_text() in page and paths[2].read_bytes().startswith(b"\x89PNG")
    assert "<svg" not in write_cards(cards, tmp_path / "plain", figures=False)[0].read_text()


def test_panels_are_conditions_and_lines_are_models() -> None:
    cards = [
        card_of("gain=-80,10", "white-noise=30,0"),
        card_of("gain=-80,10", model=ToyModel(model="two of a name that is long", fingerprint="a")),
    ]
    figure = plot_cards(cards)
    noise, gain = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in (noise, gain)] == ["White noise", "Gain, nothing clipped"]
    lines = [line for line in gain.get_lines() if not line.get_label().startswith("_")]
    names = ["toy (clean accuracy 1.000)", "two of a name that is long (clean accuracy 1.000)"]
    assert [line.get_label() for line in lines] == names
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    assert lines[0].get_xydata().tolist() == [[-80, 0], [0, 1], [10, 1]]
    assert noise.xaxis_inverted() and not gain.xaxis_inverted()
    other = card_of("gain=10", scoring_rule="compat")
    with pytest.raises(DataError, match="of one task under one scoring rule"):
        plot_cards([*cards, other])
