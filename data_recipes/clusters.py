"""Near-duplicate texts: found by MinHash, confirmed by exact overlap, and kept on one side of a split."""

import re
from array import array
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from rensa import RMinHash

# 32 bands of 4: an overlap of 0.5 is seen with probability 0.87, 0.6 with 0.99.
NUM_HASHES, BAND = 128, 4
WORD = re.compile(r"[^\W_]+")


def features(text: str) -> frozenset[str]:
    """Words and pairs of neighbours, in small letters."""
    words = WORD.findall(text.lower())
    return frozenset(words) | {f"{a} {b}" for a, b in pairwise(words)}


def overlap(first: frozenset[str], second: frozenset[str]) -> float:
    """Jaccard overlap of two sets; 0 where both are empty."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0


@lru_cache(maxsize=2**18)
def bands(text: str) -> "array[int]":
    """Keys of the buckets of a text, of which near duplicates probably share one; none without a word."""
    values = features(text)
    if not values:
        return array("q")
    sketch = RMinHash(num_perm=NUM_HASHES, seed=1)
    sketch.update(sorted(values))
    digest = sketch.digest()
    return array("q", (hash((n, *digest[n : n + BAND])) for n in range(0, NUM_HASHES, BAND)))


def near_pairs(texts: Sequence[str], least: float, most_in_bucket: int = 60) -> Iterator[tuple[int, int]]:
    """Pairs (earlier, later) of texts that overlap by at least `least`.

    A text is compared with the latest `most_in_bucket` texts of each bucket.
    """
    values = [features(text) for text in texts]
    buckets: dict[int, list[int]] = defaultdict(list)
    for later, own in enumerate(values):
        keys = bands(texts[later])
        near = {number for key in keys for number in buckets[key][-most_in_bucket:]}
        for earlier in sorted(near):
            if overlap(values[earlier], own) >= least:
                yield earlier, later
        for key in keys:
            buckets[key].append(later)


def drop_duplicates(texts: Sequence[str], least: float = 0.7) -> list[int]:
    """Positions of texts that are no near duplicate of an earlier one."""
    dropped = {later for _, later in near_pairs(texts, least)}
    return [number for number in range(len(texts)) if number not in dropped]


def cluster(groups: Sequence[Iterable[Hashable]], texts: Sequence[str], least: float = 0.5) -> list[int]:
    """A cluster number for each text: texts that share a group or nearly the words are in one cluster."""
    parents = list(range(len(texts)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    first_of: dict[Hashable, int] = {}
    for number, names in enumerate(groups):
        for name in names:
            parents[root(number)] = root(first_of.setdefault(name, number))
    for earlier, later in near_pairs(texts, least):
        parents[root(later)] = root(earlier)
    return [root(number) for number in range(len(texts))]


def split(clusters: Sequence[int], order: Sequence[bytes], num_test: int) -> tuple[list[int], list[int]]:
    """(training positions, test positions): whole clusters in a fixed order until the test side is full.

    Clusters above a fiftieth of the test side stay in training, so that no family of texts fills it.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for position, number in enumerate(clusters):
        members[number].append(position)
    test: list[int] = []
    for group in sorted(members.values(), key=lambda group: min(order[p] for p in group)):
        if len(group) <= max(1, num_test // 50) and len(test) + len(group) <= num_test:
            test += group
    held_out = set(test)
    train = [position for position in range(len(clusters)) if position not in held_out]
    return sorted(train, key=order.__getitem__), sorted(test, key=order.__getitem__)


def near_any(texts: Sequence[str], others: Sequence[str], least: float = 0.5) -> set[int]:
    """Positions of `texts` that nearly equal one of `others`."""
    values = [features(text) for text in others]
    buckets: dict[int, list[int]] = defaultdict(list)
    for number, other in enumerate(others):
        for key in bands(other):
            buckets[key].append(number)
    found = set()
    for number, text in enumerate(texts):
        near = {other for key in bands(text) for other in buckets.get(key, ())}
        own = features(text) if near else frozenset()
        if any(overlap(values[other], own) >= least for other in near):
            found.add(number)
    return found
