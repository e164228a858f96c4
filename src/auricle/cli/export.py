"""The verb that writes an encoder for other runtimes: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auricle.cli.output import print_line, progress


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Audio language model: name, hub id or folder.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, .pt2 (torch.export) or .onnx.")],
    adapter: Annotated[str | None, typer.Option("--adapter", help="PEFT adapter to merge.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the hub.")] = None,
) -> None:
    """Export encoder and projector of an audio language model.

    The graph turns one clip of 16 kHz samples into audio tokens and is compared with the model.

    Example: auricle export auricle-tiny encoder.onnx
    """
    from auricle.weights import load_midashenglm
    from auricle.weights.export import MAX_SAMPLES, check_export, save_audio

    check_export(file)
    with progress("exporting"):
        loaded = load_midashenglm(model, dtype="float32", adapter=adapter, revision=revision)
        written = save_audio(loaded.model, file)
    width = loaded.model.decoder.config.hidden_size
    print_line(f"{written.path}: waveform (N,) float32 at 16 kHz, 0.2 to {MAX_SAMPLES // 16_000} s")
    print_line(f"  -> audio_tokens (n, {width}) float32 at {25 / loaded.model.config.subsample_factor:g} Hz")
    if written.difference is None:
        print_line("  not compared with the model: onnxruntime is not installed")
    else:
        print_line(f"  within {written.difference:.0e} of the model, relative to the largest value")
