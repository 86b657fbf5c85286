"""django-helpdesk's own modules, its rule for staff, and the texts of its history."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import translation

from ticket_priority.middleware import acting_request

_VIEWS: Final[Mapping[str | None, str]] = {"edit": "edit_form", "ticket-detail": "api"}
_OPENED: Final = ("Ticket Opened Via Web", "Ticket Opened", "Ticket Opened & Assigned to %(name)s")
"""The titles of the follow-up in which the host's forms store a ticket's description."""


def host_module(model: type[models.Model], name: str) -> Any:
    """Return one of the host's modules; raises ImportError."""
    # By the app's name: other packages are called `helpdesk` too.
    return import_module(f"{model._meta.app_config.name}.{name}")


def staff_rule(model: type[models.Model]) -> Any:
    """Return HELPDESK_ALLOW_NON_STAFF_TICKET_UPDATE: a function of a user, or a flag."""
    return host_module(model, "settings").HELPDESK_ALLOW_NON_STAFF_TICKET_UPDATE


def is_staff(model: type[models.Model], user: Any) -> bool:
    """Say whether a user decides priorities: staff, or what the project's own rule accepts.

    With HELPDESK_ALLOW_NON_STAFF_TICKET_UPDATE = True customers may write, but not decide.
    """
    rule = staff_rule(model)
    if callable(rule):
        return bool(rule(user))
    return bool(user.is_active and getattr(user, "is_staff", False))


@lru_cache(maxsize=4)
def names_of(column: models.Field[Any, Any], codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return a column's names in the host's history, in each language and untranslated."""
    names = set()
    for code in (None, *codes):
        with translation.override(code):
            names.add(str(column.verbose_name))
    return tuple(sorted(names))


def languages() -> tuple[str, ...]:
    """Return the codes of the languages that the host may have used."""
    return (settings.LANGUAGE_CODE, *(code for code, _name in settings.LANGUAGES))


@lru_cache(maxsize=4)
def is_opening(codes: tuple[str, ...]) -> Q:
    """Match the follow-ups that the host's forms open a ticket with, in each language."""
    condition = Q()
    for code in codes:
        with translation.override(code):
            for message in _OPENED:
                head, name, _tail = translation.gettext(message).partition("%(name)s")
                if head:
                    condition |= Q(**{"title__startswith" if name else "title": head})
    return condition


def acting_route(model: type[models.Model]) -> tuple[str, bool]:
    """Return the name of the current request's route, and whether it is the API's PATCH."""
    request = acting_request()
    match = None if request is None else request.resolver_match
    if request is None or match is None:
        return "host", False
    if "admin" in match.app_names:
        return "admin", False
    is_host = model._meta.app_label in match.app_names
    via = _VIEWS.get(match.url_name, "host") if is_host else "host"
    return via, via == "api" and request.method == "PATCH"
