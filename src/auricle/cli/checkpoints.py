"""Verbs of checkpoints: models, convert, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auricle.cli.options import Adapter, AsJson, FloatType
from auricle.cli.output import print_line, print_result, progress


def models(as_json: AsJson = False) -> None:
    """List the models with a name.

    Hub ids, folders and files can be loaded, too.

    Example: auricle models
    """
    from dataclasses import asdict

    from auricle.weights.catalog import entries, is_ready

    for entry in entries():
        ready = is_ready(entry)
        size = f"{entry.parameters / 1e6:,.1f} M" if entry.parameters else "?"
        source = entry.repo or entry.where or entry.unavailable or "embedded"
        state = "ready" if ready else "not downloaded" if entry.repo else "absent"
        lines = [
            f"{entry.name:22} {entry.kind:15} {size:>11}  {entry.license:11} {source:28} {state:15} {entry.summary}"
        ]
        if entry.caution:
            lines.append(f"{'':22} note: {entry.caution}")
        print_result({**asdict(entry), "ready": ready}, lines, as_json=as_json)


def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="Dasheng: name, hub id, folder or file; MiDashengLM: all but a file."),
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="New folder.")],
    dtype: FloatType = "float32",
    adapter: Adapter = None,
) -> None:
    """Convert a Dasheng or MiDashengLM checkpoint to a safetensors folder.

    Reads Dasheng encoders in every published layout, MiDashengLM folders, and models trained with Auricle of these two
    kinds. Other encoders and audio–text models (BEATs, GLAP and the like) are loaded as they are, and not converted.

    Example: auricle convert dasheng_base.pt dasheng-base/
    """
    from auricle.weights import convert as convert_weights

    with progress("converting"):
        written = convert_weights(source, destination, dtype=dtype, adapter=adapter)
    print_line(str(written))


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Audio language model: name, hub id or folder.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, .pt2 (torch.export) or .onnx.")],
    adapter: Adapter = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the hub.")] = None,
) -> None:
    """Export encoder and projector of an audio language model.

    The graph turns one clip of 16 kHz samples into audio tokens and is compared with the model. An older file of
    this name is replaced.

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
