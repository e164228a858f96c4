"""Options that several verbs share, each with one name and one help text, and groups of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from auricle.cli.output import progress
from auricle.errors import ConfigError

if TYPE_CHECKING:
    from auricle.encode.aligner import Aligner
    from auricle.listen.model import AudioLM

# --- what the shell completes; nothing is looked up on the network


def complete_model(kind: str) -> Callable[[str], list[tuple[str, str]]]:
    """Names of the models of a kind, with what they are; folders are completed by the shell as ever."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        from auricle.weights.catalog import entries

        found = [each for each in entries() if each.kind == kind and not each.unavailable]
        return [(each.name, each.summary) for each in found if each.name.startswith(incomplete.lower())]

    return complete


def complete_device(incomplete: str) -> list[str]:
    """Names of devices; those of this machine are not asked for, since that would import torch."""
    return [name for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:1") if name.startswith(incomplete)]


FAILED, PARTLY, DOUBTFUL = 1, 3, 4  # exit codes of a verb; wrong usage is 2, see `auricle.cli.main`

# --- of most verbs

Files = Annotated[list[str], typer.Argument(metavar="FILES", help="Files, folders, globs, or - for standard input.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit code 4 where a result is unsure or a file has warnings, if no other.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Windows in one batch; most clips are one window.")]

# --- of models

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="Embedded name, hub id or folder; see `auricle models`.",
        autocompletion=complete_model("language model"),
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="auto (a GPU where there is one, else the CPU), cpu, cuda, cuda:1, …",
        autocompletion=complete_device,
    ),
]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16; auto: the checkpoint's own.")]
FloatType = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16.")]
Quantize = Annotated[
    str | None, typer.Option("--quantize", help="Round the decoder's weights: int8, int8-dynamic; on a GPU int4, fp8.")
]
Isolate = Annotated[
    bool, typer.Option("--isolate", help="Decode each file in a process of its own, within limits of memory and time.")
]
Adapter = Annotated[str | None, typer.Option("--adapter", help="Folder or hub id of a PEFT adapter to merge.")]

# --- of zero-shot classification

Template = Annotated[
    list[str] | None, typer.Option("--template", help="Your own sentence with {label} in it; repeat for their mean.")
]
LabelsFile = Annotated[
    Path | None, typer.Option("--labels-file", help="Labels, one a line; after tabs, phrases used instead. Or JSON.")
]
Language = Annotated[str, typer.Option("--language", help="Language of the words, by the tokenizer's code.")]

# --- of benchmarks and evaluation

Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the resampling.")]
BenchData = Annotated[Path, typer.Option("--data", help="Folder with a folder of data for each task that names none.")]


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """The device that computes."""

    device: Device = "auto"

    @property
    def device_name(self) -> str:
        """The one that it stands for, as results state it."""
        from auricle.weights.loaders import device_of

        return str(device_of(self.device))


@dataclass(frozen=True, kw_only=True)
class LoadOptions(DeviceOptions):
    """How an audio language model is loaded."""

    dtype: Dtype = "auto"
    quantize: Quantize = None
    adapter: Adapter = None
    isolate: Isolate = False
    endpoint: Annotated[
        Path | None,
        typer.Option("--endpoint", help="YAML for openai:MODEL@URL: key file, concurrency, budgets, prices."),
    ] = None

    def load(self, name: str, *, quiet: bool = False) -> AudioLM:
        """Load a model by its name, hub id or folder, with a bar unless quiet."""
        with progress(f"loading {name}", quiet=quiet):
            import auricle
            from auricle.listen.other_models.endpoint_settings import PREFIX, read_endpoint_settings

            # Of several models the settings are for those behind a server.
            is_remote = self.endpoint is not None and name.startswith(PREFIX)
            model = auricle.load(
                name=name,
                device=self.device,
                dtype=self.dtype,
                quantize=self.quantize,
                adapter=self.adapter,
                endpoint=read_endpoint_settings(self.endpoint) if is_remote and self.endpoint is not None else None,
            )
        if self.isolate:
            model.limits = replace(model.limits, isolate=True)
        return model


@dataclass(frozen=True, kw_only=True)
class AlignOptions(DeviceOptions):
    """The audio–text model, and how it is loaded."""

    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Audio–text model: name, hub id, folder or file; see `auricle models`.",
            autocompletion=complete_model("audio and text"),
        ),
    ] = "auricle-tiny-glap"
    dtype: Dtype = "float32"
    isolate: Isolate = False

    def load(self, *, quiet: bool = False) -> Aligner:
        """Load the model, with a bar unless quiet."""
        with progress(f"loading {self.model}", quiet=quiet):
            import auricle

            aligner = auricle.load_aligner(self.model, device=self.device, dtype=self.dtype)
        if self.isolate:
            aligner.limits = replace(aligner.limits, isolate=True)
        return aligner


@dataclass(frozen=True, kw_only=True)
class RuleOptions(DeviceOptions):
    """The scoring rules, and the device that computes."""

    scoring_rule: Annotated[
        str,
        typer.Option(
            "--scoring-rule", "--protocol", help="strict, compat (the published rules with their faults) or both."
        ),
    ] = "strict"

    def __post_init__(self) -> None:
        """Refuse unknown values."""
        check_choice("--scoring-rule", self.scoring_rule, ("strict", "compat", "both"))

    @property
    def rules(self) -> tuple[Any, ...]:
        """The rules, one after the other."""
        return ("compat", "strict") if self.scoring_rule == "both" else (self.scoring_rule,)


@dataclass(frozen=True, kw_only=True)
class BenchOptions(RuleOptions):
    """Where the encoder benchmark has its data and results."""

    data: BenchData = Path("data")
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results.")] = Path("bench")
    store: Annotated[
        Path | None, typer.Option("--store", help="Folder of embeddings, kept for later runs [default: OUTPUT/store].")
    ] = None
    as_json: AsJson = False


def with_groups(verb: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a verb that is a dataclass by one option for each of its fields; required ones first.

    Typer reads the signature of a function, in which options that several verbs share would be repeated.
    """
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in signature(verb).parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))
            continue
        types = get_type_hints(groups[name], include_extras=True)
        for field in fields(groups[name]):
            default = Parameter.empty if field.default is MISSING else field.default
            option = Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name])
            parameters.append(option)
    parameters.sort(key=lambda each: each.default is not Parameter.empty)

    @wraps(verb)
    def called_by_typer(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        verb(**given)

    called_by_typer.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    called_by_typer.__annotations__ = {each.name: each.annotation for each in parameters}
    return called_by_typer


def check_choice(flag: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value of an option that is not among those known.

    Raises:
        typer.BadParameter: it is not.
    """
    if value not in known:
        raise typer.BadParameter(f"expected one of {', '.join(known)}, got {value!r}", param_hint=flag)


def domain_templates(domain: str) -> tuple[str, ...]:
    """The templates of a domain.

    Raises:
        ConfigError: there is no such domain.
    """
    from auricle.encode.zero_shot import TEMPLATES

    if domain not in TEMPLATES:
        raise ConfigError(f"domain is {domain!r}, expected one of {', '.join(TEMPLATES)}")
    return TEMPLATES[domain]
