"""From labelled tickets to a dataset: de-duplicated, grouped by near-copies, split.

Texts are kept on disk, so that a ticket takes about 250 bytes of memory, however long its text is.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

try:
    import numpy as np
    import numpy.typing as npt
except ImportError as error:
    raise ImportError(
        "Reading training data needs numpy. Install what training needs with: "
        'pip install "django-ticket-priority[ml]", or [linear] for linear models alone'
    ) from error
from ticket_priority.conf import get_settings
from ticket_priority.exceptions import DatasetError
from ticket_priority.ml.data.jsonl import Spool, StoredRows, Texts, count_labels, fingerprint
from ticket_priority.ml.data.near_duplicates import TextSimilarity
from ticket_priority.ml.data.splits import Split, split
from ticket_priority.ml.evaluation.figures import mapping
from ticket_priority.ml.text.normalisation import text_hash
from ticket_priority.ml.types import (
    CLASS_NAMES,
    PROVENANCES,
    LabelledText,
    ProgressCallback,
    silent,
)
from ticket_priority.sources.base import TicketSource
from ticket_priority.training.labels import labelled_texts

MIN_ROWS_A_CLASS: Final = 6
"""Three splits need at least so many rows of a class."""

_PROVENANCES: Final = (*PROVENANCES, "unknown")
_BATCH: Final = 2000
_TOLD_EVERY: Final = 50_000
_LARGEST_GROUPS: Final = 5

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three splits that share no near-copies; their rows are read from disk on access.

    `fingerprint` is the SHA-256 of texts and labels. `dropped` counts the rows left out, by
    reason; `figures` describes the rest, ready for JSON.
    """

    train: Sequence[LabelledText]
    validation: Sequence[LabelledText]
    test: Sequence[LabelledText]
    fingerprint: str
    dropped: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.train) + len(self.validation) + len(self.test)

    @property
    def majority(self) -> int:
        """The most frequent class of the training split; on a tie the higher priority."""
        counts = self.figures["classes"]["train"]
        name = max(counts, key=lambda name: (counts[name], CLASS_NAMES.index(name)), default="")
        return CLASS_NAMES.index(name) if name else 0

    def summary(self) -> dict[str, Any]:
        """Return the fingerprint, the counts, and how the rows were split, ready for JSON."""
        return {"fingerprint": self.fingerprint, "dropped": self.dropped, **self.figures}


def build(
    sources: Iterable[TicketSource],
    *,
    using: str | None = None,
    progress: ProgressCallback = silent,
) -> Dataset:
    """Read, clean and split every row whose priority a person set.

    Raises DatasetError, with what to do, where there are too few rows or only one class.
    """
    dataset = collect(sources, using=using, progress=progress)
    check_sufficient(dataset)
    return dataset


def collect(
    sources: Iterable[TicketSource],
    *,
    using: str | None = None,
    progress: ProgressCallback = silent,
) -> Dataset:
    """Do as `build`, but accept any number of rows, also none."""
    dropped: Counter[str] = Counter()
    edited: Counter[str] = Counter()
    rows = (
        (origin, row)
        for origin, source in enumerate(sources)
        for row in labelled_texts(source, using, dropped=dropped, edited=edited)
    )
    return _Rows(rows, dropped, edited, progress).split()


def assemble(rows: Iterable[LabelledText]) -> Dataset:
    """Clean and split rows of one source, as `build` does those of a table."""
    return _Rows(((0, row) for row in rows), Counter(), Counter()).split()


def check_sufficient(dataset: Dataset) -> None:
    """Raise DatasetError, with what to do, where there is too little to train on."""
    counts: Counter[str] = Counter()
    for split_counts in dataset.figures["classes"].values():
        counts.update(split_counts)
    left_out = ", ".join(f"{count} {reason}" for reason, count in dataset.dropped.items() if count)
    remark = f" Left out: {left_out}." if left_out else ""
    needed, rows = get_settings().training.min_rows, counts.total()
    if rows < needed:
        raise DatasetError(
            f"There are {rows} usable tickets whose priority a person set; training needs at "
            f"least {needed}.{remark} Import labelled tickets, or set priorities in the admin."
        )
    if len(counts) < 2:
        raise DatasetError(
            f"All {rows} labelled tickets are {next(iter(counts))}: there is nothing to learn. "
            "Label some of the others; if the host's values are mapped wrongly, mend "
            f'"from_host".{remark}'
        )
    for name in CLASS_NAMES:
        if 0 < counts[name] < MIN_ROWS_A_CLASS:
            raise DatasetError(
                f"Only {counts[name]} labelled tickets are {name}; each class that occurs "
                f"needs at least {MIN_ROWS_A_CLASS}.{remark}"
            )


def split_of(summary: Any) -> str | None:
    """Return the kind of split in a stored `Dataset.summary()`; None: it has none."""
    return mapping(mapping(summary).get("split")).get("by")


