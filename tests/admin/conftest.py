from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

import ticket_priority
from helpdesk.models import Ticket
from tests.uuid_host.models import Case
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.models.rows import content_type_of
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import register, unregister

METRICS: dict[str, Any] = {
    "model": {
        "n": 120,
        "accuracy": 0.875,
        "macro_f1": 0.861,
        "weighted_kappa": 0.842,
        "calibration_error": 0.031,
        "per_class": {
            "low": {"precision": 0.91, "recall": 0.93, "f1": 0.92, "support": 44},
            "medium": {"precision": 0.84, "recall": 0.81, "f1": 0.825, "support": 48},
            "high": {"precision": 0.82, "recall": 0.857, "f1": 0.838, "support": 28},
        },
        "confusion_matrix": [[41, 3, 0], [4, 39, 5], [0, 4, 24]],
    },
    "tfidf_logreg": {
        "n": 120,
        "accuracy": 0.712,
        "macro_f1": 0.688,
        "weighted_kappa": 0.603,
        "per_class": {
            "low": {"precision": 0.75, "recall": 0.8, "f1": 0.774, "support": 44},
            "medium": {"precision": 0.69, "recall": 0.7, "f1": 0.695, "support": 48},
            "high": {"precision": 0.66, "recall": 0.54, "f1": 0.594, "support": 28},
        },
        "confusion_matrix": [[35, 8, 1], [9, 34, 5], [3, 10, 15]],
    },
    "majority": {"n": 120, "accuracy": 0.4, "macro_f1": 0.19, "weighted_kappa": 0.0},
    "serving": {
        "precision": "int8",
        "reason": "no less accurate than the torch model",
        "size_mb": 135.4,
        "fp32": {"accuracy": 0.875, "macro_f1": 0.861, "agreement": 1.0},
        "int8": {"accuracy": 0.876, "macro_f1": 0.862, "agreement": 0.958},
    },
    "training": {"epochs": 4, "best_epoch": 3, "seconds": 231.4, "precision": "bf16-mixed"},
}
DATASET: dict[str, Any] = {
    "fingerprint": "ab" * 32,
    "dropped": {"duplicate": 7, "empty text": 2},
    "rows": {"train": 560, "validation": 120, "test": 120},
    "classes": {
        "train": {"low": 210, "medium": 220, "high": 130},
        "validation": {"low": 44, "medium": 48, "high": 28},
        "test": {"low": 44, "medium": 48, "high": 28},
    },
}

MakeTicket = Callable[..., Any]
MakePrediction = Callable[..., Prediction]


@pytest.fixture
def version(db: None) -> ModelVersion:
    """A registered version whose files are missing."""
    return ModelVersion.objects.create(
        name="20261101-0900",
        kind="transformer",
        directory="20261101-0900",
        digest="0" * 64,
        base_model="distilbert-base-multilingual-cased",
        metrics=METRICS,
        dataset=DATASET,
        config={"max_epochs": 4, "learning_rate": 5e-5},
    )


@pytest.fixture
def make_ticket(db: None) -> MakeTicket:
    """Return a maker of tickets that no model has seen."""

    def make(**values: Any) -> Ticket:
        with ticket_priority.muted():
            return Ticket.objects.create(
                **{"subject": "Printer jam", "description": "Tray two.", **values}
            )

    return make


@pytest.fixture
def make_prediction(db: None) -> MakePrediction:
    def make(ticket: Any, **values: Any) -> Prediction:
        given: dict[str, Any] = {
            "mode": "sync",
            "state": Prediction.State.APPLIED,
            "reason": Prediction.Reason.OK,
        }
        if values.get("priority") is not None:
            given |= {"confidence": 0.87, "prob_low": 0.03, "prob_medium": 0.1, "prob_high": 0.87}
        return Prediction.objects.create(
            content_type=content_type_of(type(ticket)),
            object_id=str(ticket.pk),
            **{**given, **values},
        )

    return make


@pytest.fixture
def make_case(db: None, case_source: TicketSource) -> MakeTicket:
    def make(**values: Any) -> Case:
        with ticket_priority.muted():
            return Case.objects.create(**{"body": "Lift stuck", **values})

    return make


@pytest.fixture
def case_source() -> Iterator[TicketSource]:
    """Attach the ticket with a UUID key and a scale of its own, where 1 and 2 are high."""
    yield register(
        Case,
        text_fields=("body",),
        priority_field="urgency",
        to_host={"low": 4, "medium": 3, "high": 2},
        from_host={1: "high", 2: "high", 3: "medium", 4: "low", 5: "low"},
    )
    unregister(Case)


@pytest.fixture
def client_with(db: None) -> Callable[..., Client]:
    """Return a maker of clients of staff members who hold the named permissions only."""

    def make(*codenames: str) -> Client:
        user = User.objects.create_user("-".join(codenames) or "nobody", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return make
