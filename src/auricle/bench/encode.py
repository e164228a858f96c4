"""The one embedding pass: every clip of a task is decoded, cropped and encoded once, for all heads and runs."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from auricle.audio.decode import as_clip
from auricle.audio.resample import SAMPLE_RATE
from auricle.bench.examples import Example
from auricle.bench.store import Pieces, Store
from auricle.data.batches import prefetch
from auricle.errors import AuricleError, ConfigError, DataError
from auricle.metrics.scoring_rule import ScoringRule

Waveform: TypeAlias = npt.NDArray[np.float32]
Crop: TypeAlias = Callable[[Waveform], Sequence[Waveform]]  # a clip → its pieces, at least one
# Waveforms → for each its frames (T, D), or an error in their place.
Encode: TypeAlias = Callable[[list[Waveform]], Iterable[Tensor | AuricleError]]
Progress: TypeAlias = Callable[[int, int], None]  # clips finished, of how many

# Clips sorted by length together and written at once; more saves padding and holds more audio in memory. Windows are
# cut from the whole task, so that a resumed run forms the batches, and with them the bits, of an uninterrupted one.
WINDOW_CLIPS, WINDOW_BYTES = 256, 1 << 24  # of encoded audio
_DECODERS = 2  # threads
_SHOWN = 5  # failed clips spelled out in an error


class ClipSource(Protocol):
    """A clip of a task, such as `auricle.bench.examples.Example`."""

    @property
    def id(self) -> str:
        """Unique in the task, shown in errors."""

    def source(self) -> bytes | Path:
        """Encoded audio, or its path; called when it is needed."""


class _Loaded(NamedTuple):
    id: str
    digest: str
    pieces: list[Waveform] | AuricleError


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedClips:
    """A task's clips, embedded, in the order they were given."""

    pieces: list[Pieces]  # one for each clip
    digests: list[str]  # SHA-256 of each clip's bytes
    fresh: frozenset[str]  # digests of the clips that were encoded now
    encode_s: float  # wall clock of the pass
    finished: float  # monotonic clock at its end

    @property
    def encoded(self) -> int:
        """Clips that were encoded now."""
        return len(self.fresh)

    @property
    def reused(self) -> int:
        """Clips whose embedding was there, or that are the same as another one."""
        return len(self.pieces) - len(self.fresh)

    def pooled(self) -> tuple[Tensor, Tensor]:
        """Rows of all pieces (n, D) float32 and the number of the clip that each belongs to (n,) int64."""
        owners = torch.arange(len(self.pieces)).repeat_interleave(torch.tensor([len(p.lengths) for p in self.pieces]))
        return torch.cat([piece.pooled for piece in self.pieces]), owners

    def all_frames(self) -> tuple[Tensor, Tensor]:
        """Frames of all pieces, one after the other (N, D) float16, and how many each has (n,) int64."""
        frames = [frame for piece in self.pieces for frame in piece.frames or ()]
        return torch.cat(frames), torch.tensor([len(frame) for frame in frames])


def cut(
    waveform: Waveform, crop_s: float | None, scoring_rule: ScoringRule, *, sample_rate: int = SAMPLE_RATE
) -> list[Waveform]:
    """Cut a clip into the crops that are embedded and scored.

    ``compat``: full crops from the start, the rest is thrown away; a shorter clip is zero-padded to one crop.
    ``strict``: the rest is a crop too if it is at least half as long as one; a shorter clip stays as it is.

    Args:
        waveform: (num_samples,).
        crop_s: length of a crop; None: the whole clip.
        scoring_rule: which of the two.
        sample_rate: of the waveform, Hz.

    Returns:
        One crop or more; of `crop_s`, except for the last one of ``strict``.

    Source: ``compat`` is the rule of X-ARES 0.1.3, without its loss of crops that share a name.
    """
    if scoring_rule not in ("compat", "strict"):
        raise ConfigError(f"no scoring rule {scoring_rule!r}; expected 'compat' or 'strict'")
    if crop_s is None:
        return [waveform]
    size = int(crop_s * sample_rate)
    if len(waveform) < size:
        return [trim_or_pad(waveform, size) if scoring_rule == "compat" else waveform]
    count = len(waveform) // size
    crops = [waveform[start : start + size] for start in range(0, count * size, size)]
    rest = waveform[count * size :]
    return [*crops, rest] if scoring_rule == "strict" and 2 * len(rest) >= size else crops


def trim_or_pad(waveform: npt.NDArray[Any], num_samples: int) -> npt.NDArray[Any]:
    """(…, num_samples) of an array: trimmed at the end, or padded there with zeros."""
    missing = num_samples - waveform.shape[-1]
    if missing <= 0:
        return waveform[..., :num_samples]
    return np.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(0, missing)])


