from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from rest_framework.permissions import BasePermission
from rest_framework.test import APIClient

from helpdesk.models import Ticket
from tests.api.conftest import Login, overrule, predict, quiet
from tests.support.settings import overlay
from tests.uuid_host.models import Case, Escalation
from ticket_priority.models import Override
from ticket_priority.sources import registry
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import register

PEOPLE = ("anonymous", "nobody", "staff", "viewer", "changer", "superuser")


@pytest.fixture
def people(
    login: Login, staff: APIClient, viewer: APIClient, changer: APIClient, superuser: APIClient
) -> dict[str, APIClient]:
    return dict(zip(PEOPLE, (APIClient(), login(), staff, viewer, changer, superuser), strict=True))


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        # Whoever may use it gets 400 for an empty body, or 503 without a model.
        ("post", "predict/", (401, 403, 400, 403, 403, 403)),
        ("get", "info/", (401, 403, 200, 403, 403, 403)),
        ("get", "schema/", (401, 403, 200, 403, 403, 403)),
        ("get", "health/", (503, 503, 503, 503, 503, 503)),
        ("get", "predictions/", (401, 403, 403, 200, 200, 200)),
        ("get", "predictions/{prediction}/", (401, 403, 403, 200, 200, 200)),
        ("get", "overrides/", (401, 403, 403, 200, 200, 200)),
        ("get", "tickets/helpdesk.Ticket/{ticket}/", (401, 403, 403, 200, 200, 200)),
        ("post", "tickets/helpdesk.Ticket/{ticket}/override/", (401, 403, 403, 403, 400, 400)),
        ("post", "tickets/helpdesk.Ticket/{ticket}/classify/", (401, 403, 403, 403, 503, 503)),
    ],
)
def test_who_may_do_what(
    people: dict[str, APIClient],
    ticket: Ticket,
    fresh_classifier: None,
    method: str,
    path: str,
    expected: tuple[int, ...],
) -> None:
    url = "/api/" + path.format(ticket=ticket.pk, prediction=predict(ticket).pk)
    codes = [
        getattr(client, method)(url, **({"format": "json"} if method == "post" else {})).status_code
        for client in people.values()
    ]
    assert codes == list(expected)
    assert not Override.objects.exists()


def test_a_401_names_the_way_in(db: None) -> None:
    response = APIClient().get("/api/predictions/")
    assert response["WWW-Authenticate"] == "Token"
    wrong = APIClient().get("/api/predictions/", HTTP_AUTHORIZATION="Token wrong")
    assert wrong.status_code == 401


def test_an_inactive_superuser_is_nobody(superuser: APIClient) -> None:
    User.objects.update(is_active=False)
    assert superuser.get("/api/predictions/").status_code == 401


def test_permission_classes_are_a_setting(login: Login, settings: Any, db: None) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        API={"PERMISSION_CLASSES": ["tests.api.test_permissions.NamedUserZero"]},
    )
    assert login().get("/api/info/").status_code == 200
    assert login().get("/api/info/").status_code == 403


