"""Audio and texts in one space: embeddings, scores, and the segments of long clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from auricle.audio.facts import Clip, Facts, Samples
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.audio.sources import check_several, is_in_memory
from auricle.data.batches import grouped, prefetch
from auricle.encode.clips import BATCH_SECONDS, LongClip, clip_seconds, encode_long, open_clip, read_clip
from auricle.encode.encoder import Embedding, finite, read_or_error
from auricle.encode.long_clips import check_windows, stream_windows
from auricle.encode.receipt import Receipt, write_receipt
from auricle.errors import AuricleError, PromptError, WeightsError
from auricle.models.dasheng import MIN_SAMPLES
from auricle.models.frame_model import Identity, check_finite, content_hash, count_parameters
from auricle.models.glap import SCORE_SCALE, MelChunk, Pooling, check_pooling, score
from auricle.models.inference import inference
from auricle.weights.glap import LoadedGlap, load_glap

_DECODERS = 2  # threads that decode ahead
_MIN_REST_S = 0.5  # a shorter last window has little information, and is merged into the one before it


class Aligner:
    """An audio–text model for inference: each clip and each text as if it were alone, without gradients."""

    sampling_rate: int = SAMPLE_RATE  # Hz

    def __init__(self, loaded: LoadedGlap, *, pooling: Pooling | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        """Make a loaded model ready for use.

        Args:
            loaded: see `auricle.weights.glap.load_glap`.
            pooling: rule for clips over 10.08 s, instead of the model's own: ``framemean``, ``v013``, ``zeropad``.
            limits: budgets of every clip.

        Raises:
            ConfigError: an unknown rule.
        """
        self.loaded, self.model, self.tokenizer = loaded, loaded.model, loaded.tokenizer
        self.pooling = cast(Pooling, check_pooling(pooling or loaded.model.config.pooling))
        self.limits = limits
        self.embedding_dim = loaded.model.config.embed_dim

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of languages for `text`; none: it makes no difference."""
        return self.tokenizer.languages if self.tokenizer else ()

    @property
    def is_calibrated(self) -> bool:
        """Whether scores can become probabilities."""
        return self.model.logit_scale is not None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, settings and tokenizer, computed at first use."""
        return content_hash(self)

    def audio(self, sources: Any) -> Tensor:
        """Embed clips.

        Args:
            sources: anything `auricle.audio.decode.as_clip` takes: paths, bytes, files, waveforms (N_i,) at 16 kHz. A
                single path or array is one clip; an array of two dimensions has its channels.

        Returns:
            (n, D) float32 of length 1, on the CPU.

        Raises:
            AudioError: the first clip that cannot be read.
        """
        found = []
        for result in self.audio_many(sources):
            if isinstance(result, AuricleError):
                raise result
            found.append(result.values)
        return torch.stack(found) if found else torch.zeros(0, self.embedding_dim)

    def audio_many(self, sources: Any) -> Iterator[Embedding | AuricleError]:
        """Embed many clips; one that fails yields its error in its place, and the others continue.

        A clip over two minutes is read twice, as a stream: its loudest moment sets the floor of all its frames.

        Args:
            sources: as for `audio`; read when they are needed.

        Yields:
            Results in the order of the sources: (D,) float32 of length 1, and the receipt.
        """
        loaded = prefetch(self._load, _as_many(sources), depth=2 * _DECODERS, workers=_DECODERS)
        for batch in grouped(loaded, clip_seconds, BATCH_SECONDS):
            waveforms = [self._padded(clip.waveform) for clip in batch if isinstance(clip, Clip)]
            embedded: Iterator[Tensor] = iter(self._embed(waveforms) if waveforms else [])
            for clip in batch:
                if isinstance(clip, Clip):
                    yield finite(Embedding(next(embedded), _receipt(clip.facts, len(clip.waveform))))
                elif isinstance(clip, LongClip):
                    yield self._embed_long(clip)
                else:
                    yield clip

    def segments(self, source: Any, *, window_s: float = 10.0, hop_s: float | None = None) -> tuple[Tensor, Tensor]:
        """Embed the windows of one clip of any length, in constant memory.

        Args:
            source: as for `audio`, one of them.
            window_s: length of a window, s; each is embedded as if it were a clip.
            hop_s: distance of the windows' starts, s; None: ``window_s``. A last window with less than 0.5 s of new
                audio is merged into the one before it.

        Returns:
            Start and end of each window in the source, s, (k, 2) float64; embeddings (k, D) float32 of length 1.

        Raises:
            AudioError: it cannot be read.
            ConfigError: windows that would skip samples.
        """
        hop = window_s if hop_s is None else hop_s
        check_windows(window_s, hop)
        times, found = [], []
        with open_clip(source, self.limits).open() as blocks:
            windows = stream_windows(blocks, length_s=window_s, hop_s=hop, min_s=min(_MIN_REST_S, hop))
            while group := list(islice(windows, max(1, int(BATCH_SECONDS / window_s)))):
                times += [(start, start + len(samples)) for start, samples in group]
                found.append(check_finite(self._embed([self._padded(samples) for _, samples in group])))
            origin = blocks.facts.start_s
        return origin + torch.tensor(times, dtype=torch.float64) / SAMPLE_RATE, torch.cat(found)

    @inference()
    def text(self, strings: str | Sequence[str], *, language: str = "eng_Latn") -> Tensor:
        """Embed texts.

        Args:
            strings: one text or several. Those with too many tokens for the text tower are truncated, with a warning.
            language: of the texts, one of `languages`. GLAP was trained with the English tag whatever the language,
                so that the default fits all.

        Returns:
            (m, D) float32 of length 1, on the CPU.

        Raises:
            PromptError: an empty text, or none at all.
            ConfigError: an unknown language; near ones are listed.
            WeightsError: the model has no tokenizer, or one that does not belong to it.
            MissingExtra: the tokenizer needs a package that is not installed.
        """
        if not hasattr(strings, "__iter__"):
            raise PromptError(f"the texts are {strings!r}; expected a text or a list of texts")
        texts = [strings] if isinstance(strings, str) else list(strings)
        _check_texts(texts)
        if self.tokenizer is None:
            raise WeightsError(
                f"{self.loaded.identity['name']}: there is no sentencepiece model (*.model) beside the weights, so "
                "that texts cannot be read; download it into their folder"
            )
        return check_finite(self.model.embed_text(self.tokenizer.encode(texts, language=language)).cpu())

    def score(self, clips: Any, strings: str | Sequence[str], *, language: str = "eng_Latn") -> Tensor:
        """Score how well clips and texts fit: 100 × cosine.

        Args:
            clips: as for `audio`.
            strings: as for `text`.
            language: as for `text`.

        Returns:
            (n, m) float32, -100 to 100, a row for each clip. Comparable within one model only; see `probability`.

        Raises: as `audio` and `text`.
        """
        return score(self.audio(clips), self.text(strings, language=language))

    def probability(self, scores: Tensor) -> Tensor:
        """Probability that each pair belongs together, 0 to 1, of scores of any shape.

        Raises:
            ConfigError: the model was stored without the scale and bias of its loss; see `is_calibrated`.
        """
        return self.model.probability(scores / SCORE_SCALE).cpu()

    def identity(self) -> Identity:
        """Everything that decides the embeddings."""
        tokenizer = self.tokenizer.fingerprint if self.tokenizer else None
        config = dataclasses.asdict(self.model.config)
        settings = {"kind": "glap", "config": config, "pooling": self.pooling, "tokenizer": tokenizer}
        return Identity(settings, self.model.state_dict(), count_parameters(self.model))

    @inference()
    def _embed(self, waveforms: Sequence[Tensor]) -> Tensor:
        return self.model.embed_audio([w.to(self._device) for w in waveforms], pooling=self.pooling).cpu()

    @inference()
    def _embed_long(self, clip: LongClip) -> Embedding | AuricleError:
        total, count = torch.zeros((), dtype=torch.float64), 0.0

        def add(group: list[MelChunk]) -> None:
            nonlocal total, count
            sums, counts = self.model.sum_frames(group, self.pooling)
            total, count = total + sums.double().sum(0).cpu(), count + float(counts.sum())

        try:
            facts, num_samples = encode_long(clip, self.model.audio_encoder, add)
        except AuricleError as error:
            return error
        pooled = (total / count).float().to(self._device)
        return finite(Embedding(self.model.project_audio(pooled[None])[0].cpu(), _receipt(facts, num_samples)))

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @staticmethod
    def _padded(waveform: Samples) -> Tensor:
        """Samples (N,), padded with zeros where they are too few for one frame."""
        samples = torch.from_numpy(np.require(waveform, np.float32, "W"))
        return F.pad(samples, (0, max(0, MIN_SAMPLES - len(samples))))

    def _load(self, source: Any) -> Clip | LongClip | AuricleError:
        return read_or_error(lambda: read_clip(source, self.limits), source)


def load_aligner(
    name: str = "auricle-tiny-glap",
    *,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    pooling: Pooling | None = None,
) -> Aligner:
    """Load a model that embeds clips and texts in one space.

    Args:
        name: embedded or published name, hub id, folder, or the released ``.pt`` file.
        device: ``auto``: a GPU where there is one, else the CPU; or ``cpu``, ``cuda``, ``cuda:1``, …
        dtype: ``float32``, ``bfloat16`` or ``float16`` for the networks; the front end stays float32.
        revision: of a hub id: branch, tag or commit.
        pooling: rule for clips over 10.08 s, instead of the model's own: ``framemean`` (mean over all frames with
            equal weight), or the rules of released versions: ``v013`` and ``zeropad``.

    Raises:
        WeightsError: unknown, unsafe, incomplete or unfitting weights.
        ConfigError: ``device``, ``dtype`` or ``pooling`` is wrong.
        MissingExtra: a tower is in a package that is not installed.
    """
    return Aligner(load_glap(name, device=device, dtype=dtype, revision=revision), pooling=pooling)


def _as_many(sources: Any) -> Iterable[Any]:
    """Sources as an iterable: a single path, array, file or clip is one clip, not many."""
    alone = isinstance(sources, (str, bytes, bytearray, memoryview, Path, Mapping)) or is_in_memory(sources)
    if alone or callable(getattr(sources, "read", None)):
        return [sources]
    check_several(sources, "write [source]")
    return cast("Iterable[Any]", sources)


def _receipt(facts: Facts, num_samples: int) -> Receipt:
    return write_receipt(facts, num_samples, [(0, num_samples)], subsample_factor=1, min_samples=MIN_SAMPLES)


def _check_texts(texts: Sequence[str]) -> None:
    if not texts:
        raise PromptError("found no texts; give at least one")
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise PromptError(f"text {row} is {text!r}; expected words, such as 'The sound of a dog can be heard.'")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PromptError(f"text {row} is not valid Unicode ({error.reason}); decode its bytes as UTF-8") from None
