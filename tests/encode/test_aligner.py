import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import auricle
from auricle.encode import clips as room
from auricle.encode.aligner import Aligner, load_aligner
from auricle.encode.encoder import Embedding
from auricle.errors import AudioError, AuricleError, BrokenAudio, ConfigError, PromptError, UnknownModel, WeightsError
from auricle.models.dasheng import DashengConfig
from auricle.models.glap import Glap, GlapConfig, Pooling
from auricle.models.sonar import SonarConfig
from auricle.weights.glap import LoadedGlap
from auricle.weights.text_tokenizers import NllbTokenizer

from ..conftest import FOLDER

GLAP = FOLDER.parent / "glap"
TOLERANCE = 2e-5
CHUNK_S = 10.08


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    """Small towers that understand the ids of a small sentencepiece model and its language tags."""
    torch.manual_seed(4)
    config = GlapConfig(
        audio=DashengConfig(embed_dim=16, depth=1, num_heads=2),
        text=SonarConfig(vocab_size=256_206, width=8, depth=1, num_heads=2, hidden=16),
        embed_dim=12,
    )
    model = Glap(config).eval()
    for parameter in model.audio_encoder.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    model.set_calibration(10.0, -5.0)
    return Aligner(LoadedGlap(model=model, tokenizer=NllbTokenizer(GLAP / "spm.model"), identity={"name": "small"}))


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))).astype(np.float32)


def whole(aligner: Aligner, waveform: np.ndarray, rule: Pooling = "framemean") -> Tensor:
    """The embedding of a sound held in memory, by the model alone."""
    with torch.inference_mode():
        return aligner.model.embed_audio([torch.from_numpy(waveform)], pooling=rule)[0]


