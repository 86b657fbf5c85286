"""Near-copies among texts: groups of them, and leakage between two sets. Needs numpy."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

SAME: Final = 0.7
"""Texts that share this part of their word pairs (Jaccard) are copies of each other."""

SIMILAR: Final = 0.5
"""The part from which on two texts are close enough to be reported."""

Shingles = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

_NOT_WORDS = re.compile(r"[\W\d_]+")
# Scripts that put no blanks between words are taken letter by letter.
_WORDS = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]+"
)

_BANDS: Final = 24
_BAND_ROWS: Final = 4
"""24 bands of 4 find 99.9% of the pairs at 0.7 and skip 99.9% of those below 0.08."""

_COMMON_SHARE: Final = 0.01
_COMMON_ROWS: Final = 50
_OWN_SHINGLES: Final = 8
_COUNTERS: Final = 1 << 22
_COMPARED: Final = 8
_AT_ONCE: Final = 256
_KEPT: Final = 4096
_TESTED: Final = 1000

_draw = np.random.default_rng(20)
_FACTORS = _draw.integers(1, 2**63, (_BANDS * _BAND_ROWS, 1), dtype=np.uint64) * 2 + 1
_OFFSETS = _draw.integers(0, 2**63, (_BANDS * _BAND_ROWS, 1), dtype=np.uint64)
_BAND_FACTORS = _draw.integers(1, 2**63, _BAND_ROWS, dtype=np.uint64) * 2 + 1


def near_copy_key(text: str) -> str:
    """Return a key that texts share when they differ only in case, digits and punctuation."""
    words = _NOT_WORDS.sub(" ", text.casefold()).strip()
    return hashlib.sha256((words or text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class TextSimilarity:
    """Compares texts by the pairs of words they share, whatever their case, digits, punctuation.

    A pair of words that more than 1% of the texts hold (and more than 50) is boilerplate, as in a
    signature or a form: it is left out of a text that keeps at least eight pairs of its own.
    `texts` may read from disk: it is read a few times, and some 200 bytes a text are kept.
    `keys` holds the `near_copy_key` of each text as a number.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self.keys = np.zeros(len(texts), dtype=np.uint64)
        self._seen_in = np.zeros(_COUNTERS, dtype=np.uint32)
        for row, text in enumerate(texts):
            self.keys[row] = int(near_copy_key(text), 16)
            self._seen_in[_slots(_shingles(text))] += 1
        self._common = max(_COMMON_ROWS, int(len(texts) * _COMMON_SHARE))
        self._kept = lru_cache(_KEPT)(self._read)

    def shingles(self, text: str) -> Shingles:
        """Return the hashes of the word pairs that count in a text, sorted; at least one."""
        everything = _shingles(text)
        own = everything[self._seen_in[_slots(everything)] <= self._common]
        return own if len(own) >= _OWN_SHINGLES else everything

    def groups(self, threshold: float = SAME) -> Rows:
        """Return for each text the number of the first text of its group.

        Texts are in one group when a chain of pairs, each at least at the threshold, joins them.
        Pairs are found by MinHash and checked by their true Jaccard index, so the time grows with
        the number of texts, not with its square. The same texts give the same groups.
        """
        _, firsts, copies_of = np.unique(self.keys, return_index=True, return_inverse=True)
        # Texts are read fastest in their own order.
        order = np.argsort(firsts)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        firsts = firsts[order]
        joined = _Union(len(firsts))
        signatures = self._signatures(firsts)
        for band in range(_BANDS):
            nearby = signatures[:, (band + 1) % _BANDS]
            for bucket in _buckets(signatures[:, band], nearby):
                self._join(bucket, firsts, joined, threshold)
        roots = np.fromiter((joined.find(one) for one in range(len(firsts))), np.int64, len(firsts))
        return np.asarray(firsts[roots][places[copies_of]])

    def nearest(self, rows: Iterable[int], among: Iterable[int]) -> npt.NDArray[np.float64]:
        """Return for each of `rows` the Jaccard index with the closest text of `among`.

        Exact; `among` is read once, and `rows` should be few.
        """
        wanted = [self.shingles(self._texts[row]) for row in rows]
        holders: dict[int, list[int]] = {}
        for place, shingles in enumerate(wanted):
            for shingle in shingles.tolist():
                holders.setdefault(shingle, []).append(place)
        closest = np.zeros(len(wanted))
        for row in among:
            shingles = self.shingles(self._texts[row])
            shared: Counter[int] = Counter()
            for shingle in shingles.tolist():
                shared.update(holders.get(shingle, ()))
            for place, count in shared.items():
                union = len(shingles) + len(wanted[place]) - count
                closest[place] = max(closest[place], count / union)
        return closest

    def leakage(self, train: Rows, test: Rows) -> dict[str, int]:
        """Count the test rows with a near-copy, or a similar text, among the training rows.

        Of a large test split, a thousand evenly spread rows are compared with all of `train`.
        """
        places = np.linspace(0, len(test) - 1, min(len(test), _TESTED), dtype=np.int64)
        closest = self.nearest(test[places].tolist(), train.tolist())
        return {
            "test_rows": len(places),
            "near_copies": int((closest >= SAME).sum()),
            "similar": int((closest >= SIMILAR).sum()),
        }

    def _read(self, row: int) -> Shingles:
        return self.shingles(self._texts[row])

    def _signatures(self, rows: Rows) -> npt.NDArray[np.uint32]:
        """Return a hash for each band [rows, bands]."""
        signatures = np.empty((len(rows), _BANDS), dtype=np.uint32)
        for start in range(0, len(rows), _AT_ONCE):
            batch = [self._read(row) for row in rows[start : start + _AT_ONCE].tolist()]
            lengths = np.cumsum([0, *map(len, batch[:-1])])
            # The high half of a product with a random odd number is a random order of the hashes.
            hashed = np.concatenate(batch)[None, :] * _FACTORS + _OFFSETS >> np.uint64(32)
            least = np.minimum.reduceat(hashed, lengths, axis=1)
            bands = least.reshape(_BANDS, _BAND_ROWS, len(batch)) * _BAND_FACTORS[:, None]
            signatures[start : start + len(batch)] = (bands.sum(axis=1) >> np.uint64(32)).T
        return signatures

    def _join(self, bucket: list[int], rows: Rows, joined: _Union, threshold: float) -> None:
        for position, one in enumerate(bucket):
            # In a large bucket only neighbours are compared; other bands find the other pairs.
            for other in bucket[max(0, position - _COMPARED) : position]:
                if joined.find(one) == joined.find(other):
                    continue
                if _jaccard(self._kept(int(rows[one])), self._kept(int(rows[other]))) >= threshold:
                    joined.unite(one, other)


