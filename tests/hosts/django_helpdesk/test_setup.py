"""The project stays clean, and the plugin says what is wrong with its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from routes import Desk, open_by_public_form

from helpdesk.models import Ticket
from ticket_priority.checks.sources import register_configured_sources
from ticket_priority.sources.registry import get_source

ADAPTER = "ticket_priority.adapters.django_helpdesk.DjangoHelpdeskSource"


def ids() -> list[str]:
    return [message.id for message in checks.run_checks(tags=["ticket_priority"])]


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    output = StringIO()
    call_command("makemigrations", check=True, dry_run=True, stdout=output)
    assert output.getvalue() == "No changes detected\n"


@pytest.mark.django_db
def test_the_project_passes_its_checks() -> None:
    call_command("check", fail_level="INFO")


@pytest.mark.parametrize(("value", "found"), [(3, []), ("5", []), (7, ["ticket_priority.W050"])])
def test_a_default_outside_the_scale_is_found(settings: Any, value: Any, found: list[str]) -> None:
    settings.HELPDESK_PUBLIC_TICKET_PRIORITY = value
    assert ids() == found


def test_a_scale_of_the_projects_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = [(1, "Now"), (2, "Soon"), (3, "Late")]
    monkeypatch.setattr(Ticket._meta.get_field("priority"), "choices", choices)
    assert ids() == ["ticket_priority.E019"]


def test_an_older_host_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("helpdesk.user.HelpdeskUser.accessible_tickets_q")
    assert ids() == ["ticket_priority.W051"]


def test_a_missing_middleware_is_found(settings: Any) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "ticket_priority" not in name]
    assert ids() == ["ticket_priority.W017"]


@pytest.fixture
def attach(settings: Any) -> Iterator[Callable[..., None]]:
    """Attach models as the settings would, and as they were in the end."""
    configured = settings.TICKET_PRIORITY

    def attach(sources: dict[str, dict[str, Any]]) -> None:
        settings.TICKET_PRIORITY = {**configured, "SOURCES": sources}
        register_configured_sources()

    yield attach
    attach(configured["SOURCES"])


def test_a_model_that_is_no_ticket_of_this_host_is_found(attach: Callable[..., None]) -> None:
    attach({"helpdesk.Ticket": {"adapter": ADAPTER}, "auth.User": {"adapter": ADAPTER}})
    assert ids() == ["ticket_priority.E010"]


def test_each_option_can_be_given_another_value(attach: Callable[..., None]) -> None:
    options = {"adapter": ADAPTER, "text_fields": ("title",), "unset": (1,), "mode": "suggest"}
    attach({"helpdesk.Ticket": options})
    source = get_source(Ticket)
    assert source.text_of(Ticket(title="Printer", description="On fire")) == "Printer"
    assert (source.unset_values, source.effective_mode) == ((1,), "suggest")


@pytest.mark.django_db
def test_the_rows_that_staff_set_can_be_named(attach: Callable[..., None], desk: Desk) -> None:
    def choose(tickets: Any) -> Any:
        return tickets.filter(priority=1)

    attach({"helpdesk.Ticket": {"adapter": ADAPTER, "labelled": choose}})
    ticket = open_by_public_form(desk, "outage", 1)
    assert list(get_source(Ticket).labelled_rows()) == [ticket]
