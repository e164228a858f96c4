import base64
import io

import numpy as np
import pytest
import soundfile

from auricle.audio.decode import decode
from auricle.errors import BrokenAudio
from auricle.pages.players import Player, Players, encode_excerpt

NOISE = np.random.default_rng(1).normal(0, 0.3, 3 * 16_000).astype(np.float32)


def content(player: Player) -> bytes:
    return base64.b64decode(player.uri.removeprefix("data:audio/mpeg;base64,"))


def test_an_excerpt_is_short_and_has_nothing_else_of_its_source() -> None:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 44_100, 2, format="FLAC") as writer:
        writer.comment = "a secret"
        writer.write(np.random.default_rng(1).normal(0, 0.1, (44_100 * 3, 2)))
    found = encode_excerpt(decode(file.getvalue()).waveform, 2.0)
    assert b"secret" not in found and len(found) < 30_000
    assert decode(found).facts.duration_s == pytest.approx(2.0, abs=0.01)
    assert encode_excerpt(decode(file.getvalue()).waveform, 2.0) == found  # pages are equal from run to run


def test_the_excerpt_sounds_like_the_clip() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    found, rate = soundfile.read(io.BytesIO(encode_excerpt(tone, 10.0)))
    assert (len(found), rate) == (16_000, 16_000)
    assert np.abs(np.fft.rfft(found)).argmax() == 440 and np.abs(found).max() == pytest.approx(0.5, abs=0.05)


def test_players_are_bounded_and_a_clip_that_cannot_be_read_has_none() -> None:
    players = Players(seconds=1.0, max_bytes=12_000)

    def broken() -> np.ndarray:
        raise BrokenAudio("no audio")

    first = players.player(lambda: NOISE)
    assert decode(content(first)).facts.duration_s == pytest.approx(1.0, abs=0.01)
    assert players.player(broken) == Player("", "clip cannot be read")
    rest = [players.player(lambda: NOISE) for _ in range(4)]
    assert rest[-1] == Player("", "left out, to keep the page small")
    assert sum(len(player.uri) for player in (first, *rest)) <= 12_000
