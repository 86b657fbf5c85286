from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from ticket_priority.middleware import acting_request, acting_user, acting_user_middleware


def test_the_request_and_its_user_are_known_while_it_is_answered(rf: RequestFactory) -> None:
    seen: list[Any] = []

    def answer(request: HttpRequest) -> HttpResponse:
        seen.extend((acting_request(), acting_user()))
        return HttpResponse()

    request = rf.get("/")
    request.user = User(username="agent")
    acting_user_middleware(answer)(request)
    assert seen == [request, request.user]
    assert (acting_request(), acting_user()) == (None, None)


def test_nobody_acts_where_nobody_signed_in(rf: RequestFactory) -> None:
    seen: list[Any] = []

    def answer(request: HttpRequest) -> HttpResponse:
        seen.append(acting_user())
        return HttpResponse()

    request = rf.get("/")
    request.user = AnonymousUser()
    acting_user_middleware(answer)(request)
    assert seen == [None]
