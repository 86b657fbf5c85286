from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import models
from django.test.utils import isolate_apps

from helpdesk.models import Ticket
from ticket_priority.exceptions import SourceError
from ticket_priority.fields import PriorityField
from ticket_priority.priorities import Priority
from ticket_priority.sources import registry
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import get_source, register


@pytest.fixture
def ticket_source() -> Iterator[TicketSource]:
    """Let a test register Ticket anew and have the old source back after it."""
    before = get_source(Ticket)
    yield before
    registry._sources[Ticket] = before


def test_the_priority_field_registers_its_model() -> None:
    source = get_source(Ticket)
    assert source.label == "helpdesk.Ticket"
    assert source.text_fields == ("subject", "description")


def test_text_is_joined_and_normalised() -> None:
    ticket = Ticket(subject=" Tills\u200b down ", description="since\t8")
    assert get_source(Ticket).text_of(ticket) == "Tills down\nsince 8"


def test_low_is_a_priority_and_none_is_not() -> None:
    source = get_source(Ticket)
    assert source.to_priority(0) is Priority.LOW
    assert source.to_priority(None) is None
    assert not source.is_unset(0)


def test_a_host_scale_is_mapped_both_ways(ticket_source: TicketSource) -> None:
    source = register(
        "helpdesk.Ticket",
        text_fields="subject",
        to_host={"low": 4, "medium": 3, "high": 2},
        from_host={1: "high", 2: "high", 3: "medium", 4: "low", 5: "low"},
    )
    assert source.text_fields == ("subject",)
    assert source.to_host_value(Priority.HIGH) == 2
    assert source.to_priority(1) is Priority.HIGH
    assert source.to_priority(9) is None


def test_the_inverse_mapping_is_the_default(ticket_source: TicketSource) -> None:
    source = register(
        Ticket, text_fields=["subject"], to_host={"low": 10, "medium": 20, "high": 30}
    )
    assert source.to_priority(30) is Priority.HIGH


def test_a_form_value_is_cleaned() -> None:
    ticket = Ticket(subject="x")
    ticket.priority = "2"  # type: ignore[assignment]
    assert get_source(Ticket).value_of(ticket) == 2


def test_a_fields_default_is_no_decision() -> None:
    with isolate_apps("helpdesk"):

        class Case(models.Model):
            text = models.TextField()
            priority = models.IntegerField(default=3)

            class Meta:
                app_label = "helpdesk"

    source = TicketSource(model=Case, text_fields=("text",))
    assert source.is_unset(3)
    assert not source.is_unset(2)


def test_a_database_default_is_no_decision() -> None:
    with isolate_apps("helpdesk"):

        class Case(models.Model):
            text = models.TextField()
            priority = models.IntegerField(db_default=3)

            class Meta:
                app_label = "helpdesk"

    source = TicketSource(model=Case, text_fields=("text",))
    assert source.is_unset(3)
    assert source.is_unset(source.value_of(Case(text="new")))
    assert not source.is_unset(2)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("nowhere.Ticket", {"text_fields": ("a",)}, "nowhere"),
        (Ticket, {"text_fields": ("a",), "colour": "red"}, "colour"),
        (Ticket, {"text_fields": ("a",), "adapter": "no.such.Adapter"}, "no"),
    ],
)
def test_a_wrong_registration_is_a_named_error(
    model: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        register(model, **options)


def test_a_proxy_shares_its_models_source() -> None:
    with isolate_apps("helpdesk"):

        class Escalation(Ticket):
            class Meta:
                app_label = "helpdesk"
                proxy = True

    assert get_source(Escalation).model is Ticket


def test_a_model_without_a_source_is_named() -> None:
    with pytest.raises(SourceError, match="ContentType is not a ticket source"):
        from django.contrib.contenttypes.models import ContentType

        get_source(ContentType)


def test_a_late_registration_reaches_subscribers(ticket_source: TicketSource) -> None:
    seen: list[TicketSource] = []
    registry.subscribe(seen.append)
    try:
        assert ticket_source in seen
        late = register(Ticket, text_fields=("subject",))
        assert seen[-1] is late
    finally:
        registry._subscribers.remove(seen.append)


def test_the_fields_options_are_the_sources(ticket_source: TicketSource) -> None:
    given = PriorityField(text_fields=("subject",), record_changes=True).source_options
    source = register(Ticket, **given)
    assert (source.text_fields, source.record_changes) == (("subject",), True)


def test_migrations_hold_no_source_options() -> None:
    _, path, args, kwargs = PriorityField(text_fields=("subject",), mode="async").deconstruct()
    assert path == "ticket_priority.fields.PriorityField"
    assert (args, kwargs) == ([], {"null": True, "blank": True})


def test_an_abstract_model_registers_its_children_only() -> None:
    with isolate_apps("helpdesk"):

        class Base(models.Model):
            text = models.TextField()
            priority = PriorityField(text_fields=("text",))

            class Meta:
                abstract = True
                app_label = "helpdesk"

    assert Base not in registry._sources


@pytest.mark.parametrize(
    ("options", "identifier"),
    [
        ({"text_fields": ("subject", "nothing")}, "ticket_priority.E012"),
        ({"text_fields": ()}, "ticket_priority.E013"),
        ({"text_fields": ("subject",), "to_host": {"low": 1}}, "ticket_priority.E014"),
        ({"text_fields": ("subject",), "mode": "later"}, "ticket_priority.E015"),
    ],
)
def test_a_source_that_cannot_work_is_checked(
    ticket_source: TicketSource, options: dict[str, Any], identifier: str
) -> None:
    register(Ticket, **options)
    found = run_checks(tags=["ticket_priority"])
    assert identifier in {message.id for message in found}
