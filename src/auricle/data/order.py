"""Which clips belong to which step: a shuffled, endless order without state.

The order of an epoch is a permutation *computed* from ``(n, seed, epoch)``: a Feistel network over the next power of
two with cycle walking (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). Nothing is stored, so
a run resumes at any step, on any number of processes, from the step number alone, and no clip is lost or repeated.
"""

import numpy as np
import numpy.typing as npt

from auricle.errors import ConfigError

Ids = npt.NDArray[np.int64]

_ROUNDS = 6  # four give pseudo-randomness on large domains (Luby and Rackoff 1988); two more help domains of a few bits
_MAX_CLIPS = 1 << 62


class Permutation:
    """A shuffle of ``0 … n - 1`` that needs O(1) memory, whatever ``n`` is."""

    def __init__(self, n: int, seed: int, epoch: int = 0) -> None:
        """Choose the shuffle.

        Args:
            n: number of clips, 1 … 2^62.
            seed: of the run, >= 0.
            epoch: pass over the data, >= 0; each has another shuffle.

        Raises:
            ConfigError: one of them is out of range.
        """
        if not 1 <= n <= _MAX_CLIPS:
            raise ConfigError(f"cannot order {n} clips: the number must be in 1 … 2^62; is the data set empty?")
        if seed < 0 or epoch < 0:
            raise ConfigError(f"seed and epoch must be >= 0, got {seed} and {epoch}")
        self.n = int(n)
        bits = max(2, (self.n - 1).bit_length())
        self._low_bits = np.uint64(bits // 2)
        self._low_mask = np.uint64((1 << (bits // 2)) - 1)
        self._high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64)

    def ids(self, positions: npt.ArrayLike) -> Ids:
        """Clip ids at `positions` of the shuffled order.

        Args:
            positions: integers in ``0 … n - 1``, any shape.

        Returns:
            int64 ids of the same shape; all positions together give every id once.

        Raises:
            ConfigError: a position outside the order.
        """
        wanted = np.asarray(positions, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.n):
            raise ConfigError(f"positions must be in 0 … {self.n - 1}, got {wanted.min()} … {wanted.max()}")
        found = self._encrypt(wanted.ravel().astype(np.uint64))
        outside = np.flatnonzero(found >= self.n)
        while outside.size:  # cycle walking: an id beyond n is encrypted again until it is below n
            found[outside] = self._encrypt(found[outside])
            outside = outside[found[outside] >= self.n]
        return found.astype(np.int64).reshape(wanted.shape)

    def _encrypt(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        high, low = values >> self._low_bits, values & self._low_mask
        for number, key in enumerate(self._keys):
            if number % 2:
                low = low ^ (_scramble(high, key) & self._low_mask)
            else:
                high = high ^ (_scramble(low, key) & self._high_mask)
        return (high << self._low_bits) | low


def batch_ids(step: int, batch_size: int, n: int, seed: int, rank: int = 0, world_size: int = 1) -> Ids:
    """Clip ids of one process's part of global batch `step`.

    The endless sequence is epoch 0, epoch 1, …, cut into batches that may span two epochs.

    Args:
        step: number of the global batch, >= 0; the only state.
        batch_size: clips of the global batch, over all processes.
        n: clips in the data set.
        seed: of the run.
        rank: this process, ``0 … world_size - 1``.
        world_size: processes; the parts of all ranks, joined, are exactly the batch of one process.

    Returns:
        (about batch_size / world_size,) int64 ids; sizes of ranks differ by at most one.

    Raises:
        ConfigError: a number is out of range.
    """
    if step < 0 or batch_size < 1:
        raise ConfigError(f"step must be >= 0 and batch_size >= 1, got {step} and {batch_size}")
    start, stop = rank_slice(batch_size, rank, world_size)
    first, last = step * batch_size + start, step * batch_size + stop
    parts = []
    while first < last:
        epoch, offset = divmod(first, n) if n > 0 else (0, 0)
        count = min(last - first, n - offset)
        parts.append(Permutation(n, seed, epoch).ids(np.arange(offset, offset + count)))
        first += count
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def rank_slice(batch_size: int, rank: int, world_size: int) -> tuple[int, int]:
    """First and one-past-last place of `rank` inside a global batch: ``r·B//w`` and ``(r + 1)·B//w``.

    Raises:
        ConfigError: `rank` is not below `world_size`.
    """
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank must be in 0 … world_size - 1, got rank {rank} of {world_size}")
    return rank * batch_size // world_size, (rank + 1) * batch_size // world_size


def _scramble(values: npt.NDArray[np.uint64], key: np.uint64) -> npt.NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), keyed."""
    mixed = values + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
