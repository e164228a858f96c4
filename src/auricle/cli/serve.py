"""The verb that offers models over HTTP: serve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auricle.cli.options import Device, Dtype, Quantize, check_choice, complete_model, with_groups
from auricle.cli.output import print_line, progress, warn
from auricle.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from auricle.encode.aligner import Aligner
    from auricle.listen.model import AudioLM
    from auricle.search import Index
    from auricle.serve.service import Models
    from auricle.serve.settings import Settings

_ALIGNER = "auricle-tiny-glap"
_NONE = "none"


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Who can reach the server, and how much it takes."""

    host: Annotated[str, typer.Option("--host", help="Address to listen at; other machines need a key.")] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8000
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="API keys, or sha256: and their hashes, one a line.")
    ] = None
    isolate: Annotated[
        bool | None,
        typer.Option(
            "--isolate/--no-isolate",
            help="Decode each clip in a process of its own [default: where other machines can reach the server].",
        ),
    ] = None
    max_seconds: Annotated[float, typer.Option("--max-seconds", min=1, help="Longest clip, s.")] = 600.0
    queue_seconds: Annotated[
        float, typer.Option("--queue-seconds", min=0.1, help="Requests that would wait longer are refused, s.")
    ] = 20.0
    seconds_per_minute: Annotated[
        float | None, typer.Option("--seconds-per-minute", min=1, help="Audio of one client in a minute, s.")
    ] = None
    url_hosts: Annotated[
        list[str] | None,
        typer.Option("--allow-url-host", help="Host whose https: URLs may be given as audio; repeatable."),
    ] = None
    drain_seconds: Annotated[
        float,
        typer.Option("--drain-seconds", min=0, help="Time for a proxy to look elsewhere, between SIGTERM and the end."),
    ] = 5.0

    def settings(self) -> Settings:
        """The same as the server takes it.

        Raises:
            ConfigError: unusable keys, or an address that needs some.
        """
        from auricle.serve.keys import read_keys
        from auricle.serve.settings import NETWORK_LIMITS, Settings, check_exposed, is_loopback

        keys = read_keys(self.api_key_file) if self.api_key_file is not None else {}
        check_exposed(self.host, keys)
        is_isolated = not is_loopback(self.host) if self.isolate is None else self.isolate
        return Settings(
            limits=replace(NETWORK_LIMITS, max_seconds=self.max_seconds, isolate=is_isolated),
            queue_s=self.queue_seconds,
            seconds_per_minute=self.seconds_per_minute,
            url_hosts=frozenset(each.lower() for each in self.url_hosts or ()),
            keys=keys,
        )


@dataclass(frozen=True, kw_only=True)
class UpstreamOptions:
    """Another server whose models are offered."""

    backend: Annotated[
        str, typer.Option("--backend", help="auricle, or openai: models of an OpenAI-compatible server at --upstream.")
    ] = "auricle"
    upstream: Annotated[str | None, typer.Option("--upstream", help="Its base URL, as http://127.0.0.1:8001/v1.")] = (
        None
    )
    endpoint: Annotated[
        Path | None, typer.Option("--endpoint", help="YAML with its key file, concurrency, budgets and prices.")
    ] = None

    def check(self, names: list[str] | None) -> None:
        """Refuse options that do not go together.

        Raises:
            ConfigError: the server is not named, or its models are not.
        """
        check_choice("--backend", self.backend, ("auricle", "openai"))
        if (self.backend == "openai") != (self.upstream is not None):
            raise ConfigError("--backend openai and --upstream URL go together; give both, or none")
        if self.upstream is not None and not names:
            raise ConfigError("--backend openai needs the names of models; give --model NAME, as the server lists them")

    def load(self, names: list[str] | None) -> dict[str, AudioLM]:
        """The models by their names there; none where there is no such server.

        Raises:
            EndpointError: it does not answer, or has no such model.
        """
        if self.upstream is None:
            return {}
        from auricle.listen.other_models.endpoint_settings import read_endpoint_settings
        from auricle.listen.other_models.openai_model import EndpointLM

        settings = None if self.endpoint is None else read_endpoint_settings(self.endpoint)
        return {name: EndpointLM(f"openai:{name}@{self.upstream}", settings, shown=name) for name in names or ()}


