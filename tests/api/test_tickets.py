from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from rest_framework.test import APIClient

from helpdesk.models import Ticket
from tests.api.conftest import overrule, predict, quiet
from tests.uuid_host.models import Case
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import register


def url_of(ticket: Any, action: str = "") -> str:
    return f"/api/tickets/{ticket._meta.label}/{ticket.pk}/{action}"


def test_a_ticket_shows_its_priority_and_how_it_came_about(
    viewer: APIClient, ticket: Ticket, django_assert_num_queries: Any
) -> None:
    Ticket.objects.update(priority=1)
    predict(ticket, priority=0)
    latest = predict(ticket)
    for _ in range(25):
        overrule(ticket, 1, user=viewer.user)  # type: ignore[attr-defined]
    with django_assert_num_queries(6):  # token, two of permissions, ticket, prediction, overrides
        shown = viewer.get(url_of(ticket)).json()
    assert shown["source"] == "helpdesk.Ticket"
    assert shown["object_id"] == str(ticket.pk)
    assert (shown["priority"], shown["priority_id"]) == ("medium", 1)
    assert shown["prediction"]["id"] == latest.pk
    newest = Override.objects.order_by("-pk").values_list("pk", flat=True)[:20]
    assert [row["id"] for row in shown["overrides"]] == list(newest)


def test_an_undecided_ticket_has_no_priority(viewer: APIClient, ticket: Ticket) -> None:
    shown = viewer.get(url_of(ticket)).json()
    assert [shown[name] for name in ("priority", "priority_id", "prediction")] == [None] * 3
    assert shown["overrides"] == []


def test_a_default_is_a_priority_once_it_is_decided(superuser: APIClient, ticket: Ticket) -> None:
    Ticket.objects.update(priority=1)
    register(Ticket, text_fields="subject", unset=(None, 1))
    assert superuser.get(url_of(ticket)).json()["priority"] is None
    overrule(ticket, 1)
    assert superuser.get(url_of(ticket)).json()["priority"] == "medium"


def test_a_default_that_was_predicted_stands_beside_a_newer_suggestion(
    superuser: APIClient, ticket: Ticket
) -> None:
    Ticket.objects.update(priority=1)
    register(Ticket, text_fields="subject", unset=(None, 1))
    predict(ticket, priority=1, state=Prediction.State.APPLIED)
    predict(ticket, priority=2, state=Prediction.State.SUGGESTED)
    assert superuser.get(url_of(ticket)).json()["priority"] == "medium"


def test_a_source_is_found_in_any_case(viewer: APIClient, ticket: Ticket) -> None:
    for label in ("helpdesk.ticket", "HELPDESK.TICKET"):
        shown = viewer.get(f"/api/tickets/{label}/{ticket.pk}/").json()
        assert shown["source"] == "helpdesk.Ticket"


@pytest.mark.parametrize("source", ["helpdesk.Comment", "auth.User", "nothing", "a.b.c", "%00"])
def test_an_unknown_source_is_not_found(superuser: APIClient, ticket: Ticket, source: str) -> None:
    assert superuser.get(f"/api/tickets/{source}/{ticket.pk}/").status_code == 404


@pytest.mark.parametrize(
    "key",
    ["0", "-1", "abc", "1.0", "1_0", "%201", "1%00", "%00", "%ff", "9" * 30, "9" * 5000, "١"],
)
@pytest.mark.parametrize("action", ["", "override/", "classify/"])
def test_a_key_that_is_none_is_not_found(
    superuser: APIClient, ticket: Ticket, key: str, action: str
) -> None:
    url = f"/api/tickets/helpdesk.Ticket/{key}/{action}"
    method = superuser.post if action else superuser.get
    assert method(url).status_code == 404


@pytest.mark.parametrize("key", ["1", "x", str(uuid.UUID(int=1)), uuid.UUID(int=1).hex, "%00"])
def test_a_uuid_that_is_none_is_not_found(
    superuser: APIClient, cases: TicketSource, key: str
) -> None:
    assert superuser.get(f"/api/tickets/uuid_host.Case/{key}/").status_code == 404


