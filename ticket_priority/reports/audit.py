"""How often people agreed with the hidden predictions of the audit slice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ticket_priority.models import ModelVersion, Prediction, plugin_database
from ticket_priority.models.rows import content_type_of
from ticket_priority.sources.base import TicketSource
from ticket_priority.training.labels import audited_labels

_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Agreement:
    """On how many of the tickets that people labelled a version agreed with them.

    `interval` is the 95% interval of the `accuracy`; None where scipy is not installed.
    """

    rows: int
    agreeing: int
    interval: tuple[float, float] | None
    accuracy: float


def audit_agreement(
    version: ModelVersion,
    sources: Iterable[TicketSource],
    *,
    using: str | None = None,
    newest: int | None = None,
) -> Agreement | None:
    """Compare a version's predictions of the audit slice with people's labels; None: no label yet.

    A version's first answer about a ticket counts. `using` is the database alias of the tickets,
    None: where their model's router reads. `newest` limits the predictions of each source, None:
    all.
    """
    rows = agreeing = 0
    for source in sources:
        said = _held_back_answers(version, source, newest)
        keys = list(said)
        for start in range(0, len(keys), _AT_ONCE):
            labels = audited_labels(source, keys[start : start + _AT_ONCE], using)
            rows += len(labels)
            agreeing += sum(said[key] == label for key, label in labels.items())
    if not rows:
        return None
    return Agreement(rows, agreeing, _interval(agreeing, rows), agreeing / rows)


def _interval(hits: int, rows: int) -> tuple[float, float] | None:
    try:
        from ticket_priority.ml.policy.certification import interval
    except ImportError:
        # A machine that only serves needs no scipy.
        return None
    return interval(hits, rows)


def _held_back_answers(
    version: ModelVersion, source: TicketSource, newest: int | None
) -> dict[str, int]:
    answers = Prediction.objects.using(plugin_database()).filter(
        content_type=content_type_of(source.model),
        model_version=version,
        reason=Prediction.Reason.AUDIT,
        priority__isnull=False,
    )
    newest_first = answers.order_by("-pk").values_list("object_id", "priority")
    return dict(newest_first[:newest])
