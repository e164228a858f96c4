"""Time stamps: where the audio starts, what is missing inside it, and which tracks are left out."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV (extra media) is not installed")

from auricle.audio.decode import decode, probe
from auricle.encode.receipt import write_receipt

from .test_endings import film


def bursts(tone, seconds: float, rate: int = 44_100) -> np.ndarray:
    """Unlike itself at any other time."""
    gate = np.random.default_rng(1).uniform(size=int(seconds * 100) + 1).repeat(rate // 100) > 0.5
    waveform = tone(seconds, rate)
    return waveform * gate[: len(waveform)]


@pytest.mark.parametrize("muxer", ["mp4", "matroska", "mpegts"])
def test_a_late_start_is_stated(tone, muxer: str) -> None:
    facts = decode(film(muxer, tone(2.0), starts_s=1.5)).facts
    (note,) = [note for note in facts.notes if "starts" in note]
    assert float(note.split(" starts ")[1].split(" s ")[0]) == pytest.approx(1.5, abs=0.05)
    assert (facts.start_s, facts.truncated) == (0.0, False)
    assert facts.stop_s == pytest.approx(2.0, abs=0.06)
    assert not any("starts" in note for note in decode(film(muxer, tone(2.0))).facts.notes)


@pytest.mark.parametrize(("muxer", "codec"), [("matroska", "aac"), ("mp4", "aac"), ("webm", "libopus"), ("flv", "aac")])
def test_a_hole_is_filled_so_that_later_times_are_right(tone, muxer: str, codec: str) -> None:
    rate = 48_000 if codec == "libopus" else 44_100
    waveform = bursts(tone, 4.0, rate)
    data, whole = film(muxer, waveform, hole=(1.0, 2.5), codec=codec), film(muxer, waveform, codec=codec)
    clip, wanted = decode(data), decode(whole)
    assert clip.facts.stop_s == pytest.approx(wanted.facts.stop_s, abs=0.05)
    assert not clip.facts.truncated
    (note,) = [note for note in clip.facts.notes if note.startswith("no audio from 0.9") or "from 1.0" in note]
    assert "filled with zeros" in note
    assert not np.any(clip.waveform[20_000:38_000])
    after = slice(44_000, 60_000)
    scores = [np.corrcoef(clip.waveform[after], np.roll(wanted.waveform, lag)[after])[0, 1] for lag in range(-80, 81)]
    assert max(scores) > 0.9
    part = decode(data, start_s=3.0, stop_s=3.5).waveform
    scores = [float(part[400:-400] @ clip.waveform[48_400 + lag : 55_600 + lag]) for lag in range(-200, 201)]
    assert abs(int(np.argmax(scores)) - 200) <= 32


def test_other_tracks_are_mentioned(tone) -> None:
    assert any("track 1 of 3" in note for note in probe(film("matroska", tone(1.0), tracks=3)).notes)
    assert probe(film("matroska", tone(1.0))).notes == ()


def test_notes_reach_the_receipt(tone) -> None:
    clip = decode(film("matroska", tone(2.0), starts_s=1.0, tracks=2))
    notes = write_receipt(clip.facts, len(clip.waveform), [(0, len(clip.waveform))]).notes
    assert len(notes) == 2 and set(notes) == set(clip.facts.notes)
