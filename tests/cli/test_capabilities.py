"""The table of models and what they can do comes from the models' own statements."""

import auricle as library
from auricle.listen.loading import known_capabilities
from auricle.listen.other_models.stock_classes import STOCK_CLASSES

from .conftest import auricle


def test_every_kind_of_model_is_listed() -> None:
    records = {each["name"]: each for each in auricle("models", "--capabilities", "--json").records}
    assert {"auricle-tiny", "whisper:SIZE", "openai:MODEL@URL", "transformers: Qwen2-Audio"} <= set(records)
    assert len([name for name in records if name.startswith("transformers: ")]) == len(set(STOCK_CLASSES.values()))
    own = library.load("auricle-tiny", device="cpu").capabilities.as_dict()
    assert {key: records["auricle-tiny"][key] for key in own} == own
    assert records["whisper:SIZE"]["verbs"] == ["transcribe"]
    assert known_capabilities()["transformers: Qwen2-Audio"].max_audio_s == 30.0


def test_the_table_is_one_line_a_model() -> None:
    lines = auricle("models", "--capabilities").out.splitlines()
    assert len(lines) == 1 + len(known_capabilities())
    assert lines[0].split()[:3] == ["model", "describe", "ask"]
