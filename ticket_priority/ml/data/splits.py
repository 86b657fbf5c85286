"""Split rows to train, validate and test on, groups of near-copies kept whole. Needs numpy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ticket_priority.ml.types import CLASS_NAMES

KINDS_OF_SPLIT: Final = ("time", "random")

TEST_SHARE: Final = 0.15
VALIDATION_SHARE: Final = 0.15
LARGE_GROUP_SHARE: Final = 0.05
"""A larger group than this is always trained on: it would be most of a test."""

MIN_DAYS: Final = 14
"""A table that was filled on fewer days, as by an import, is not split by time."""

_SECONDS_A_DAY: Final = 86_400

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """The numbers of the rows in each split, ascending, and how they were chosen.

    `kind` is one of KINDS_OF_SPLIT; `reason` says why not by time, where creation times were given.
    """

    train: Rows
    validation: Rows
    test: Rows
    kind: str
    reason: str = ""


def split(
    labels: npt.NDArray[np.integer[Any]],
    groups: npt.NDArray[np.uint64],
    sources: npt.NDArray[np.integer[Any]] | None = None,
    created_at: npt.NDArray[np.float64] | None = None,
) -> Split:
    """Split rows by time where every row has one, else at random; a group is never split.

    `groups` holds for each row a number of its group that is the same in every run, `created_at`
    seconds since the epoch (nan: unknown). By time, the newest 15% of each source are the test and
    the 15% before them the validation, and a group goes where its newest row does. At random,
    classes keep their proportions, and nearly all rows keep their split as others are added.
    """
    members = _Groups(labels, groups)
    reason = ""
    if created_at is not None and sources is not None and len(labels):
        reason = _why_not_by_time(created_at)
        if not reason:
            found = _cut(members, _newest(members, sources, created_at), "time")
            if not (reason := _missing_class(found, labels)):
                return found
    return _cut(members, _drawn(members), "random", reason)


class _Groups:
    """Rows by group: `of` is each row's place in `keys`, `labels` each group's commonest label."""

    def __init__(
        self, labels: npt.NDArray[np.integer[Any]], groups: npt.NDArray[np.uint64]
    ) -> None:
        self.keys, self.of = np.unique(groups, return_inverse=True)
        counts = np.zeros((len(self.keys), len(CLASS_NAMES)), dtype=np.int64)
        np.add.at(counts, (self.of, labels), 1)
        self.sizes = counts.sum(axis=1)
        self.labels = counts.argmax(axis=1)


def _newest(
    members: _Groups, sources: npt.NDArray[np.integer[Any]], created_at: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return each group's place among its source's tickets: 0 the newest, 1 the oldest."""
    places = np.empty(len(created_at))
    for source in np.unique(sources):
        rows = np.flatnonzero(sources == source)
        # Stable and reversed: of two rows of one time the one that was read later is newer.
        order = rows[np.argsort(created_at[rows], kind="stable")][::-1]
        places[order] = np.arange(len(order)) / len(order)
    newest = np.ones(len(members.keys))
    np.minimum.at(newest, members.of, places)
    large = members.sizes > max(1.0, LARGE_GROUP_SHARE * len(created_at))
    return np.where(large, 1.0, newest)


def _drawn(members: _Groups) -> npt.NDArray[np.float64]:
    """Return each group's place in a draw among the groups of its class, 0 to 1."""
    drawn = np.fromiter(map(_random_bits, members.keys), np.uint64, len(members.keys))
    order = np.argsort(drawn, kind="stable")
    places = np.ones(len(members.keys))
    for label in range(len(CLASS_NAMES)):
        chosen = order[members.labels[order] == label]
        sizes = members.sizes[chosen]
        total = sizes.sum()
        fits = sizes <= max(1.0, LARGE_GROUP_SHARE * total)
        chosen, sizes = chosen[fits], sizes[fits]
        places[chosen] = (np.cumsum(sizes) - sizes) / max(total, 1)
    return places


def _random_bits(key: np.uint64) -> int:
    """Return 64 pseudo-random bits that depend on the key alone."""
    return int.from_bytes(hashlib.sha256(f"{key:016x}".encode()).digest()[:8], "big")


def _cut(members: _Groups, places: npt.NDArray[np.float64], kind: str, reason: str = "") -> Split:
    rows = places[members.of]
    return Split(
        train=np.flatnonzero(rows >= TEST_SHARE + VALIDATION_SHARE),
        validation=np.flatnonzero((rows >= TEST_SHARE) & (rows < TEST_SHARE + VALIDATION_SHARE)),
        test=np.flatnonzero(rows < TEST_SHARE),
        kind=kind,
        reason=reason,
    )


def _why_not_by_time(created_at: npt.NDArray[np.float64]) -> str:
    if unknown := int(np.isnan(created_at).sum()):
        return f"{unknown} of {len(created_at)} tickets have no time of creation"
    if (days := len(np.unique(created_at // _SECONDS_A_DAY))) < MIN_DAYS:
        return f"the tickets were created on too few days: {days}, not {MIN_DAYS}"
    return ""


def _missing_class(found: Split, labels: npt.NDArray[np.integer[Any]]) -> str:
    for name in ("test", "validation", "train"):
        present = np.unique(labels[getattr(found, name)])
        for label in np.setdiff1d(np.unique(labels), present).tolist():
            return f"the {name} split by time would hold no ticket that is {CLASS_NAMES[label]}"
    return ""
