"""What an adapter hears from the core, and what the core asks of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.core.checks import CheckMessage, Warning, run_checks
from django.core.management import CommandError, call_command
from django.db import models
from django.test import Client

import ticket_priority
from helpdesk.models import Ticket
from tests.admin.pages import form_of
from tests.predictions.test_on_save import OUTAGE
from tests.uuid_host.models import Case
from ticket_priority.exceptions import SourceError
from ticket_priority.models import ModelVersion
from ticket_priority.predictions import outbox
from ticket_priority.predictions.host_decisions import record_decision
from ticket_priority.priorities import Priority
from ticket_priority.sources import PriorityChange, TicketSource, registry
from ticket_priority.sources.registry import find_sources, get_source, register

pytestmark = pytest.mark.django_db


@dataclass(frozen=True)
class Desk(TicketSource):
    """A host that keeps what it is told, and that may be elsewhere."""

    text_fields: tuple[str, ...] = ("subject", "description")
    told: list[PriorityChange] = field(default_factory=list)
    absence: str = ""

    def write_history(self, instance: models.Model, change: PriorityChange, *, using: str) -> None:
        self.told.append(change)

    def check(self) -> Iterable[CheckMessage]:
        yield Warning("The desk is open.", id="desk.W001")

    def why_unavailable(self) -> str:
        return self.absence


@pytest.fixture(autouse=True)
def former_source() -> Iterator[None]:
    before = get_source(Ticket)
    yield
    registry._sources[Ticket] = before


def attach(**options: Any) -> Desk:
    source = register(Ticket, adapter=f"{__name__}.Desk", **options)
    assert isinstance(source, Desk)
    return source


def test_a_change_says_whether_the_tickets_own_insert_wrote_it(active_model: ModelVersion) -> None:
    desk = attach()
    ticket = Ticket.objects.create(subject=OUTAGE)
    (change,) = desk.told
    assert (change.before, change.after, change.via) == (None, Priority.HIGH, "sync")
    assert change.at_creation
    ticket_priority.override(ticket, Priority.LOW)
    assert not desk.told[1].at_creation


def test_a_late_change_is_none_of_the_insert(active_model: ModelVersion) -> None:
    desk = attach(mode="async")
    Ticket.objects.create(subject=OUTAGE)
    outbox.drain()
    (change,) = desk.told
    assert (change.after, change.via, change.at_creation) == (Priority.HIGH, "async", False)


def test_the_admins_form_tells_the_host(admin_client: Client, admin_user: Any) -> None:
    ticket = Ticket.objects.create(subject=OUTAGE, priority=Priority.LOW)
    desk = attach()
    url = f"/admin/helpdesk/ticket/{ticket.pk}/change/"
    reason = {"ticket_priority_reason": "The boss."}
    for priority in ("2", "2"):
        form = form_of(admin_client.get(url), "ticket_form")
        admin_client.post(url, {**form.values, **reason, "priority": priority})
    # The second time is a confirmation: nothing changed.
    (change,) = desk.told
    assert (change.before, change.after) == (Priority.LOW, Priority.HIGH)
    assert (change.user, change.reason, change.via) == (admin_user, "The boss.", "admin")


def test_a_source_has_checks_of_its_own() -> None:
    attach()
    assert "desk.W001" in [message.id for message in run_checks(tags=["ticket_priority"])]


def test_a_source_whose_tickets_are_elsewhere_is_passed_over() -> None:
    here = register(Case, text_fields="body", priority_field="urgency")
    try:
        attach(absence="The desk is in the cloud.")
        assert find_sources() == [here]
    finally:
        registry.unregister(Case)


def test_to_name_a_source_whose_tickets_are_elsewhere_is_an_error() -> None:
    attach(absence="The desk is in the cloud.")
    with pytest.raises(SourceError, match="The desk is in the cloud"):
        find_sources(["helpdesk.Ticket"])


@pytest.mark.parametrize("command", ["classify_tickets", "train_priority_model"])
def test_the_commands_say_why_there_is_nothing_to_do(
    command: str, active_model: ModelVersion
) -> None:
    attach(absence="The desk is in the cloud.")
    with pytest.raises(CommandError, match="The desk is in the cloud"):
        call_command(command, source=["helpdesk.Ticket"])


def test_without_any_source_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_sources", {})
    with pytest.raises(SourceError, match=r"manage\.py check"):
        find_sources()


def test_a_hosts_signal_is_nobodys_trouble_once_its_source_is_gone(db: None) -> None:
    ticket = Ticket.objects.create(subject=OUTAGE)
    registry.unregister(Ticket)
    record_decision(ticket, PriorityChange(None, Priority.HIGH))