def test_an_override_is_written_and_recorded(changer: APIClient, ticket: Ticket) -> None:
    prediction = predict(ticket)
    body = {"priority": "low", "reason": "a test order 🙂"}
    response = changer.post(url_of(ticket, "override/"), body, format="json")
    assert response.status_code == 201
    answer = response.json()
    assert (answer["from_priority"], answer["to_priority"]) == (None, "low")
    assert answer["reason"] == "a test order 🙂"
    assert answer["via"] == "api"
    assert answer["user"] == changer.user.username  # type: ignore[attr-defined]
    assert answer["prediction"] == prediction.pk
    assert Override.objects.get().pk == answer["id"]
    ticket.refresh_from_db()
    assert ticket.priority == 0
    assert changer.get(url_of(ticket)).json()["priority"] == "low"


def test_a_uuid_ticket_is_overruled(superuser: APIClient, cases: TicketSource) -> None:
    case = quiet(Case, body="x")
    for key in (str(case.pk), str(case.pk).upper()):
        url = f"/api/tickets/uuid_host.case/{key}/override/"
        answer = superuser.post(url, {"priority": "high"}, format="json").json()
        assert answer["object_id"] == str(case.pk)
    case.refresh_from_db()
    assert case.urgency == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "priority"),
        ({"priority": None}, "priority"),
        ({"priority": ""}, "priority"),
        ({"priority": 2}, "priority"),
        ({"priority": "HIGH"}, "priority"),
        ({"priority": "\ud800"}, "priority"),
        ({"priority": ["high"]}, "priority"),
        ({"priority": {"a": 1}}, "priority"),
        ({"priority": "high", "reason": None}, "reason"),
        ({"priority": "high", "reason": "nul\x00"}, "reason"),
        ({"priority": "high", "reason": "\udfff"}, "reason"),
        ({"priority": "high", "reason": "x" * 2001}, "reason"),
        ({"priority": "high", "reason": ["x"]}, "reason"),
        (["high"], "non_field_errors"),
    ],
)
def test_a_bad_override_changes_nothing(
    changer: APIClient, ticket: Ticket, body: Any, field: str
) -> None:
    url = url_of(ticket, "override/")
    response = changer.generic("POST", url, json.dumps(body), content_type="application/json")
    assert response.status_code == 400
    assert list(response.json()) == [field]
    ticket.refresh_from_db()
    assert ticket.priority is None
    assert not Override.objects.exists()


def test_a_ticket_is_classified(
    changer: APIClient, ticket: Ticket, active_model: ModelVersion
) -> None:
    response = changer.post(url_of(ticket, "classify/"))
    assert response.status_code == 201
    answer = response.json()
    assert (answer["state"], answer["priority"]) == ("applied", "high")
    assert answer["model_version"] == active_model.name
    assert answer["latency_ms"] > 0
    ticket.refresh_from_db()
    assert ticket.priority == 2
    assert changer.get(f"/api/predictions/{answer['id']}/").json() == answer


def test_a_decision_stays_when_a_ticket_is_classified(
    changer: APIClient, ticket: Ticket, active_model: ModelVersion
) -> None:
    changer.post(url_of(ticket, "override/"), {"priority": "low"}, format="json")
    answer = changer.post(url_of(ticket, "classify/")).json()
    assert (answer["state"], answer["reason"]) == ("suggested", "person_decided")
    assert answer["priority"] == "high"
    ticket.refresh_from_db()
    assert ticket.priority == 0


def test_a_uuid_ticket_is_classified(
    superuser: APIClient, cases: TicketSource, active_model: ModelVersion
) -> None:
    case = quiet(Case, body="typo font")
    answer = superuser.post(url_of(case, "classify/")).json()
    assert (answer["object_id"], answer["priority"]) == (str(case.pk), "low")
    case.refresh_from_db()
    assert case.urgency == 0


def test_without_a_model_nothing_is_stored(
    changer: APIClient, ticket: Ticket, fresh_classifier: None
) -> None:
    response = changer.post(url_of(ticket, "classify/"))
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert not Prediction.objects.exists()
