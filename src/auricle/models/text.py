"""Text towers: token ids of each text → one vector (n, W), each text independent of the others.

========  ==========================================================================================================
SONAR     `auricle.models.sonar`, 202 languages, what GLAP was released with
stock     the encoders that `transformers` ships (BERT, RoBERTa, MPNet, …), mean over tokens; MiniLM is one of them
========  ==========================================================================================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.errors import AuricleError, ConfigError, MissingExtra
from auricle.models.sonar import SonarConfig, SonarText, check_tokens, in_groups
from auricle.models.stock_networks import plain_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Family(NamedTuple):
    """What sets one kind of stock encoder apart."""

    config: str  # class of transformers
    network: str  # its bare encoder
    prefix: str  # of that encoder's tensors inside a whole model
    unused_positions: int = 0  # RoBERTa's kind counts from behind the padding's


# model_type of config.json -> family.
FAMILIES = {
    "bert": Family("BertConfig", "BertModel", "bert."),
    "distilbert": Family("DistilBertConfig", "DistilBertModel", "distilbert."),
    "electra": Family("ElectraConfig", "ElectraModel", "electra."),
    "mpnet": Family("MPNetConfig", "MPNetModel", "mpnet.", 2),
    "roberta": Family("RobertaConfig", "RobertaModel", "roberta.", 2),
    "xlm-roberta": Family("XLMRobertaConfig", "XLMRobertaModel", "roberta.", 2),
    "camembert": Family("CamembertConfig", "CamembertModel", "roberta.", 2),
}
# Fields of a config.json that do not describe the geometry, or let a file choose code.
BOOKKEEPING = ("dtype", "torch_dtype", "_name_or_path", "transformers_version", "architectures", "auto_map")
PADDED_TOKENS = 8192  # padding included, in one call of the network: bounds the memory


@dataclass(frozen=True, kw_only=True, slots=True)
class StockTextConfig:
    """An encoder of `transformers`."""

    settings: Mapping[str, Any] = field(hash=False)  # content of its config.json; only the geometry is read
    max_tokens: int = 0  # longest text, special tokens included; 0: as many as there are positions
    normalise: bool = False  # scale the mean to length 1, as sentence-transformers' Normalize does

    @property
    def family(self) -> str:
        """Its ``model_type``."""
        return str(self.settings.get("model_type"))

    @property
    def longest(self) -> int:
        """Tokens of the longest text, special ones included."""
        positions = int(_geometry(self).max_position_embeddings) - FAMILIES[self.family].unused_positions
        return min(self.max_tokens or positions, positions)

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(
                f"the text encoder's model_type is {self.family!r}, expected one of {', '.join(FAMILIES)}"
            )


TextConfig: TypeAlias = SonarConfig | StockTextConfig


class StockText(nn.Module):
    """A stock encoder with the mean over its tokens. Parameter names are those of transformers behind ``network.``."""

    def __init__(self, config: StockTextConfig) -> None:
        """Random weights.

        Raises:
            ConfigError: the settings describe no encoder of their family.
        """
        super().__init__()
        self.config = config
        network = _build(config)
        self.network: nn.Module = network
        self.width = int(network.config.hidden_size)
        self.vocab_size = int(network.config.vocab_size)
        self.max_tokens = config.longest
        self._padding = int(network.config.pad_token_id or 0)

    def encode(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Token ids of each text, special tokens included → (n, W).

        Raises:
            ConfigError: no texts, an empty or too long one, or an id outside the vocabulary.
        """
        check_tokens(token_ids, vocab_size=self.vocab_size, max_tokens=self.max_tokens)
        pooled = in_groups(self._pooled, token_ids, PADDED_TOKENS)
        return F.normalize(pooled.float(), dim=-1) if self.config.normalise else pooled

    def _pooled(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        tokens, mask = padded(token_ids, next(self.network.parameters()).device, self._padding)
        states = self.network(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return masked_mean(states, mask)


def padded(token_ids: Sequence[Sequence[int]], device: torch.device, padding: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both (n, longest)."""
    rows = [torch.tensor(ids) for ids in token_ids]
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
    mask = torch.arange(tokens.shape[1]) < torch.tensor([len(ids) for ids in token_ids])[:, None]
    return tokens.to(device), mask.to(device)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean (n, W) of the states (n, L, W) that the mask (n, L) keeps."""
    kept = mask[..., None].to(states.dtype)
    mean: Tensor = (states * kept).sum(1) / kept.sum(1)
    return mean


TextTower: TypeAlias = SonarText | StockText


def build_text_tower(config: TextConfig) -> TextTower:
    """A text tower with random weights."""
    return SonarText(config) if isinstance(config, SonarConfig) else StockText(config)


def _geometry(config: StockTextConfig) -> Any:
    """Its configuration in transformers; a file's choice of kernels, data types or code is ignored."""
    transformers = _transformers()
    config_class = getattr(transformers, FAMILIES[config.family].config)
    known = set(config_class().to_dict()) - {*BOOKKEEPING, "model_type"}
    try:
        return config_class(**{key: value for key, value in plain_settings(config.settings).items() if key in known})
    except Exception as error:  # the library and its validators raise many kinds
        raise _no_encoder(config, error) from error


def _build(config: StockTextConfig) -> "PreTrainedModel":
    transformers = _transformers()
    try:
        network: PreTrainedModel = getattr(transformers, FAMILIES[config.family].network)(_geometry(config))
    except AuricleError:
        raise
    except Exception as error:
        raise _no_encoder(config, error) from error
    bare: Any = network
    if hasattr(bare, "pooler"):
        bare.pooler = None  # reads the first token alone; not used
    return network


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtra("a text encoder of transformers", "align") from None
    return transformers


def _no_encoder(config: StockTextConfig, error: Exception) -> ConfigError:
    return ConfigError(f"config.json describes no {config.family} encoder ({error}); take it from its owner")
