import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from auricle.bench.alignment import text_retrieval, zero_shot
from auricle.bench.class_words import task_prompts
from auricle.bench.examples import captioned_task, read_captioned
from auricle.bench.published import compare_published, published_scores
from auricle.bench.report import write_report
from auricle.bench.results import parse_result, read_result, write_result
from auricle.bench.task import LabelRule, Source, Task, load_task, tasks
from auricle.encode.zero_shot import TEMPLATES, Prompts
from auricle.errors import ConfigError, DataError

from ..encode.keys import WORDS, Keys, sound

Row = tuple[str, dict[str, Any], np.ndarray]


def task(**changes: Any) -> Task:
    facts: dict[str, Any] = {
        "name": "toy",
        "title": "Toy",
        "suite": "auricle",
        "domain": "sound",
        "kind": "clip",
        "label": LabelRule(field="label"),
        "classes": WORDS[:3],
        "folds": ("a", "b"),
        "split_field": "fold",
        "metric": "accuracy",
        "source": Source(),
    }
    return Task(**{**facts, **changes})


def write(folder: Path, rows: Iterable[Row], name: str = "manifest.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    lines = []
    for key, facts, samples in rows:
        soundfile.write(folder / f"{key}.wav", samples, 16_000)
        lines.append(json.dumps({"id": key, "audio": f"{key}.wav", **facts}) + "\n")
    (folder / name).write_text("".join(lines))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve clips of three words in two folds; one in fold b has the sound of another word."""
    rows = []
    for i in range(12):
        word = WORDS[i % 3]
        played = "rain" if i == 9 else word  # 9 is a dog by its label
        rows.append((f"s{i}", {"label": word, "fold": "ab"[i // 6]}, sound(played, seconds=0.2 + 0.01 * i, seed=i)))
    return write(tmp_path / "data", rows)


def measure(aligner: Keys, declared: Task, folder: Path, **settings: Any) -> Any:
    run = zero_shot if declared.kind == "clip" else text_retrieval
    return run(aligner, declared, folder, **{"name": "keys", "store": folder.parent / "store", **settings})


def test_clips_are_classified_by_prompts(folder: Path) -> None:
    keys = Keys()
    result = measure(keys, task(), folder)
    score = result.scores["zero_shot"]
    assert score.value == pytest.approx(11 / 12) and score.n == 12
    assert score.low is not None and score.high is not None and score.low < score.value < score.high <= 1
    assert score.classes == {"dog": 0.75, "rain": 1.0, "rooster": 1.0}
    assert score.settings["splits"] == {"a": 1.0, "b": pytest.approx(5 / 6)}
    assert score.settings["chance"] == pytest.approx(1 / 3)
    assert score.settings["templates"] == list(TEMPLATES["sound"]) and "The sound of dog can be heard." in keys.texts
    assert result.items["zero_shot"]["b/s9"] == 0 and sum(result.items["zero_shot"].values()) == 11
    assert (result.task.metric, result.task.kind, result.scoring_rule) == ("accuracy", "clip", "strict")
    assert result.data.splits == {"a": 6, "b": 6}
    assert result.data.seconds == result.cost.audio_s == pytest.approx(sum(0.2 + 0.01 * i for i in range(12)), abs=2e-3)
    assert (result.encoder.name, result.encoder.output_dim, result.encoder.parameters) == ("keys", len(WORDS) + 1, 7)


def test_the_result_is_one_of_the_benchmark(folder: Path, tmp_path: Path) -> None:
    result = measure(Keys(), task(), folder)
    assert read_result(write_result(tmp_path / "out", result)) == result == parse_result(result.to_json())
    pytest.importorskip("matplotlib")
    assert any(
        "zero_shot" in page.read_text() for page in write_report([result], tmp_path / "r") if page.suffix == ".html"
    )


def test_clips_and_texts_are_embedded_once(folder: Path) -> None:
    keys = Keys()
    first = measure(keys, task(), folder)
    keys.num_clips, keys.texts = 0, []
    second = measure(keys, task(), folder)
    assert (keys.num_clips, keys.texts) == (0, []) and (second.cost.encoded, second.cost.reused) == (0, 12)
    assert second.cost.audio_s == 0 and replace(second, cost=first.cost).to_json() == first.to_json()
    half = measure(keys, task(), folder, splits=["b"])
    assert (keys.num_clips, half.scores["zero_shot"].n) == (0, 6) and half.data.splits == {"b": 6}
    other = Keys()
    other.fingerprint = "c" * 64
    measure(other, task(), folder)
    assert other.num_clips == 12 and other.texts  # another model shares nothing
    german = measure(keys, task(), folder, prompts=task_prompts(task(), language="deu_Latn"))
    assert (
        keys.num_clips == 0 and len(keys.texts) == 3 and german.scores["zero_shot"].settings["language"] == "deu_Latn"
    )


def test_words_and_templates_can_be_chosen(folder: Path) -> None:
    # With swapped words, classes are swapped.
    swapped = {"dog": ("rain",), "rain": ("dog",)}
    result = measure(Keys(), task(), folder, prompts=Prompts(templates=("a {label}",), phrases=swapped))
    score = result.scores["zero_shot"]
    assert score.classes == {"dog": 0.25, "rain": 0.0, "rooster": 1.0}
    assert score.settings["words"] == {"dog": ["rain"], "rain": ["dog"]} and score.settings["templates"] == [
        "a {label}"
    ]
    with pytest.raises(ConfigError, match="'cat', which is no class of task 'toy'; it has dog, rain, rooster"):
        measure(Keys(), task(), folder, prompts=Prompts(phrases={"cat": ("a cat",)}))


def test_several_classes_are_scored_by_average_precision(tmp_path: Path) -> None:
    sets = [("dog",), ("rain",), ("dog", "rain"), ("rooster",), ("dog", "rooster"), ("rain",)]
    rows: list[Row] = [
        (f"m{i}", {"label": list(own), "fold": "ab"[i % 2]}, sound(*own, seed=i)) for i, own in enumerate(sets)
    ]
    rows.append(("m6", {"label": ["rooster"], "fold": "a"}, sound("sneezing", seed=6)))
    declared = task(loss="bce", metric="mAP", knn=False)
    score = measure(Keys(), declared, write(tmp_path / "data", rows)).scores["zero_shot"]
    assert score.classes["dog"] == score.classes["rain"] == 1.0 > score.classes["rooster"]
    assert score.value == pytest.approx(np.mean(list(score.classes.values())))
    assert score.low is not None and score.low <= score.value
    assert score.settings["chance"] == pytest.approx(9 / 21)


def test_a_split_is_enough_where_classes_are_declared(tmp_path: Path) -> None:
    rows = [(f"t{i}", {"label": WORDS[i % 3], "split": "test"}, sound(WORDS[i % 3], seed=i)) for i in range(6)]
    folder = write(tmp_path / "data", rows)
    parts = {"folds": (), "train": "train", "valid": "valid", "test": "test", "split_field": "split"}
    result = measure(Keys(), task(**parts), folder)
    assert result.scores["zero_shot"].value == 1.0 and result.data.splits == {"test": 6}
    assert "splits" not in result.scores["zero_shot"].settings
    with pytest.raises(DataError, match="no examples of train"):  # the classes are those of the whole data set
        measure(Keys(), task(**parts, classes=4), folder)
    with pytest.raises(DataError, match="no split 'dev2'"):
        measure(Keys(), task(**parts), folder, splits=["dev2"])


def test_a_broken_clip_is_named(folder: Path) -> None:
    (folder / "s3.wav").write_bytes(b"no audio")
    with pytest.raises(DataError, match="a/s3"):
        measure(Keys(), task(), folder)
    (folder / "s3.wav").unlink()
    with pytest.raises(DataError, match="1 clips were refused"):
        measure(Keys(), task(), folder)


def test_a_task_of_the_wrong_kind_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="retrieval needs captions"):
        text_retrieval(Keys(), task(), folder, name="keys", store=folder)
    with pytest.raises(ConfigError, match="needs clips with classes"):
        zero_shot(Keys(), captioned_task("mine"), folder, name="keys", store=folder)
    with pytest.raises(ConfigError, match="'voxceleb1' are numbers of speakers"):
        zero_shot(Keys(), load_task("voxceleb1"), folder, name="keys", store=folder)


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    """Six clips; two are dogs with a caption of their own and one they share."""
    sets = [("dog",), ("dog", "siren"), ("rain",), ("rooster",), ("sneezing",), ("rain", "siren")]
    rows: list[Row] = []
    for i, own in enumerate(sets):
        captions: Any = [f"A {' and a '.join(own)}.", "A  dog."] if "dog" in own else f"A {' and a '.join(own)}."
        rows.append((f"c{i}", {"captions": captions, "split": ["seen", "new"][i % 2]}, sound(*own, seed=i)))
    return write(tmp_path / "own", rows, "set.jsonl") / "set.jsonl"


def test_captions_are_retrieved_by_clips_and_clips_by_captions(captioned: Path) -> None:
    keys = Keys()
    result = measure(keys, captioned_task("mine"), captioned)
    score = result.scores["retrieval"]
    settings = score.settings
    assert (score.n, settings["captions"], settings["merged_captions"], settings["merged_sounds"]) == (6, 6, 2, 0)
    assert settings["audio_to_text"]["r1"]["value"] == settings["text_to_audio"]["r1"]["value"] == score.value == 1.0
    assert score.low == score.high == 1.0 and 0.1 < settings["chance"] < 0.3
    assert settings["text_to_audio"]["mean_rank"]["chance"] > 2
    assert set(result.items["retrieval"].values()) == {1.0} and "new/c1" in result.items["retrieval"]
    assert (result.task.metric, result.task.kind, result.task.domain) == ("recallatk_r1", "retrieval", "private")
    assert parse_result(result.to_json()) == result
    assert sorted(keys.texts) == sorted({" ".join(text.split()) for text in keys.texts})


def test_the_published_rule_treats_each_caption_as_different(captioned: Path) -> None:
    result = measure(Keys(), captioned_task("mine"), captioned, scoring_rule="compat")
    settings = result.scores["retrieval"].settings
    assert (result.scoring_rule, settings["captions"], settings["merged_captions"]) == ("compat", 8, 0)
    # "A dog." of the second dog is equal to that of the first, which comes first as the wrong one.
    assert settings["text_to_audio"]["r1"]["value"] < 1.0 == settings["text_to_audio"]["r5"]["value"]


def test_rows_of_one_clip_are_one_clip(tmp_path: Path) -> None:
    rows = [(f"c{i}", {"caption": f"{WORDS[i // 2]} {i}"}, sound(WORDS[i // 2], seed=i // 2)) for i in range(6)]
    manifest = write(tmp_path / "own", rows) / "manifest.jsonl"
    for rule in ("compat", "strict"):
        score = measure(Keys(), captioned_task("rows"), manifest, scoring_rule=rule).scores["retrieval"]
        assert (score.n, score.settings["captions"], score.settings["merged_sounds"]) == (3, 6, 3)
        assert score.settings["audio_to_text"]["r1"]["value"] == 1.0


def test_a_model_without_information_scores_by_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"c{i}", {"caption": f"{WORDS[i % 5]} {i}"}, sound(WORDS[int(rng.integers(5))], seed=i)) for i in range(60)
    ]
    result = measure(Keys(), captioned_task("mine"), write(tmp_path / "own", rows) / "manifest.jsonl")
    for direction in ("audio_to_text", "text_to_audio"):
        found = result.scores["retrieval"].settings[direction]["mean_rank"]
        assert found["low"] - 5 <= found["chance"] <= found["high"] + 5


def test_entries_of_a_users_data_set_can_be_chosen(captioned: Path) -> None:
    examples = read_captioned(captioned_task("mine"), captioned, ["new"])
    assert [example.id for example in examples] == ["new/c1", "new/c3", "new/c5"]
    assert measure(Keys(), captioned_task("mine"), captioned, splits=["new"]).data.splits == {"new": 3}
    with pytest.raises(DataError, match=r"no entries of \['old'\]"):
        read_captioned(captioned_task("mine"), captioned, ["old"])


@pytest.mark.parametrize("facts", [{}, {"caption": " "}, {"captions": []}, {"captions": ["a", 3]}, {"caption": 7}])
def test_entries_without_captions_are_named(tmp_path: Path, facts: dict[str, Any]) -> None:
    rows: list[Row] = [("good", {"caption": "a dog"}, sound("dog")), ("bad", facts, sound("rain"))]
    with pytest.raises(DataError, match="bad: its captions are"):
        read_captioned(captioned_task("mine"), write(tmp_path / "own", rows) / "manifest.jsonl", [])


def test_transcripts_of_a_speech_task_are_captions(tmp_path: Path) -> None:
    rows = [(f"u{i}", {"text": f"{word} {word}", "split": "test"}, sound(word)) for i, word in enumerate(WORDS)]
    parts = {"folds": (), "train": "train", "valid": "dev", "test": "test", "split_field": "split", "classes": None}
    rule = LabelRule(field="text", value="text")
    declared = task(**parts, kind="asr", loss="language_model", metric="WER_inv", label=rule, knn=False)
    result = measure(Keys(), declared, write(tmp_path / "data", rows))
    assert result.scores["retrieval"].value == 1.0 and result.task.kind == "retrieval"


def test_phrases_are_given_by_class_or_by_its_words() -> None:
    declared = load_task("esc50")
    prompts = task_prompts(declared, phrases={"dog": ("a puppy",), "40": ("rotor of an aircraft",), "cat": ()})
    assert prompts.of("0") == ("The sound of a puppy can be heard.",)
    assert prompts.of("40") == ("The sound of rotor of an aircraft can be heard.",)
    assert prompts.of("5") == ("The sound of cat can be heard.",)
    assert task_prompts(load_task("voxceleb1"), phrases={"id10001": ("a man",)}).of("id10001") == ("a man",)
    assert task_prompts(load_task("gtzan_genre")).of("hiphop") == ("The music in the style of hip hop.",)
    assert task_prompts(load_task("vocalsound")).templates == TEMPLATES["sound"]  # a speech task of X-ARES


def test_published_scores_are_compared_with_own_ones(folder: Path, captioned: Path) -> None:
    assert len(published_scores()) == 18 and all(0 < row.value < 1 and row.source for row in published_scores())
    known = {each.name for each in tasks()}
    assert {"esc50", "fsd50k", "urbansound8k", "vocalsound", "gtzan_genre", "clotho"} <= known
    own = measure(Keys(), task(), folder)
    as_esc50 = replace(own, task=replace(own.task, name="esc50"))
    clotho = measure(Keys(), captioned_task("clotho"), captioned)
    rows = {(row.task, row.direction): (row, ours) for row, ours in compare_published([as_esc50, own, clotho])}
    row, ours = rows["esc50", None]
    assert row.value == 0.882 and [each.value for each in ours] == [own.scores["zero_shot"].value]
    row, ours = rows["clotho", "text_to_audio"]
    assert row.value == 0.194 and ours[0].value == 1.0 and ours[0].model == "keys"
    assert rows["audiocaps", "audio_to_text"][1] == []
    other = replace(as_esc50, task=replace(as_esc50.task, metric="mAP"))
    assert all(not ours for _, ours in compare_published([other]))


def test_texts_are_embedded_in_parts(captioned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from auricle.bench import alignment as room

    whole = measure(Keys(), captioned_task("mine"), captioned, store=captioned.parent / "one")
    monkeypatch.setattr(room, "_TEXTS_AT_ONCE", 2)
    monkeypatch.setattr(room, "_TEXTS_KEPT", 4)
    keys = Keys()
    parts = measure(keys, captioned_task("mine"), captioned, store=captioned.parent / "two")
    assert len(keys.languages) == 3 and parts.scores == whole.scores
    assert len(list((captioned.parent / "two").glob("*/*/*.safetensors"))) == 3  # clips, and two of texts
    assert torch.is_inference_mode_enabled() is False
