"""Each route into the host: the priority is there before the host derives anything from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from escalated import hooks
from escalated.contracts.import_adapter import ImportAdapter
from escalated.models import ImportJob, Reply, SlaPolicy, Ticket
from escalated.services.import_service import ImportService
from escalated.services.sla_service import SlaService
from escalated.services.ticket_service import TicketService
from escalated.support.extract_result import ExtractResult
from routes import (
    OUTAGE,
    ROUTES,
    TYPO,
    by_api,
    by_chat,
    by_customer_page,
    by_guest_page,
    by_service,
    deadlines,
    log,
)

from ticket_priority.models import ModelVersion, Override, Prediction

pytestmark = pytest.mark.django_db
route = pytest.mark.parametrize("create", ROUTES, ids=lambda route: route.__name__)


@route
def test_the_priority_is_predicted_and_the_deadlines_are_its_own(
    create: Callable[..., Ticket], model: ModelVersion, sla: SlaPolicy
) -> None:
    ticket = create(OUTAGE)
    ticket.refresh_from_db()
    assert ticket.priority == "high"
    assert deadlines(ticket) == (4, 10)
    assert Prediction.objects.for_instance(ticket).get().state == "applied"
    assert {entry["priority"] for entry in log(ticket, "created")} == {"high"}
    assert log(ticket, "priority_changed") == []
    assert not Override.objects.exists()


@route
def test_a_ticket_is_made_where_no_model_is_active(
    create: Callable[..., Ticket], db: None, sla: SlaPolicy
) -> None:
    ticket = create(OUTAGE)
    ticket.refresh_from_db()
    assert ticket.priority == "medium"
    assert deadlines(ticket) == (8, 24)
    assert Prediction.objects.for_instance(ticket).get().state == "pending"


@pytest.mark.parametrize("create", [by_service, by_customer_page, by_api, by_guest_page])
def test_a_priority_that_the_sender_chose_is_left_alone(
    create: Callable[..., Ticket], model: ModelVersion, sla: SlaPolicy
) -> None:
    ticket = create(TYPO, priority="critical")
    ticket.refresh_from_db()
    assert ticket.priority == "critical"
    assert deadlines(ticket) == (0.5, 2)
    assert not Prediction.objects.exists()


def test_the_hosts_default_is_nobodys_choice(
    settings: Any, model: ModelVersion, sla: SlaPolicy
) -> None:
    settings.ESCALATED = {**settings.ESCALATED, "DEFAULT_PRIORITY": "low"}
    assert by_service(OUTAGE).priority == "high"
    assert by_api(OUTAGE).priority == "high"


def test_deadlines_in_business_hours_are_those_of_the_predicted_priority(
    model: ModelVersion, sla: SlaPolicy
) -> None:
    SlaPolicy.objects.update(business_hours_only=True)
    ticket = by_service(OUTAGE)
    expected = SlaService._add_business_hours(ticket.created_at, 4)
    assert abs((ticket.first_response_due_at - expected).total_seconds()) < 60


@pytest.mark.parametrize("create", [by_customer_page, by_guest_page])
def test_in_one_transaction_with_the_request(
    create: Callable[..., Ticket],
    model: ModelVersion,
    sla: SlaPolicy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    ticket = create(OUTAGE)
    assert (ticket.priority, deadlines(ticket)) == ("high", (4, 10))


def test_a_chat_without_a_subject_has_no_text_to_judge(model: ModelVersion, sla: SlaPolicy) -> None:
    ticket = by_chat(None)
    assert ticket.subject == "Chat from Guest"
    assert ticket.priority == "medium"
    prediction = Prediction.objects.get()
    assert (prediction.state, prediction.reason) == ("abstained", "empty_text")


def test_a_split_ticket_is_judged_by_its_own_text(
    model: ModelVersion, sla: SlaPolicy, admin_user: User
) -> None:
    source = by_service("invoice refund slow delayed")
    assert source.priority == "medium"
    reply = Reply.objects.create(ticket=source, body=OUTAGE, author=admin_user)
    split = TicketService().split_ticket(source, reply, {"subject": OUTAGE})
    assert (split.priority, source.priority) == ("high", "medium")


def test_a_split_ticket_keeps_what_it_takes_from_its_source(
    model: ModelVersion, admin_user: User
) -> None:
    source = by_service(TYPO, priority="urgent")
    reply = Reply.objects.create(ticket=source, body=TYPO, author=admin_user)
    split = TicketService().split_ticket(source, reply, {})
    assert split.priority == "urgent"
    assert not Prediction.objects.for_instance(split).exists()


def test_a_workflow_of_the_host_sees_the_predicted_priority(
    model: ModelVersion, sla: SlaPolicy
) -> None:
    from escalated.workflow_models import Workflow

    Workflow.objects.create(
        name="High is escalated",
        trigger_event="ticket.created",
        conditions={"all": [{"field": "priority", "operator": "equals", "value": "high"}]},
        actions=[{"type": "change_status", "value": "escalated"}],
    )
    assert by_service(OUTAGE).status == "escalated"
    assert by_service(TYPO).status == "open"


class Desk(ImportAdapter):
    """Another helpdesk's export: one ticket with a priority of its own, one with none."""

    def name(self) -> str:
        return "desk"

    def display_name(self) -> str:
        return "Desk"

    def credential_fields(self) -> list[dict[str, Any]]:
        return []

    def test_connection(self, credentials: dict[str, Any]) -> bool:
        return True

    def entity_types(self) -> list[str]:
        return ["tickets"]

    def default_field_mappings(self, entity_type: str) -> dict[str, str]:
        return {}

    def available_source_fields(self, entity_type: str, credentials: dict[str, Any]) -> list[str]:
        return []

    def extract(
        self, entity_type: str, credentials: dict[str, Any], cursor: str | None
    ) -> ExtractResult:
        return ExtractResult(
            records=[
                {"source_id": "1", "title": OUTAGE, "priority": "low"},
                {"source_id": "2", "title": OUTAGE},
            ],
            total_count=2,
        )


@pytest.fixture
def imported(model: ModelVersion, sla: SlaPolicy) -> list[Ticket]:
    def register(adapters: list[Any]) -> list[Any]:
        return [*adapters, Desk()]

    hooks.add_filter("import.adapters", register)
    try:
        ImportService().run(ImportJob.objects.create(platform="desk", status="mapping"))
    finally:
        hooks.remove_filter("import.adapters", register)
    return list(Ticket.unrestricted.order_by("pk"))


def test_imported_tickets_are_left_as_they_come(imported: list[Ticket]) -> None:
    assert [ticket.priority for ticket in imported] == ["low", "medium"]
    assert not Prediction.objects.exists()
    assert not Override.objects.exists()


def test_the_first_ticket_after_an_import_is_classified(imported: list[Ticket]) -> None:
    assert by_service(OUTAGE).priority == "high"
