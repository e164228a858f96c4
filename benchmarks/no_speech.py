"""Find the bound from which "no speech" overrules a transcript, and measure it once on clips no stage has used.

python benchmarks/no_speech.py DATA [--model auricle-tiny] [--clips 80] [-o FILE]

DATA holds esc10, fsdd and speechocean762. Calibrated on ESC-10 folds 1-3, four digit speakers and speechocean762's
train part, alone and mixed at 0-10 dB; measured on fold 4, the speaker theo and the test part. The bound goes into the
model's generation_config.json as auricle_no_speech_logprob.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

import auricle
from auricle.audio.decode import as_clip
from auricle.audio.facts import Samples
from auricle.data.wording import NO_SPEECH, TRANSCRIBE_PROMPT
from auricle.listen.model import AudioLM
from auricle.listen.no_speech import NoSpeechRule, calibrate

SNR_DB = (0.0, 10.0)
RATE = 16_000
LONGEST_S = 10.0


def material(data: Path, is_held_out: bool, count: int, seed: int) -> dict[str, list[Samples]]:
    """Clips by kind; the first word of the name says whether somebody speaks."""
    rng = random.Random(seed)
    esc = [file for file in sorted(data.glob("esc10/audio/*")) if (file.name[0] == "4") == is_held_out]
    digits = [f for f in sorted(data.glob("fsdd/recordings/*")) if ("theo" in f.name) == is_held_out]
    lines = (data / "speechocean762" / ("test.jsonl" if is_held_out else "train.jsonl")).read_text().splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["seconds"] <= LONGEST_S]
    sentences = [data / "speechocean762" / entry["audio"] for entry in entries]
    sounds, spoken, read = (load(pick(rng, files, count)) for files in (esc, digits, sentences))
    return {
        "other sounds": sounds,
        "other two sounds": [mix(a, b, 0.0) for a, b in zip(sounds, pick(rng, sounds, count), strict=True)],
        "other noise": [noise(seed + place) for place in range(count)],
        "speech digits": spoken,
        "speech sentences": read,
        "speech digits in sounds": [mix(a, b, rng.uniform(*SNR_DB)) for a, b in zip(spoken, sounds, strict=True)],
        "speech sentences in sounds": [mix(a, b, rng.uniform(*SNR_DB)) for a, b in zip(read, sounds, strict=True)],
    }


def pick(rng: random.Random, items: list[Any], count: int) -> list[Any]:
    """``count`` items in random order."""
    return rng.sample(items, min(count, len(items)))


def load(files: list[Path]) -> list[Samples]:
    """Waveforms of at most 10 s."""
    return [as_clip(file).waveform[: int(LONGEST_S * RATE)] for file in files]


def mix(front: Samples, back: Samples, snr_db: float) -> Samples:
    """A sound over another, which is repeated to its length."""
    under = np.resize(back, len(front))
    gain = np.sqrt(np.mean(front**2) / max(np.mean(under**2), 1e-12)) * 10 ** (-snr_db / 20)
    return (front + gain * under).astype(np.float32)


def noise(seed: int) -> Samples:
    """White to brown noise at -10 to -60 dB of full scale, 1-8 s."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(int(RATE * rng.uniform(1, 8))))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** rng.uniform(0, 1)
    waveform = np.fft.irfft(spectrum)
    return (waveform / waveform.std() * 10 ** (-rng.uniform(10, 60) / 20)).astype(np.float32)


def denial(model: AudioLM, clip: Samples) -> float:
    """Log-probability of the answer "no speech", nats."""
    return model.choose(clip, TRANSCRIBE_PROMPT, [NO_SPEECH, "yes"]).odds[0].logprob


def words_in(model: AudioLM, clips: list[Samples]) -> float:
    """Share of the clips that get a transcript."""
    found = [result.text != "" for result in model.transcribe_many(clips, overlap_s=0.0, max_new_tokens=32)]  # type: ignore[union-attr]
    return sum(found) / len(found)


def main() -> None:
    """Calibrate, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="auricle-tiny")
    parser.add_argument("--clips", type=int, default=80)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    model = auricle.load(arguments.model)
    known = material(arguments.data, False, arguments.clips, 0)
    denials = {kind: [denial(model, clip) for clip in clips] for kind, clips in known.items()}

    def collect(first: str) -> list[float]:
        return [value for kind, values in denials.items() if kind.startswith(first) for value in values]

    bound = round(calibrate(collect("speech"), collect("other")), 3)
    with_rule = AudioLM(model.loaded, max_audio_s=model.max_audio_s, no_speech=NoSpeechRule(bound), engine=model.engine)
    plain = AudioLM(model.loaded, max_audio_s=model.max_audio_s, engine=model.engine)
    unknown = material(arguments.data, True, arguments.clips, 1)
    report = {
        "model": model.loaded.identity["name"],
        "auricle_no_speech_logprob": bound,
        "calibration": {kind: spread(values) for kind, values in denials.items()},
        "held_out": {
            kind: {
                "clips": len(clips),
                "gets words": round(words_in(plain, clips), 4),
                "gets words under the bound": round(words_in(with_rule, clips), 4),
            }
            for kind, clips in unknown.items()
        },
        "version": auricle.__version__,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


def spread(values: list[float]) -> dict[str, float]:
    """Quantiles of log-probabilities."""
    return {
        name: round(float(np.quantile(values, share)), 3) for name, share in (("5%", 0.05), ("50%", 0.5), ("95%", 0.95))
    }


if __name__ == "__main__":
    main()
