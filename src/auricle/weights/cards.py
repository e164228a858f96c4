"""Model cards: what a model was made from, measured at and cannot do, as README.md with YAML front matter."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auricle.errors import WeightsError
from auricle.files import read_regular_text

_MAX_BYTES = 2**22  # of a README.md


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """The facts of a model that its weights do not show."""

    name: str
    summary: str = ""  # one or two sentences
    license: str = "apache-2.0"  # identifier of the Hugging Face Hub
    datasets: tuple[str, ...] = ()  # each with its own licence, in words
    metrics: dict[str, Any] = field(default_factory=dict)  # name -> value or mapping, measured
    limits: tuple[str, ...] = ()  # what the model cannot do
    seed: int | None = None
    config: dict[str, Any] = field(default_factory=dict)  # training settings
    base_model: str | None = None  # what it was converted or trained from
    tags: tuple[str, ...] = ("audio",)


def render_card(card: Card) -> str:
    """The card as Markdown; `read_card` gives it back."""
    front = {
        "license": card.license,
        "tags": list(card.tags),
        "library_name": "auricle",
        **({"base_model": card.base_model} if card.base_model else {}),
        "auricle": {
            "name": card.name,
            "summary": card.summary,
            "datasets": list(card.datasets),
            "metrics": card.metrics,
            "limits": list(card.limits),
            "seed": card.seed,
            "config": card.config,
        },
    }
    parts = [f"---\n{_yaml(front)}---\n", f"# {card.name}\n"]
    if card.summary:
        parts.append(f"{card.summary}\n")
    if card.datasets:
        parts.append(_bullets("Trained on", card.datasets))
    if card.metrics:
        rows = "\n".join(f"| {name} | {value} |" for name, value in card.metrics.items())
        parts.append(f"## Measured\n\n| metric | value |\n|---|---|\n{rows}\n")
    if card.limits:
        parts.append(_bullets("What it cannot do", card.limits))
    if card.config or card.seed is not None:
        settings = {"seed": card.seed, **card.config}
        parts.append(f"## Training\n\n```yaml\n{_yaml(settings)}```\n")
    return "\n".join(parts)


def read_card(folder: str | Path) -> Card:
    """The card in a model folder's README.md, written by this library or by anyone in the hub's format.

    Raises:
        WeightsError: no README.md, or its front matter is no YAML mapping.
    """
    import yaml

    path = Path(folder) / "README.md"
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; a model card is a README.md with YAML front matter")
    try:
        text = read_regular_text(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as text ({error}); download it again") from error
    _, _, rest = text.partition("---\n")
    front_text, closing, _ = rest.partition("\n---\n")
    try:
        front = yaml.safe_load(front_text) if closing else {}
    except yaml.YAMLError as error:
        raise WeightsError(f"{path}: the front matter is no YAML ({error})") from error
    if not isinstance(front, dict):
        raise WeightsError(f"{path}: the front matter is a {type(front).__name__}, expected a mapping")
    own = front.get("auricle")
    own = own if isinstance(own, dict) else {}
    base = front.get("base_model")
    return Card(
        name=str(own.get("name", Path(folder).name)),
        summary=str(own.get("summary", "")),
        license=str(front.get("license", "unknown")),
        datasets=tuple(own.get("datasets") or front.get("datasets") or ()),
        metrics=dict(own.get("metrics") or {}),
        limits=tuple(own.get("limits") or ()),
        seed=own.get("seed"),
        config=dict(own.get("config") or {}),
        base_model=str(base) if base else None,
        tags=tuple(front.get("tags") or ()),
    )


def read_license(path: Path) -> str:
    """The licence that the card in a model's folder states; ``unknown`` where there is no readable card."""
    try:
        return read_card(path).license
    except (WeightsError, OSError, ValueError):
        return "unknown"


def _yaml(value: dict[str, Any]) -> str:
    """YAML whose innermost lists and mappings take a line each, so that a curve does not fill a page."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _bullets(title: str, lines: tuple[str, ...]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"
