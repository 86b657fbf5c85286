"""Users, tickets and predictions for the tests of the API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import models
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from helpdesk.models import Ticket
from tests.uuid_host.models import Case
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions.receivers import muted
from ticket_priority.sources import registry
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import register

Login = Callable[..., APIClient]


@pytest.fixture(autouse=True)
def forgetful_throttle() -> Iterator[None]:
    """Start without throttled users."""
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def login(db: None) -> Login:
    """Return a function that creates a user and a client with the user's token."""

    def create(*permissions: str, **flags: Any) -> APIClient:
        user = User.objects.create_user(f"user{User.objects.count()}", **flags)
        for name in permissions:
            app, codename = name.split(".")
            user.user_permissions.add(
                Permission.objects.get(content_type__app_label=app, codename=codename)
            )
        client = APIClient(raise_request_exception=False)
        client.user = user  # type: ignore[attr-defined]
        client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=user).key}")
        return client

    return create


@pytest.fixture
def staff(login: Login) -> APIClient:
    return login(is_staff=True)


@pytest.fixture
def viewer(login: Login) -> APIClient:
    return login("helpdesk.view_ticket")


@pytest.fixture
def changer(login: Login) -> APIClient:
    return login("helpdesk.change_ticket")


@pytest.fixture
def superuser(login: Login) -> APIClient:
    return login(is_superuser=True)


@pytest.fixture
def ticket(db: None) -> Ticket:
    """Return a ticket without a decision."""
    return quiet(Ticket, subject="outage", description="the system is down")


@pytest.fixture
def cases() -> Iterator[TicketSource]:
    """Register Case, whose rows only their owners see."""
    yield register(
        Case,
        text_fields="body",
        priority_field="urgency",
        visible_to="tests.uuid_host.models.own_cases",
    )
    registry.unregister(Case)


@pytest.fixture(autouse=True)
def rules_by_permission() -> Iterator[None]:
    """Use the model's permissions for tickets, and restore the demo's rules afterwards."""
    before = registry.get_source(Ticket)
    register(Ticket, text_fields=("subject", "description"))
    yield
    registry._sources[Ticket] = before


def quiet(model: Any, **values: Any) -> Any:
    """Create a ticket without classifying it."""
    with muted():
        return model.objects.create(**values)


def predict(ticket: models.Model, probability: float = 0.8, **values: Any) -> Prediction:
    """Store a decided prediction, high by default."""
    rest = (1 - probability) / 2
    values = {
        "mode": "sync",
        "state": "applied",
        "reason": "ok",
        "priority": 2,
        "prob_low": rest,
        "prob_medium": rest,
        "prob_high": probability,
        "confidence": probability,
        **values,
    }
    return Prediction.objects.create(
        content_type=content_type_of(type(ticket)), object_id=str(ticket.pk), **values
    )


def overrule(ticket: models.Model, to: int, **values: Any) -> Override:
    return Override.objects.create(
        content_type=content_type_of(type(ticket)),
        object_id=str(ticket.pk),
        to_priority=to,
        **values,
    )


def version(name: str, **values: Any) -> ModelVersion:
    """Register a version without an artifact."""
    return ModelVersion.objects.create(
        name=name, kind="transformer", directory=name, digest="0" * 64, **values
    )
