"""Players of clips within a page: the start of each clip, encoded anew, within a limit of bytes for the page."""

import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import AuricleError


class Player(NamedTuple):
    """A clip as a data URI, or why there is none."""

    uri: str
    reason: str = ""


class Fact(NamedTuple):
    """What is known of a clip: a caption, a reference, an answer."""

    name: str
    texts: Sequence[str]
    tag: str = ""  # before the texts


class Example(NamedTuple):
    """A clip of a page with what is known of it."""

    player: Player | None  # None: without
    name: str
    note: str
    facts: Sequence[Fact]


class Players:
    """Players of a page, until their bytes are used up."""

    def __init__(self, *, seconds: float, max_bytes: int) -> None:
        """Start with no bytes used.

        Args:
            seconds: of each clip.
            max_bytes: of all players together.
        """
        self.seconds, self._left = seconds, max_bytes

    def player(self, load: Callable[[], npt.NDArray[Any]]) -> Player:
        """A player of a clip.

        Args:
            load: gives the waveform (N,), 16 kHz mono, at least the first `seconds`; it may raise `AuricleError`.
        """
        try:
            uri = f"data:audio/mpeg;base64,{b64encode(encode_excerpt(load(), self.seconds)).decode()}"
        except AuricleError:
            return Player("", "clip cannot be read")
        if len(uri) > self._left:
            return Player("", "left out, to keep the page small")
        self._left -= len(uri)
        return Player(uri)


def encode_excerpt(waveform: npt.NDArray[Any], seconds: float) -> bytes:
    """The first ``seconds`` of a waveform (N,), 16 kHz, as MP3: about 4 kB a second.

    MP3 rather than Ogg, which some browsers do not play and whose bytes differ from run to run.
    """
    import soundfile

    file = io.BytesIO()
    excerpt = np.clip(waveform[: round(seconds * SAMPLE_RATE)], -1.0, 1.0)
    soundfile.write(file, excerpt, SAMPLE_RATE, format="MP3")
    return file.getvalue()
