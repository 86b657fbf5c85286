"""The current request and its user, for code that has no access to the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

_request: ContextVar[HttpRequest | None] = ContextVar("ticket_priority_request", default=None)


@sync_and_async_middleware
def acting_user_middleware(
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]:
    """Make the current request available to `acting_request()` and `acting_user()`.

    It may stand anywhere in MIDDLEWARE: the user is read on demand, so one that a REST framework
    authenticates in the view is found too.
    """
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> HttpResponseBase:
            token = _request.set(request)
            try:
                response: HttpResponseBase = await get_response(request)
            finally:
                _request.reset(token)
            return response

        return answer_async

    def answer(request: HttpRequest) -> HttpResponseBase:
        token = _request.set(request)
        try:
            response: HttpResponseBase = get_response(request)
        finally:
            _request.reset(token)
        return response

    return answer


def acting_request() -> HttpRequest | None:
    """Return the current request, or None."""
    return _request.get()


def acting_user() -> Any:
    """Return the signed-in user of the current request, or None."""
    user = getattr(_request.get(), "user", None)
    return user if user is not None and user.is_authenticated else None
