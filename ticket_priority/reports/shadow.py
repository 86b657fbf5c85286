"""Use case: compare the shadow with the version that serves, ticket by ticket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from ticket_priority.db import pages_by_key
from ticket_priority.ml.types import CLASS_NAMES
from ticket_priority.models import ModelVersion
from ticket_priority.predictions.shadow import agreement, waiting
from ticket_priority.sources.registry import all_sources
from ticket_priority.training.labels import labels_of

_BATCH: Final = 2000
_RIVALS: Final = ("shadow", "served")


def report(version: ModelVersion, served_by: ModelVersion) -> dict[str, Any]:
    """Compare a shadow with a version that served, on the tickets both answered; ready for JSON.

    `agreement` counts tickets by the served class (rows) and the shadow's (columns). `labels` has
    the figures on the tickets with a label, as a training would use them.
    """
    since = version.shadow_since
    return {
        "shadow": version.name,
        "is_shadow": bool(version.is_shadow),
        "served_by": served_by.name,
        "since": None if since is None else since.isoformat(timespec="seconds"),
        **counts(version, served_by),
        "labels": _figures_of(_outcomes(version, served_by)),
        "load_error": version.load_error,
    }


def counts(version: ModelVersion, served_by: ModelVersion | None) -> dict[str, Any]:
    """Count a shadow's answers, as in `report`; None: there is no version to compare it with."""
    answers = version.shadow_predictions
    table = [] if served_by is None else agreement(version, served_by)
    compared = sum(map(sum, table))
    agreed = sum(row[label] for label, row in enumerate(table))
    return {
        "answered": answers.filter(priority__isnull=False).count(),
        "failed": answers.filter(priority=None).count(),
        "waiting": waiting(version) if version.is_shadow else 0,
        "compared": compared,
        "agreement": {"share": _share(agreed, compared), "table": table},
    }


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """Yield a `report` as lines to print."""
    state = "the shadow" if figures["is_shadow"] else "no longer the shadow"
    yield f"{figures['shadow']} is {state}, since {figures['since']}"
    unread = f", {figures['failed']} without an answer" if figures["failed"] else ""
    yield f"{figures['answered']} tickets answered{unread}, {figures['waiting']} waiting"
    if figures["load_error"]:
        yield f"It fails: {figures['load_error']}"
    if not figures["compared"]:
        yield f"There is no ticket to compare with {figures['served_by']} on yet"
        return
    yield ""
    share = figures["agreement"]["share"]
    yield (
        f"{figures['compared']} tickets compared with {figures['served_by']}: "
        f"{share:.1%} got the same answer"
    )
    yield _row(figures["served_by"], *(f"shadow: {name}" for name in CLASS_NAMES))
    for name, counts in zip(CLASS_NAMES, figures["agreement"]["table"], strict=True):
        yield _row(name, *map(str, counts))
    yield ""
    yield from _label_lines(figures["labels"], figures["served_by"])


def _label_lines(labels: dict[str, Any], served_by: str) -> Iterator[str]:
    if not labels["labelled"]:
        yield "Nobody has set the priority of one of them yet"
        return
    yield (
        f"People set the priority of {labels['labelled']} of them: {labels['both_right']} both "
        f"got right, {labels['shadow_alone_right']} the shadow alone, "
        f"{labels['served_alone_right']} {served_by} alone, {labels['neither_right']} neither"
    )
    yield _row("", "shadow", served_by)
    yield _row("accuracy", *(f"{labels['accuracy'][who]:.3f}" for who in _RIVALS))
    for name, recall in labels["recall"].items():
        title = f"recall of {name} ({recall['labelled']})"
        yield _row(title, *(f"{recall[who]:.3f}" for who in _RIVALS))
    yield f"People saw what {served_by} said before they decided, which favours it"


def _outcomes(version: ModelVersion, served_by: ModelVersion) -> Counter[tuple[int, bool, bool]]:
    """Count tickets by label, and by whether the shadow and the other version were right."""
    outcomes: Counter[tuple[int, bool, bool]] = Counter()
    answers = version.shadow_predictions.filter(priority__isnull=False)
    for source in all_sources():
        rows = answers.for_model(source.model).beside(served_by).filter(served__isnull=False)
        for batch in pages_by_key(rows, _BATCH):
            labels = labels_of(source, [row.object_id for row in batch])
            for row in batch:
                if (label := labels.get(row.object_id)) is not None:
                    outcomes[label, row.priority == label, row.served == label] += 1
    return outcomes


def _figures_of(outcomes: Counter[tuple[int, bool, bool]]) -> dict[str, Any]:
    labelled = outcomes.total()
    right: Counter[tuple[bool, bool]] = Counter()
    tickets: Counter[int] = Counter()
    hits: Counter[tuple[int, str]] = Counter()
    for (label, by_shadow, by_served), number in outcomes.items():
        right[by_shadow, by_served] += number
        tickets[label] += number
        hits[label, "shadow"] += number * by_shadow
        hits[label, "served"] += number * by_served
    return {
        "labelled": labelled,
        "both_right": right[True, True],
        "shadow_alone_right": right[True, False],
        "served_alone_right": right[False, True],
        "neither_right": right[False, False],
        "accuracy": {
            who: _share(sum(hits[label, who] for label in tickets), labelled) for who in _RIVALS
        },
        "recall": {
            CLASS_NAMES[label]: {
                "labelled": number,
                **{who: _share(hits[label, who], number) for who in _RIVALS},
            }
            for label, number in sorted(tickets.items())
        },
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _row(title: str, *cells: str) -> str:
    return f"{title:<28}" + "".join(f"{cell:>18}" for cell in cells)