@given(
    clips=st.lists(st.tuples(st.floats(0.03, 25), st.sampled_from([1e-4, 0.1, 1.0])), min_size=2, max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=8)
def test_a_clip_depends_on_itself_alone(aligner: Aligner, clips: list[tuple[float, float]], seed: int) -> None:
    waves = [noise(s, seed + i, level) for i, (s, level) in enumerate(clips)]
    together = aligner.audio(waves)
    assert together.shape == (len(waves), 12) == (len(waves), aligner.embedding_dim)
    for row, wave in zip(together, waves, strict=True):
        assert (row - aligner.audio([wave])[0]).abs().max() <= TOLERANCE
        assert float(row.norm()) == pytest.approx(1, abs=1e-5)


def test_sources_of_every_kind(aligner: Aligner, wavs: list[Path]) -> None:
    expected = aligner.audio([wavs[1]])
    data = wavs[1].read_bytes()
    for source in (str(wavs[1]), data, io.BytesIO(data), soundfile.read(wavs[1], dtype="float32")[0]):
        assert (aligner.audio([source]) - expected).abs().max() <= TOLERANCE
    for single in (wavs[1], str(wavs[1]), data, io.BytesIO(data), torch.from_numpy(soundfile.read(wavs[1])[0])):
        assert (aligner.audio(single) - expected).abs().max() <= TOLERANCE
    assert aligner.audio([]).shape == (0, 12)
    assert aligner.audio(iter(wavs[:2])).shape == (2, 12)


def test_stereo_and_other_rates(aligner: Aligner, tmp_path: Path) -> None:
    time = np.arange(3 * 44_100) / 44_100
    tones = [0.3 * np.sin(2 * np.pi * hz * time) for hz in (440, 900)]
    soundfile.write(tmp_path / "stereo.wav", np.stack(tones, 1), 44_100, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", np.mean(tones, 0), 44_100, subtype="FLOAT")
    time = np.arange(3 * 16_000) / 16_000
    direct = np.mean([0.3 * np.sin(2 * np.pi * hz * time) for hz in (440, 900)], 0).astype(np.float32)
    rows = aligner.audio([tmp_path / "stereo.wav", tmp_path / "mono.wav", (np.stack(tones), 44_100), direct])
    assert (rows[:3] @ rows.t()).min() > 0.999
    assert aligner.audio((np.stack(tones), 44_100)).shape == (1, 12)  # a pair is one sound
    assert aligner.audio(np.stack([direct, direct])).shape == (1, 12)  # and so are two channels
    assert (rows[3] @ aligner.audio(noise(3))[0]) < 0.999


def test_one_bad_file_does_not_end_the_batch(aligner: Aligner, wavs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "page.wav").write_text("<html>")
    results = list(aligner.audio_many([wavs[0], tmp_path / "page.wav", tmp_path / "none.wav", wavs[1], 7]))
    assert [isinstance(r, AuricleError) for r in results] == [False, True, True, False, True]
    assert "page.wav" in str(results[1]) and "none.wav" in str(results[2])
    assert isinstance(results[3], Embedding)
    assert (results[3].values - aligner.audio(wavs[1])[0]).abs().max() <= TOLERANCE
    assert results[3].receipt.file == str(wavs[1]) and results[3].receipt.complete
    with pytest.raises(AudioError, match=r"page\.wav"):
        aligner.audio([wavs[0], tmp_path / "page.wav"])


def test_a_click_is_filled_up(aligner: Aligner) -> None:
    (result,) = aligner.audio_many([noise(0.01)])
    assert isinstance(result, Embedding) and result.receipt.padded_s == pytest.approx(0.02)
    assert (result.values - whole(aligner, np.pad(noise(0.01), (0, 320)))).abs().max() <= TOLERANCE


def test_a_clip_one_frame_over_a_chunk_is_no_other_clip(aligner: Aligner) -> None:
    wave = noise(CHUNK_S)
    frame_mean = whole(aligner, wave[:-160])
    assert float(aligner.audio(wave)[0] @ frame_mean) >= 0.999


@given(seconds=st.floats(12, 45), rule=st.sampled_from(["framemean", "v013", "zeropad"]), seed=st.integers(0, 9))
@settings(max_examples=12)
def test_a_clip_read_as_a_stream_is_the_same(aligner: Aligner, seconds: float, rule: Pooling, seed: int) -> None:
    wave = noise(seconds, seed, 0.3)
    wave[: len(wave) // 2] = 0  # digital silence, which the loud half lifts to its floor
    file = io.BytesIO()
    soundfile.write(file, wave, 16_000, format="WAV", subtype="FLOAT")
    other = Aligner(aligner.loaded, pooling=rule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "LONG_SECONDS", 11.0)
        for source in (file, wave):
            (result,) = other.audio_many([source])
            assert isinstance(result, Embedding), result
            assert (result.values - whole(aligner, wave, rule)).abs().max() <= TOLERANCE
            assert result.receipt.complete and result.receipt.read[0].stop_s == pytest.approx(seconds, abs=0.04)


def peak_of(work: Callable[[], object]) -> int:
    """Bytes that Python and numpy held at once, at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_ten_minutes_in_the_memory_of_five(aligner: Aligner, tmp_path: Path) -> None:
    wave = np.concatenate([noise(300, 1, 1e-6), noise(299.7, 2, 0.5)])
    long, short = tmp_path / "long.wav", tmp_path / "short.wav"
    soundfile.write(long, wave, 16_000, subtype="FLOAT")
    soundfile.write(short, wave[: 300 * 16_000], 16_000, subtype="FLOAT")
    for work in (aligner.audio, aligner.segments):
        assert peak_of(lambda: work(long)) < 1.05 * peak_of(lambda: work(short))  # noqa: B023
    (result,) = aligner.audio_many([long])
    assert isinstance(result, Embedding)
    assert (result.values - whole(aligner, wave)).abs().max() <= TOLERANCE
    assert result.receipt.duration_s == pytest.approx(599.7) and result.receipt.complete
    times, embeddings = aligner.segments(long)
    assert times.shape == (60, 2) and embeddings.shape == (60, 12) and times[-1].tolist() == [590.0, 599.7]


def test_a_pipe_is_read_once_and_used_twice(aligner: Aligner) -> None:
    file = io.BytesIO()
    wave = noise(15)
    soundfile.write(file, wave, 16_000, format="WAV", subtype="FLOAT")

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "LONG_SECONDS", 11.0)
        assert (aligner.audio([Pipe(file.getvalue())])[0] - whole(aligner, wave)).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (3.0, [(0, 3)]),
        (10.0, [(0, 4), (2, 6), (4, 8), (6, 10)]),
        (10.3, [(0, 4), (2, 6), (4, 8), (6, 10.3)]),
        (11.0, [(0, 4), (2, 6), (4, 8), (6, 10), (8, 11)]),
    ],
)
def test_segments(aligner: Aligner, seconds: float, expected: list[tuple[float, float]]) -> None:
    wave = noise(seconds)
    times, embeddings = aligner.segments(wave, window_s=4.0, hop_s=2.0)
    assert times.tolist() == [list(pair) for pair in expected]
    for (start, stop), row in zip(expected, embeddings, strict=True):
        assert (row - whole(aligner, wave[round(16_000 * start) : round(16_000 * stop)])).abs().max() <= TOLERANCE


def test_segments_that_cannot_be(aligner: Aligner, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hop_s"):
        aligner.segments(noise(1), window_s=1.0, hop_s=2.0)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    with pytest.raises(BrokenAudio):
        aligner.segments(tmp_path / "empty.wav")
    with pytest.raises(AudioError, match="no such file"):
        aligner.segments(tmp_path / "none.wav")


def test_texts(aligner: Aligner) -> None:
    pytest.importorskip("sentencepiece")
    texts = ["The sound of a dog can be heard.", "狗的声音", "rain " * 50]
    rows = aligner.text(texts)
    assert rows.shape == (3, 12) and rows.dtype == torch.float32 and not rows.requires_grad
    for row, text in zip(rows, texts, strict=True):
        assert (row - aligner.text(text)[0]).abs().max() <= 1e-5
    assert len(aligner.languages) == 202
    assert (aligner.text(texts[0], language="deu_Latn") - rows[:1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no texts"),
        ("", "text 0 is ''"),
        (["a dog", " \n"], "text 1 is"),
        (["a dog", None], "text 1 is None"),
        (["\ud800"], "not valid Unicode"),
    ],
)
def test_texts_that_are_none(aligner: Aligner, texts: list[str], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        aligner.text(texts)


@pytest.mark.parametrize("found", [None, 3])
def test_what_is_neither_one_nor_several_is_refused(aligner: Aligner, found: object) -> None:
    with pytest.raises(ConfigError, match=r"expected a list of them: write \[source\]"):
        aligner.audio(found)
    with pytest.raises(PromptError, match="expected a text or a list of texts"):
        aligner.text(found)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="no source of audio"):
        aligner.audio([None])


def test_unknown_language_lists_near_ones(aligner: Aligner) -> None:
    with pytest.raises(ConfigError, match="did you mean deu_Latn"):
        aligner.text(["ein Hund"], language="deu_Lat")


def test_scores_and_probabilities(aligner: Aligner) -> None:
    pytest.importorskip("sentencepiece")
    waves, texts = [noise(1), noise(2, 1), noise(12, 2)], ["a dog", "a cat"]
    scores = aligner.score(waves, texts)
    assert scores.shape == (3, 2)
    assert torch.allclose(scores, 100 * aligner.audio(waves) @ aligner.text(texts).t(), atol=2e-3)
    assert aligner.is_calibrated
    assert torch.allclose(aligner.probability(scores), torch.sigmoid(0.1 * scores - 5))


def test_the_released_layout(wavs: list[Path]) -> None:
    loaded = load_aligner(str(GLAP / "checkpoint.safetensors"))
    assert loaded.audio(wavs[:2]).shape == (2, 40) and len(loaded.languages) == 202
    assert not loaded.is_calibrated
    with pytest.raises(ConfigError, match="compare scores with each other"):
        loaded.probability(torch.zeros(1))
    with pytest.raises(ConfigError, match="pooling"):
        load_aligner(str(GLAP / "checkpoint.safetensors"), pooling="max")  # type: ignore[arg-type]
    old = load_aligner(str(GLAP / "checkpoint.safetensors"), pooling="v013")
    assert float(old.audio(wavs[5])[0] @ loaded.audio(wavs[5])[0]) < 0.999  # 12.4 s
    again = load_aligner(str(GLAP / "checkpoint.safetensors"))
    assert loaded.fingerprint == again.fingerprint != old.fingerprint


def test_without_a_tokenizer_clips_are_embedded(aligner: Aligner) -> None:
    deaf = Aligner(LoadedGlap(model=aligner.model, tokenizer=None, identity={"name": "glap.pt"}))
    assert deaf.languages == () and deaf.audio(noise(1)).shape == (1, 12)
    assert deaf.fingerprint != aligner.fingerprint
    with pytest.raises(WeightsError, match=r"glap\.pt: there is no sentencepiece model"):
        deaf.text("a dog")


def test_offered_by_the_package() -> None:
    assert auricle.load_aligner is load_aligner
    with pytest.raises(UnknownModel, match="did you mean"):
        auricle.load_aligner("no-such-glap")
