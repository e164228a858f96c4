"""Encoders in the forms that other benchmarks load: a torch module for X-ARES, an embedding model for MTEB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from auricle.encode.aligner import Aligner
from auricle.encode.encoder import Encoder, load_encoder
from auricle.errors import ConfigError
from auricle.weights.catalog import entries

Vectors = npt.NDArray[np.float32]


class EncoderModule(nn.Module):
    """An encoder as a frozen module of X-ARES: waveforms (B, N) or (N,) at 16 kHz → frames (B, T, D).

    X-ARES builds the one class of a file whose name ends in ``Encoder``, without arguments; name the encoder in it::

        from auricle.encode import EncoderModule

        class TinyEncoder(EncoderModule):
            name = "auricle-tiny-encoder"
    """

    name: ClassVar[str] = "auricle-tiny-encoder"  # as for `load_encoder`

    def __init__(self, encoder: Encoder | None = None) -> None:
        """Wrap an encoder; None: load the one called ``name``."""
        super().__init__()
        self._encoder = encoder or load_encoder(self.name)
        self.sampling_rate = self._encoder.sampling_rate  # Hz
        self.output_dim = self._encoder.output_dim
        self.hop_size_in_ms = self._encoder.hop_size_in_ms
        self.networks = nn.ModuleList(_networks(self._encoder.model))  # so that they move with the module
        self.requires_grad_(False)

    def forward(self, audio: Tensor) -> Tensor:
        """Frames (B, T, D) float32; clips too short for one frame are padded with zeros.

        Raises:
            ConfigError: another shape or type.
        """
        shortest = self._encoder.model.min_samples
        frames = self._encoder(F.pad(audio, (0, max(0, shortest - audio.shape[-1]))))
        return frames.clone()  # made without inference mode, so that heads can be trained on it


def _networks(model: object) -> Iterator[nn.Module]:
    """The torch modules of an encoder, and of each one in a fusion."""
    for value in vars(model).values():
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(value, tuple):
            for part in value:
                if hasattr(part, "frames"):
                    yield from _networks(part)


class MtebModel:
    """An encoder or an audio–text model with the methods that MTEB calls; mteb itself is not needed.

    Inputs are batches of MTEB's data loaders: mappings with ``audio``, clips as ``{"array", "sampling_rate"}``
    or anything that `auricle.decode` takes, or with ``text``. `facts` are the fields of a ``ModelMeta``.
    """

    def __init__(self, model: Encoder | Aligner, name: str = "") -> None:
        """Wrap a model; ``name`` for the leaderboard, where it is not the model's own."""
        self._model = model
        self._name = name or (model.name if isinstance(model, Encoder) else str(model.loaded.identity["name"]))

    @property
    def facts(self) -> dict[str, Any]:
        """Name, revision (hash of the weights), sizes, licence and modalities, named as in MTEB's ``ModelMeta``."""
        model, has_text = self._model, isinstance(self._model, Aligner)
        entry = next((each for each in entries() if each.name == self._name.lower()), None)
        return {
            "name": self._name if "/" in self._name else f"auricle/{self._name}",
            "revision": model.fingerprint,
            "n_parameters": model.identity().num_parameters if isinstance(model, Aligner) else model.num_parameters,
            "embed_dim": model.embedding_dim if isinstance(model, Aligner) else model.output_dim,
            "license": None if entry is None else entry.license,
            "modalities": ["audio", "text"] if has_text else ["audio"],
            "similarity_fn_name": "cosine",
            "framework": ["PyTorch"],
        }

    def encode(self, inputs: Iterable[Mapping[str, Any]], **_: Any) -> Vectors:
        """Vectors (n, D) of batches with audio, else with text."""
        batches = list(inputs)
        has_audio = bool(batches) and "audio" in batches[0]
        return self.get_audio_embeddings(batches) if has_audio else self.get_text_embeddings(batches)

    def get_audio_embeddings(self, inputs: Iterable[Mapping[str, Any]], **_: Any) -> Vectors:
        """Vectors (n, D) of the clips of batches.

        Raises:
            AudioError: the first clip that cannot be read.
        """
        clips = [_clip(each) for batch in inputs for each in batch["audio"]]
        found = self._model.audio(clips) if isinstance(self._model, Aligner) else self._model.embed(clips)
        return found.numpy()

    def get_text_embeddings(self, inputs: Iterable[Mapping[str, Any]], **_: Any) -> Vectors:
        """Vectors (m, D) of the texts of batches.

        Raises:
            ConfigError: an encoder, which has no texts.
            PromptError: an empty text.
        """
        if not isinstance(self._model, Aligner):
            raise ConfigError(f"{self._name} is an encoder of audio, it embeds no texts; wrap an audio–text model")
        return self._model.text([text for batch in inputs for text in batch["text"]]).numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines (n, m) of vectors (n, D) and (m, D)."""
        one, other = (F.normalize(torch.as_tensor(each).float(), dim=-1) for each in (embeddings1, embeddings2))
        return one @ other.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines (n,) of the rows of two (n, D)."""
        return F.cosine_similarity(torch.as_tensor(embeddings1).float(), torch.as_tensor(embeddings2).float(), dim=-1)


def _clip(item: Any) -> Any:
    """A clip of a batch as `auricle.decode` takes it."""
    if isinstance(item, Mapping):
        return np.asarray(item["array"], dtype=np.float32), int(item["sampling_rate"])
    return item
