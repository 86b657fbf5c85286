"""From ticket tables to training examples: labels people gave, de-duplicated, grouped, split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from django.db import models, router

from ticket_priority.conf import get_settings
from ticket_priority.exceptions import DatasetError
from ticket_priority.interfaces import CLASS_NAMES, LabelledText
from ticket_priority.models import Override, Prediction, plugin_database
from ticket_priority.sources import TicketSource
from ticket_priority.text import text_hash

TEST_SHARE: Final = 0.15
VALIDATION_SHARE: Final = 0.15
MIN_ROWS_A_CLASS: Final = 6
"""Fewer rows of a class than this cannot be spread over three splits and say anything."""

_BATCH: Final = 2000
_NOT_WORDS = re.compile(r"[\W\d_]+")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three splits that share no near-copies. `fingerprint` is the SHA-256 of texts and labels.

    `dropped` counts the rows left out, by reason.
    """

    train: list[LabelledText]
    validation: list[LabelledText]
    test: list[LabelledText]
    fingerprint: str
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.train) + len(self.validation) + len(self.test)

    def summary(self) -> dict[str, Any]:
        """Return counts by split and class, and the fingerprint, ready for JSON."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            "fingerprint": self.fingerprint,
            "dropped": self.dropped,
            "rows": {name: len(rows) for name, rows in splits.items()},
            "classes": {
                name: {CLASS_NAMES[label]: count for label, count in sorted(_labels(rows).items())}
                for name, rows in splits.items()
            },
        }


def build(sources: Iterable[TicketSource], *, using: str | None = None) -> Dataset:
    """Read, clean and split every row whose priority a person set.

    Raises DatasetError when there are too few rows, or only one class, saying what to do.
    """
    dropped: Counter[str] = Counter()
    rows = [row for source in sources for row in labelled_texts(source, using, dropped=dropped)]
    unique = deduplicate(rows, dropped=dropped)
    _check_sufficient(unique, dropped)
    train, validation, test = split(unique)
    return Dataset(train, validation, test, fingerprint(unique), dict(dropped))


def labelled_texts(
    source: TicketSource, using: str | None = None, *, dropped: Counter[str] | None = None
) -> Iterator[LabelledText]:
    """Yield a source's examples: the value a person set, by an override or in the host's own way.

    A value that equals one of the plugin's own predictions, and that nobody reviewed, is no label;
    nor is one that a form which was opened before the prediction put back. The table is read in
    batches; texts are normalised.
    """
    dropped = Counter() if dropped is None else dropped
    overrides = Override.objects.using(plugin_database()).for_model(source.model)
    overridden = dict(overrides.order_by("pk").values_list("object_id", "to_priority"))
    keys: Any = overrides.ticket_keys(source.model)
    if plugin_database() != (using or router.db_for_read(source.model)):
        keys = list(keys)
    rows = source.labelled_rows(using, decided_keys=keys).order_by("pk")
    for batch in _batches(rows.iterator(chunk_size=_BATCH)):
        predictions = Prediction.objects.using(plugin_database())
        batch_keys = [ticket.pk for ticket in batch]
        applied = predictions.applied_values(source.model, batch_keys)
        undone = predictions.undone_keys(source.model, batch_keys) - overridden.keys()
        for ticket in batch:
            key = str(ticket.pk)
            current = source.label_of(ticket)
            is_ours = current is not None and current in applied[key]
            # Where every decision is recorded, a later change was nobody's: an escalation, say.
            decided_last = source.record_changes and key in overridden
            label = overridden.get(key) if current is None or is_ours or decided_last else current
            if label is None and is_ours:
                dropped["unreviewed prediction"] += 1
            elif key in undone:
                dropped["put back by a stale form"] += 1
            elif label is None:
                dropped["value maps to no class"] += 1
            elif not (text := source.text_of(ticket)):
                dropped["empty text"] += 1
            else:
                yield LabelledText(
                    text=text,
                    label=int(label),
                    group=near_copy_key(text),
                    source=source.label,
                    pk=key,
                    language=_language(source, ticket),
                )


def deduplicate(
    rows: Iterable[LabelledText], *, dropped: Counter[str] | None = None
) -> list[LabelledText]:
    """Keep one row of each text. A text that bears different labels equally often goes."""
    dropped = Counter() if dropped is None else dropped
    by_text: dict[str, list[LabelledText]] = defaultdict(list)
    for row in rows:
        by_text[text_hash(row.text)].append(row)
    kept = []
    for copies in by_text.values():
        ranking = _labels(copies).most_common(2)
        if len(ranking) == 2 and ranking[0][1] == ranking[1][1]:
            dropped["conflicting labels"] += len(copies)
            continue
        dropped["duplicate"] += len(copies) - 1
        kept.append(next(row for row in copies if row.label == ranking[0][0]))
    return kept


def near_copy_key(text: str) -> str:
    """Return a key that texts share when they differ only in case, digits and punctuation."""
    words = _NOT_WORDS.sub(" ", text.casefold()).strip()
    return hashlib.sha256((words or text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def split(
    rows: Sequence[LabelledText],
) -> tuple[list[LabelledText], list[LabelledText], list[LabelledText]]:
    """Return train, validation and test rows: stratified, groups kept whole, no random state.

    Within a class, groups are ordered by their hash, so that rows keep their split, but for a few
    at the borders, when tickets are added.
    """
    groups: dict[str, list[LabelledText]] = defaultdict(list)
    for row in rows:
        groups[row.group or row.text].append(row)
    by_label: dict[int, list[str]] = defaultdict(list)
    for key, members in groups.items():
        by_label[_labels(members).most_common(1)[0][0]].append(key)
    train: list[LabelledText] = []
    validation: list[LabelledText] = []
    test: list[LabelledText] = []
    for _label, keys in sorted(by_label.items()):
        keys.sort(key=text_hash)
        first, second = len(keys) * TEST_SHARE, len(keys) * (TEST_SHARE + VALIDATION_SHARE)
        for index, key in enumerate(keys):
            target = test if index < first else validation if index < second else train
            target.extend(groups[key])
    return train, validation, test


def fingerprint(rows: Iterable[LabelledText]) -> str:
    """Return the SHA-256 over texts and labels, whatever their order."""
    lines = sorted(f"{text_hash(row.text)} {row.label}" for row in rows)
    return text_hash("\n".join(lines))


def _check_sufficient(rows: Sequence[LabelledText], dropped: Counter[str]) -> None:
    left_out = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
    remark = f" Left out: {left_out}." if left_out else ""
    needed = get_settings().min_training_rows
    if len(rows) < needed:
        raise DatasetError(
            f"There are {len(rows)} usable tickets whose priority a person set; training needs at "
            f"least {needed}.{remark} Import labelled tickets, or set priorities in the admin."
        )
    counts = _labels(rows)
    if len(counts) < 2:
        only = CLASS_NAMES[next(iter(counts))]
        raise DatasetError(
            f"All {len(rows)} labelled tickets are {only}: there is nothing to learn. Label some "
            f'of the others; if the host\'s values are mapped wrongly, mend "from_host".{remark}'
        )
    for label, count in sorted(counts.items()):
        if count < MIN_ROWS_A_CLASS:
            raise DatasetError(
                f"Only {count} labelled tickets are {CLASS_NAMES[label]}; each class that occurs "
                f"needs at least {MIN_ROWS_A_CLASS}.{remark}"
            )


def _labels(rows: Iterable[LabelledText]) -> Counter[int]:
    return Counter(row.label for row in rows)


def _language(source: TicketSource, ticket: models.Model) -> str:
    return str(getattr(ticket, source.language_field) or "") if source.language_field else ""


def _batches(rows: Iterable[models.Model]) -> Iterator[list[models.Model]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
