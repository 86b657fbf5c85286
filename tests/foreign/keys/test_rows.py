"""Rows that another release or another key has left, and models that share a table."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core import checks
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client

import ticket_priority
from tests.foreign.keys import models
from ticket_priority.classifiers import get_classifier
from ticket_priority.exceptions import SourceError
from ticket_priority.models import Prediction
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions import outbox
from ticket_priority.sources import (
    TicketSource,
    all_sources,
    find_source,
    get_source,
    register,
    registry,
)

pytestmark = pytest.mark.django_db

State, Reason = Prediction.State, Prediction.Reason


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    cache.clear()
    before = dict(registry._sources)
    registry._sources.clear()
    yield
    registry._sources.clear()
    registry._sources.update(before)


def attach(model: Any, **options: Any) -> None:
    register(model, text_fields="body", priority_field="severity", **options)


def left(model: Any, key: str) -> Prediction:
    """Store a pending prediction under a key as it stands."""
    return Prediction.objects.create(
        content_type=content_type_of(model),
        object_id=key,
        mode="async",
        state=State.PENDING,
        reason=Reason.QUEUED,
    )


class TestOlderRows:
    @pytest.fixture
    def ticket(self) -> Any:
        attach(models.Unique)
        with ticket_priority.muted():
            return models.Unique.objects.create(body="outage")

    def test_another_spelling_of_a_key_is_the_same_ticket(
        self, ticket: Any, active_model: Any
    ) -> None:
        row = left(models.Unique, ticket.pk.hex.upper())
        assert outbox.drain() == 1
        row.refresh_from_db()
        ticket.refresh_from_db()
        assert (row.state, ticket.severity) == (State.APPLIED, 2)

    def test_it_is_not_erased_while_the_ticket_exists(self, ticket: Any) -> None:
        row, gone = left(models.Unique, ticket.pk.hex), left(models.Unique, uuid.uuid4().hex)
        call_command("erase_priority_data", gone=True, verbosity=0)
        assert list(Prediction.objects.all()) == [row]
        assert gone not in Prediction.objects.all()

    def test_a_text_that_is_no_key_holds_nothing_up(self, ticket: Any, active_model: Any) -> None:
        row, good = left(models.Unique, "17"), left(models.Unique, str(ticket.pk))
        assert outbox.drain() == 2
        for prediction in (row, good):
            prediction.refresh_from_db()
        assert (row.state, row.reason) == (State.ABSTAINED, Reason.TICKET_GONE)
        assert good.state == State.APPLIED
        tickets = models.Unique.objects.filter(
            pk__in=Prediction.objects.filter(pk=good.pk).ticket_keys(models.Unique)
        )
        assert list(tickets) == [ticket]


def test_a_source_that_cannot_be_read_holds_no_other_up(active_model: Any) -> None:
    register(
        models.Numbered,
        priority_field="severity",
        adapter="tests.foreign.keys.test_rows.Unreadable",
    )
    attach(models.Unique)
    with ticket_priority.muted():
        ticket = models.Unique.objects.create(body="outage")
    rows = [left(models.Numbered, "1"), left(models.Unique, str(ticket.pk))]
    assert outbox.drain() == 1
    ticket.refresh_from_db()
    assert ticket.severity == 2
    assert get_classifier().breaker.state() == "closed"
    states = [Prediction.objects.get(pk=row.pk).state for row in rows]
    assert states == [State.PENDING, State.APPLIED]


@dataclass(frozen=True, slots=True)
class Unreadable(TicketSource):
    """Its tickets live where nobody can reach them."""

    text_fields: tuple[str, ...] = ("body",)

    def by_keys(self, keys: Any, *, using: str | None = None) -> Any:
        raise ConnectionError("the archive is closed")


class TestProxies:
    """A proxy has the rows of its model, and so its rules."""

    @pytest.fixture
    def both(self) -> None:
        rule = "tests.foreign.keys.models.first_team"
        attach(models.CodedProxy)
        attach(models.Coded, visible_to=rule, changeable_by=rule)

    @pytest.fixture
    def client_of(self, client: Client) -> Callable[[str], Client]:
        def client_of(model: str) -> Client:
            user = User.objects.create_user("vip")
            found = Permission.objects.filter(codename__in=[f"view_{model}", f"change_{model}"])
            user.user_permissions.add(*found)
            client.force_login(user)
            return client

        return client_of

    def test_its_permissions_do_not_reach_the_tickets_of_the_model(
        self, both: None, client_of: Callable[[str], Client]
    ) -> None:
        hidden = models.CodedProxy.objects.create(code="a", body="outage", team=2)
        assert Prediction.objects.for_instance(hidden).exists()
        client = client_of("codedproxy")
        assert client.get("/api/predictions/").json()["count"] == 0
        for label in ("keys.CodedProxy", "keys.Coded"):
            page = f"/api/tickets/{label}/a/"
            assert client.get(page).status_code == 404
            body = {"priority": "low"}
            assert client.post(f"{page}override/", body, "application/json").status_code == 404

    def test_its_source_is_the_one_of_the_model(self, both: None) -> None:
        assert [source.label for source in all_sources()] == ["keys.Coded"]
        assert get_source(models.CodedProxy) is get_source(models.Coded)
        with pytest.raises(SourceError):
            find_source("keys.CodedProxy")

    def test_the_check_names_both(self, both: None) -> None:
        (error,) = (it for it in checks.run_checks() if it.id == "ticket_priority.E028")
        assert "keys.CodedProxy is left out: keys.Coded has the same table" in error.msg
        assert error.obj is models.CodedProxy

    def test_of_two_proxies_the_first_has_the_tickets(self) -> None:
        attach(models.CodedProxy)
        attach(models.OtherCodedProxy)
        assert [source.label for source in all_sources()] == ["keys.CodedProxy"]
        assert get_source(models.OtherCodedProxy) is get_source(models.CodedProxy)
        (error,) = (it for it in checks.run_checks() if it.id == "ticket_priority.E028")
        assert error.obj is models.OtherCodedProxy

    def test_alone_it_is_a_source(
        self, active_model: Any, client_of: Callable[[str], Client]
    ) -> None:
        attach(models.CodedProxy)
        ticket = models.CodedProxy.objects.create(code="a", body="outage")
        assert outbox.drain() == 1
        ticket.refresh_from_db()
        assert ticket.severity == 2
        client = client_of("codedproxy")
        (row,) = client.get("/api/predictions/").json()["results"]
        for label in ("keys.CodedProxy", row["source"]):
            assert client.get(f"/api/tickets/{label}/a/").json()["prediction"] == row
        assert not [it for it in checks.run_checks() if it.id == "ticket_priority.E028"]


def test_a_child_beside_its_parent_is_a_source_of_its_own() -> None:
    attach(models.Coded)
    attach(models.CodedChild)
    assert {source.label for source in all_sources()} == {"keys.Coded", "keys.CodedChild"}
