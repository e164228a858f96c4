"""Verbs of checkpoints: models, convert, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auricle.cli.options import Adapter, AsJson, FloatType
from auricle.cli.output import print_result, progress


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
        typer.Argument(
            metavar="SRC", help="Dasheng, its denoiser: name, hub id, folder or file; MiDashengLM: all but a file."
        ),
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="New folder.")],
    dtype: FloatType = "float32",
    adapter: Adapter = None,
    as_json: AsJson = False,
) -> None:
    """Convert a Dasheng, Dasheng-Denoiser or MiDashengLM checkpoint to a safetensors folder.

    Reads Dasheng encoders in every published layout, the denoiser's checkpoint, MiDashengLM folders, and models trained
    with Auricle of these kinds. Other encoders and audio–text models (BEATs, GLAP and the like) are loaded as they are,
    and not converted.

    Example: auricle convert dasheng_base.pt my-dasheng/
    """
    from auricle.weights import convert as convert_weights

    with progress("converting", quiet=as_json):
        written = convert_weights(source, destination, dtype=dtype, adapter=adapter)
    print_result({"model": source, "folder": str(written), "dtype": dtype}, [str(written)], as_json=as_json)


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Encoder or audio language model.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, .pt2 (torch.export) or .onnx.")],
    frames: Annotated[
        bool, typer.Option("--frames", help="Export only the encoder of an audio language model.")
    ] = False,
    adapter: Adapter = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the hub.")] = None,
    as_json: AsJson = False,
) -> None:
    """Export an encoder, or encoder and projector of an audio language model, as one graph.

    The graph turns one clip of 16 kHz samples of any length into frames at 25 Hz, or audio tokens at 5 Hz. It pads the
    clip itself, and is compared with the model. An older file of this name is replaced.

    Example: auricle export auricle-tiny encoder.onnx
    """
    from auricle.weights.export import check_export, export_named

    check_export(file)
    with progress("exporting", quiet=as_json):
        written = export_named(model, file, frames=frames, adapter=adapter, revision=revision)
    facts = written.facts
    lines = [f"{written.path}: {facts['input']}", f"  -> {facts['output']}, one each {facts['hop_ms']} ms"]
    lines.append(f"  padding {facts['padding']}; licence {facts['license']}")
    if written.difference is None:
        lines.append("  not compared with the model: onnxruntime is not installed")
    else:
        lines.append(f"  within {written.difference:.0e} of the model, relative to the largest value")
    record = {"file": str(written.path), "difference": written.difference, "metadata": dict(facts)}
    print_result(record, lines, as_json=as_json)
