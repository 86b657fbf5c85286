"""The current request and its user, for code that has no access to the request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.utils.decorators import sync_and_async_middleware

_request: ContextVar[HttpRequest | None] = ContextVar("ticket_priority_request", default=None)


@sync_and_async_middleware
def acting_user_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Make the current request available to `acting_request()` and `acting_user()`.

    It may stand anywhere in MIDDLEWARE: the user is read on demand, so one that a REST framework
    authenticates in the view is found too.
    """
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> Any:
            with _current(request):
                return await get_response(request)

        return answer_async

    def answer(request: HttpRequest) -> Any:
        with _current(request):
            return get_response(request)

    return answer


@contextmanager
def _current(request: HttpRequest) -> Iterator[None]:
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


def acting_request() -> HttpRequest | None:
    """Return the current request, or None."""
    return _request.get()


def acting_user() -> Any:
    """Return the signed-in user of the current request, or None."""
    user = getattr(_request.get(), "user", None)
    return user if user is not None and user.is_authenticated else None
