"""What people hold: rows of data sets, samples of other libraries, URLs."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import auricle
from auricle.audio.decode import as_clip, decode, probe
from auricle.audio.limits import Limits
from auricle.audio.sources import is_in_memory
from auricle.errors import AudioError, AuricleError, ConfigError, LimitExceeded

RATE = 8000
WAVE = (0.3 * np.sin(np.arange(RATE) / 7)).astype(np.float32)


@pytest.fixture(scope="module")
def wav(encode) -> bytes:
    return encode(WAVE, RATE, "WAV", "FLOAT")


class Decoder:
    """As an audio decoder of torchcodec."""

    def get_all_samples(self) -> Any:
        return SimpleNamespace(data=torch.from_numpy(WAVE)[None], sample_rate=RATE, pts_seconds=0.0)


@pytest.mark.parametrize(
    "held",
    [
        (WAVE, RATE),
        (RATE, WAVE),
        (np.int64(RATE), (WAVE * 32767).astype(np.int16)),
        {"array": WAVE, "sampling_rate": RATE, "path": None},
        {"array": WAVE.tolist(), "sampling_rate": RATE},
        {"array": torch.from_numpy(WAVE), "sample_rate": RATE},
        SimpleNamespace(data=torch.from_numpy(WAVE)[None], sample_rate=RATE),
        Decoder(),
    ],
    ids=["pair", "gradio", "gradio-int16", "datasets", "lists", "tensor", "samples", "decoder"],
)
def test_waveforms_in_all_their_forms(held: Any) -> None:
    assert is_in_memory(held)
    clip = as_clip(held)
    assert (clip.facts.sample_rate, clip.facts.duration_s, len(clip.waveform)) == (RATE, 1.0, 16_000)
    np.testing.assert_allclose(clip.waveform, as_clip((WAVE, RATE)).waveform, atol=1e-4)


def test_encoded_rows_and_urls(wav: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a b%20ä.wav"
    path.write_bytes(wav)
    wanted = decode(wav).waveform
    encoded = base64.b64encode(wav).decode()
    for source in (
        {"bytes": wav, "path": None},
        {"bytes": None, "path": str(path)},
        {"bytes": wav, "path": "elsewhere.wav"},
        {"path": path},
        path.as_uri(),
        path.as_uri().replace("file://", "file://localhost"),
        f"data:audio/wav;base64,{encoded}",
        f"data:;base64,{encoded.rstrip('=')}",
        f"DATA:audio/wav;base64,{base64.urlsafe_b64encode(wav).decode()}",
    ):
        assert not is_in_memory(source)
        np.testing.assert_array_equal(as_clip(source).waveform, wanted)
        assert probe(source).duration_s == 1.0


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (["a.wav", "b.wav"], "describe_many"),
        ([WAVE], "describe_many"),
        ([], "describe_many"),
        (iter(["a.wav"]), "describe_many"),
        ({"text": "hello"}, "keys text"),
        ({"array": WAVE, "sampling_rate": None}, "sample rate of None"),
        ((WAVE, 0), "sample rate of 0"),
        ((WAVE, "fast"), "sample rate of 'fast'"),
        ("file://elsewhere/a.wav", "another computer"),
        ("file:///gone/a.wav", "/gone/a.wav: no such file"),
        ("data:audio/wav;base64,%%%", "empty|base64"),
        ("https://example.org/a.wav", "download it first"),
        (None, "expected a path"),
    ],
)
def test_what_is_no_source_says_what_is(source: Any, says: str) -> None:
    with pytest.raises(AudioError, match=says):
        as_clip(source)


def test_a_file_may_be_called_like_a_url(wav: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file:a.wav").write_bytes(wav)
    assert decode("file:a.wav").facts.name == "file:a.wav"


def test_the_size_of_a_url_is_bounded() -> None:
    with pytest.raises(LimitExceeded, match="data URL"):
        decode("data:;base64," + "A" * 4000, limits=Limits(max_bytes=1000))


anything = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["array", "bytes", "path", "sampling_rate", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(source=anything)
def test_anything_else_is_an_error_of_ours(source: Any) -> None:
    try:
        clip = as_clip(source)
    except AuricleError as error:
        assert len(str(error)) > 20
        return
    assert clip.facts.container == "array" and len(clip.waveform)


def test_every_verb_takes_them(wav: bytes) -> None:
    model = auricle.load("auricle-tiny")
    plain = model.describe(wav).caption
    row = {"bytes": wav, "path": None}
    for source in (row, {"array": WAVE, "sampling_rate": RATE}, (RATE, WAVE), Decoder()):
        assert model.describe(source).caption == plain
    with pytest.raises(ConfigError, match="describe_many"):
        model.describe([wav, wav])
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav).decode(), "format": "wav"}}
    url = "data:audio/wav;base64," + base64.b64encode(wav).decode()
    answers = {
        model.chat([{"role": "user", "content": [audio, {"type": "text", "text": "What is it?"}]}], max_new_tokens=8)
        for audio in (
            {"type": "audio", "audio": wav},
            {"type": "audio", "url": url},
            {"type": "audio", "audio": row},
            {"type": "audio_url", "audio_url": {"url": url}},
            part,
        )
    }
    assert len(answers) == 1
    encoder = auricle.load_encoder()
    assert torch.equal(encoder.embed([row])[0], encoder.embed([wav])[0])
    assert torch.equal(auricle.load_aligner().audio(row), auricle.load_aligner().audio([wav]))
