"""The verb that embeds audio: embed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.inputs import open_sources
from auricle.cli.options import AsJson, Device, Dtype, Files, Isolate
from auricle.cli.printing import FilePrinter
from auricle.errors import MissingExtra

if TYPE_CHECKING:
    from torch import Tensor

    from auricle.encode.encoder import Embedding, Encoder


def embed(
    files: Files,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write: .safetensors, .npz or .parquet.")
    ] = None,
    frames: Annotated[bool, typer.Option("--frames", help="One vector a frame instead of one a file.")] = False,
    model: Annotated[
        str, typer.Option("--model", help="Embedded name, hub id, folder or file; see `auricle models`.")
    ] = "auricle-tiny-encoder",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    isolate: Isolate = False,
    as_json: AsJson = False,
) -> None:
    """Embed each clip as a vector, or as 25 a second.

    Without --output, --json prints the vectors. A written file has `embeddings` (files, width), or with --frames
    `frames` (all frames, width) and `lengths` (files), and the names of the files in the same order. Files that fail
    are left out.

    Example: auricle embed recordings/ -o recordings.safetensors
    """
    from auricle.files import check_writable

    if output is None and (frames or not as_json):
        raise typer.BadParameter("name a file to write", param_hint="--output")
    if output is not None and output.suffix.lower() not in _WRITERS:
        raise typer.BadParameter(f"expected one of {', '.join(_WRITERS)}, got {output.name}", param_hint="--output")
    if output is not None and output.suffix.lower() == ".parquet":
        _need_pyarrow()
    if output is not None:
        check_writable(output)
    names, sources = open_sources(files)

    import auricle

    encoder = auricle.load_encoder(model, device=device, dtype=dtype)
    if isolate:
        encoder.limits = replace(encoder.limits, isolate=True)
    kept: dict[str, Tensor] = {}

    def show(name: str, result: Embedding) -> tuple[dict[str, Any], list[str]]:
        if output is None:
            return {"embedding": result.values.tolist()}, []
        kept[name] = result.values
        return {}, []

    printer = FilePrinter(encoder.name, as_json=as_json)
    printer.print_files("embedding", names, encoder.embed_many(sources, frames=frames), (), show)
    if output is not None and kept:
        _write(output, kept, encoder, frames=frames)
    printer.leave()


def _write(output: Path, kept: dict[str, Tensor], encoder: Encoder, *, frames: bool) -> None:
    from auricle.files import atomic_path

    facts = {
        "files": list(kept),
        "model": encoder.name,
        "sampling_rate": encoder.sampling_rate,
        "hop_size_in_ms": encoder.hop_size_in_ms,
    }
    with atomic_path(output) as temporary:
        _WRITERS[output.suffix.lower()](temporary, kept, facts, frames)


def _tensors(kept: dict[str, Tensor], frames: bool) -> dict[str, Tensor]:
    import torch

    if not frames:
        return {"embeddings": torch.stack(list(kept.values()))}
    return {"frames": torch.cat(list(kept.values())), "lengths": torch.tensor([len(clip) for clip in kept.values()])}


def _write_safetensors(path: Path, kept: dict[str, Tensor], facts: dict[str, Any], frames: bool) -> None:
    from safetensors.torch import save_file

    metadata = {
        key: value if isinstance(value, str) else json.dumps(value, allow_nan=False) for key, value in facts.items()
    }
    save_file(_tensors(kept, frames), str(path), metadata=metadata)


def _write_npz(path: Path, kept: dict[str, Tensor], facts: dict[str, Any], frames: bool) -> None:
    import numpy as np

    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in _tensors(kept, frames).items()}
    arrays |= {name: np.array(value) for name, value in facts.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _write_parquet(path: Path, kept: dict[str, Tensor], facts: dict[str, Any], frames: bool) -> None:
    import pyarrow
    import pyarrow.parquet

    width = next(iter(kept.values())).shape[-1]
    vector = pyarrow.list_(pyarrow.float32(), width)
    kind = pyarrow.list_(vector) if frames else vector
    values = pyarrow.array([tensor.tolist() for tensor in kept.values()], kind)
    # A name that is not UTF-8 must not prevent the table.
    names = [name.encode("utf-8", "backslashreplace").decode() for name in kept]
    table = pyarrow.table({"file": names, "frames" if frames else "embedding": values})
    metadata = {key: json.dumps(value, allow_nan=False) for key, value in facts.items() if key != "files"}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)


def _need_pyarrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise MissingExtra("writing Parquet", "parquet")


_WRITERS: dict[str, Callable[[Path, dict[str, Any], dict[str, Any], bool], None]] = {
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
