import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from auricle.curate.factory import models
from auricle.curate.factory.experts import (
    DEFAULT,
    Expert,
    ExpertInput,
    ExpertSettings,
    Fact,
    domain_code,
    make_experts,
    route,
    run_expert,
    shipped,
)
from auricle.errors import AuricleError, ConfigError, DataError, MissingExtra

from .signals import PITCH, noise, sine

CPU = ExpertSettings(device="cpu")


def clip(waveform: np.ndarray, key: str = "a") -> ExpertInput:
    return ExpertInput(key=key, clip_hash=key * 32, waveform=waveform)


def expert(run: Any, **settings: Any) -> Expert:
    return Expert(**{"name": "x", "version": "1", "phase": "tag", "gives": ("tag",), "run": run, **settings})


def test_shipped_experts_state_what_they_give() -> None:
    made = make_experts(DEFAULT, CPU)
    assert made[0].name == "tags"
    assert {each.phase for each in made} == {"tag", "speech", "music", "acoustics"}
    assert all(each.cost > 0 and each.device == "cpu" for each in made)
    clips = [clip(noise(3)), clip(sine(440, 0.3), "b")]
    for each in made:
        for facts in run_expert(each, clips):
            assert not isinstance(facts, AuricleError)
            assert {fact.name for fact in facts} <= set(each.gives)


def test_versions_follow_from_the_weights() -> None:
    (tags,) = make_experts(["tags"], CPU)
    assert models.load_model("auricle-tiny", "cpu").fingerprint[:12] in tags.version


@pytest.mark.parametrize("names", [["tags", "nothing"], ["tags", "tags"], ["level"], ["transformers", "tags"]])
def test_wrong_names_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError):
        make_experts(names, CPU)


@pytest.mark.parametrize("settings", [{"phase": "other"}, {"name": ""}, {"version": ""}, {"gives": ()}])
def test_an_expert_that_cannot_be_placed_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        expert(lambda clips: [], **settings)


def test_an_installed_package_can_bring_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "guest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[auricle.experts]\nguest = guest_expert:make\n")
    (tmp_path / "guest_expert.py").write_text(
        "from auricle.curate.factory.experts import Expert, Fact\n"
        "def make(settings):\n"
        "    run = lambda clips: [[Fact(name='tag', value='sound')] for clip in clips]\n"
        "    return Expert(name='guest', version='7', phase='tag', gives=('tag',), run=run, device=settings.argument)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (made,) = make_experts(["guest:there"], CPU)
    assert (made.identity, made.device) == ("guest@7", "there")
    sys.modules.pop("guest_expert", None)


def test_a_fault_of_one_clip_leaves_the_others_their_facts() -> None:
    def run(clips: Sequence[ExpertInput]) -> list[list[Fact]]:
        if any(each.key == "b" for each in clips):
            raise ZeroDivisionError("no")
        return [[Fact(name="tag", value=each.key)] for each in clips]

    found = run_expert(expert(run), [clip(noise(), name) for name in "abc"])
    assert [isinstance(each, AuricleError) for each in found] == [False, True, False]
    assert "ZeroDivisionError" in str(found[1])


def test_errors_of_single_clips_are_kept_and_wrong_counts_refused() -> None:
    found = run_expert(expert(lambda clips: [DataError("bad")]), [clip(noise())])
    assert str(found[0]) == "bad"
    (refused,) = run_expert(expert(lambda clips: []), [clip(noise())])
    assert "0 results for 1 clips" in str(refused)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ([], "000"),
        ([("speech", 0.9)], "S00"),
        ([("speech", 0.1), ("sound", 0.9)], "00A"),
        ([("music", None), ("sound", 0.3), ("speech", 0.5)], "SMA"),
        ([("music", 0.29)], "000"),
    ],
)
def test_domains_follow_from_sure_tags(tags: list[tuple[str, float | None]], code: str) -> None:
    facts = [Fact(name="tag", value=kind, confidence=sure) for kind, sure in tags]
    assert domain_code([*facts, Fact(name="event", value="speech")]) == code


def test_experts_are_routed_by_domain() -> None:
    voice, tune = (expert(None, name=letter, letters=letter) for letter in "SM")
    experts = [voice, tune, PITCH]
    assert route(experts, "S0A") == [voice, PITCH]
    assert route(experts, "SMA") == experts
    assert route(experts, "000") == [PITCH]


def test_events_are_read_from_captions() -> None:
    assert models.events_in("A dog barks while rain is falling.") == ["dog", "rain"]
    assert models.events_in("A clock ticks, then a rooster is crowing.") == ["clock_tick", "rooster"]
    assert models.events_in("The sound of a baby crying.") == ["crying_baby"]
    assert models.events_in('A man says "dog".') == []


def test_windows_add_events_that_several_of_them_name() -> None:
    described = SimpleNamespace(text="Rain is falling.", confidence=0.8)
    dog = SimpleNamespace(text="A dog is barking.", confidence=0.7)
    unsure = SimpleNamespace(text="A rooster is crowing.", confidence=0.3)
    windows = [(0.0, 2.0, dog), (2.0, 4.0, dog), (4.0, 6.0, unsure), (6.0, 8.0, unsure)]
    facts = models._tags_of(clip(noise(8)), described, windows, (0.0, 0.0))
    events = {(fact.value, fact.start_s, fact.stop_s) for fact in facts if fact.name == "event"}
    assert events == {("rain", 0.0, 8.0), ("dog", 0.0, 4.0)}
    assert {fact.value for fact in facts if fact.name == "tag"} == {"sound"}


def test_the_embedded_model_tags_what_it_knows() -> None:
    import soundfile

    folder = Path(__file__).resolve().parents[3] / "examples"
    (tags,) = make_experts(["tags"], CPU)
    waves = {name: soundfile.read(folder / f"{name}.ogg", dtype="float32")[0] for name in ("voice", "piano")}
    clips = [ExpertInput(key=name, clip_hash=name, waveform=wave) for name, wave in waves.items()]
    codes = [domain_code(facts) for facts in run_expert(tags, clips) if not isinstance(facts, AuricleError)]
    assert codes[0] == "S00"
    assert "M" in codes[1]


def test_voice_activity_has_spans() -> None:
    pytest.importorskip("silero_vad")
    import soundfile

    folder = Path(__file__).resolve().parents[3] / "examples"
    speech = soundfile.read(folder / "two_voices.ogg", dtype="float32")[0]
    made = shipped()["silero-vad"](CPU)
    (facts,) = made.run([clip(np.concatenate([np.zeros(32_000, np.float32), speech]))])
    assert not isinstance(facts, AuricleError)
    spans = [fact for fact in facts if fact.name == "speech_activity"]
    assert spans and min(fact.start_s for fact in spans) >= 1.5
    assert 0.2 < next(float(fact.value) for fact in facts if fact.name == "speech_share") < 1


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(MissingExtra, match="vad"):
        import_module("auricle.curate.factory.extras").voice_activity(CPU)


def test_an_audio_classifier_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2, id2label={0: "yes", 1: "no"}, label2id={"yes": 0, "no": 1},
    )  # fmt: skip
    transformers.Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    made = shipped()["transformers"](ExpertSettings(device="cpu", argument=str(tmp_path)))
    (facts,) = made.run([clip(noise(1))])
    assert not isinstance(facts, AuricleError)
    assert {fact.value for fact in facts} <= {"yes", "no"}
    assert sum(fact.confidence or 0 for fact in facts) == pytest.approx(1, abs=0.11)
    with pytest.raises(ConfigError, match="no audio classifier"):
        shipped()["transformers"](ExpertSettings(argument=str(tmp_path / "nothing")))
