"""Encoders with random weights, to check a benchmark's code offline and in seconds.

A name is a family and a geometry of ours, small save ``dasheng-base``; it promises nothing about a published model of
a similar name.
"""

from collections.abc import Sequence
from typing import Any

import torch

from auricle.errors import UnknownModel
from auricle.models.dasheng import SIZES, Dasheng
from auricle.models.encoders.speech import build_encoder
from auricle.models.frame_model import DashengFrames, FrameModel

_WIDTH, _DEPTH, _HEADS = 64, 2, 2
_TRANSFORMER = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _DEPTH,
    "num_attention_heads": _HEADS,
    "intermediate_size": 2 * _WIDTH,
}
_WAVE = {**_TRANSFORMER, "conv_dim": [32] * 7, "num_conv_pos_embedding_groups": 4, "num_conv_pos_embeddings": 32}
_LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
# Name -> config.json and preprocessor_config.json. Convolutions, mels and patches are those of the published models,
# so hops and frame counts are too; the variants "layer" correspond to the large models, the others for the base ones.
STOCK_SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "whisper-tiny": (
        {
            "model_type": "whisper",
            "d_model": _WIDTH,
            "encoder_layers": _DEPTH,
            "encoder_attention_heads": _HEADS,
            "encoder_ffn_dim": 2 * _WIDTH,
        },
        {},
    ),
    "wav2vec2-tiny": ({"model_type": "wav2vec2", **_WAVE}, {"do_normalize": True}),
    "wav2vec2-layer-tiny": ({"model_type": "wav2vec2", **_WAVE, **_LAYER_NORM}, {"do_normalize": True}),
    "hubert-tiny": ({"model_type": "hubert", **_WAVE}, {"do_normalize": True}),
    "hubert-layer-tiny": ({"model_type": "hubert", **_WAVE, **_LAYER_NORM}, {"do_normalize": True}),
    "wavlm-tiny": ({"model_type": "wavlm", **_WAVE}, {"do_normalize": False}),
    "wavlm-layer-tiny": ({"model_type": "wavlm", **_WAVE, **_LAYER_NORM}, {"do_normalize": True}),
    "data2vec-tiny": (
        {"model_type": "data2vec-audio", **_WAVE, "num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 19},
        {"do_normalize": True},
    ),
    "ast-tiny": ({"model_type": "audio-spectrogram-transformer", **_TRANSFORMER}, {}),
}
_DASHENG = {"dasheng-tiny": SIZES["tiny"], "dasheng-base": SIZES["base"]}
RANDOM_ENCODERS = (*_DASHENG, *STOCK_SETTINGS)


def random_encoder(family: str, seed: int = 0, *, layers: Sequence[int] = ()) -> FrameModel:
    """An encoder with random weights, the same for the same seed, on the CPU; the global random state is untouched.

    Args:
        family: one of `RANDOM_ENCODERS`.
        seed: of the weights.
        layers: blocks, 0 the first, whose outputs are averaged; none: the encoder's own last output.

    Raises:
        UnknownModel: no such family.
        ConfigError: no such layer.
    """
    if family not in RANDOM_ENCODERS:
        raise UnknownModel(f"no random encoder {family!r}; expected one of {', '.join(RANDOM_ENCODERS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family in _DASHENG:
            return _dasheng(family, layers)
        return build_encoder(*STOCK_SETTINGS[family], None, layers=layers, source=f"random:{family}")


def _dasheng(family: str, layers: Sequence[int]) -> FrameModel:
    model = Dasheng(_DASHENG[family]).eval()
    # Speech and music are around -20 dB in a band, 20 dB up and down; untouched statistics would let dB values of -60
    # into the network, and all clips would look alike.
    assert model.init_bn.running_mean is not None and model.init_bn.running_var is not None
    model.init_bn.running_mean.fill_(-20.0)
    model.init_bn.running_var.fill_(400.0)
    return DashengFrames(model, layers)
