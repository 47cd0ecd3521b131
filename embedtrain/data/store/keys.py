"""Numbers for 64-bit keys in the order of their first sight, in flat memory. K keys at a time."""

from pathlib import Path

import numpy as np

FIRST_SLOTS = 1 << 12
BLOCK_SLOTS = 1 << 20
FULLEST = 0.5  # of the slots


class KeyTable:
    """A hash table of int64 keys with open addressing, in a memory-mapped file that the kernel may write out.

    Keys are taken to be evenly spread, as hashes are.
    """

    def __init__(self, path: Path) -> None:
        """Start empty, in a new file."""
        self.path, self.num_keys = path, 0
        self.slots = self._new_file(FIRST_SLOTS)

    def __len__(self) -> int:
        return self.num_keys

    def add(self, keys_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(number of each key; places in `keys_K` of the keys never seen before, ascending)."""
        distinct, first, inverse = np.unique(keys_K, return_index=True, return_inverse=True)
        numbers = self._find(distinct)
        fresh = np.flatnonzero(numbers < 0)
        fresh = fresh[np.argsort(first[fresh])]
        numbers[fresh] = self.num_keys + np.arange(len(fresh))
        self._grow(self.num_keys + len(fresh))
        self._insert(distinct[fresh], numbers[fresh])
        self.num_keys += len(fresh)
        return numbers[inverse], first[fresh]

    def close(self) -> None:
        """Remove the file."""
        del self.slots
        self.path.unlink()

    def _new_file(self, num_slots: int) -> np.ndarray:
        """Slots of (key, number + 1); zeros are empty."""
        aside = self.path.with_name(f"{self.path.name}.{num_slots}")
        slots = np.memmap(aside, np.int64, "w+", shape=(num_slots, 2))
        aside.replace(self.path)
        return np.asarray(slots)

    def _find(self, keys: np.ndarray) -> np.ndarray:
        """Number of each key, -1 where it is not there."""
        numbers = np.full(len(keys), -1, np.int64)
        pending, slot = np.arange(len(keys)), keys & (len(self.slots) - 1)
        while len(pending):
            found = self.slots[slot]
            hit = (found[:, 1] > 0) & (found[:, 0] == keys[pending])
            numbers[pending[hit]] = found[hit, 1] - 1
            further = ~hit & (found[:, 1] > 0)
            pending, slot = pending[further], (slot[further] + 1) & (len(self.slots) - 1)
        return numbers

    def _insert(self, keys: np.ndarray, numbers: np.ndarray) -> None:
        """Put distinct keys that are not there into free slots."""
        slot = keys & (len(self.slots) - 1)
        while len(keys):
            free = self.slots[slot, 1] == 0
            self.slots[slot[free], 1] = numbers[free] + 1  # of several for one slot, the last stays
            won = self.slots[slot, 1] == numbers + 1
            self.slots[slot[won], 0] = keys[won]
            keys, numbers, slot = keys[~won], numbers[~won], (slot[~won] + 1) & (len(self.slots) - 1)

    def _grow(self, num_keys: int) -> None:
        """Make room for so many keys in all."""
        if num_keys <= FULLEST * len(self.slots):
            return
        old, num_slots = self.slots, len(self.slots)
        while num_keys > FULLEST * num_slots:
            num_slots *= 2
        self.slots = self._new_file(num_slots)
        for start in range(0, len(old), BLOCK_SLOTS):
            block = old[start : start + BLOCK_SLOTS]
            block = block[block[:, 1] > 0]
            self._insert(block[:, 0], block[:, 1] - 1)