@with_groups
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Name, hub id, folder or whisper:SIZE; repeat for more [default: auricle-tiny].",
            autocompletion=complete_model("language model"),
        ),
    ] = None,
    align_model: Annotated[
        str | None,
        typer.Option(
            "--align-model",
            help=f"Model that compares audio with words, or none [default: {_ALIGNER}, with the extra align].",
            autocompletion=complete_model("audio and text"),
        ),
    ] = None,
    index: Annotated[
        Path | None, typer.Option("--index", help="Made by `auricle index`, for searches over HTTP.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    *,
    upstream: UpstreamOptions,
    options: NetworkOptions,
) -> None:
    """Offer models over HTTP: the OpenAI API, the verbs of this program, and a page.

    With --backend openai the models are those of another server, such as vLLM: its answers get the page, the limits and
    the receipts of this one, and long audio is sent in windows. Chat goes to that server itself.

    Example: auricle serve --port 8000

    Example: auricle serve --backend openai --upstream http://127.0.0.1:8001/v1 --model mispeech/midashenglm-7b

    Example: auricle serve --model mispeech/midashenglm-7b --host 0.0.0.0 --api-key-file keys.txt
    """
    from auricle.serve.app import check_extra

    check_extra()
    upstream.check(model)
    from auricle.serve.run import run

    def load() -> Models:
        from auricle.serve.service import Models
        from auricle.weights.loaders import device_of

        aligner = _load_aligner(align_model, device)
        return Models(
            audio_lms=upstream.load(model) or _load_audio_lms(model or ["auricle-tiny"], device, dtype, quantize),
            aligner=aligner,
            aligner_name="" if aligner is None else str(aligner.loaded.identity["name"]),
            index=None if index is None else _open_index(index, aligner),
            device=str(device_of(device)),
        )

    def announce(url: str) -> None:
        print_line(f"ready at {url}", err=True)

    settings = options.settings()
    run(settings, load, host=options.host, port=options.port, drain_s=options.drain_seconds, on_ready=announce)


def _load_audio_lms(names: list[str], device: str, dtype: str, quantize: str | None) -> dict[str, AudioLM]:
    import auricle
    from auricle.listen.other_models.prompted import PromptedLM

    found: dict[str, AudioLM] = {}
    for name in names:
        with progress(f"loading {name}"):
            loaded = auricle.load(name=name, device=device, dtype=dtype, quantize=quantize)
        if isinstance(loaded, PromptedLM):
            raise ConfigError(f"--model {name} has no engine to serve; serve it with vLLM or `transformers serve`")
        _hide_folder(loaded, name)
        if loaded.model in found:
            raise ConfigError(f"--model {name} is given twice; leave one out")
        found[loaded.model] = loaded
    return found


def _load_aligner(name: str | None, device: str) -> Aligner | None:
    import auricle

    if name == _NONE:
        return None
    try:
        with progress(f"loading {name or _ALIGNER}"):
            aligner = auricle.load_aligner(name or _ALIGNER, device=device)
            _hide_folder(aligner, name or _ALIGNER)
            aligner.text(["warm"])  # its tokenizer is read with the first text
    except MissingExtra as error:
        if name is not None:
            raise
        warn(f"no embeddings, labels or search: {error}")
        return None
    return aligner


def _hide_folder(model: AudioLM | Aligner, name: str) -> None:
    """Call a model of this machine by the last part of its path: clients need not know the others."""
    path = Path(name).expanduser()
    if path.exists():
        model.loaded.identity["name"] = path.resolve().name


def _open_index(path: Path, aligner: Aligner | None) -> Index:
    from auricle.search import Index

    if aligner is None:
        raise ConfigError("an index needs the model it was made with; name it with --align-model")
    opened = Index.open(path)
    opened.check_model(aligner.fingerprint)
    return opened
