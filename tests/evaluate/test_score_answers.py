"""Scores of files, from the bytes to the printed table, with toy networks."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from auricle.cli import evaluate_score
from auricle.errors import ConfigError, DataError
from auricle.evaluate.mecat import (
    CATEGORIES,
    GROUPS,
    caption_score,
    is_absent,
    merge_texts,
    question_score,
    read_references,
    read_values,
    states_absence,
)
from auricle.evaluate.predictions import read_predictions
from auricle.evaluate.score_answers import read_synonyms, score_predictions
from auricle.evaluate.scores import RULES, Scored
from auricle.weights.sentence_encoders import SentenceEncoder, load_error_detector, load_sentence_encoder

from ..weights.toy_sentences import write_detector, write_encoder
from .toy_runs import score_file, score_mecat_file


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    write_encoder(folder / "encoder")
    write_detector(folder / "detector")
    return folder


@pytest.fixture(scope="module")
def encoder(toys: Path) -> SentenceEncoder:
    return load_sentence_encoder(str(toys / "encoder"))


def write(path: Path, *rows: dict[str, Any]) -> Path:
    named = [{"dataset_name": "Set", "audio": f"{at}.wav", "model_name": "M"} | row for at, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in named), encoding="utf-8")
    return path


def both(path: Path, task: Any, **settings: Any) -> list[Scored]:
    return [score_file(path, task, rule, rounds=20, **settings) for rule in ("compat", "strict")]


def accuracy(scored: Scored) -> float:
    assert scored.headline is not None and scored.headline.low <= scored.headline.value <= scored.headline.high
    return scored.headline.value


# Predictions by line


def test_tags_from_a_file(tmp_path: Path) -> None:
    answers = [
        ("cat", "a cat"),
        ("dog", "concatenate the dog"),
        ("rain", "shower"),
        ("cat", "dogs and a cat"),
        ("cat", "dog, cat"),
    ]
    path = write(tmp_path / "a.jsonl", *({"label": [label], "model_output": text} for label, text in answers))
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"rain": ["shower"]}))
    compat, strict = both(path, "tagging", synonyms=read_synonyms(names))
    assert accuracy(compat) == 4 / 5 and accuracy(strict) == 4 / 5
    assert compat.items["accuracy"]["2.wav"] == 0 and strict.items["accuracy"]["2.wav"] == 1
    assert strict.counts["unparseable"] == 1 and strict.items["accuracy"]["4.wav"] == 0
    assert strict.parts["cat"]["recall"].value == pytest.approx(2 / 3)
    assert compat.rule == RULES["tagging", "compat"] and "unparseable_rate" not in compat.scores


def test_gender_from_a_file(tmp_path: Path) -> None:
    rows = [{"label": ["male"], "model_output": "A man."}, {"label": ["female"], "model_output": "female"}]
    compat, strict = both(write(tmp_path / "a.jsonl", *rows), "gender")
    assert (accuracy(compat), accuracy(strict)) == (0.5, 1.0)
    odd = write(tmp_path / "b.jsonl", {"label": ["child"], "model_output": "child"})
    with pytest.raises(DataError, match="labels are 'child', expected male and female"):
        both(odd, "gender")


def test_choices_from_a_file(tmp_path: Path) -> None:
    songs = ["A happy song", "A sad song"]
    answers = [("B", "A sad song"), ("A", "B"), ("A", "A or B"), ("A", "A")]
    rows = [
        {"answer": answer, "choices": songs, "model_output": text, "audio": "same.wav", "question": str(at)}
        for at, (answer, text) in enumerate(answers)
    ]
    compat, strict = both(write(tmp_path / "a.jsonl", *rows), "qa")
    assert list(strict.items["accuracy"].values()) == [1, 0, 0, 1] and strict.counts["unparseable"] == 1
    assert list(compat.items["accuracy"].values()) == [0, 0, 1, 1]
    # One clip, so that nothing is known about others.
    assert strict.headline is not None and strict.headline.low == strict.headline.high == 0.5
    mixed = write(
        tmp_path / "b.jsonl",
        {"answer": "yes", "choices": [], "model_output": "Yes."},
        {"answer": "B", "choices": songs, "model_output": "b"},
    )
    assert accuracy(both(mixed, "qa")[1]) == 1


def test_several_labels_from_a_file(tmp_path: Path) -> None:
    rows = [{"label": ["Dog", "Rain"], "model_output": "dog, rain"}, {"label": ["Cat"], "model_output": "unicorn"}]
    path = write(tmp_path / "a.jsonl", *rows)
    compat, strict = both(path, "multitag")
    assert compat.scores["mAP"].value == pytest.approx(0.5) and strict.scores["micro_f1"].value == pytest.approx(2 / 3)
    assert strict.scores["mAP"].value == pytest.approx((1 + 1 + 0.5) / 3) and strict.counts["unknown_labels"] == 1
    mixed = write(tmp_path / "b.jsonl", *rows, {"label": ["x"], "model_output": "x", "dataset_name": "Other"})
    with pytest.raises(DataError, match="mixes the labels of Other, Set"):
        both(mixed, "multitag")


def test_transcripts_from_a_file(tmp_path: Path) -> None:
    rows = [
        {"text": "satu dua", "lang": "id", "model_output": text, "speaker": "s"} for text in ("satu dua", "satu", "")
    ]
    compat, strict = both(write(tmp_path / "a.jsonl", *rows), "asr", group_by="speaker")
    assert compat.scores["error_rate"].value == 1 / 4 and strict.scores["error_rate"].value == 1 / 2
    assert (compat.counts["left_out_by_rule"], strict.counts["empty_answers"]) == (1, 1)
    assert list(strict.items["errors"].values()) == [0, 1, 2] and strict.settings["units"] == {"id": "word"}
    by_character = both(write(tmp_path / "a.jsonl", *rows), "asr", unit="character")[1]
    assert by_character.scores["error_rate"].value == 10 / 21
    with pytest.raises(DataError, match=r"0\.wav has no field 'room' to resample by"):
        both(tmp_path / "a.jsonl", "asr", group_by="room")


def test_captions_from_a_file(tmp_path: Path, toys: Path, encoder: SentenceEncoder) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "a dog barks", "model_output": "a dog barks"},
        {"text": ["rain falls", "the rain"], "model_output": "music plays"},
        {"question": "Describe it", "answer": "Describe it: a cat", "model_output": "a cat"},
        {"text": "a man says", "model_output": ""},
    ]
    path = write(tmp_path / "a.jsonl", *rows)
    detector = load_error_detector(toys / "detector")
    compat, strict = (
        score_file(path, "caption", rule, encoder=lambda: encoder, detector=lambda own=own: own)
        for rule, own in (("compat", None), ("strict", detector))  # type: ignore[arg-type]
    )
    assert "fense" not in compat.scores and compat.headline == compat.scores["sbert"]
    assert compat.items["sbert"]["0.wav"] == pytest.approx(1) and compat.items["sbert"]["2.wav"] < 0.9999
    assert strict.items["sbert"]["2.wav"] == pytest.approx(1) and strict.items["sbert"]["3.wav"] == 0
    factors = dict(
        zip(strict.items["sbert"], detector.probabilities([row["model_output"] for row in rows]), strict=True)
    )
    for item, value in strict.items["fense"].items():
        assert value == pytest.approx(strict.items["sbert"][item] * (0.1 if factors[item] > 0.9 else 1))
    assert strict.settings["encoder"]["weights_sha256"] == encoder.sha256 and strict.settings["error_detector"]
    assert strict.items["bleu3_of_sentences"]["0.wav"] == 1 and 0 < strict.scores["chrf"].value < 1
    assert json.loads(strict.to_json())["scores"]["fense"]["n"] == 4
    with pytest.raises(ConfigError, match="scored by a sentence encoder"):
        score_file(path, "caption")


@pytest.mark.parametrize("texts", [["a cat", "", ""], ["a cat", " \n"], "...", ["a cat", "\u200b"]])
def test_blank_references_of_captions_are_refused(tmp_path: Path, encoder: SentenceEncoder, texts: Any) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "a dog", "model_output": "a dog"}, {"text": texts, "model_output": "x"})
    with pytest.raises(DataError, match=r"line 2: text is .* of which one has no words"):
        score_file(path, "caption", "strict", encoder=lambda: encoder)
    assert score_file(path, "caption", "compat", encoder=lambda: encoder).counts["rows"] == 2  # as published


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a", "lang": "en"}, "line 1: model_output is None, expected text"),
        ({"text": "a", "lang": "en", "model_output": 1}, "line 1: model_output is 1, expected text"),
        ({"lang": "en", "model_output": "a"}, "line 1: has no text, which asr needs"),
        ({"text": ["a"], "lang": "en", "model_output": "a"}, "text is .*, expected text"),
        ({"text": "a", "lang": "en", "model_output": "a", "audio": ""}, "audio is '', expected text"),
        ({"text": "a", "lang": "jp", "model_output": "a"}, "line 1: lang is 'jp', .* perhaps 'ja'; correct the row"),
        ({"text": "a", "lang": "xx", "model_output": "a"}, "line 1: lang is 'xx'"),
        ({"text": "a \ud83d", "lang": "en", "model_output": "a"}, "line 1: text is .* half of a surrogate pair"),
        ({"text": "a", "lang": "en", "model_output": "\udfff"}, "line 1: model_output is .* half of a surrogate pair"),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        score_predictions(read_predictions(write(tmp_path / "a.jsonl", row), "asr"))


def test_no_row_is_lost_in_silence(tmp_path: Path) -> None:
    row = {"text": "a", "lang": "id", "model_output": "a", "prompt": "p"}
    path = write(tmp_path / "a.jsonl", row | {"audio": "x"}, row | {"audio": "x"})
    with pytest.raises(DataError, match="line 2: the same data set, audio and question as line 1"):
        read_predictions(path, "asr")
    found = read_predictions(write(tmp_path / "b.jsonl", {"text": "a", "lang": "id"}, row), "asr")
    assert [(each.prediction, each.answer) for each in found.rows] == [(None, ""), ("a", "a")]
    scored = score_file(tmp_path / "b.jsonl", "asr", missing="worst")
    assert scored.counts["unanswered"] == 1 and scored.items["errors"] == {"0.wav": 1, "1.wav": 0}
    for content, message in (
        ("", "has no rows"),
        ("[1]\n", "expected a JSON object"),
        ('{"a": 1, "a": 2}\n', "given twice"),
        ("{", "no readable"),
    ):
        (tmp_path / "c.jsonl").write_text(content)
        with pytest.raises(DataError, match=message):
            read_predictions(tmp_path / "c.jsonl", "asr")
    with pytest.raises(DataError, match="not readable"):
        read_predictions(tmp_path / "absent.jsonl", "asr")


# MECAT


def write_captions(folder: Path) -> Path:
    """Two clips of each of three domains; of S0A the music is absent."""
    folder.mkdir()
    for domain in ("00A", "S0A", "SMA"):
        lines = []
        for at in range(2):
            fields = {
                field: [f"the {field} {word}" for word in ("dog", "cat", "rain")[: at + 1]]
                for field in ("long", "short", "speech", "sound", "environment")
            }
            fields["music"] = (
                ["None", "No musical elements"] if domain == "S0A" else ["music plays", "a man says"][: 2 - at]
            )
            lines.append(json.dumps({f"{domain}_{at}": fields | {"domain": domain}}) + "\n")
        (folder / f"{domain}.jsonl").write_text("".join(lines))
    return folder


def merged(path: Path, field: str = "") -> dict[str, dict[str, str]]:
    return merge_texts({field: read_values(path)}, {field: str(path)})


def test_none_is_a_text_in_every_format(tmp_path: Path) -> None:
    texts = {"a": "None", "b": 'said, "no"', "c": "nan"}
    (tmp_path / "p.csv").write_text('"a","None"\n"b","said, ""no"""\nc,nan\n', encoding="utf-8-sig")
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({name: text}) + "\n" for name, text in texts.items()))
    (tmp_path / "p.json").write_text(json.dumps({name: [text] for name, text in texts.items()}))
    (tmp_path / "p.txt").write_text("".join(f"{name}\t{text}\n" for name, text in texts.items()))
    for ending in ("csv", "jsonl", "json", "txt"):
        assert merged(tmp_path / f"p.{ending}") == {"": texts}
    (tmp_path / "q.jsonl").write_text(json.dumps({"a": {"long": ["x"], "short": "y"}, "b": {"answer": "z"}}))
    assert merged(tmp_path / "q.jsonl") == {"long": {"a": "x"}, "short": {"a": "y"}, "": {"b": "z"}}
    assert merged(tmp_path / "q.jsonl", "short") == {"short": {"a": "y", "b": "z"}}
    with pytest.raises(DataError, match=r"q\.jsonl: is given for 'odd', expected one of long"):
        merged(tmp_path / "q.jsonl", "odd")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "a,b,c\n", "line 1: has 3 columns"),
        ("p.csv", "a,b\na,c\n", "line 2: a is given twice"),
        ("p.jsonl", '{"a": 1}\n', "line 1: holds 1"),
        ("p.json", "", "no readable JSON"),
        ("p.jsonl", "", "has no rows"),
        ("p.xml", "", "ends in .xml"),
    ],
)
def test_predictions_that_cannot_be_read(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        merged(tmp_path / name)


def test_references_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds nothing, expected captions or questions"):
        read_references(tmp_path)
    (tmp_path / "000.jsonl").write_text('{"a": {"long": []}}\n')
    with pytest.raises(DataError, match="expected lists of texts"):
        read_references(tmp_path)
    (tmp_path / "000.jsonl").write_text('{"a": {"category": "odd", "answer": "x"}}\n')
    with pytest.raises(DataError, match="'odd' or its answer is not one"):
        read_references(tmp_path)


def test_the_weights_of_groups() -> None:
    ones = {group.name: 1.0 for group in GROUPS}
    assert caption_score(ones) == pytest.approx(1) and caption_score(ones | {"mixed_sound": 0.0}) == pytest.approx(0.98)
    assert caption_score(ones | {"content_long": 0.0}) == pytest.approx(0.68)
    del ones["environment"]
    assert caption_score(ones) is None and question_score({"direct_perception": 1.0}) is None
    assert question_score({group.name: float(at) for at, group in enumerate(CATEGORIES)}) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("None", True), ("No musical elements detected.", True), ("Musical components appear absent", True),
        ("Complete absence of speech", True), ("", False), ("Non-musical audio content", True),
        ("Music plays without vocals", False), ("A man says nothing is wrong", False), ("Noise from traffic", False),
    ],
)  # fmt: skip
def test_statements_of_absence(text: str, absent: bool) -> None:
    assert states_absence(text) is absent


