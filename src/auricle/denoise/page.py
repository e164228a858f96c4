"""A page with players and spectrograms of clips before and after, and of what is between them."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from auricle.audio.decode import as_clip, stream
from auricle.audio.facts import Samples
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import AudioSource, Source, is_in_memory
from auricle.encode.receipt import Receipt
from auricle.files import check_folder
from auricle.pages.players import Player, Players
from auricle.pages.plots import Drawing, drawable, new_figure, svg, write_page
from auricle.pages.render import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXCERPT_S = 20.0  # of each clip
_MAX_BYTES = 30 << 20  # of all players
_WHAT, _EXTRA = "The page of enhanced clips", "bench"
_FRAME, _HOP = 512, 160  # samples of a spectrum, and between two
_RANGE_DB = 70.0  # below the loudest cell
_TITLES = ("before", "after", "residual")


class _Clip(NamedTuple):
    name: str
    warnings: tuple[str, ...]
    players: list[tuple[str, Player]]
    drawing: Drawing


class DenoisePage:
    """Collects clips, and writes ``report.html`` and a picture for each."""

    def __init__(self, folder: Path, model: str, strength: float) -> None:
        """Prepare a page.

        Args:
            folder: to write to.
            model: name of the denoiser.
            strength: see `auricle.denoise.SpeechDenoiser.denoise`.

        Raises:
            MissingExtra: matplotlib is not installed.
            OutputError: the folder cannot be written.
        """
        new_figure(1, 1, _WHAT, _EXTRA)  # fails before the work rather than after it
        check_folder(folder)
        self._folder, self._model, self._strength = folder, model, strength
        self._players = Players(seconds=EXCERPT_S, max_bytes=_MAX_BYTES)
        self._clips: list[_Clip] = []
        self._figures: dict[str, Figure] = {}
        self._records: list[dict[str, Any]] = []

    def add(self, name: str, before: Samples, after: Samples, receipt: Receipt) -> None:
        """Add a clip: its starts (N,) mono at 16 kHz, see `excerpt`."""
        length = min(len(before), len(after))
        waveforms = (before[:length], after[:length], before[:length] - after[:length])
        figure = spectrograms(waveforms, name)
        number = len(self._clips) + 1
        players = [(title, self._player(waveform)) for title, waveform in zip(_TITLES, waveforms, strict=True)]
        drawing = Drawing(svg(figure, f"clip-{number}"), f"Spectrograms of {name}: {', '.join(_TITLES)}")
        self._clips.append(_Clip(name, receipt.warnings, players, drawing))
        self._figures[f"spectrogram-{number}"] = figure
        facts = {key: value for key, value in receipt.as_dict().items() if key not in ("read", "overlaps")}
        self._records.append({"title": name, "facts": facts, "codes": {}})

    def _player(self, waveform: Samples) -> Player:
        return self._players.player(lambda: waveform)

    def write(self, identity: dict[str, str | None]) -> list[Path]:
        """Write the page; of no clips, none.

        Raises:
            OutputError: the folder cannot be written.
        """
        if not self._clips:
            return []
        page = render(
            "denoise.html",
            title="Speech enhancement",
            count="One clip" if len(self._clips) == 1 else f"{len(self._clips)} clips",
            model=self._model,
            strength=f"{self._strength:g}",
            seconds=f"{EXCERPT_S:g}",
            clips=self._clips,
            records=[{"title": "model", "facts": {}, "codes": identity}, *self._records],
        )
        return write_page(self._folder, page, self._figures)


def excerpt(source: AudioSource) -> Samples:
    """The first `EXCERPT_S` of a source, (N,) mono at 16 kHz.

    Raises: as `auricle.audio.decode.stream`.
    """
    if is_in_memory(source):
        return as_clip(source).waveform[: round(EXCERPT_S * SAMPLE_RATE)]
    with stream(cast(Source, source), block_s=EXCERPT_S) as blocks:
        return next(chain(blocks, [np.zeros(0, np.float32)]))


def spectrograms(waveforms: tuple[Samples, Samples, Samples], name: str) -> Figure:
    """Before, after and residual (N,) at 16 kHz, one below the other on one scale.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure = new_figure(8.0, 6.0, _WHAT, _EXTRA)
    levels = [_decibel(waveform) for waveform in waveforms]
    top = max(float(level.max()) for level in levels)
    extent = (0.0, len(waveforms[0]) / SAMPLE_RATE, 0.0, SAMPLE_RATE / 2000)
    plots = figure.subplots(3, 1, sharex=True)
    for plot, level, title in zip(plots, levels, _TITLES, strict=True):
        image = plot.imshow(
            level, origin="lower", aspect="auto", extent=extent, vmin=top - _RANGE_DB, vmax=top, cmap="magma"
        )
        plot.set(ylabel="kHz", title=title)
    plots[-1].set_xlabel("s")
    figure.colorbar(image, ax=plots, label="dB")
    figure.suptitle(drawable(name, 60))
    return figure


def _decibel(waveform: Samples) -> Samples:
    """(N,) → power of each cell (bins, frames), dB."""
    padded = np.pad(waveform, (_FRAME // 2, _FRAME))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    spectrum = np.fft.rfft(frames * np.hanning(_FRAME).astype(np.float32))
    level: Samples = 10 * np.log10(np.maximum(np.abs(spectrum) ** 2, 1e-10)).T.astype(np.float32)
    return level
