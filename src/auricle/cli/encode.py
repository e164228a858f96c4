"""Verbs of encoders: embed, and, with words, score and classify."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.inputs import STDIN, SUFFIXES, open_sources
from auricle.cli.options import (
    AlignOptions,
    AsJson,
    Device,
    Dtype,
    Files,
    Isolate,
    LabelsFile,
    Language,
    Template,
    complete_model,
    domain_templates,
    with_groups,
)
from auricle.cli.output import print_line, progress
from auricle.cli.printing import FilePrinter
from auricle.errors import MissingExtra

if TYPE_CHECKING:
    from torch import Tensor

    from auricle.encode.encoder import Embedding, Encoder
    from auricle.encode.zero_shot import Classification, TextScores

_SHOWN = 3  # labels of a clip in the text output; JSON has all
_WIDTH = 28  # of a text at the top of its column
_MAX_NAME = 60  # of a file's name in the table


def embed(
    files: Files,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write: .safetensors, .npz or .parquet.")
    ] = None,
    frames: Annotated[bool, typer.Option("--frames", help="One vector a frame instead of one a file.")] = False,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Embedded name, hub id, folder or file; see `auricle models`.",
            autocompletion=complete_model("encoder"),
        ),
    ] = "auricle-tiny-encoder",
    device: Device = "auto",
    dtype: Dtype = "float32",
    isolate: Isolate = False,
    as_json: AsJson = False,
) -> None:
    """Embed each clip as a vector, or as 25 a second.

    Without --output, --json prints the vectors. A written file has `embeddings` (files, width), or with --frames
    `frames` (all frames, width) and `lengths` (files), and the names of the files in the same order. Files that fail
    are left out. An older file of this name is replaced.

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

    with progress(f"loading {model}", quiet=as_json):
        import auricle
        from auricle.weights.loaders import device_of

        encoder = auricle.load_encoder(model, device=device, dtype=dtype)
    if isolate:
        encoder.limits = replace(encoder.limits, isolate=True)
    kept: dict[str, Tensor] = {}

    def show(name: str, result: Embedding) -> tuple[dict[str, Any], list[str]]:
        if output is None:
            return {"embedding": result.values.tolist()}, []
        kept[name] = result.values
        return {}, []

    printer = FilePrinter(encoder.name, str(device_of(device)), as_json=as_json)
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


@with_groups
def score(
    arguments: Annotated[
        list[str], typer.Argument(metavar="AUDIO... [TEXT]...", help="Files, folders, globs, or -; then texts.")
    ],
    text: Annotated[
        list[str] | None, typer.Option("--text", "-t", help="A text; repeatable. With it all arguments are audio.")
    ] = None,
    language: Language = "eng_Latn",
    as_json: AsJson = False,
    *,
    options: AlignOptions,
) -> None:
    """Score how well each clip and each text fit: 100 × cosine, -100 to 100.

    Without --text an argument is audio if there is such a file, folder or glob, if it has an audio suffix, or if it is
    -; any other is a text.

    Example: auricle score a.wav b.wav -t "a dog barks" -t rain
    """
    audio, texts = _split_arguments(arguments, text)
    names, sources = open_sources(audio)

    from auricle.encode.zero_shot import score_many

    results = score_many(options.load(quiet=as_json), sources, texts, language=language)
    width = max(len(name[-_MAX_NAME:]) for name in names)
    if not as_json:
        print_line(_row("", width, [_cut(text) for text in texts], texts))

    def show(name: str, result: TextScores) -> tuple[dict[str, Any], list[str]]:
        return result.as_dict(), [_row(name, width, [f"{value:.1f}" for value in result.scores.values()], texts)]

    printer = FilePrinter(options.model, options.device_name, as_json=as_json)
    printer.print_files("scoring", names, results, ("scores", "probabilities"), show)
    printer.leave()


