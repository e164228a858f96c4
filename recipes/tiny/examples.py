"""Make the clips of examples/ from the recipe's own voices, tunes and sounds.

python recipes/tiny/examples.py examples/
"""

import random
import sys
from pathlib import Path

import numpy as np
import soundfile
from material import SAMPLE_RATE, check_tools, play, speak
from sounds import synthesize
from tunes import INSTRUMENTS, TICKS, Note, midi_file

MELODY = (72, 74, 76, 72, 76, 77, 79, 79, 81, 79, 77, 76, 74, 72)


def piano(duration_s: float) -> np.ndarray:
    """A slow walk up and down the C major scale over two bass notes."""
    notes: list[Note] = [(number * TICKS, TICKS * 9 // 10, note, 95) for number, note in enumerate(MELODY)]
    notes += [(number * TICKS, TICKS * 3, bass, 70) for number, bass in ((0, 48), (4, 53), (8, 55), (12, 48))]
    return play(midi_file([(0, INSTRUMENTS["piano"][0][0], notes)], 84), duration_s)


def peak(waveform: np.ndarray, level: float) -> np.ndarray:
    """Scale to a peak of `level`."""
    return waveform * (level / np.abs(waveform).max())


def make_examples() -> dict[str, np.ndarray]:
    """The clips by file name, float at 16 kHz."""
    man = peak(speak("seven, two, four", "en-us+m3", speed=130), 0.6)
    woman = peak(speak("good morning, how are you?", "en-gb+f2", speed=140), 0.6)
    pause = np.zeros(SAMPLE_RATE // 2)
    over = peak(piano(5.0), 0.2)
    start = SAMPLE_RATE
    over[start : start + man.size] += man[: over.size - start]
    return {
        "voice": man,
        "piano": peak(piano(5.0), 0.6),
        "voice_over_piano": over,
        "alarm": peak(synthesize(random.Random(1), "alarm")[0], 0.6),
        "two_voices": np.concatenate([man, pause, woman]),
    }


def main(folder: Path) -> None:
    """Write every clip as Ogg Vorbis."""
    check_tools()
    for name, waveform in make_examples().items():
        path = folder / f"{name}.ogg"
        soundfile.write(path, waveform.astype(np.float32), SAMPLE_RATE, format="OGG", subtype="VORBIS")
        print(f"{path}: {waveform.size / SAMPLE_RATE:.1f} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
