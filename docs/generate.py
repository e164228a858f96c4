"""Writes the pages that are made from code, so that they follow it: `python docs/generate.py`, before every build.

API, command line, models and tasks go to ``docs/reference``, the examples with their outputs, players and spectrograms
to ``docs/examples``, and documents that live elsewhere in the repository to ``docs/project``. Git ignores all three.
"""

import ast
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT / "tests" / "golden"))

import surface  # noqa: E402

REPOSITORY = "https://github.com/auricle-audio/auricle/blob/main/"
COPIES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "clips.md",
    "recipes/dial/README.md": "recipe-dial.md",
    "recipes/sft/README.md": "recipe-sft.md",
    "recipes/tiny/README.md": "recipe-tiny.md",
    "src/auricle/weights/embedded/auricle-tiny/README.md": "card-auricle-tiny.md",
    "src/auricle/weights/embedded/auricle-tiny-glap/README.md": "card-auricle-tiny-glap.md",
}


def main() -> None:
    """Write all of it anew."""
    for folder in ("reference", "examples", "project"):
        shutil.rmtree(DOCS / folder, ignore_errors=True)
    for name, text in all_pages().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip() + "\n", encoding="utf-8")
    for clip in clip_files():
        shutil.copy(clip, DOCS / "examples")
        draw_spectrogram(clip, DOCS / "examples" / f"{clip.stem}.png")


def all_pages() -> dict[str, str]:
    """Texts by their path below ``docs/``."""
    return {**api_pages(), **command_pages(), **model_page(), **task_page(), **example_pages(), **copied_pages()}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---- Python


