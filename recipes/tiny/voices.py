"""Recorded voices of Debian packages, to measure how well languages are named of speakers never learnt from.

    python recipes/tiny/voices.py ROOT OUT

ROOT is where the packages are installed, such as /; those that are not there are left out. Writes 16 kHz FLAC files and
OUT/test.jsonl. The wide set `asterisk_prompts` has other speakers of these languages, who are learnt from.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
import wide

SAMPLE_RATE = 16_000
COUNT = 120  # clips of a voice
SHORTEST_S, LONGEST_S = 1.5, 10.0


class Voice(NamedTuple):
    """A speaker: package, folder below ROOT, files, and the facts of all clips."""

    package: str
    folder: str
    files: str
    language: str
    gender: str
    license: str
    author: str


ASTERISK = "usr/share/asterisk/sounds"
VOICES = (
    Voice("asterisk-prompt-fr-armelle", f"{ASTERISK}/fr", "*.gsm", "fr", "f", "BSD-3-Clause", "Armelle Desjardins"),
    Voice("asterisk-prompt-it-menardi-wav", f"{ASTERISK}/it_IT_f_Menardi", "*.wav", "it", "f", "CC-BY-SA-3.0",
          "Marco Menardi and Paola Dal Zot, http://www.voip.ammdomus.it"),
    Voice("asterisk-prompt-es-co", f"{ASTERISK}/es", "*.gsm", "es", "f", "GPL-2.0", "Avatar Ltda., July E. Jiménez"),
    Voice("festvox-ru", "usr/share/festival/voices/russian/msu_ru_nsh_clunits/wav", "*.wav", "ru", "m", "MIT-like",
          "Nickolay V. Shmyrev"),
)  # fmt: skip


def read(path: Path) -> np.ndarray:
    """Mono float32 at 16 kHz; GSM files of telephone systems have no header."""
    raw = {"samplerate": 8000, "channels": 1, "format": "RAW", "subtype": "GSM610"} if path.suffix == ".gsm" else {}
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True, **raw)
    return soxr.resample(samples.mean(1), rate, SAMPLE_RATE)


def clips(voice: Voice, root: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and waveforms of some files, the same on every machine; long ones are cut."""
    paths = sorted((root / voice.folder).glob(voice.files), key=lambda path: wide.number(path.name))
    found = 0
    for path in paths:
        waveform = read(path)
        if waveform.size >= SHORTEST_S * SAMPLE_RATE and found < COUNT:
            found += 1
            yield f"{voice.package}-{path.stem}", waveform[: int(LONGEST_S * SAMPLE_RATE)]


def main() -> None:
    """Parse, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    (options.out / "audio").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for voice in VOICES:
        before = len(rows)
        for name, waveform in clips(voice, options.root):
            soundfile.write(options.out / "audio" / f"{name}.flac", waveform, SAMPLE_RATE, subtype="PCM_16")
            facts = {"kind": "speech", "language": voice.language, "gender": voice.gender, "speaker": voice.package}
            credit = {"license": voice.license, "author": voice.author, "source": f"Debian {voice.package}"}
            rows.append({"id": name, "audio": f"audio/{name}.flac", **facts, **credit, "set": "voices"})
        print(f"{voice.package}: {len(rows) - before} clips")
    (options.out / "test.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8"
    )


if __name__ == "__main__":
    main()
