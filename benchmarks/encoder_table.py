"""Encoders by their published geometry, with random weights: size, frame rate, speed, memory, batch invariance.

python benchmarks/encoder_table.py [NAME ...] [--clips 4] [--seconds 10] [--rounds 3] [--threads 2] [-o FILE]

Each encoder runs in a process of its own. Speed is audio seconds a second over clips that go in together, the median of
the rounds. Memory is the process's peak at one of these clips alone, and what it was before the network was built. The
last columns say how much the frames of a clip of 2 s change beside one of 5 s, in units of their deviation: as the
library runs the encoder, and as its authors do where that depends on the batch (``compat``; zeros behind waveforms).
Where the CPU does not multiply bfloat16 itself, that column is of one clip of 2 s, once, and the table says that it is
emulated.

docs/encoders.json: python benchmarks/encoder_table.py -o docs/encoders.json
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from pairs import processor

LARGE: dict[str, Any] = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
# Published geometries that are not the defaults of their family's configuration.
GEOMETRIES: dict[str, dict[str, Any]] = {
    "openbeats-base": {"repeat_short": True},
    "openbeats-large": {**LARGE, "ffn_dim": 4096, "residual_gain": 48**0.25, "repeat_short": True},
    "eat-large": LARGE,
    "ced-tiny": {"embed_dim": 192, "num_heads": 3},
    "ced-mini": {"embed_dim": 256, "num_heads": 4},
    "ced-small": {"embed_dim": 384, "num_heads": 6},
    "atst-frame-small": {"embed_dim": 384, "num_heads": 6},
    "data2vec2-large": LARGE,
}
# Stock encoders: what differs from the defaults of their configuration in transformers, and their front end's.
_WAVE: dict[str, Any] = {"do_normalize": True}
STOCK: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "whisper-base": (
        {"model_type": "whisper", "d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8}
        | {"encoder_ffn_dim": 2048},
        {},
    ),
    "whisper-small": (
        {"model_type": "whisper", "d_model": 768, "encoder_layers": 12, "encoder_attention_heads": 12}
        | {"encoder_ffn_dim": 3072},
        {},
    ),
    "wav2vec2-base": ({"model_type": "wav2vec2"}, _WAVE),
    "hubert-base": ({"model_type": "hubert"}, _WAVE),
    "wavlm-base-plus": ({"model_type": "wavlm"}, {"do_normalize": False}),
    "data2vec-audio-base": ({"model_type": "data2vec-audio"}, _WAVE),
    "ast-audioset": ({"model_type": "audio-spectrogram-transformer"}, {}),
}
BASELINE = "dasheng-base"
SAME = ("-as2m",)  # fine-tuned twins


def names() -> list[str]:
    """Everything the catalogue runs, and Dasheng beside it; of Whisper the sizes that a small machine can run."""
    from auricle.weights.catalog import entries

    return [BASELINE, *STOCK, *(entry.name for entry in entries() if entry.family and not entry.name.endswith(SAME))]


def build(name: str, *, compat: bool = False) -> Any:
    """An encoder with random weights, the same each time; None where ``compat`` is no choice."""
    import torch

    from auricle.models.encoders.pieces import PieceFrames
    from auricle.models.encoders.random_encoders import random_encoder
    from auricle.models.encoders.speech import WaveEncoder, build_encoder
    from auricle.weights.catalog import entries
    from auricle.weights.encoder_layouts import encoder_families

    if name == BASELINE:
        return None if compat else random_encoder(BASELINE)
    if name in STOCK:
        torch.manual_seed(0)
        model = build_encoder(*STOCK[name], None, source=name)
        if not compat:
            return model
        return PaddedWaves(model.network) if isinstance(model, WaveEncoder) else None
    family = encoder_families()[next(entry.family for entry in entries() if entry.name == name)]
    config = family.config(**GEOMETRIES.get(name, {}))
    if compat and (not hasattr(config, "compat") or getattr(config, "repeat_short", False)):
        return None
    torch.manual_seed(0)
    network = family.network(replace(config, compat=True) if compat else config)
    if hasattr(network, "init_bn"):  # in dB, about what sounds have
        network.init_bn.running_mean.fill_(-20.0)
        network.init_bn.running_var.fill_(400.0)
    return PieceFrames(network.eval())


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one encoder."""
    import torch

    from auricle.models.blocks import CPU_HAS_BFLOAT16

    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    clips = [make_clip(options.seconds, seed) for seed in range(options.clips)]
    before = peak_mib()
    model = build(name)
    model.frames(clips[:1])
    row = {
        "encoder": name,
        "parameters": model.identity().num_parameters,
        "frames_hz": 1000 / model.hop_size_in_ms,
        "width": model.output_dim,
        "mib_before": before,
        "mib_peak": peak_mib(),
        "fp32": speed(model, clips, options.rounds),
        "batch_change": batch_change(model),
        "batch_change_compat": None,
    }
    move(model, torch.bfloat16)
    row["bf16"] = speed(model, *((clips, options.rounds) if CPU_HAS_BFLOAT16 else ([make_clip(2.0, 11)], 1)))
    if (theirs := build(name, compat=True)) is not None:
        row["batch_change_compat"] = batch_change(theirs)
    return row