def api_pages() -> dict[str, str]:
    """A page for each room with every name it offers, the package's own first, the errors last."""
    pages, overview = {}, []
    for stub in surface.stubs():
        offered = list(surface.offers(stub))
        room = ".".join(["auricle", *stub.parent.relative_to(surface.SOURCE).parts])
        summary = (ast.get_docstring(ast.parse(stub.with_suffix(".py").read_text(encoding="utf-8"))) or "").strip()
        blocks = [entry(each) for each in offered]
        pages[f"reference/api/{room}.md"] = "\n\n".join([f"# {room}", summary, *blocks])
        overview.append([f"[`{room}`]({room}.md)", summary, ", ".join(f"`{each.name}`" for each in offered)])
    errors = surface.SOURCE / "errors.py"
    classes = [node for node in ast.parse(errors.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    names = [surface.Offer("auricle.errors", node.name, errors) for node in classes if not node.name.startswith("_")]
    pages["reference/api/auricle.errors.md"] = "\n\n".join(
        ["# auricle.errors", "Errors that a user may meet: what was found, what was expected, how to fix it."]
        + [entry(each) for each in names]
    )
    overview.append(["[`auricle.errors`](auricle.errors.md)", "Errors", ", ".join(f"`{each.name}`" for each in names)])
    text = "Public is what these pages list; everything else is private and may change without notice."
    pages["reference/api/index.md"] = "\n\n".join(["# Python", text, table(["module", "what", "names"], overview)])
    return pages


def entry(offer: surface.Offer) -> str:
    """What mkdocstrings replaces by the documentation of a name; one of another room is a link to its page."""
    if offer.module.is_dir():
        home = surface.Offer(f"auricle.{offer.module.name}", offer.name, offer.module)
        return f"## {offer.public_name}\n\nSee [`{home.public_name}`]({home.room}.md)."
    options = {"heading": offer.public_name, "toc_label": offer.name}
    return "\n".join([f"::: {offer.identifier}", "    options:", *(f"      {k}: {v}" for k, v in options.items())])


# ---- Command line


def command_pages() -> dict[str, str]:
    """One page with the help of every verb, as the terminal shows it."""
    rows, parts = [], []
    for verb, text in helps():
        title = " ".join(["auricle", *verb])
        summary = re.split(r"\n\s*\n", text)[1].strip() if verb else "The application."
        rows.append([f"[`{title}`](#{'-'.join(['auricle', *verb])})", " ".join(summary.split())])
        parts.append(f"## {title}\n\n```text\n{text.strip()}\n```")
    return {"reference/cli.md": "\n\n".join(["# Command line", table(["verb", "does"], rows), *parts])}


def helps() -> Iterator[tuple[list[str], str]]:
    """Every verb with its help."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from auricle.cli.main import app

    def verbs(command: object, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, child in sorted(getattr(command, "commands", {}).items()):
            yield from verbs(child, [*path, name])

    for path in verbs(get_command(app), []):
        done = CliRunner().invoke(app, [*path, "--help"], prog_name="auricle", env={"COLUMNS": "100"})
        yield path, done.stdout


# ---- Models and tasks


def model_page() -> dict[str, str]:
    """The catalogue."""
    from auricle.weights import entries

    parts = [
        "# Models",
        "What `--model`, `auricle.load`, `auricle.load_encoder`, `auricle.load_aligner` and `auricle.load_denoiser` "
        "know by name. Any other hub id, folder or file in one of the [layouts](../how-to/checkpoints.md) loads as "
        "well.",
    ]
    for kind in dict.fromkeys(entry.kind for entry in entries()):
        rows = []
        for each in (each for each in entries() if each.kind == kind):
            size = f"{each.parameters / 1e6:,.1f} M" if each.parameters else ""
            origin = f"`{each.repo}`" if each.repo else each.where or "embedded"
            notes = [each.summary, each.caution and f"**Licence:** {each.caution}", each.unavailable]
            rate = f"{each.frame_hz:g}" if each.frame_hz else ""
            rows.append([f"`{each.name}`", size, rate, each.license, origin, ". ".join(filter(None, notes))])
        parts += [f"## {kind.capitalize()}s" if kind != "audio and text" else "## Audio and text in one space"]
        parts += [table(["name", "parameters", "frames/s", "licence", "weights from", "what"], rows)]
    return {"reference/models.md": "\n\n".join(parts)}


def task_page() -> dict[str, str]:
    """The declared tasks of both kinds."""
    from auricle.bench import tasks
    from auricle.evaluate import language_tasks

    parts = [
        "# Tasks",
        "## For encoders",
        "`auricle bench run -t NAME`, see [measure encoders](../how-to/benchmark-encoders.md).",
    ]
    for suite in dict.fromkeys(task.suite for task in tasks()):
        rows = [
            [f"`{task.name}`", task.title, task.domain, task.kind, task.metric, task.num_classes or "", splits_of(task)]
            for task in tasks(suite)
        ]
        parts += [f"### {suite}", table(["name", "data", "domain", "kind", "metric", "classes", "splits"], rows)]
    parts += ["## For audio language models"]
    parts += ["`auricle evaluate run -t NAME=SOURCE`, see [evaluate language models](../how-to/evaluate.md)."]
    for suite in dict.fromkeys(each.suite for each in language_tasks()):
        rows = []
        for each in language_tasks(suite):
            prompts = "<br>".join(f"`{' '.join(prompt.split())}`" for prompt in each.prompts.values())
            rows.append([f"`{each.name}`", each.title, each.domain, each.kind, prompts])
        parts += [f"### {suite} tasks", table(["name", "data", "domain", "scored as", "prompt"], rows)]
    return {"reference/tasks.md": "\n\n".join(parts)}


def one_line(text: str) -> str:
    """A prompt as a cell of a table shows it."""
    return " ".join(text.split())


def splits_of(task: object) -> str:
    """How a task is split."""
    folds = getattr(task, "folds", ())
    return f"{len(folds)} folds" if folds else "train/valid/test"


# ---- Documents that live elsewhere in the repository


def copied_pages() -> dict[str, str]:
    """Their links are turned into links of the site, or of the repository."""
    return {f"project/{target}": copied(ROOT / source) for source, target in COPIES.items()}


def copied(path: Path) -> str:
    """A document without the front matter of model cards."""
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", lambda link: f"]({relink(path.parent, link[1])})", text)


def relink(folder: Path, link: str) -> str:
    """A link of a document in ``folder`` as one of a page of the site."""
    name, mark, anchor = link.partition("#")
    path = (folder / name).resolve()
    inside = path.relative_to(ROOT).as_posix()
    if inside in COPIES:
        return COPIES[inside] + mark + anchor
    if path.is_relative_to(DOCS) and path.is_file():
        return f"../{path.relative_to(DOCS).as_posix()}{mark}{anchor}"
    return REPOSITORY + inside


# ---- Examples


def example_pages() -> dict[str, str]:
    """A page for each example: its words, its code, what it printed, and the clips it reads."""
    pages, rows = {}, []
    for path in sorted((ROOT / "examples").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        title, _, body = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
        code = source.split('"""\n', 1)[1].strip()
        output = (ROOT / "examples" / "output" / f"{path.stem}.txt").read_text(encoding="utf-8").strip()
        parts = [f"# {title.rstrip('.')}", body, f'```python title="examples/{path.name}"\n{code}\n```']
        parts += [f'```text title="prints"\n{output}\n```']
        parts += [player(clip) for clip in clip_files() if re.search(rf"\b{clip.stem}\b", source)]
        name = path.stem.replace("_", "-")
        pages[f"examples/{name}.md"] = "\n\n".join(parts)
        rows.append([f"[{title.rstrip('.')}]({name}.md)", body.partition(". ")[0].rstrip("."), f"`{path.name}`"])
    about = "Programs of at most thirty lines. The tests run them and compare what they print with what is shown here."
    players = [player(clip) for clip in clip_files()]
    parts = ["# Examples", about, table(["example", "", "file"], rows), "## The clips", *players]
    pages["examples/index.md"] = "\n\n".join([*parts, "[How they were made](../project/clips.md)."])
    return pages


def clip_files() -> list[Path]:
    """The clips of ``examples/``."""
    return sorted((ROOT / "examples").glob("*.ogg"))


def player(clip: Path) -> str:
    """A clip to look at and to play."""
    return (
        f'<figure markdown="span">\n![Spectrogram of {clip.name}]({clip.stem}.png)\n'
        f'<audio controls preload="none" src="{clip.name}"></audio>\n'
        f"<figcaption>examples/{clip.name}</figcaption>\n</figure>"
    )


def draw_spectrogram(clip: Path, target: Path) -> None:
    """The log-mel spectrogram that the encoders read, as a picture of at most 100 kB."""
    import matplotlib
    import torch
    from PIL import Image

    from auricle.audio import LogMel, decode
    from auricle.audio.logmel import DASHENG_MEL

    matplotlib.use("agg")
    pyplot = import_module("matplotlib.pyplot")
    waveform = torch.from_numpy(decode(clip).waveform)
    mel = LogMel()(waveform[None])[0].numpy()
    figure, axes = pyplot.subplots(figsize=(8, 2.4), dpi=110, layout="constrained")
    extent = (0, len(waveform) / DASHENG_MEL.sample_rate, 0, DASHENG_MEL.num_mels)
    axes.imshow(mel, origin="lower", aspect="auto", cmap="magma", extent=extent, vmin=mel.max() - 80)
    axes.set(xlabel="time, s", ylabel="mel band")
    figure.savefig(target)
    pyplot.close(figure)
    with Image.open(target) as picture:
        small = picture.convert("RGB").quantize(48, dither=Image.Dither.NONE)
    small.save(target, optimize=True)


if __name__ == "__main__":
    main()
