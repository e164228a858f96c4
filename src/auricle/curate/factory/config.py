"""The settings of a run as a file: YAML of names and numbers, in which nothing can be executed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Strict

from auricle.curate.factory.clips import CLIP_S
from auricle.curate.factory.endpoint import EndpointSettings
from auricle.curate.factory.experts import DEFAULT
from auricle.curate.factory.run import FactorySettings
from auricle.curate.factory.tasks import WorkSettings
from auricle.data.untrusted_json import StrictFields, read_text, validate
from auricle.errors import ConfigError

_MAX_BYTES = 1 << 20
_Texts = Annotated[tuple[str, ...], Strict(False)]


@dataclass(frozen=True, kw_only=True)
class LLMConfig(StrictFields):
    """See `auricle.curate.factory.endpoint.EndpointSettings`."""

    url: str
    model: str
    key_variable: str = ""
    concurrency: int = 4
    attempts: int = 5
    backoff_s: float = 0.5
    timeout_s: float = 120.0
    max_tokens: int = 3600
    per_minute: float | None = None
    prices: Annotated[tuple[float, float], Strict(False)] = (0.0, 0.0)
    max_cost: float | None = None


@dataclass(frozen=True, kw_only=True)
class CaptionConfig(StrictFields):
    """All of a run but its output; paths are below the folder of the file."""

    input: _Texts  # folders of audio, manifests, shards
    experts: _Texts = DEFAULT
    model: str = "auricle-tiny"
    device: str = "auto"
    clip_s: float = CLIP_S
    workers: int = 1
    block: int = 32
    licences: _Texts = ()
    aligner: str = ""
    p: float = 0.01
    llm: LLMConfig | None = field(default=None)

    def work(self, out: str | Path) -> WorkSettings:
        """What the processes share."""
        return WorkSettings(
            out=str(out), experts=self.experts, model=self.model, device=self.device, clip_s=self.clip_s
        )

    def settings(self) -> FactorySettings:
        """What decides the run beside that."""
        return FactorySettings(
            workers=self.workers, block=self.block, licences=self.licences, aligner=self.aligner, p=self.p
        )

    def endpoint(self) -> EndpointSettings | None:
        """The language model that writes, where there is one."""
        if self.llm is None:
            return None
        return EndpointSettings(**{name: getattr(self.llm, name) for name in EndpointSettings.__slots__})


def read_config(path: str | Path) -> CaptionConfig:
    """The settings in a YAML file.

    Raises:
        ConfigError: no YAML, or other names and values than a run has.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(read_text(path, max_bytes=_MAX_BYTES))
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: no readable YAML ({' '.join(str(error).split())[:200]}); correct it") from None
    found = validate(CaptionConfig, content, str(path), error=ConfigError)
    if not found.input:
        raise ConfigError(f"{path}: input is empty; name folders, manifests or shards")
    return found