def embed_clips(
    encode: Encode,
    clips: Sequence[ClipSource],
    store: Store,
    *,
    crop: Crop = lambda waveform: [waveform],
    progress: Progress = lambda finished, total: None,
) -> EmbeddedClips:
    """Embed what the store does not have yet; every window is written before the next, so a kill costs one window.

    Raises:
        DataError: there are no clips, or some could not be embedded; the message names them. What succeeded is kept.
    """
    if not clips:
        raise DataError("no clips to embed; the task's folder is empty or holds another layout")
    started = time.monotonic()
    known = [_digest(clip) for clip in clips]
    digests = [digest for digest, _ in known]
    unique = {digest: (clip, size) for (digest, size), clip in zip(known, clips, strict=True)}
    wanted = {digest: clip for digest, (clip, _) in unique.items() if digest not in store}
    finished = len(clips) - len(wanted)
    progress(finished, len(clips))
    failed: dict[str, AuricleError] = {}

    def load(item: tuple[str, ClipSource]) -> _Loaded:
        digest, clip = item
        try:
            pieces = list(crop(as_clip(clip.source()).waveform))
        except AuricleError as error:
            return _Loaded(clip.id, digest, error)
        return _Loaded(clip.id, digest, pieces or DataError("the crop rule leaves nothing of it"))

    loaded = prefetch(load, wanted.items(), depth=4 * _DECODERS, workers=_DECODERS)
    for window in _windows({digest: size for digest, (_, size) in unique.items()}):
        if missing := list(islice(loaded, len(wanted.keys() & set(window)))):
            failed |= _embed_window(encode, missing, store)
            store.flush()
            finished += len(missing)
            progress(finished, len(clips))
    if failed:
        named = "; ".join(f"{name}: {error}" for name, error in list(failed.items())[:_SHOWN])
        raise DataError(
            f"{len(failed)} of {len(clips)} clips could not be embedded: {named}"
            f"{' …' if len(failed) > _SHOWN else ''}. Repair or remove them; the others are kept and not encoded again"
        )
    ended = time.monotonic()
    pieces = [store.get(digest) for digest in digests]
    return EmbeddedClips(
        pieces=pieces, digests=digests, fresh=frozenset(wanted), encode_s=ended - started, finished=ended
    )


def manifest_hash(examples: Sequence[Example], digests: Sequence[str]) -> str:
    """SHA-256 over clips, their splits and labels, in any order."""
    lines = [
        json.dumps([example.id, example.split, digest, dict(example.label)], sort_keys=True, default=str)
        for example, digest in zip(examples, digests, strict=True)
    ]
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _digest(clip: ClipSource) -> tuple[str, int]:
    """SHA-256 of a clip's bytes, and how many there are."""
    source = clip.source()
    if isinstance(source, bytes):
        return sha256(source).hexdigest(), len(source)
    total, size = sha256(), 0
    try:
        with source.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
                size += len(block)
    except OSError as error:
        raise DataError(f"{clip.id}: cannot be read ({error.strerror}); check the path") from error
    return total.hexdigest(), size


def _windows(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Digests in groups of at most `WINDOW_CLIPS`, and of `WINDOW_BYTES` unless one alone has more."""
    window: list[str] = []
    held = 0
    for digest, size in sizes.items():
        if window and (len(window) >= WINDOW_CLIPS or held + size > WINDOW_BYTES):
            yield window
            window, held = [], 0
        window.append(digest)
        held += size
    if window:
        yield window


def _embed_window(encode: Encode, window: Sequence[_Loaded], store: Store) -> dict[str, AuricleError]:
    """Encode the pieces of a window from short to long and add them to the store; returns what failed."""
    failed = {clip.id: clip.pieces for clip in window if isinstance(clip.pieces, AuricleError)}
    flat = [
        (clip, number, len(clip.pieces), piece)
        for clip in window
        if isinstance(clip.pieces, list)
        for number, piece in enumerate(clip.pieces)
    ]
    flat.sort(key=lambda item: len(item[3]))
    found: dict[str, list[Tensor | None]] = {}
    results = encode([piece for *_, piece in flat])
    for (clip, number, count, piece), result in zip(flat, results, strict=True):
        if isinstance(result, AuricleError):
            failed[clip.id] = result
        elif not len(result) or not torch.isfinite(result).all():
            failed[clip.id] = DataError(f"the encoder gave no finite frames for {len(piece) / SAMPLE_RATE:g} s of it")
        else:
            found.setdefault(clip.digest, [None] * count)[number] = result
    for digest, frames in found.items():
        whole_clip = [frame for frame in frames if frame is not None]
        if len(whole_clip) == len(frames):
            store.add(digest, whole_clip)
    return failed
