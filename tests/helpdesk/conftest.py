from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

import ticket_priority
from helpdesk.access import AGENTS_GROUP
from helpdesk.models import Queue, Ticket
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.models.rows import content_type_of

MakeTicket = Callable[..., Ticket]
MakePrediction = Callable[..., Prediction]


@pytest.fixture
def agent(db: None) -> User:
    user = User.objects.create_user("ada", password="pass-for-ada")
    user.groups.add(Group.objects.get_or_create(name=AGENTS_GROUP)[0])
    return user


@pytest.fixture
def agent_client(agent: User) -> Client:
    client = Client()
    client.force_login(agent)
    return client


@pytest.fixture
def billing(db: None) -> Queue:
    return Queue.objects.create(name="Billing", slug="billing")


@pytest.fixture
def make_ticket(db: None) -> MakeTicket:
    def make(**values: Any) -> Ticket:
        given = {
            "subject": "Printer jam",
            "description": "Tray two.",
            "requester": "rae@customer.example",
            "language": "en",
        }
        with ticket_priority.muted():
            return Ticket.objects.create(**{**given, **values})

    return make


@pytest.fixture
def make_prediction(db: None) -> MakePrediction:
    def make(ticket: Ticket, **values: Any) -> Prediction:
        version, _ = ModelVersion.objects.get_or_create(
            name="model-7", defaults={"kind": "transformer", "directory": "x", "digest": "0" * 64}
        )
        given = {
            "mode": "sync",
            "state": Prediction.State.APPLIED,
            "reason": Prediction.Reason.OK,
            "priority": 2,
            "confidence": 0.87,
            "prob_low": 0.03,
            "prob_medium": 0.1,
            "prob_high": 0.87,
            "latency_ms": 12.0,
            "model_version": version,
        }
        return Prediction.objects.create(
            content_type=content_type_of(Ticket), object_id=str(ticket.pk), **{**given, **values}
        )

    return make