def test_captions_of_mecat(tmp_path: Path, encoder: SentenceEncoder, toys: Path) -> None:
    references = write_captions(tmp_path / "refs")
    answers = tmp_path / "all.json"
    clips = [f"{domain}_{at}" for domain in ("00A", "S0A", "SMA") for at in range(2)]
    answers.write_text(json.dumps({clip: "None" if clip == "S0A_0" else "music plays" for clip in clips}))
    compat, strict = (
        score_mecat_file(answers, references, rule, encoder=lambda: encoder, rounds=20)
        for rule in ("compat", "strict")  # type: ignore[arg-type]
    )
    assert compat.parts["mixed_music"]["date"].n == 4 and strict.parts["mixed_music"]["date"].n == 2
    assert (
        strict.parts["mixed_music"]["absence_accuracy"].value == 3 / 4
        and "absence_accuracy" not in strict.parts["mixed_sound"]
    )
    assert strict.parts["mixed_music"]["absence_recall"][:1] == (0.5,) and is_absent("S0A", "music")
    assert not compat.scores  # pure speech and music have no clips here, so there is no overall number
    assert compat.settings["date_by_number_of_clips"]["content_long"]["ceiling"] == pytest.approx(10 / 11)
    assert set(compat.items["content_long.date"]) == set(clips) and "fense" not in compat.parts["content_long"]
    detector = load_error_detector(toys / "detector")
    config: dict[str, Any] = {"encoder": lambda: encoder, "detector": lambda: detector, "rounds": 5}
    with_detector = score_mecat_file(answers, references, metrics=["fense"], **config)
    assert set(with_detector.parts["content_long"]) == {"sbert", "fense"}
    with pytest.raises(ConfigError, match="metrics are cider"):
        score_mecat_file(answers, references, encoder=lambda: encoder, metrics=["cider"])


