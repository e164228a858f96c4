import json
from typing import Any

import numpy as np

from auricle.audio.decode import as_clip
from auricle.audio.facts import Clip, Facts
from auricle.encode.receipt import Receipt, Span, write_receipt
from auricle.models.dasheng import MIN_SAMPLES


def clip(seconds: float, **facts: object) -> Clip:
    given = {
        "name": "a.wav",
        "container": "wav",
        "codec": "PCM_16",
        "sample_rate": 44_100,
        "channels": 2,
        "duration_s": seconds,
        "start_s": 0.0,
        "stop_s": seconds,
        "truncated": False,
        "silent": False,
    }
    return Clip(np.ones(round(seconds * 16_000), np.float32), Facts(**{**given, **facts}))


def receipt_of(given: Clip, windows: list[tuple[int, int]], **settings: Any) -> Receipt:
    return write_receipt(given.facts, len(given.waveform), windows, **settings)


def test_a_whole_sound() -> None:
    receipt = receipt_of(clip(2.0), [(0, 32_000)])
    assert receipt.complete and receipt.read == (Span(start_s=0.0, stop_s=2.0),)
    assert (receipt.audio_tokens, receipt.padded_s, receipt.dropped) == (10, 0.0, ())
    assert (receipt.file, receipt.duration_s, receipt.sample_rate, receipt.channels) == ("a.wav", 2.0, 44_100, 2)


def test_the_end_of_under_a_token_is_stated_and_no_loss() -> None:
    receipt = receipt_of(clip(1.13), [(0, 18_080)])
    assert receipt.complete and receipt.read == (Span(start_s=0.0, stop_s=1.0),)
    assert receipt.dropped == (Span(start_s=1.0, stop_s=1.13, reason="shorter than one token"),)


def test_short_clips_are_padded() -> None:
    receipt = receipt_of(clip(0.05), [(0, 800)])
    assert receipt.complete and receipt.padded_s == 0.15 and receipt.audio_tokens == 1
    assert receipt.read == (Span(start_s=0.0, stop_s=0.05),)
    encoder = receipt_of(clip(0.01), [(0, 160)], subsample_factor=1, min_samples=MIN_SAMPLES)
    assert encoder.padded_s == 0.02 and encoder.audio_tokens == 1


def test_windows_are_times_of_the_source() -> None:
    ranged = clip(4.0, start_s=60.0, stop_s=64.0, duration_s=600.0)
    receipt = receipt_of(ranged, [(0, 32_000), (32_000, 64_000)])
    assert receipt.complete
    assert receipt.read == (Span(start_s=60.0, stop_s=62.0), Span(start_s=62.0, stop_s=64.0))


def test_what_was_left_out_is_partial() -> None:
    receipt = receipt_of(clip(4.0), [(0, 16_000), (32_000, 48_000)])
    assert not receipt.complete
    assert [(span.start_s, span.stop_s) for span in receipt.skipped] == [(1.0, 2.0), (3.0, 4.0)]


def test_truncated_and_damaged_sources_are_partial() -> None:
    cut = receipt_of(clip(1.0, truncated=True, duration_s=3.0), [(0, 16_000)])
    assert not cut.complete and cut.truncated
    assert [(span.start_s, span.stop_s) for span in cut.skipped] == [(1.0, 3.0)]
    assert not receipt_of(clip(1.0, truncated=True, duration_s=None), [(0, 16_000)]).complete
    damaged = receipt_of(clip(1.0, damaged=2), [(0, 16_000)])
    assert not damaged.complete and damaged.damaged == 2


def test_it_is_json() -> None:
    odd = np.zeros(32_000, np.float32)
    odd[5] = np.nan
    receipt = receipt_of(as_clip(odd), [(0, 32_000)])
    assert receipt.complete and len(receipt.notes) == 2
    record = json.loads(json.dumps(receipt.as_dict()))
    assert record["complete"] is True and record["read"] == [{"start_s": 0.0, "stop_s": 2.0}]
    assert "silence" in record["notes"][0] and "not finite" in record["notes"][1] == record["warnings"][0]
