"""Whose save it was, through the test host's own pages."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory

import ticket_priority
from tests.uuid_host.models import Case
from ticket_priority.checks.sources import MIDDLEWARE
from ticket_priority.middleware import acting_request, acting_user, acting_user_middleware
from ticket_priority.models import Override
from ticket_priority.priorities import Priority

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.uuid_host.urls")]


@pytest.fixture(params=["first", "last"])
def middleware(request: pytest.FixtureRequest, settings: Any) -> None:
    """Its place in the list is free."""
    others = [*settings.MIDDLEWARE]
    others.insert(0 if request.param == "first" else len(others), MIDDLEWARE)
    settings.MIDDLEWARE = others


@pytest.fixture
def case(attach: Callable[..., None]) -> Case:
    attach(record_changes=True)
    with ticket_priority.muted():
        return Case.objects.create(body="lift stuck", urgency=4)


def only_override() -> Override:
    record: Override = Override.objects.get()
    assert (record.from_priority, record.to_priority) == (Priority.LOW, Priority.HIGH)
    assert record.via == "host"
    return record


def test_a_change_on_the_hosts_page_is_its_users_decision(
    middleware: None, case: Case, admin_client: Client, admin_user: User
) -> None:
    admin_client.post(f"/cases/{case.pk}/", {"urgency": "2"})
    assert only_override().user == admin_user


def test_a_change_on_an_async_page_is_its_users_decision(
    middleware: None, case: Case, admin_user: User
) -> None:
    client = AsyncClient()
    client.force_login(admin_user)
    async_to_sync(client.post)(f"/cases/{case.pk}/async/", {"urgency": "2"})
    assert only_override().user == admin_user


def test_a_user_whom_a_rest_framework_knows_in_the_view_decides(
    middleware: None, case: Case, client: Client
) -> None:
    user = User.objects.create_user("agent", password="pass")
    token = base64.b64encode(b"agent:pass").decode()
    client.patch(
        f"/cases/{case.pk}/api/",
        {"urgency": 2},
        content_type="application/json",
        headers={"authorization": f"Basic {token}"},
    )
    assert only_override().user == user


def test_nobody_who_is_signed_in_is_nobody_who_decides(
    middleware: None, case: Case, client: Client
) -> None:
    assert client.post(f"/cases/{case.pk}/", {"urgency": "2"}).status_code == 200
    case.refresh_from_db()
    assert case.urgency == 2
    assert not Override.objects.exists()


def test_without_the_middleware_nobody_knows(case: Case, admin_client: Client) -> None:
    admin_client.post(f"/cases/{case.pk}/", {"urgency": "2"})
    assert not Override.objects.exists()


def test_after_a_request_nobody_acts(middleware: None, case: Case, admin_client: Client) -> None:
    admin_client.post(f"/cases/{case.pk}/", {"urgency": "2"})
    assert acting_user() is None
    case.urgency = 5
    case.save()
    only_override()


def test_after_a_request_that_failed_nobody_acts(admin_user: User) -> None:
    seen = []

    def fail(request: HttpRequest) -> HttpResponse:
        seen.append(acting_user())
        raise LookupError

    async def fail_async(request: HttpRequest) -> HttpResponse:
        return fail(request)

    request = RequestFactory().get("/")
    request.user = admin_user
    answer: Any = acting_user_middleware(fail)
    answer_async: Any = acting_user_middleware(fail_async)

    async def ask() -> Any:
        with pytest.raises(LookupError):
            await answer_async(request)
        return acting_user()

    with pytest.raises(LookupError):
        answer(request)
    assert acting_user() is None
    assert async_to_sync(ask)() is None
    assert seen == [admin_user, admin_user]


def test_a_request_within_a_request_has_its_own_user(admin_user: User) -> None:
    outer, inner = RequestFactory().get("/"), RequestFactory().get("/")
    outer.user, inner.user = admin_user, AnonymousUser()
    seen = []

    def answer_inner(request: HttpRequest) -> HttpResponse:
        seen.append(acting_user())
        return HttpResponse()

    def answer_outer(request: HttpRequest) -> HttpResponse:
        within: Any = acting_user_middleware(answer_inner)
        response: HttpResponse = within(inner)
        seen.append(acting_user())
        return response

    answer: Any = acting_user_middleware(answer_outer)
    answer(outer)
    assert seen == [None, admin_user]


def test_a_request_without_users_has_nobody() -> None:
    def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(acting_user()))

    wrapped: Any = acting_user_middleware(answer)
    assert wrapped(RequestFactory().get("/")).content == b"None"


def test_the_request_is_known_while_it_is_answered() -> None:
    seen = []

    def answer(request: HttpRequest) -> HttpResponse:
        seen.append(acting_request())
        return HttpResponse()

    request = RequestFactory().get("/")
    wrapped: Any = acting_user_middleware(answer)
    wrapped(request)
    assert seen == [request]
    assert acting_request() is None