def test_missing_answers_are_an_error_or_wrong(tmp_path: Path, encoder: SentenceEncoder) -> None:
    references = write_captions(tmp_path / "refs")
    (tmp_path / "p.json").write_text(json.dumps({"00A_0": "a dog", "odd": "x"}))
    with pytest.raises(DataError, match="content_long: 5 of 6 references have no answer, first 00A_1"):
        score_mecat_file(tmp_path / "p.json", references, encoder=lambda: encoder)
    config: dict[str, Any] = {"encoder": lambda: encoder, "missing": "worst", "rounds": 5}
    found = score_mecat_file(tmp_path / "p.json", references, metrics=["bleu"], **config)
    assert found.counts["missing"] > 5 and found.counts["extra"] == 1
    assert found.items["content_long.bleu1"]["SMA_1"] == 0
    found = score_mecat_file(tmp_path / "p.json", references, **config)
    for metric in ("similarity", "sbert"):
        assert found.items[f"content_long.{metric}"]["SMA_1"] == 0 < found.items[f"content_long.{metric}"]["00A_0"]
    assert found.parts["mixed_music"]["absence_accuracy"].value == 0  # neither clip of S0A nor of SMA is answered


def test_questions_of_mecat(tmp_path: Path, encoder: SentenceEncoder) -> None:
    (tmp_path / "refs").mkdir()
    rows = {}
    for at, group in enumerate([*CATEGORIES, *CATEGORIES]):
        answer, difficulty = ("a dog", "basic") if at % 2 else ("a cat", "complex")
        facts = {"category": group.name, "difficulty": difficulty, "question": "q", "answer": answer, "domain": "00A"}
        rows[f"clip{at // 5}_{at:08x}"] = facts
    (tmp_path / "refs" / "00A.jsonl").write_text("".join(json.dumps({name: row}) + "\n" for name, row in rows.items()))
    (tmp_path / "p.jsonl").write_text(
        "".join(json.dumps({name: {"answer": row["answer"]}}) + "\n" for name, row in rows.items())
    )
    found = score_mecat_file(tmp_path / "p.jsonl", tmp_path / "refs", encoder=lambda: encoder, rounds=10)
    assert found.headline is not None and found.scores["sbert"].value == pytest.approx(1)
    assert set(found.settings["difficulties"]) == {"basic", "complex"} and found.settings["kind"] == "qa"


