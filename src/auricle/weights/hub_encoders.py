"""Names, folders and hub ids → encoders of any family, recognised by the ``model_type`` of their config.json."""

from collections.abc import Sequence
from pathlib import Path

from auricle.errors import WeightsError
from auricle.models.encoders.speech import FAMILIES, build_encoder
from auricle.models.frame_model import DashengFrames, FrameModel
from auricle.weights import safe
from auricle.weights.catalog import resolve
from auricle.weights.layouts import optional_json
from auricle.weights.loaders import load_dasheng, place_of

# These normalise the waveform or not, which only this file states.
_NEED_FRONT_END = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")


def load_frame_model(
    name_or_path: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    layers: Sequence[int] = (),
) -> FrameModel:
    """An encoder in evaluation mode: Dasheng in any layout, or a folder or hub id in the Hugging Face layout.

    Args:
        name_or_path: any name that `catalog.resolve` knows.
        device: ``cpu``, ``cuda``, ``cuda:1``, …
        dtype: ``float32``, ``bfloat16`` or ``float16`` for the network; front ends stay float32.
        revision: branch, tag or commit on the hub.
        layers: blocks, 0 the first, whose outputs are averaged; none: the encoder's own last output.

    Raises:
        WeightsError: it cannot be found, trusted or fitted.
        ConfigError: unknown dtype, device or layer.
    """
    kind, place = place_of(dtype, device)
    source = resolve(name_or_path, revision=revision)
    folder = source.path
    settings = optional_json(folder / "config.json") if folder.is_dir() else {}
    family = settings.get("model_type")
    if family not in FAMILIES:
        return DashengFrames(load_dasheng(folder, device=device, dtype=dtype), layers)
    front_end = optional_json(folder / "preprocessor_config.json")
    if family in _NEED_FRONT_END and "do_normalize" not in front_end:
        raise WeightsError(
            f"{source.name}: preprocessor_config.json with do_normalize is absent, which states whether "
            f"this {family} reads normalised waveforms; download it beside the weights"
        )
    tensors = safe.read_tensors(folder)
    encoder = build_encoder(settings, front_end, tensors, layers=layers, source=source.name)
    encoder.move(place, kind)
    return encoder
