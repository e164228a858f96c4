import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from auricle.encode.zero_shot import (
    DEFAULT_SCALE,
    TEMPLATES,
    Classification,
    Prompts,
    classify,
    classify_many,
    embed_labels,
    parse_labels,
    read_labels,
    score_many,
    words_of,
)
from auricle.errors import AudioError, AuricleError, ConfigError, DataError

from .keys import WORDS, Keys, sound


def test_the_templates_are_the_published_ones() -> None:
    assert TEMPLATES["speech"] == ("{label}",)
    assert TEMPLATES["music"] == ("The music in the style of {label}.",)
    assert TEMPLATES["sound"] == ("The sound of {label} can be heard.",)


def test_a_label_has_all_templates_and_phrases_each_once() -> None:
    prompts = Prompts(templates=("a {label}", "{label}!", "a {label}"), phrases={"dog": ("puppy", "hound")})
    assert prompts.of("dog") == ("a puppy", "a hound", "puppy!", "hound!")
    assert prompts.of("sea_waves") == ("a sea waves", "sea waves!")
    # A label is text, and no format: braces in it mean nothing.
    assert Prompts(templates=("<{label}>",)).of("{label} {0.__class__}") == ("<{label} {0. class }>",)
    assert words_of(" crackling_ fire ") == "crackling fire"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"templates": ()}, "no templates"),
        ({"templates": ("the sound of a dog",)}, "0 slots"),
        ({"templates": ("{label} and {label}",)}, "2 slots"),
        ({"phrases": {"dog": ("puppy", " ")}}, "'dog'"),
    ],
)
def test_impossible_prompts_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Prompts(**settings)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 99))
def test_an_ensemble_is_the_mean_of_its_vectors_at_length_1(counts: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    phrases = {f"label{i}": tuple(f"word {i} {j}" for j in range(count)) for i, count in enumerate(counts)}
    space = {text: F.normalize(torch.randn(6, generator=generator), dim=0) for own in phrases.values() for text in own}
    encoded: list[str] = []

    def embed(texts: Any) -> torch.Tensor:
        encoded.extend(texts)
        return torch.stack([space[text] for text in texts])

    found = embed_labels(embed, list(phrases), Prompts(phrases=phrases))
    assert len(encoded) == len(space)
    for row, own in zip(found, phrases.values(), strict=True):
        mean = torch.stack([space[text] for text in own]).mean(0)
        assert torch.allclose(row, mean / mean.norm(), atol=1e-6)


def test_the_best_label_comes_with_its_share_of_the_softmax() -> None:
    found = classify(Keys(), sound("rain"), WORDS, prompts=Prompts(templates=TEMPLATES["sound"]))
    assert found.labels == ("rain",) == tuple(found.scores)[:1]
    assert found.scores["rain"] > 95 and list(found.scores.values()) == sorted(found.scores.values(), reverse=True)
    assert found.probabilities is not None and found.probabilities.keys() == found.scores.keys() == set(WORDS)
    assert (found.scale, found.threshold) == (20.0, None)
    expected = torch.tensor(list(found.scores.values())).mul(20.0 / 100).softmax(0)
    assert list(found.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert found.receipt.complete and found.receipt.read[0].stop_s == pytest.approx(0.3, abs=0.05)


def test_the_scale_of_a_model_without_calibration_is_stated() -> None:
    keys = Keys(calibration=None)
    assert classify(keys, sound("rain"), ["dog", "rain"]).scale == DEFAULT_SCALE == pytest.approx(1 / 0.07)
    sharp, soft = (classify(keys, sound("rain"), ["dog", "rain"], scale=scale) for scale in (100.0, 1.0))
    assert sharp.scale == 100.0 and sharp.scores == soft.scores
    assert sharp.probabilities is not None and soft.probabilities is not None
    assert sharp.probabilities["rain"] > soft.probabilities["rain"] > 0.5


def test_several_labels_may_hold_or_none() -> None:
    keys = Keys()
    both = classify(keys, sound("dog", "siren"), WORDS, multi=True)
    assert set(both.labels) == {"dog", "siren"} and both.scale is None
    # 20 · cosine - 10 is a half where the cosine is a half.
    assert both.threshold == pytest.approx(50.0) and both.probabilities is not None
    assert {label for label, share in both.probabilities.items() if share >= 0.5} == {"dog", "siren"}
    assert classify(keys, sound("dog", "siren"), ["rain"], multi=True).labels == ()
    everything = classify(keys, sound("dog"), WORDS, multi=True, threshold=-100.0)
    assert len(everything.labels) == len(WORDS) and everything.threshold == -100.0
    bare = classify(Keys(calibration=None), sound("dog"), WORDS, multi=True, threshold=50.0)
    assert bare.labels == ("dog",) and bare.probabilities is None


def test_paraphrases_stand_for_a_label() -> None:
    keys, other = Keys(), {"animal": ("a dog barks", "a dog"), "weather": ("rain",), "none": ()}
    found = classify(keys, sound("dog"), list(other), prompts=Prompts(phrases=other, language="deu_Latn"))
    assert found.labels == ("animal",) and "none" in keys.texts and "animal" not in keys.texts
    assert keys.languages == ["deu_Latn"]


def test_one_bad_clip_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing")
    results = list(classify_many(Keys(), [sound("dog"), tmp_path / "bad.wav", sound("rain")], ["dog", "rain"]))
    labels = [found.labels if isinstance(found, Classification) else found for found in results]
    assert labels[0] == ("dog",) and labels[2] == ("rain",) and isinstance(labels[1], AudioError)
    with pytest.raises(AudioError, match=r"bad\.wav"):
        classify(Keys(), tmp_path / "bad.wav", ["dog", "rain"])


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([], {}, "at least one"),
        (["dog", " "], {}, "none of them empty"),
        ("dog,rain", {}, "expected a list"),
        (["dog", "rain", "dog"], {}, "'dog' is given twice"),
        (["dog"], {}, "is the only label"),
        (["dog", "rain"], {"scale": 0.0}, "scale is 0"),
        (["dog", "rain"], {"multi": True}, "so it has no threshold"),
    ],
)
def test_impossible_questions_are_refused_before_a_clip_is_read(labels: Any, settings: Any, message: str) -> None:
    keys = Keys(calibration=None)
    with pytest.raises(ConfigError, match=message):
        classify_many(keys, [sound("dog")], labels, **settings)
    assert keys.num_clips == 0


