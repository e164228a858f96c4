"""What the encoders that `transformers` ships have in common: building them from plain settings, their hidden states.

Only the stock classes are used, never code beside the weights; of a config.json only the geometry is read, so that it
cannot choose an attention kernel or a data type.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from auricle.audio.resample import SAMPLE_RATE
from auricle.errors import ConfigError, MissingExtra
from auricle.models.frame_model import Identity, check_layers, count_parameters, mean_of
from auricle.models.stock_networks import check_counts, load_network, plain_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# model_type of config.json -> configuration and bare encoder, and the prefix of the encoder inside a whole model.
CLASSES = {
    "whisper": ("WhisperConfig", "WhisperEncoder", ("model.encoder.", "encoder.")),
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2Model", ("wav2vec2.",)),
    "hubert": ("HubertConfig", "HubertModel", ("hubert.",)),
    "wavlm": ("WavLMConfig", "WavLMModel", ("wavlm.",)),
    "data2vec-audio": ("Data2VecAudioConfig", "Data2VecAudioModel", ("data2vec_audio.",)),
    "audio-spectrogram-transformer": ("ASTConfig", "ASTModel", ("audio_spectrogram_transformer.",)),
}
# Settings that are no geometry, or belong to training alone (SpecAugment, the adapter of translation models).
_FIXED = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "add_adapter": False}
_UNREAD = {"dtype", "torch_dtype", "_name_or_path", "transformers_version", "architectures", "model_type", *_FIXED}
_UNUSED = ("masked_spec_embed", "adapter.")  # tensors of that training


class StockEncoder:
    """Network, layer choice and identity of a `FrameModel` made of a stock encoder; the families define the windows."""

    sampling_rate = SAMPLE_RATE
    _batch_s = 120.0  # of audio, padding included, in one call of the network: bounds the memory

    def __init__(self, network: "PreTrainedModel", front_end: Mapping[str, Any], layers: Sequence[int] = ()) -> None:
        """Wrap a network in evaluation mode.

        Args:
            network: a stock encoder, see `build_network`.
            front_end: content of its preprocessor_config.json; {}: the family's usual one.
            layers: blocks, 0 the first, whose outputs are averaged as they are; none: the encoder's own last output.

        Raises:
            ConfigError: no such block, or another sampling rate.
        """
        rate = front_end.get("sampling_rate", SAMPLE_RATE)
        if rate != SAMPLE_RATE:
            raise ConfigError(f"the encoder reads {rate} Hz, expected {SAMPLE_RATE}; only these are supported")
        self.network, self.front_end = network, dict(front_end)
        self._blocks = blocks_of(network)
        self.layers = check_layers(layers, len(self._blocks))

    def identity(self) -> Identity:
        """See `FrameModel`."""
        config = {k: v for k, v in self.network.config.to_dict().items() if k not in _UNREAD - {"model_type"}}
        front_end = {key: self.front_end.get(key) for key in ("do_normalize", "mean", "std")}
        settings = {"kind": type(self).__name__, "config": config, "front_end": front_end, "layers": list(self.layers)}
        return Identity(settings, self.network.state_dict(), count_parameters(self.network))

    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the network; the front end follows the device and stays float32."""
        network: nn.Module = self.network
        network.to(device=device, dtype=dtype)

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _run(self, inputs: Tensor, **arguments: Any) -> Tensor:
        """Input of the network → the chosen hidden states (B, T, D) float32."""
        inputs = inputs.to(self._device, next(self.network.parameters()).dtype)
        with _outputs_of([self._blocks[layer] for layer in self.layers]) as states:
            last = self.network(inputs, **arguments).last_hidden_state
        return mean_of(states or [last])


def build_network(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None, source: str = ""
) -> "PreTrainedModel":
    """A stock encoder in evaluation mode, float32 on the CPU.

    Args:
        settings: content of a config.json; only the geometry of its ``model_type`` is read.
        tensors: of the encoder or of a whole model around it, under names of any version of transformers; None: random.
        source: for messages.

    Raises:
        ConfigError: another ``model_type``, or a geometry that is none.
        LayoutMismatch: tensors are missing, unknown or of another shape.
    """
    family = settings.get("model_type")
    if family not in CLASSES:
        raise ConfigError(f"{source}: model_type is {family!r}, expected one of {', '.join(CLASSES)}")
    config_class, network_class, prefixes = _import(family)
    defaults = config_class().to_dict()
    geometry = {k: v for k, v in plain_settings(settings).items() if k in defaults and k not in _UNREAD}
    if tensors is not None:
        check_counts(geometry, len(tensors), source)
    try:
        config = config_class(**geometry, **{k: v for k, v in _FIXED.items() if k in defaults})
        if tensors is None:
            return network_class(config).eval()
    except Exception as error:  # the library and its validators raise many kinds
        raise ConfigError(f"{source}: config.json describes no {family} encoder ({error})") from error
    return load_network(network_class, config, _encoder_tensors(tensors, prefixes), source)


def blocks_of(network: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a stock encoder; their place has moved between versions of transformers."""
    for path in ("layers", "encoder.layers", "encoder.layer"):
        try:
            found = network.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList):
            return found
    raise ConfigError(f"{type(network).__name__} of this version of transformers has no blocks; report this, please")


def _import(family: str) -> tuple[Any, Any, tuple[str, ...]]:
    try:
        import transformers
        from transformers.models.whisper.modeling_whisper import WhisperEncoder
    except ImportError:
        raise MissingExtra(f"an encoder of the family {family}", "transformers") from None
    config, network, prefixes = CLASSES[family]
    # The bare encoder of Whisper is not offered at the top.
    return getattr(transformers, config), getattr(transformers, network, WhisperEncoder), prefixes


def _encoder_tensors(tensors: Mapping[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    """The encoder's tensors under its own names, heads and decoders left out."""
    prefix = next((p for p in prefixes if any(key.startswith(p) for key in tensors)), "")
    own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    return {key: tensor for key, tensor in own.items() if not key.startswith(_UNUSED)}


@contextmanager
def _outputs_of(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what the blocks give while the network runs."""
    states: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        states.append(output if isinstance(output, Tensor) else output[0])

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
