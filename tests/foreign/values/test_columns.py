"""Enumerations, defaults that query, two priorities, choices of one's own; and what check says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

import ticket_priority
from tests.foreign.values import models
from tests.foreign.values.models import Urgency
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions.standings import priorities_of
from ticket_priority.priorities import Priority
from ticket_priority.sources import TicketSource
from ticket_priority.training.labels import labelled_texts

State = Prediction.State
Attach = Callable[..., TicketSource]
MEMBERS = {"low": Urgency.LATER, "medium": Urgency.SOON, "high": Urgency.NOW}
STORED = {"low": "later", "medium": "soon", "high": "now"}

pytestmark = pytest.mark.django_db


def said(*databases: str) -> list[str]:
    found = checks.run_checks(tags=["ticket_priority"], databases=databases)
    return sorted(str(one.id).split(".")[1] for one in found if "values." in str(one))


def about(ticket: Any) -> list[tuple[str, Any]]:
    rows = Prediction.objects.for_instance(ticket).order_by("pk")
    return [(row.state, row.value_before) for row in rows]


@pytest.mark.parametrize("scale", [MEMBERS, STORED], ids=["members", "as stored"])
class TestEnumeration:
    @pytest.fixture(autouse=True)
    def host(self, scale: Any, attach_host: Attach, always_high: ModelVersion) -> TicketSource:
        return attach_host(models.Enumerated, to_host=scale)

    def fresh(self, ticket: Any) -> Any:
        return models.Enumerated.objects.get(pk=ticket.pk)

    def test_check(self) -> None:
        assert said() == []

    def test_sync(self) -> None:
        ticket = models.Enumerated.objects.create(body="a fire")
        assert ticket.priority == self.fresh(ticket).priority == Urgency.NOW
        assert about(ticket) == [(State.APPLIED, "unknown")]

    def test_async(self, configure: Callable[..., None]) -> None:
        configure(MODE="async")
        ticket = models.Enumerated.objects.create(body="a fire")
        assert outbox.drain() == 1
        assert self.fresh(ticket).priority == Urgency.NOW
        assert about(ticket) == [(State.APPLIED, "unknown")]

    def test_backfill(self) -> None:
        with ticket_priority.muted():
            ticket = models.Enumerated.objects.create(body="a fire")
        call_command("classify_tickets", verbosity=0)
        assert self.fresh(ticket).priority == Urgency.NOW
        assert about(ticket) == [(State.APPLIED, "unknown")]

    def test_a_person_decides(self, host: TicketSource) -> None:
        ticket = models.Enumerated.objects.create(body="a fire")
        ticket_priority.override(ticket, Priority.LOW)
        assert self.fresh(ticket).priority == Urgency.LATER
        assert [label.label for label in labelled_texts(host)] == [Priority.LOW]
        given = models.Enumerated.objects.create(body="an ember", priority=Urgency.SOON)
        assert about(given) == []


class TestDefaultThatQueries:
    @pytest.fixture
    def host(self, attach_host: Attach, always_high: ModelVersion) -> TicketSource:
        return attach_host(models.QueryingDefault, to_host={"low": 1, "medium": 2, "high": 3})

    @pytest.fixture
    def levels(self) -> None:
        for key, code in ((1, "low"), (2, "medium"), (3, "high"), (9, "normal")):
            models.Level.objects.create(pk=key, code=code)

    def test_check_writes_nothing(self, host: TicketSource) -> None:
        assert said() == []
        assert said("default") == ["W026"]
        assert not models.Level.objects.exists()

    def test_check_lives_without_the_row(self, attach_host: Attach) -> None:
        attach_host(models.BrokenDefault, to_host={"low": 1, "medium": 2, "high": 3})
        assert said() == []

    def test_it_counts_as_unset(self, host: TicketSource, levels: None) -> None:
        ticket = models.QueryingDefault.objects.create(body="a fire")
        assert ticket.priority_id == 3
        assert about(ticket) == [(State.APPLIED, 9)]

    def test_a_list_calls_it_once(self, host: TicketSource, levels: None) -> None:
        with ticket_priority.muted():
            for number in range(30):
                models.QueryingDefault.objects.create(body=f"fire {number}")
        with CaptureQueriesContext(connection) as queries:
            assert set(priorities_of(models.QueryingDefault.objects.all()).values()) == {None}
        assert len(lookups(queries)) == 1

    def test_a_backfill_calls_it_once_a_batch(self, host: TicketSource, levels: None) -> None:
        with ticket_priority.muted():
            for number in range(30):
                models.QueryingDefault.objects.create(body=f"fire {number}")
        with CaptureQueriesContext(connection) as queries:
            call_command("classify_tickets", verbosity=0)
        assert len(lookups(queries)) <= 5
        assert set(models.QueryingDefault.objects.values_list("priority", flat=True)) == {3}

    def test_labels_call_it_once_a_batch(self, host: TicketSource, levels: None) -> None:
        for number in range(30):
            models.QueryingDefault.objects.create(body=f"fire {number}", priority_id=1)
        with CaptureQueriesContext(connection) as queries:
            assert len(list(labelled_texts(host))) == 30
        assert len(lookups(queries)) <= 5


def lookups(queries: Any) -> list[str]:
    return [one["sql"] for one in queries if "normal" in one["sql"]]


class TestTwoPriorities:
    def test_check_says_which_is_left_out(self, attach_host: Attach) -> None:
        attach_host(models.TwoPriorities, priority_field="impact")
        assert said() == ["E036"]

    def test_one_may_be_without_text(self, attach_host: Attach) -> None:
        column = models.TwoPriorities._meta.get_field("urgency")
        given = column.source_options
        try:
            column.source_options = {}
            attach_host(models.TwoPriorities, priority_field="impact")
            assert said() == []
        finally:
            column.source_options = given


def test_the_developers_choices_are_kept(attach_host: Attach, always_high: ModelVersion) -> None:
    attach_host(models.OwnChoices)
    ticket = models.OwnChoices.objects.create(body="a fire")
    assert ticket.get_priority_display() == "P1"
    assert said() == []


class TestCheck:
    def test_a_missing_row(self, attach_host: Attach) -> None:
        for key, code in ((1, "low"), (2, "medium"), (4, "former")):
            models.Level.objects.create(pk=key, code=code)
        attach_host(models.ByKey, to_host={"low": 1, "medium": 2, "high": 3})
        assert said() == []
        assert said("default") == ["W026"]
        models.Level.objects.create(pk=3, code="high")
        assert said("default") == []

    def test_keys_that_nobody_gave(self, attach_host: Attach) -> None:
        attach_host(models.ByKey)
        assert said() == ["W029"]

    @pytest.mark.parametrize(
        ("model", "expected"),
        [
            (models.Checked, ["W027"]),
            (models.CheckedTogether, []),
            (models.NotEmpty, []),
            (models.OneHigh, []),
        ],
    )
    def test_a_constraint(self, attach_host: Attach, model: Any, expected: list[str]) -> None:
        scale = {name: name for name in STORED} if model is models.NotEmpty else None
        attach_host(model, **({"to_host": scale} if scale else {}))
        assert said() == []
        assert said("default") == expected

    @pytest.mark.parametrize(
        ("model", "expected"),
        [
            (models.FewChoices, ["E019"]),
            (models.Validated, ["E019"]),
            (models.Computed, ["E019"]),
            (models.NotNull, ["W035"]),
            (models.ClassDefault, ["W034"]),
            (models.NotNullField, ["W034"]),
            (models.Plain, []),
        ],
    )
    def test_a_column(self, attach_host: Attach, model: Any, expected: list[str]) -> None:
        attach_host(model)
        assert said() == expected

    def test_a_default_that_the_developer_has_thought_of(self, attach_host: Attach) -> None:
        attach_host(models.ClassDefault, unset=(1, None))
        assert said() == []
        attach_host(models.ClassDefault, unset=(None,), labelled="os.path.join")
        assert said() == []