class _Rows:
    """The labelled tickets: texts on disk, labels, hashes and times in memory."""

    def __init__(
        self,
        rows: Iterable[tuple[int, LabelledText]],
        dropped: Counter[str],
        edited: Counter[str],
        progress: ProgressCallback = silent,
    ) -> None:
        """Read rows, each with the number of its source; this fills `dropped` and `edited`."""
        self.dropped, self.edited = dropped, edited
        self.spool = Spool()
        labels, provenances, origins = array("b"), array("b"), array("i")
        created_at, digests = array("d"), bytearray()
        for origin, row in rows:
            self.spool.append(row)
            labels.append(row.label)
            provenances.append(_PROVENANCES.index(row.provenance or "unknown"))
            origins.append(origin)
            created_at.append(_seconds(row.created_at))
            digests += bytes.fromhex(text_hash(row.text))
            if len(labels) % _TOLD_EVERY == 0:
                progress(f"{len(labels)} labelled tickets read")
        self.spool.finish()
        self.digests = np.frombuffer(digests, dtype="S1").view("V32")
        self.labels = np.frombuffer(labels, dtype=np.int8)
        self.same_texts = agreement(self.digests, self.labels)
        self.kept = deduplicate(self.digests, self.labels, dropped=self.dropped)
        self.labels, self.digests = self.labels[self.kept], self.digests[self.kept]
        self.provenances = np.frombuffer(provenances, dtype=np.int8)[self.kept]
        self.origins = np.frombuffer(origins, dtype=np.int32)[self.kept]
        self.created_at = np.frombuffer(created_at, dtype=np.float64)[self.kept]

    def split(self) -> Dataset:
        similarity = TextSimilarity(Texts(StoredRows(self.spool, self.kept)))
        firsts = similarity.groups()
        # Named by the first row, which is the oldest if keys ascend, a group keeps its name.
        groups = similarity.keys[firsts]
        timed = None if len(firsts) and np.isnan(self.created_at).all() else self.created_at
        found = split(self.labels, groups, self.origins, timed)
        rows = StoredRows(self.spool, self.kept, groups)
        return Dataset(
            train=rows.take(found.train),
            validation=rows.take(found.validation),
            test=rows.take(found.test),
            fingerprint=fingerprint(self.digests, self.labels),
            dropped=dict(self.dropped),
            figures=self._figures(found, groups, similarity),
        )

    def _figures(
        self, found: Split, groups: npt.NDArray[np.uint64], similarity: TextSimilarity
    ) -> dict[str, Any]:
        splits = {"train": found.train, "validation": found.validation, "test": found.test}
        sizes = np.sort(np.unique(groups, return_counts=True)[1])[::-1]
        return {
            **count_labels({name: self.labels[rows] for name, rows in splits.items()}),
            "provenance": {
                _PROVENANCES[place]: count
                for place, count in sorted(Counter(self.provenances.tolist()).items())
            },
            "edited": {name: self.edited[name] for name in ("known", "since", "restored")},
            "split": {"by": found.kind, "reason": found.reason},
            "same_texts": self.same_texts,
            "near_copies": {
                **agreement(groups, self.labels),
                "groups": len(sizes),
                "rows_in_groups": int(sizes[sizes > 1].sum()),
                "largest": sizes[:_LARGEST_GROUPS].tolist(),
            },
            "leakage": similarity.leakage(found.train, found.test),
        }


def deduplicate(
    digests: npt.NDArray[np.void],
    labels: npt.NDArray[np.int8],
    *,
    dropped: Counter[str] | None = None,
) -> Rows:
    """Return the number of one row for each digest, or none where its labels tie."""
    dropped = Counter() if dropped is None else dropped
    if not len(digests):
        return np.empty(0, dtype=np.int64)
    order = np.argsort(digests, kind="stable")
    sorted_digests = digests[order]
    starts = np.flatnonzero(np.concatenate(([True], sorted_digests[1:] != sorted_digests[:-1])))
    sizes = np.diff(np.concatenate((starts, [len(order)])))
    kept = [order[starts[sizes == 1]]]
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        copies = order[start : start + size]
        ranking = Counter(labels[copies].tolist()).most_common(2)
        if len(ranking) == 2 and ranking[0][1] == ranking[1][1]:
            dropped["conflicting labels"] += int(size)
            continue
        dropped["duplicate"] += int(size) - 1
        kept.append(copies[labels[copies] == ranking[0][0]][:1])
    return np.sort(np.concatenate(kept))


def agreement(groups: npt.NDArray[Any], labels: npt.NDArray[np.int8]) -> dict[str, Any]:
    """Say how often two rows of one group have the same label.

    `share` is None where no group has two rows. A group is weighted by its rows, not its pairs,
    or one large group would outweigh all others.
    """
    _, places = np.unique(groups, return_inverse=True)
    counts = np.zeros((int(places.max(initial=-1)) + 1, len(CLASS_NAMES)), dtype=np.int64)
    np.add.at(counts, (places, labels), 1)
    counts = counts[counts.sum(axis=1) > 1]
    sizes = counts.sum(axis=1)
    pairs, agreeing = sizes * (sizes - 1), (counts * (counts - 1)).sum(axis=1)
    return {
        "compared": int(sizes.sum()),
        "conflicting": int((agreeing < pairs).sum()),
        "share": float((agreeing / pairs * sizes).sum() / sizes.sum()) if len(sizes) else None,
    }


def _seconds(created_at: str) -> float:
    return datetime.fromisoformat(created_at).timestamp() if created_at else float("nan")