@with_groups
def classify(
    files: Files,
    labels: Annotated[
        str | None, typer.Option("--labels", help='To choose from, between commas: dog,rain,"sea waves".')
    ] = None,
    labels_file: LabelsFile = None,
    domain: Annotated[
        str, typer.Option("--domain", help="Sentence the labels are put into: sound, speech, music or none.")
    ] = "sound",
    template: Template = None,
    multi: Annotated[
        bool, typer.Option("--multi", help="Decide each label separately; a clip may have several, or none.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            min=-100,
            max=100,
            help="With --multi: least score of a label, 100 × cosine [default: where the model's probability is 1/2].",
        ),
    ] = None,
    language: Language = "eng_Latn",
    as_json: AsJson = False,
    *,
    options: AlignOptions,
) -> None:
    """Classify each clip by labels of your choice; any words will do, the model was not trained on them.

    Shows the best labels with their share of the softmax over all. With --multi, shows those that reach the threshold,
    with their scores: the same 100 × cosine that `auricle score` prints. The default threshold was set by training
    against the other captions of a batch, and few short labels reach it: choose one on clips of your own.

    Example: auricle classify recordings/ --labels dog,rain,"sea waves"
    """
    if (labels is None) == (labels_file is None):
        raise typer.BadParameter("give the labels, or a file of them", param_hint="--labels")
    if threshold is not None and not multi:
        raise typer.BadParameter("needs --multi", param_hint="--threshold")
    names, sources = open_sources(files)

    from auricle.encode.zero_shot import Prompts, classify_many, parse_labels, read_labels

    words: dict[str, tuple[str, ...]] = (
        read_labels(labels_file) if labels_file else dict.fromkeys(parse_labels(labels or ""), ())
    )
    templates = tuple(template or domain_templates(domain))
    prompts = Prompts(templates=templates, phrases=words, language=language)
    aligner = options.load(quiet=as_json)
    results = classify_many(aligner, sources, list(words), prompts=prompts, multi=multi, threshold=threshold)

    has_names = len(names) > 1 or names != files

    def show(name: str, result: Classification) -> tuple[dict[str, Any], list[str]]:
        return result.as_dict(), [f"{name}: {_shown(result)}" if has_names else _shown(result)]

    printer = FilePrinter(options.model, options.device_name, as_json=as_json)
    keys = ("labels", "scores", "probabilities", "scale", "threshold")
    printer.print_files("classifying", names, results, keys, show)
    printer.leave()


def _split_arguments(arguments: list[str], texts: list[str] | None) -> tuple[list[str], list[str]]:
    """Audio and texts, each text once."""
    if texts:
        return arguments, list(dict.fromkeys(texts))
    audio = [argument for argument in arguments if _is_audio(argument)]
    words = list(dict.fromkeys(argument for argument in arguments if not _is_audio(argument)))
    if not audio:
        raise typer.BadParameter("none of them is a file or folder; give the audio first", param_hint="AUDIO")
    if not words:
        raise typer.BadParameter('give a text, such as -t "a dog barks"', param_hint="TEXT")
    return audio, words


def _is_audio(argument: str) -> bool:
    if argument == STDIN or os.path.lexists(argument) or Path(argument).suffix.lower() in SUFFIXES:
        return True
    return glob.has_magic(argument) and bool(glob.glob(argument, recursive=True))


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _row(name: str, width: int, cells: list[str], texts: list[str]) -> str:
    columns = [f"{cell:>{max(6, len(_cut(text)))}}" for cell, text in zip(cells, texts, strict=True)]
    return f"{name[-_MAX_NAME:]:{width}}  {'  '.join(columns)}"


def _shown(result: Classification) -> str:
    if result.threshold is not None:
        best, score = next(iter(result.scores.items()))
        none = f"none of the labels reaches {result.threshold:.1f}; the best is {best} {score:.1f}"
        return ", ".join(f"{label} {result.scores[label]:.1f}" for label in result.labels) or none
    return ", ".join(
        f"{label} {100 * share:.0f} %" for label, share in list((result.probabilities or {}).items())[:_SHOWN]
    )
