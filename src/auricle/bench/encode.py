"""The one pass: every sound of a task through the encoder once, whatever is judged afterwards."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from auricle.audio.decode import as_clip
from auricle.audio.limits import DEFAULT_LIMITS, Limits
from auricle.audio.resample import SAMPLE_RATE
from auricle.bench.store import Pieces, Store
from auricle.data.batches import prefetch
from auricle.errors import AuricleError, DataError

Waveform = npt.NDArray[np.float32]
Cut = Callable[[Waveform], Sequence[Waveform]]  # a sound → its pieces, at least one

# Sounds sorted by length together and written at once; more saves padding and holds more sound in memory. Windows are
# cut from the whole task, so that a run that goes on forms the batches, and with them the bits, of one at a stretch.
WINDOW_SOUNDS, WINDOW_BYTES = 256, 1 << 24  # of encoded audio
_DECODERS = 2  # threads
_NAMED = 5  # failed sounds spelled out in an error


class EncodesMany(Protocol):
    """What the pass needs of an encoder: see `auricle.encode.encoder.Encoder`."""

    def embed_many(self, sources: Iterable[Any], *, frames: bool = False) -> Iterator[Any]:
        """Waveforms → for each a result with ``.values`` (T, D), or an error."""
        ...


class Sound(Protocol):
    """A sound of a task, such as `auricle.bench.examples.Example`."""

    @property
    def id(self) -> str:
        """Unique in the task, shown in errors."""
        ...

    def source(self) -> bytes | Path:
        """Encoded audio, or where it lies; asked for when it is needed."""
        ...


class _Loaded(NamedTuple):
    id: str
    digest: str
    pieces: list[Waveform] | AuricleError


@dataclass(frozen=True, slots=True)
class Embedded:
    """A task's sounds, embedded, in the order they were given."""

    pieces: list[Pieces]  # one for each sound
    digests: list[str]  # SHA-256 of each sound's bytes
    fresh: frozenset[str]  # digests of the sounds that went through the encoder now

    @property
    def encoded(self) -> int:
        """Sounds that went through the encoder."""
        return len(self.fresh)

    @property
    def reused(self) -> int:
        """Sounds whose embedding was there, or that are the same as another one."""
        return len(self.pieces) - len(self.fresh)

    def pooled(self) -> tuple[Tensor, Tensor]:
        """Rows of all pieces (n, D) float32 and the number of the sound that each belongs to (n,) int64."""
        owners = torch.arange(len(self.pieces)).repeat_interleave(torch.tensor([len(p.lengths) for p in self.pieces]))
        return torch.cat([piece.pooled for piece in self.pieces]), owners


def whole(waveform: Waveform) -> Sequence[Waveform]:
    """The cut of tasks without crops: one piece."""
    return [waveform]


def embed_sounds(
    encoder: EncodesMany,
    sounds: Sequence[Sound],
    store: Store,
    *,
    cut: Cut = whole,
    limits: Limits = DEFAULT_LIMITS,
    on_sound: Callable[[int], None] = lambda count: None,
) -> Embedded:
    """Embed what the store does not hold yet; every window is written before the next, so a kill costs one window.

    Args:
        encoder: see `EncodesMany`.
        sounds: of the task, in order.
        store: for this encoder and this cut.
        cut: pieces of a sound; part of the store's transform.
        limits: of every sound.
        on_sound: called with the number of sounds finished since the last call.

    Raises:
        DataError: there are no sounds, or some could not be embedded; the message names them. What succeeded is kept.
    """
    if not sounds:
        raise DataError("no sounds to embed; the task's folder is empty or holds another layout")
    known = [_digest(sound) for sound in sounds]
    digests = [digest for digest, _ in known]
    unique = {digest: (sound, size) for (digest, size), sound in zip(known, sounds, strict=True)}
    wanted = {digest: sound for digest, (sound, _) in unique.items() if digest not in store}
    on_sound(len(sounds) - len(wanted))
    failed: dict[str, AuricleError] = {}

    def load(item: tuple[str, Sound]) -> _Loaded:
        digest, sound = item
        try:
            pieces = list(cut(as_clip(sound.source(), limits=limits).waveform))
        except AuricleError as error:
            return _Loaded(sound.id, digest, error)
        return _Loaded(sound.id, digest, pieces or DataError("the crop rule leaves nothing of it"))

    loaded = prefetch(load, wanted.items(), depth=4 * _DECODERS, workers=_DECODERS)
    for window in _windows({digest: size for digest, (_, size) in unique.items()}):
        missing = list(islice(loaded, len(wanted.keys() & set(window))))
        if missing:
            failed |= _embed_window(encoder, missing, store)
            store.flush()
            on_sound(len(missing))
    if failed:
        named = "; ".join(f"{name}: {error}" for name, error in list(failed.items())[:_NAMED])
        raise DataError(
            f"{len(failed)} of {len(sounds)} sounds could not be embedded: {named}"
            f"{' …' if len(failed) > _NAMED else ''}. Repair or remove them; the others are kept and not encoded again"
        )
    return Embedded([store.get(digest) for digest in digests], digests, frozenset(wanted))


def _digest(sound: Sound) -> tuple[str, int]:
    """SHA-256 of a sound's bytes, and how many there are."""
    source = sound.source()
    if isinstance(source, bytes):
        return sha256(source).hexdigest(), len(source)
    total, size = sha256(), 0
    try:
        with source.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
                size += len(block)
    except OSError as error:
        raise DataError(f"{sound.id}: cannot be read ({error.strerror}); check the path") from error
    return total.hexdigest(), size


def _windows(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Digests in groups of at most `WINDOW_SOUNDS`, and of `WINDOW_BYTES` unless one alone has more."""
    window: list[str] = []
    held = 0
    for digest, size in sizes.items():
        if window and (len(window) >= WINDOW_SOUNDS or held + size > WINDOW_BYTES):
            yield window
            window, held = [], 0
        window.append(digest)
        held += size
    if window:
        yield window


def _embed_window(encoder: EncodesMany, window: Sequence[_Loaded], store: Store) -> dict[str, AuricleError]:
    """Encode the pieces of a window from short to long and add them to the store; returns what failed."""
    failed = {sound.id: sound.pieces for sound in window if isinstance(sound.pieces, AuricleError)}
    flat = [
        (sound, number, len(sound.pieces), piece)
        for sound in window
        if isinstance(sound.pieces, list)
        for number, piece in enumerate(sound.pieces)
    ]
    flat.sort(key=lambda item: len(item[3]))
    found: dict[str, list[Tensor | None]] = {}
    results = encoder.embed_many([piece for *_, piece in flat], frames=True)
    for (sound, number, count, piece), result in zip(flat, results, strict=True):
        if isinstance(result, AuricleError):
            failed[sound.id] = result
        elif not len(result.values) or not torch.isfinite(result.values).all():
            failed[sound.id] = DataError(f"the encoder gave no finite frames for {len(piece) / SAMPLE_RATE:g} s of it")
        else:
            found.setdefault(sound.digest, [None] * count)[number] = result.values
    for digest, frames in found.items():
        whole_sound = [frame for frame in frames if frame is not None]
        if len(whole_sound) == len(frames):
            store.add(digest, whole_sound)
    return failed