def test_a_classification_is_json() -> None:
    for found in (classify(Keys(), sound("dog"), WORDS), classify(Keys(), sound("dog"), WORDS, multi=True)):
        stored = json.loads(json.dumps(found.as_dict()))
        assert stored["labels"] == ["dog"] and list(stored["scores"]) == list(found.scores)
        assert stored["receipt"]["complete"] is True


def test_scores_are_cosines_with_probabilities_where_the_model_has_them(tmp_path: Path) -> None:
    texts = ["a dog barks", "rain", "nothing of it"]
    results = list(score_many(Keys(), [sound("dog"), tmp_path / "no.wav"], texts))
    assert isinstance(results[1], AuricleError) and not isinstance(results[0], AuricleError)
    found = results[0]
    assert list(found.scores) == texts and found.scores["a dog barks"] > 95 > 20 > found.scores["rain"]
    assert found.probabilities is not None
    assert found.probabilities["rain"] == pytest.approx(
        torch.sigmoid(torch.tensor(0.2 * found.scores["rain"] - 10)).item(), abs=1e-5
    )
    (bare,) = score_many(Keys(calibration=None), [sound("dog")], texts)
    assert not isinstance(bare, AuricleError) and bare.probabilities is None and bare.scores == found.scores
    assert json.loads(json.dumps(bare.as_dict()))["probabilities"] is None


def test_labels_are_parsed() -> None:
    assert parse_labels("dog, rain,sea waves") == ["dog", "rain", "sea waves"]
    assert parse_labels('dog,"rain, light", "a ""quote"""') == ["dog", "rain, light", 'a "quote"']
    for wrong in ("dog,,rain", "", "dog,dog", 'dog,"rain'):
        with pytest.raises(ConfigError):
            parse_labels(wrong)


def test_labels_are_read_from_files(tmp_path: Path) -> None:
    text, table, names = tmp_path / "labels.txt", tmp_path / "labels.json", tmp_path / "names.json"
    text.write_text("dog\ta puppy\tthe bark of a hound\n\nrain\nsea_waves\t\n", encoding="utf-8-sig")
    table.write_text('{"dog": ["a puppy", "the bark of a hound"], "rain": [], "sea_waves": []}')
    names.write_text('["dog", "rain"]')
    expected = {"dog": ("a puppy", "the bark of a hound"), "rain": (), "sea_waves": ()}
    assert read_labels(text) == read_labels(table) == expected
    assert read_labels(names) == {"dog": (), "rain": ()}
    table.write_text('{"dog": "a puppy"}')
    assert read_labels(table) == {"dog": ("a puppy",)}


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.json", b'{"dog": "a", "dog": "b"}', ConfigError),
        ("a.json", b'{"dog": 5}', DataError),
        ("a.json", b'[["dog", "a"]]', DataError),
        ("a.json", b"{", DataError),
        ("a.json", b"[" * 100_000, DataError),
        ("a.json", b"{}", ConfigError),
        ("a.txt", b"dog\ndog\n", ConfigError),
        ("a.txt", b"\ta puppy\n", ConfigError),
        ("a.txt", b"\n", ConfigError),
        ("a.txt", b"\xff\xfe\x00", DataError),
    ],
)
def test_files_that_hold_no_labels_are_refused(tmp_path: Path, name: str, content: bytes, error: Any) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        read_labels(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "nowhere.txt")
