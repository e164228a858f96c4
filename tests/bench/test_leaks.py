"""Clips in two splits, and clips that a model was trained on."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import soundfile

from auricle.bench.examples import Example
from auricle.bench.leaks import find_contamination, find_leaks
from auricle.data.acoustic_fingerprint import acoustic_fingerprint
from auricle.errors import WeightsError
from auricle.weights.cards import TRAINING_CLIPS, read_training_clips, training_clips, write_training_clips

RATE = 16_000


def clip(seed: int) -> np.ndarray:
    """Two seconds of words that nobody says: noise whose level and colour change each 80 ms."""
    rng = np.random.default_rng(seed)
    kernels = rng.standard_normal((25, 24))
    parts = [np.convolve(rng.standard_normal(1280), kernel, "same") * rng.uniform(0.02, 1) for kernel in kernels]
    waveform = np.concatenate(parts)
    return (0.5 * waveform / np.abs(waveform).max()).astype(np.float32)


def write(folder: Path, name: str, waveform: np.ndarray, split: str, **codec: str) -> Example:
    path = folder / name
    soundfile.write(path, waveform, RATE, **codec)
    return Example(f"{split}/{path.stem}", split, path, {})


def digests(examples: list[Example]) -> list[str]:
    return [sha256(Path(str(example.audio)).read_bytes()).hexdigest() for example in examples]


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    mp3 = {"format": "MP3", "subtype": "MPEG_LAYER_III"}
    return [
        write(tmp_path, "a.wav", clip(1), "1"),
        write(tmp_path, "b.wav", clip(2), "1"),
        write(tmp_path, "c.mp3", clip(1), "2", **mp3),
        write(tmp_path, "d.flac", 0.05 * clip(1), "3"),
        write(tmp_path, "e.wav", clip(2), "2"),
        write(tmp_path, "f.wav", np.zeros(RATE), "1"),
        write(tmp_path, "g.flac", np.zeros(RATE), "2"),
        write(tmp_path, "h.wav", clip(1), "1"),
        write(tmp_path, "i.wav", clip(3), "3"),
    ]


def test_copies_in_other_formats_and_levels_are_found_and_different_clips_are_not(
    examples: list[Example], tmp_path: Path
) -> None:
    found = find_leaks(examples, digests(examples), tmp_path / "store")
    assert [(one, other) for one, _, other, _ in found.exact] == [("1/b", "2/e")]
    pairs = [(one, other) for one, _, other, _, _ in found.near]
    wanted = [("1/a", "2/c"), ("1/a", "3/d"), ("2/c", "3/d"), ("2/c", "1/h"), ("3/d", "1/h")]
    assert sorted(pairs) == sorted(wanted)
    assert all(0.8 < share <= 1 for *_, share in found.near)
    assert [share for *_, share in found.near] == sorted((share for *_, share in found.near), reverse=True)


def test_fingerprints_are_kept(examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_leaks(examples, digests(examples), tmp_path / "store")
    monkeypatch.setattr("auricle.bench.leaks.as_clip", lambda source: pytest.fail("read again"))
    assert find_leaks(examples, digests(examples), tmp_path / "store") == first


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    known = [found for seed in (1, 9) if (found := acoustic_fingerprint(clip(seed)))]
    write_training_clips(folder, {"ones": known[:1], "nines": known[1:]})
    return folder


def test_clips_of_the_training_data_are_named_and_held_out_ones_are_not(
    examples: list[Example], tmp_path: Path, model: Path
) -> None:
    found = find_contamination(examples, digests(examples), tmp_path / "store", [str(model), "no-such-model"])
    assert found.known
    assert found.items == ("1/a", "2/c", "3/d", "1/h")
    assert (found.clips, found.share, found.splits) == (4, round(4 / 9, 6), {"1": 2, "2": 1, "3": 1})
    assert found.sets == ("ones", "nines")


def test_nothing_is_read_for_a_model_that_states_nothing(examples: list[Example], tmp_path: Path) -> None:
    found = find_contamination(examples, digests(examples), tmp_path / "store", ["log-mel", str(tmp_path), ""])
    assert (found.known, found.clips) == (False, 0)
    assert not (tmp_path / "store").exists()


def test_a_model_with_a_shared_encoder_was_trained_on_its_clips_too(model: Path, tmp_path: Path) -> None:
    (tmp_path / "aligner").mkdir()
    (tmp_path / "aligner/config.json").write_text(f'{{"model_type": "glap", "audio_encoder": "{model}"}}')
    found = training_clips([str(tmp_path / "aligner")])
    assert found is not None and len(found.rows) == 2


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"format": "other", "sets": {}}',
        '{"format": "auricle-training-clips/1", "sets": {"a": {"fingerprints": "AAAA"}}}',
    ],
)
def test_a_damaged_list_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / TRAINING_CLIPS).write_text(content)
    with pytest.raises(WeightsError, match=r"training_clips\.json"):
        read_training_clips(tmp_path)


def test_the_embedded_models_state_their_clips() -> None:
    for name in ("auricle-tiny", "auricle-tiny-encoder", "auricle-tiny-glap"):
        found = training_clips([name])
        assert found is not None and len(found.rows) == 240 + 2000 + 2500
    assert training_clips(["dasheng-base", "random:dasheng-tiny"]) is None