# The verb


def run(*arguments: object) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(evaluate_score.score)
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_verb_prints_and_stores_both_scoring_rules(tmp_path: Path) -> None:
    rows = [{"label": ["cat"], "model_output": "concatenate"}, {"label": ["dog"], "model_output": "dog"}]
    path = write(tmp_path / "a.jsonl", *rows)
    code, out = run(path, "--task", "tagging", "--scoring-rule", "both", "--json", "-o", tmp_path / "out")
    compat, strict = (json.loads(line) for line in out.splitlines())
    assert code == 0 and compat["scores"]["accuracy"]["value"] == 1.0 and strict["scores"]["accuracy"]["value"] == 0.5
    stored = json.loads((tmp_path / "out" / "tagging.strict.json").read_text())
    assert stored.pop("items")["accuracy"] == {"0.wav": 0.0, "1.wav": 1.0} and stored == strict
    assert strict["rule"] == {"id": "tag-whole-words", "version": 2, "metric": "accuracy"} and strict["data"][
        "datasets"
    ] == ["Set"]
    assert "accuracy" in run(path, "--task", "tagging")[1]


def test_the_verb_on_captions_and_mecat(tmp_path: Path, toys: Path) -> None:
    tools = ("--encoder", toys / "encoder", "--error-detector", toys / "detector", "--json")
    path = write(tmp_path / "a.jsonl", {"text": "a dog", "model_output": "a dog"})
    assert json.loads(run(path, "--task", "caption", *tools)[1])["rule"]["metric"] == "fense"
    references = write_captions(tmp_path / "refs")
    (tmp_path / "p.json").write_text(
        json.dumps({f"{domain}_{at}": "a dog" for domain in ("00A", "S0A", "SMA") for at in range(2)})
    )
    mecat = ("--task", "mecat", "--references", references, "--metric", "bleu", "--missing", "worst", *tools)
    named = json.loads(run(f"long={tmp_path / 'p.json'}", *mecat)[1])
    assert named["counts"]["missing"] > 0 and named["data"]["answers_sha256"].keys() == {"long"}
    assert json.loads(run(*[tmp_path / "p.json"] * 6, *mecat)[1])["counts"]["missing"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "b", "--task", "asr"), "found 2 files, expected one for asr"),
        (("a", "--task", "mecat"), "mecat needs it"),
        (("a", "b", "--task", "mecat", "--references", "."), "expected one for all fields, 6 in the order"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, toys: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*arguments, "--encoder", toys / "encoder")


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--task", "x"), ("--protocol", "x"), ("--scoring-rule", "x"), ("--missing", "x"), ("--unit", "x")],
)
def test_unknown_values(flag: str, value: str) -> None:
    assert run("a", "--task", "asr", flag, value)[0] == 2
