"""The verb that enhances speech: denoise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auricle.cli.inputs import STDIN, audio_seconds, find_sources, open_source
from auricle.cli.options import AsJson, Device, FloatType, complete_model
from auricle.cli.output import progress
from auricle.cli.printing import FilePrinter
from auricle.errors import AuricleError
from auricle.files import make_folder

if TYPE_CHECKING:
    from auricle.audio.facts import Samples
    from auricle.denoise.denoiser import DenoisedFile
    from auricle.denoise.page import DenoisePage

_RESIDUAL = ".residual"  # between stem and suffix


def denoise(
    files: Annotated[list[str], typer.Argument(metavar="IN", help="Files, folders, globs, or - for standard input.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="A file for one input; a folder for several.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Embedded name, the official checkpoint, hub id or folder; see `auricle models`.",
            autocompletion=complete_model("denoiser"),
        ),
    ] = "auricle-tiny-denoiser",
    strength: Annotated[
        float, typer.Option("--strength", min=0, max=1, help="Share of the enhanced signal; the rest is input.")
    ] = 1.0,
    keep_residual: Annotated[
        bool, typer.Option("--keep-residual", help="Also write input less output, as NAME.residual beside it.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="Folder for a page with players and spectrograms, and a picture.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    device: Device = "auto",
    dtype: FloatType = "float32",
    as_json: AsJson = False,
) -> None:
    """Enhance recordings of speech: remove noise and reverberation.

    Output has the rate, the channels and the length of the input, and the loudness of its speech. Speech is made anew
    from what the model understood of it; the model was trained on speech, and music or noise alone may come out as
    something else, which is said. A file that exists is not overwritten, and none is ever half written.

    Example: auricle denoise interview.wav -o clean.wav
    """
    names = find_sources(files)
    targets = _targets(names, output, is_folder=len(names) > 1 or any(os.path.isdir(name) for name in files))
    _check_distinct(names, targets, keep_residual=keep_residual)
    with progress(f"loading {model}", quiet=as_json):
        import auricle
        from auricle.audio.limits import DEFAULT_LIMITS
        from auricle.weights.loaders import device_of

        denoiser = auricle.load_denoiser(model, device=device, dtype=dtype)
        page = _open_page(report, denoiser.name, strength)
    printer = FilePrinter(denoiser.name, str(device_of(device)), as_json=as_json)
    total = audio_seconds(names, DEFAULT_LIMITS)
    with progress("denoising", total, unit="audio", quiet=as_json) as advance:
        before = 0.0
        for name, target in zip(names, targets, strict=True):
            residual = _residual_of(target) if keep_residual else None
            done = 0.0

            def on_progress(seconds: float, before: float = before) -> None:
                nonlocal done
                done = seconds
                advance.at(before + seconds)

            try:
                make_folder(target.parent)
                source = open_source(name)
                start = None if page is None else _excerpt(source)  # before --force may replace it
                result: Any = denoiser.denoise_file(
                    source, target, strength=strength, residual=residual, force=force, on_progress=on_progress
                )
                if page is not None and start is not None:
                    page.add(name, start, _excerpt(result.output), result.receipt)
            except AuricleError as error:
                result = error
            before += done
            printer.print_file(name, result, *_show(name, result))
    if page is not None:
        page.write(denoiser.identity)
    printer.leave()


def _show(name: str, result: DenoisedFile | AuricleError) -> tuple[dict[str, Any], list[str]]:
    if isinstance(result, AuricleError):
        return {"output": None, "residual": None}, []
    residual = None if result.residual is None else str(result.residual)
    return {"output": str(result.output), "residual": residual}, [f"{name} -> {result.output}"]


def _excerpt(source: Any) -> Samples:
    from auricle.denoise.page import excerpt

    return excerpt(source)


def _open_page(folder: Path | None, model: str, strength: float) -> DenoisePage | None:
    if folder is None:
        return None
    from auricle.denoise.page import DenoisePage

    return DenoisePage(folder, model, strength)


def _residual_of(target: Path) -> Path:
    return target.with_name(f"{target.stem}{_RESIDUAL}{target.suffix}")


def _check_distinct(names: list[str], targets: list[Path], *, keep_residual: bool) -> None:
    """Refuse inputs whose files would have one name, of which --force would keep the last alone."""
    owners: dict[Path, str] = {}
    for name, target in zip(names, targets, strict=True):
        for path in (target, _residual_of(target)) if keep_residual else (target,):
            if path in owners:
                raise typer.BadParameter(f"{owners[path]} and {name} would both be written to {path}", param_hint="IN")
            owners[path] = name


def _targets(names: list[str], output: Path, *, is_folder: bool) -> list[Path]:
    """Where the output of each file goes: below a folder as the files are below the folder that holds them all."""
    from auricle.denoise.writing import SUFFIXES

    if not is_folder and not output.is_dir() and not str(output).endswith(os.sep):
        if output.suffix.lower() not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            raise typer.BadParameter(f"expected a file that ends in {known}, got {output}", param_hint="--output")
        return [output]
    if output.exists() and not output.is_dir():
        raise typer.BadParameter(f"{output} is a file; several inputs need a folder", param_hint="--output")
    paths = [Path("stdin.wav") if name == STDIN else Path(os.path.abspath(name)) for name in names]
    real = [path.parent for path, name in zip(paths, names, strict=True) if name != STDIN]
    root = Path(os.path.commonpath(real)) if real else Path()
    targets = []
    for path, name in zip(paths, names, strict=True):
        inside = path if name == STDIN else path.relative_to(root)
        is_known = inside.suffix.lower() in SUFFIXES
        targets.append(output / (inside if is_known else inside.with_name(inside.name + ".wav")))
    return targets