class NamedUserZero(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return bool(request.user.get_username() == "user0")


def test_a_session_needs_its_csrf_token(ticket: Ticket, changer: APIClient) -> None:
    url = f"/api/tickets/helpdesk.Ticket/{ticket.pk}/override/"
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(changer.user)  # type: ignore[attr-defined]
    refused = client.post(url, {"priority": "high"}, format="json")
    assert refused.status_code == 403
    assert "CSRF" in refused.json()["detail"]
    assert not Override.objects.exists()
    client.cookies["csrftoken"] = token = "a" * 32
    taken = client.post(url, {"priority": "high"}, format="json", HTTP_X_CSRFTOKEN=token)
    assert taken.status_code == 201


def test_a_token_needs_no_csrf_token(ticket: Ticket, changer: APIClient) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.credentials(**changer._credentials)
    url = f"/api/tickets/helpdesk.Ticket/{ticket.pk}/override/"
    assert client.post(url, {"priority": "high"}, format="json").status_code == 201


def listed(client: APIClient, path: str = "predictions") -> set[str]:
    response = client.get(f"/api/{path}/")
    assert response.status_code == 200, response.content
    return {row["object_id"] for row in response.json()["results"]}


def test_lists_hold_visible_tickets_only(
    login: Login, superuser: APIClient, ticket: Ticket, cases: TicketSource
) -> None:
    ann, bob, agent = login(), login(), login("helpdesk.view_ticket")
    hers, his = (
        quiet(Case, body="x", owner=client.user)  # type: ignore[attr-defined]
        for client in (ann, bob)
    )
    for row in (ticket, hers, his):
        predict(row)
        overrule(row, 1)
    for path in ("predictions", "overrides"):
        assert listed(ann, path) == {str(hers.pk)}
        assert listed(bob, path) == {str(his.pk)}
        assert listed(agent, path) == {str(ticket.pk)}
        assert listed(superuser, path) == {str(row.pk) for row in (ticket, hers, his)}


def test_two_sources_that_narrow_are_counted_in_one_query(
    login: Login, cases: TicketSource, django_assert_num_queries: Any
) -> None:
    register(
        Ticket, text_fields="subject", visible_to=lambda rows, user: rows.filter(assignee=user)
    )
    ann, bob = login(), login()
    for client in (ann, ann, bob):
        user = client.user  # type: ignore[attr-defined]
        predict(quiet(Ticket, subject="x", assignee=user))
        predict(quiet(Case, body="x", owner=user))
    for client, number in ((ann, 4), (bob, 2)):
        with django_assert_num_queries(3):  # token, count, page
            found = client.get("/api/predictions/?page_size=3").json()
        assert (found["count"], len(found["results"])) == (number, min(number, 3))
    assert ann.get("/api/predictions/?source=uuid_host.case").json()["count"] == 2


def test_a_prediction_of_a_hidden_ticket_is_not_found(
    login: Login, superuser: APIClient, cases: TicketSource
) -> None:
    ann, bob = login(), login()
    prediction = predict(quiet(Case, body="x", owner=ann.user))  # type: ignore[attr-defined]
    url = f"/api/predictions/{prediction.pk}/"
    codes = [client.get(url).status_code for client in (ann, bob, superuser)]
    assert codes == [200, 404, 200]


def test_an_integer_key_is_scoped_as_well(login: Login, django_assert_num_queries: Any) -> None:
    register(
        Ticket, text_fields="subject", visible_to=lambda rows, user: rows.filter(assignee=user)
    )
    ann = login()
    mine = [
        quiet(Ticket, subject="x", assignee=ann.user)  # type: ignore[attr-defined]
        for _ in range(3)
    ]
    other = quiet(Ticket, subject="x")
    for row in (*mine, other):
        predict(row)
    assert listed(ann) == {str(row.pk) for row in mine}
    with django_assert_num_queries(3):  # token, count, page: the tickets are a subquery
        listed(ann)


def test_the_same_key_in_another_table_is_not_visible(login: Login, ticket: Ticket) -> None:
    namesake = User.objects.create_user("namesake", id=ticket.pk + 1000)
    other = quiet(Ticket, id=namesake.pk, subject="x")
    of_users, of_tickets = login("auth.view_user"), login("helpdesk.view_ticket")
    register(User, text_fields="username", priority_field="id")
    try:
        about_user, about_ticket = predict(namesake), predict(other)
        for client, own, foreign in (
            (of_users, about_user, about_ticket),
            (of_tickets, about_ticket, about_user),
        ):
            assert listed(client) == {str(namesake.pk)}
            assert client.get(f"/api/predictions/{own.pk}/").status_code == 200
            assert client.get(f"/api/predictions/{foreign.pk}/").status_code == 404
    finally:
        registry.unregister(User)


def test_a_choice_may_be_joined_distinct_or_a_union(login: Login, cases: TicketSource) -> None:
    ann = login()
    hers = quiet(Case, body="hers", owner=ann.user)  # type: ignore[attr-defined]
    shared = quiet(Case, body="shared")
    quiet(Case, body="other")
    predict(hers)
    predict(shared)
    choices = (
        lambda rows, user: rows.filter(owner__username=user.username).distinct(),
        lambda rows, user: rows.filter(owner=user).order_by("body"),
        lambda rows, user: rows.filter(owner=user).union(rows.filter(body="shared")),
        lambda rows, user: rows.none(),
    )
    seen = []
    for choice in choices:
        register(Case, text_fields="body", priority_field="urgency", visible_to=choice)
        seen.append(listed(ann))
    only, both = {str(hers.pk)}, {str(hers.pk), str(shared.pk)}
    assert seen == [only, only, both, set()]


def test_a_key_that_is_the_parents_is_scoped(login: Login) -> None:
    register(
        Escalation,
        text_fields="body",
        priority_field="urgency",
        visible_to="tests.uuid_host.models.own_cases",
    )
    try:
        ann = login()
        hers = quiet(Escalation, body="x", owner=ann.user)  # type: ignore[attr-defined]
        predict(hers)
        predict(quiet(Escalation, body="y"))
        assert listed(ann) == {str(hers.pk)}
    finally:
        registry.unregister(Escalation)


def test_who_sees_a_ticket_need_not_change_it(login: Login, cases: TicketSource) -> None:
    ann = login()
    case = quiet(Case, body="x", owner=ann.user)  # type: ignore[attr-defined]
    url = f"/api/tickets/uuid_host.Case/{case.pk}/"
    assert ann.get(url).status_code == 200
    assert ann.post(f"{url}override/", {"priority": "high"}, format="json").status_code == 403
    register(
        Case,
        text_fields="body",
        priority_field="urgency",
        visible_to="tests.uuid_host.models.own_cases",
        changeable_by=lambda rows, user: rows,
    )
    bob = login()
    assert ann.post(f"{url}override/", {"priority": "high"}, format="json").status_code == 201
    assert bob.post(f"{url}override/", {"priority": "low"}, format="json").status_code == 404
    case.refresh_from_db()
    assert case.urgency == 2


def test_the_demo_follows_its_pages(login: Login, ticket: Ticket) -> None:
    register(
        Ticket,
        text_fields="subject",
        visible_to="helpdesk.access.tickets_of_agents",
        changeable_by="helpdesk.access.tickets_of_agents",
    )
    agent, customer = login(is_staff=True), login("helpdesk.change_ticket")
    predict(ticket)
    assert listed(agent) == {str(ticket.pk)}
    assert listed(customer) == set()
    url = f"/api/tickets/helpdesk.Ticket/{ticket.pk}/override/"
    codes = [
        client.post(url, {"priority": "high"}, format="json").status_code
        for client in (agent, customer)
    ]
    assert codes == [201, 404]


def test_a_connection_may_collate_as_it_likes(login: Login, cases: TicketSource) -> None:
    if connection.vendor != "mysql":
        pytest.skip("says something of MariaDB only")
    ann = login()
    case = quiet(Case, body="x", owner=ann.user)  # type: ignore[attr-defined]
    predict(case)
    with connection.cursor() as cursor:
        cursor.execute("SET @before = @@collation_connection")
        cursor.execute("SET collation_connection = utf8mb4_swedish_ci")
        try:
            assert listed(ann) == {str(case.pk)}
        finally:
            cursor.execute("SET collation_connection = @before")
