"""Fit the weights by which `auricle denoise` tells seconds with speech from others: src/auricle/denoise/speech.json.

python recipes/tiny/speech_guard.py DATA [-o FILE]

DATA is a folder with esc10, fsdd, speechocean762 and wide. A logistic regression on the mean frame of
auricle-tiny-encoder over one second; speech is mixed with other sounds and noise at -5 to 20 dB. Data sets in
`HELD_OUT` measure the errors and are not fitted on.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch

from auricle import decode, load_encoder
from auricle.errors import AuricleError
from auricle.files import write_json
from auricle.models.frame_model import content_hash

ENCODER = "auricle-tiny-encoder"
SECOND = 16_000
SPEECH = ("fsdd", "speechocean762/audio/train", "wide/arabic_commands", "wide/picovoice_wake_words")
OTHER = ("esc10/audio", "wide/donateacry", "wide/open_events", "wide/philharmonia")
HELD_OUT = {
    "speech": ("speechocean762/audio/test", "wide/mycroft_community", "wide/asterisk_prompts"),
    "music": ("wide/drums_and_loops", "wide/philharmonia_plucked"),
}
CLIPS = 100  # of a data set


def seconds_of(folder: Path, rng: random.Random) -> list[np.ndarray]:
    """The loudest second of each of some clips, shorter ones filled with zeros."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".ogg", ".opus", ".wav"))
    found = []
    for path in rng.sample(files, min(CLIPS, len(files))):
        try:
            waveform = decode(path).waveform
        except AuricleError:
            continue
        waveform = np.pad(waveform, (0, max(0, SECOND - len(waveform))))
        starts = range(0, len(waveform) - SECOND + 1, SECOND // 2)
        start = max(starts, key=lambda at: float(np.square(waveform[at : at + SECOND]).sum()))
        if np.abs(waveform[start : start + SECOND]).max() > 1e-3:
            found.append(waveform[start : start + SECOND])
    return found


def noise(rng: np.random.Generator) -> np.ndarray:
    """A second of noise whose power falls with frequency by a random power, or of silence or hum."""
    kind = rng.integers(0, 8)
    if kind == 0:
        return np.zeros(SECOND, np.float32)
    if kind == 1:
        time = np.arange(SECOND) / SECOND
        tones = [np.sin(2 * np.pi * k * rng.uniform(40, 400) * time) / k for k in range(1, 6)]
        return (0.1 * sum(tones)).astype(np.float32)
    spectrum = np.fft.rfft(rng.standard_normal(SECOND)) / np.arange(1, SECOND // 2 + 2) ** rng.uniform(0, 1)
    shaped = np.fft.irfft(spectrum)
    return (0.1 * shaped / np.abs(shaped).max()).astype(np.float32)


def mix(speech: np.ndarray, other: np.ndarray, decibel: float) -> np.ndarray:
    """Speech and another sound at a ratio of powers."""
    power = float(np.square(other).mean())
    scale = np.sqrt(float(np.square(speech).mean()) / power) * 10 ** (-decibel / 20) if power else 0.0
    return speech + scale * other


def embed(encoder: object, clips: list[np.ndarray], rng: np.random.Generator) -> torch.Tensor:
    """Mean frames (n, D) of seconds at random levels."""
    levelled = [clip / max(1e-4, np.abs(clip).max()) * 10 ** (rng.uniform(-35, 0) / 20) for clip in clips]
    tensors = [torch.from_numpy(clip.astype(np.float32)) for clip in levelled]
    means = [encoder.encode(tensors[at : at + 64]) for at in range(0, len(tensors), 64)]
    return torch.cat([torch.stack([f[:n].mean(0) for f, n in zip(*part, strict=True)]) for part in means])


def main() -> None:
    """Fit, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("src/auricle/denoise/speech.json"))
    args = parser.parse_args()
    rng, generator = random.Random(16), np.random.default_rng(16)
    encoder = load_encoder(ENCODER)
    others = [clip for name in OTHER for clip in seconds_of(args.data / name, rng)]
    others += [noise(generator) for _ in range(CLIPS)]
    speech = [clip for name in SPEECH for clip in seconds_of(args.data / name, rng)]
    mixed = [mix(clip, rng.choice(others), generator.uniform(-5, 20)) for clip in speech]
    inputs = embed(encoder, speech + mixed + others, generator)
    truth = torch.tensor([1.0] * (len(speech) + len(mixed)) + [0.0] * len(others))
    balance = torch.where(truth > 0, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))
    centre, spread = inputs.mean(0), inputs.std(0)
    weight = torch.zeros(inputs.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300)
    scaled = (inputs - centre) / spread

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(scaled @ weight + bias, truth, weight=balance)
        value = value + 2e-3 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        final = weight / spread
        offset = bias - final @ centre

    def share(clips: list[np.ndarray]) -> float:
        return float((embed(encoder, clips, generator) @ final + offset > 0).float().mean())

    held = [clip for name in HELD_OUT["speech"] for clip in seconds_of(args.data / name, rng)][::2]
    music = [clip for name in HELD_OUT["music"] for clip in seconds_of(args.data / name, rng)]
    measured = {"clean speech": share(held), "music": share(music)}
    for decibel in (-5, 5, 15):
        measured[f"speech in music at {decibel} dB"] = share([mix(s, rng.choice(music), decibel) for s in held])
        measured[f"speech in noise at {decibel} dB"] = share([mix(s, noise(generator), decibel) for s in held])
    measured["noise"] = share([noise(generator) for _ in range(CLIPS)])
    rounded = {name: round(value, 3) for name, value in measured.items()}
    print(json.dumps(rounded, indent=1))
    content = {
        "encoder": ENCODER,
        "encoder_sha256": content_hash(encoder.model),
        "taken_for_speech": rounded,
        "weight": [float(f"{value:.5g}") for value in final.tolist()],
        "bias": float(f"{offset.item():.5g}"),
    }
    write_json(args.output, content)


if __name__ == "__main__":
    main()
