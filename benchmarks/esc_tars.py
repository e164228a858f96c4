"""ESC-50, a part of it or made-up noises as the audio tars of X-ARES, one tar and more for each fold."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

RATE, CLIP_S = 44_100, 5.0  # of ESC-50 as it is published
QUICK_CLASSES, QUICK_FOLDS, QUICK_CLIPS, QUICK_S = 3, 4, 5, 1.0  # clips of a class in a fold


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Labelled clips as tars, one for each fold."""

    folder: Path
    folds: list[int]
    labels: list[int]  # of each clip, in the order of the tars
    splits: list[str]
    digests: list[str]  # SHA-256 of its bytes
    classes: int


def write_noises(folder: Path) -> None:
    """A made-up data set in the layout of ESC-50: noises of `QUICK_S` whose band tells the class."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, QUICK_FOLDS + 1):
        for label in range(QUICK_CLASSES):
            for take in range(QUICK_CLIPS):
                name = f"{fold}-{take}-A-{label}.wav"
                spectrum = np.fft.rfft(rng.standard_normal(round(QUICK_S * RATE)))
                spectrum[: 800 * label] = 0
                noise = np.fft.irfft(spectrum)
                soundfile.write(folder / "audio" / name, 0.1 * noise / noise.std(), RATE)
                rows.append(f"{name},{fold},{10 * label},band {label},True,{take},A")
    (folder / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def as_published(path: Path, folder: Path, duration_s: float) -> Path:
    """A clip in the form of ESC-50 (44.1 kHz, 16 bits, mono, of one length): itself, or a copy brought to it."""
    facts = soundfile.info(path)
    size = round(duration_s * RATE)
    if (facts.samplerate, facts.channels, facts.frames) == (RATE, 1, size):
        return path
    samples, rate = soundfile.read(path, always_2d=True)
    wave = soxr.resample(samples.mean(1), rate, RATE)[:size]
    copy = folder / f"{path.stem}.wav"
    soundfile.write(copy, np.pad(wave, (0, size - len(wave))), RATE, subtype="PCM_16")
    return copy


def write_tars(source: Path, work: Path, duration_s: float) -> Data:
    """Write the audio tars of X-ARES; labels are numbered from 0 without gaps, for ESC-10 uses ten of fifty."""
    from auricle.data.label_tars import SoundFile, write_label_tars
    from auricle.data.upstream import read_layout

    copies = work / "copies"
    copies.mkdir()
    entries = sorted(read_layout("esc50", source), key=lambda entry: (int(entry.meta["fold"]), entry.id))
    numbers = {label: rank for rank, label in enumerate(sorted({entry.meta["label"] for entry in entries}))}
    labels = [numbers[entry.meta["label"]] for entry in entries]
    paths = [as_published(Path(entry.audio), copies, duration_s) for entry in entries]
    splits = [str(int(entry.meta["fold"])) for entry in entries]
    sets: dict[str, list[Any]] = {f"wds-audio-fold-{fold}-*.tar": [] for fold in splits}
    for path, split, label in zip(paths, splits, labels, strict=True):
        sets[f"wds-audio-fold-{split}-*.tar"].append(SoundFile(path.stem, path, {"label": label}))
    write_label_tars(work / "tars", sets)
    digests = [sha256(path.read_bytes()).hexdigest() for path in paths]
    folds = sorted({int(split) for split in splits})
    return Data(folder=work / "tars", folds=folds, labels=labels, splits=splits, digests=digests, classes=len(numbers))