class PaddedWaves:
    """Waveforms as the base models' own front end batches them: zeros behind the shorter ones, and no mask."""

    def __init__(self, network: Any) -> None:
        """Take over a stock encoder of waveforms."""
        self.network = network

    def frames(self, clips: list[Any]) -> list[Any]:
        """As `auricle.models.frame_model.FrameModel`."""
        import torch

        scaled = [(clip - clip.mean()) / (clip.var(correction=0) + 1e-7).sqrt() for clip in clips]
        rows = self.network(torch.nn.utils.rnn.pad_sequence(scaled, batch_first=True)).last_hidden_state
        return [row[: 1 + (len(clip) - 400) // 320] for row, clip in zip(rows, clips, strict=True)]


def make_clip(seconds: float, seed: int) -> Any:
    """Noise that swells, (N,)."""
    import torch

    noise = torch.randn(round(16_000 * seconds), generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise * torch.linspace(0.2, 1.0, len(noise))


def move(model: Any, dtype: Any) -> None:
    """Change the data type of a network."""
    import torch

    if hasattr(model, "move"):
        model.move(torch.device("cpu"), dtype)
    else:
        model.model.to(dtype).init_bn.float()


def speed(model: Any, clips: list[Any], rounds: int) -> float:
    """Audio seconds a second."""
    took = []
    for _ in range(rounds):
        start = perf_counter()
        model.frames(clips)
        took.append(perf_counter() - start)
    return round(sum(len(clip) for clip in clips) / 16_000 / median(took), 2)


def batch_change(model: Any) -> float:
    """Largest change of a clip's frames beside a longer one, in units of their standard deviation."""
    short, long = make_clip(2.0, 11), make_clip(5.0, 12)
    alone, together = model.frames([short])[0], model.frames([short, long])[0]
    shared = min(len(alone), len(together))
    return float((alone[:shared] - together[:shared]).abs().max() / alone.std())


def peak_mib() -> float:
    """The largest memory this process has held."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = ["encoder", "parameters, M", "frames / s", "width", "fp32, ×", "bf16, ×", "peak, MiB", "batch", "compat"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        compat = row["batch_change_compat"]
        cells = [
            row["encoder"],
            f"{row['parameters'] / 1e6:.1f}",
            f"{row['frames_hz']:g}",
            str(row["width"]),
            f"{row['fp32']:.2f}",
            f"{row['bf16']:.2f}",
            f"{row['mib_peak']:.0f} ({row['mib_before']:.0f} before)",
            f"{row['batch_change']:.0e}",
            "" if compat is None else f"{compat:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the arguments, measure each encoder in a child, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the catalogue; all by default")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--out", type=Path, help="write the figures here")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.names[0], options)))
        return
    given = [f"--{key}={getattr(options, key)}" for key in ("clips", "seconds", "rounds", "threads")]
    rows = []
    for name in options.names or names():
        child = [sys.executable, __file__, name, "--one", *given]
        rows.append(
            json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        )
        print(name, rows[-1]["fp32"], file=sys.stderr)
    from auricle.models.blocks import CPU_HAS_BFLOAT16

    print(table(rows))
    if not CPU_HAS_BFLOAT16:
        print("\nbf16 is emulated: this CPU does not multiply it")
    if options.out is not None:
        import torch

        machine = {"processor": processor(), "threads": options.threads, "bf16_is_emulated": not CPU_HAS_BFLOAT16}
        work = {"clips": options.clips, "seconds": options.seconds, "rounds": options.rounds, "weights": "random"}
        machine |= {"torch": torch.__version__, "python": platform.python_version()}
        content = {"machine": machine, "work": work, "rows": rows}
        options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