class _Union:
    """Disjoint sets of numbers, each named by its least one."""

    def __init__(self, size: int) -> None:
        self._parents = array("q", range(size))

    def find(self, one: int) -> int:
        parents = self._parents
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        return one

    def unite(self, one: int, other: int) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._parents[second] = first


def _shingles(text: str) -> Shingles:
    words = _WORDS.findall(text.casefold()) or [text]
    hashes = np.array([crc32(word.encode("utf-8", "surrogatepass")) for word in words], np.uint64)
    pairs = hashes[:-1] << np.uint64(32) | hashes[1:] if len(hashes) > 1 else hashes
    # Spread over all 64 bits (splitmix64).
    pairs = (pairs ^ pairs >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    pairs = (pairs ^ pairs >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.unique(pairs ^ pairs >> np.uint64(31))


def _slots(shingles: Shingles) -> Rows:
    return (shingles % np.uint64(_COUNTERS)).astype(np.int64)


def _jaccard(one: Shingles, other: Shingles) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def _buckets(band: npt.NDArray[np.uint32], nearby: npt.NDArray[np.uint32]) -> Iterator[list[int]]:
    """Yield the rows that share a hash, those that share the next band's too side by side."""
    order = np.lexsort((nearby, band))
    borders = np.flatnonzero(np.diff(band[order])) + 1
    edges = np.concatenate(([0], borders, [len(order)]))
    for bucket in np.flatnonzero(np.diff(edges) > 1):
        yield order[edges[bucket] : edges[bucket + 1]].tolist()
