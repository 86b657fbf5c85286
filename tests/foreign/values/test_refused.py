"""A value that the host does not take becomes a suggestion; the ticket is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.contrib.auth import get_user_model
from django.contrib.messages.storage.cookie import CookieStorage
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

import ticket_priority
from tests.foreign.values import models
from tests.foreign.values.adapters import TicketAdmin
from ticket_priority.admin import bulk
from ticket_priority.exceptions import PriorityRefusedError
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.priorities import Priority
from ticket_priority.sources import TicketSource

State, Reason = Prediction.State, Prediction.Reason
REFUSED = (State.SUGGESTED, Reason.REFUSED, Priority.HIGH)
APPLIED = (State.APPLIED, Reason.OK, Priority.HIGH)

Attach = Callable[..., TicketSource]

pytestmark = pytest.mark.django_db


@dataclass(frozen=True)
class Host:
    """A ticket model that takes no high priority."""

    model: Any
    to_host: Mapping[str, Any] = field(default_factory=lambda: {"low": 0, "medium": 1, "high": 2})
    first: Mapping[str, Any] | None = None
    """The values of a ticket that must be there before."""
    unset: Any = None

    def __str__(self) -> str:
        return str(self.model.__name__)


KEYS = {"low": 1, "medium": 2, "high": 3}
HOSTS = (
    Host(models.ByKey, KEYS),
    Host(models.ByKey, {"low": 1, "medium": 2, "high": 0}),
    Host(models.ByCode, {"low": "low", "medium": "medium", "high": "gone"}),
    Host(models.ByCurrent, {"low": 1, "medium": 2, "high": 4}),
    Host(models.OneEach, {"low": 4, "medium": 2, "high": 1}, first={"priority_id": 1}),
    Host(models.Checked),
    Host(models.CheckedTogether),
    Host(models.ChildOfChecked),
    Host(models.UniqueTogether, first={"priority": 2}),
    Host(models.OneHigh, first={"priority": 2}),
    Host(models.FewChoices),
    Host(models.Validated),
    Host(models.TooShort, {"low": "low", "medium": "med", "high": "high"}, unset=""),
    Host(models.Ruled),
)


@pytest.fixture(params=HOSTS, ids=str)
def host(request: pytest.FixtureRequest, attach_host: Attach, always_high: ModelVersion) -> Host:
    chosen: Host = request.param
    for key, code in ((1, "low"), (2, "medium"), (4, "former")):
        models.Level.objects.create(pk=key, code=code, is_current=key != 4)
    if chosen.first:
        chosen.model.objects.create(body="the first", **chosen.first)
    attach_host(chosen.model, to_host=chosen.to_host)
    attach_host(models.Plain)
    return chosen


def about(ticket: Any) -> list[tuple[str, str, int | None]]:
    rows = Prediction.objects.for_instance(ticket).order_by("pk")
    return [(row.state, row.reason, row.priority) for row in rows]


def value_of(ticket: Any) -> Any:
    """Read the ticket's value, after the database has looked at every constraint."""
    connection.check_constraints()
    return type(ticket).objects.values_list("priority", flat=True).get(pk=ticket.pk)


class TestHosts:
    def test_sync(self, host: Host) -> None:
        with transaction.atomic():
            ticket = host.model.objects.create(body="a fire")
        assert value_of(ticket) == host.unset
        assert ticket.priority == host.unset
        assert about(ticket) == [REFUSED]

    def test_async(self, host: Host, configure: Callable[..., None]) -> None:
        configure(MODE="async")
        first, plain = host.model.objects.create(body="a"), models.Plain.objects.create(body="b")
        assert outbox.drain() == 2
        assert (value_of(first), about(first)) == (host.unset, [REFUSED])
        assert (value_of(plain), about(plain)) == (2, [APPLIED])

    def test_backfill(self, host: Host) -> None:
        with ticket_priority.muted():
            ticket = host.model.objects.create(body="a fire")
            plain = models.Plain.objects.create(body="a fire")
        output = StringIO()
        call_command("classify_tickets", stdout=output)
        assert (value_of(ticket), about(ticket)) == (host.unset, [REFUSED])
        assert (value_of(plain), about(plain)) == (2, [APPLIED])
        assert "1 suggested, 1 refused, 1 high" in output.getvalue()

    def test_a_persons_decision_gets_a_clear_error(self, host: Host) -> None:
        ticket = host.model.objects.create(body="a fire")
        with pytest.raises(PriorityRefusedError, match="This ticket cannot have the priority High"):
            ticket_priority.override(ticket, Priority.HIGH)
        assert value_of(ticket) == host.unset
        assert not Override.objects.exists()


def test_what_the_host_takes_is_applied_at_the_same_cost(
    attach_host: Attach, always_high: ModelVersion
) -> None:
    attach_host(models.Plain)
    models.Plain.objects.create(body="one")
    with CaptureQueriesContext(connection) as queries:
        ticket = models.Plain.objects.create(body="two")
    assert about(ticket) == [APPLIED]
    assert len([one for one in queries if "SAVEPOINT" not in one["sql"]]) == 3


def test_a_foreign_key_costs_one_query(attach_host: Attach, always_high: ModelVersion) -> None:
    models.Level.objects.create(pk=3, code="high")
    attach_host(models.ByKey, to_host=KEYS)
    models.ByKey.objects.create(body="one")
    with CaptureQueriesContext(connection) as queries:
        ticket = models.ByKey.objects.create(body="two")
    assert (value_of(ticket), about(ticket)) == (3, [APPLIED])
    assert len([one for one in queries if "SAVEPOINT" not in one["sql"]]) == 4


def test_a_rule_that_is_broken_anyway_does_not_count(
    attach_host: Attach, always_high: ModelVersion
) -> None:
    attach_host(models.NeverValid)
    assert about(models.NeverValid.objects.create(body="a fire")) == [APPLIED]


def test_a_proxy_has_the_constraints_of_its_model(
    attach_host: Attach, always_high: ModelVersion
) -> None:
    attach_host(models.ProxyOfChecked)
    ticket = models.ProxyOfChecked.objects.create(body="a fire")
    assert (value_of(ticket), about(ticket)) == (None, [REFUSED])


def test_a_confirmation_of_what_the_host_has_is_taken(
    attach_host: Attach, always_high: ModelVersion
) -> None:
    attach_host(models.FewChoices)
    ticket = models.FewChoices.objects.create(body="a fire", priority=2)
    assert ticket_priority.override(ticket, Priority.HIGH).to_priority == Priority.HIGH


@pytest.fixture
def boss(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("boss", "boss@example.org", "x"))
    return client


def test_the_api_answers_409(attach_host: Attach, always_high: ModelVersion, boss: Client) -> None:
    attach_host(models.Checked)
    ticket = models.Checked.objects.create(body="a fire")
    answer = boss.post(
        f"/api/tickets/values.Checked/{ticket.pk}/override/",
        {"priority": "high"},
        content_type="application/json",
    )
    assert answer.status_code == 409
    assert "values_no_high" in answer.json()["detail"]


def test_the_admins_actions_name_what_was_refused(
    attach_host: Attach, always_high: ModelVersion, rf: RequestFactory
) -> None:
    attach_host(models.OneHigh)
    tickets = [models.OneHigh.objects.create(body="a fire", customer=n) for n in (1, 1, 1, 2)]
    assert [about(ticket)[0] for ticket in tickets] == [APPLIED, REFUSED, REFUSED, APPLIED]
    request = rf.post("/")
    request.user = get_user_model().objects.create_superuser("boss", "boss@example.org", "x")
    request._messages = said = CookieStorage(request)
    host = TicketAdmin(models.OneHigh, AdminSite())
    bulk.accept_suggested_priority(host, request, models.OneHigh.objects.all())
    assert [str(message) for message in said] == [
        "This ticket cannot have the priority High: the constraint values_one_high forbids it. "
        "2 tickets were left as they were.",
        "2 tickets have no suggestion to accept.",
    ]


def test_one_row_that_fails_does_not_stop_the_others(
    attach_host: Attach, always_high: ModelVersion, configure: Callable[..., None]
) -> None:
    attach_host(models.Plain, adapter="tests.foreign.values.adapters.BreakingSource")
    configure(MODE="async")
    late = [models.Plain.objects.create(body=body) for body in ("one", "broken", "two")]
    assert outbox.drain() == 2
    assert [value_of(ticket) for ticket in late] == [2, None, 2]
    with ticket_priority.muted():
        old = [models.Plain.objects.create(body=body) for body in ("one", "broken", "two")]
    output = StringIO()
    with pytest.raises(CommandError, match="2 tickets could not be classified"):
        call_command("classify_tickets", stdout=output)
    assert [value_of(ticket) for ticket in old] == [2, None, 2]
    assert "2 failed" in output.getvalue()


def test_one_ticket_that_cannot_be_read_does_not_stop_a_dry_run(
    attach_host: Attach, always_high: ModelVersion
) -> None:
    attach_host(models.Plain, adapter="tests.foreign.values.adapters.UnreadableSource")
    with ticket_priority.muted():
        for body in ("one", "broken", "two"):
            models.Plain.objects.create(body=body)
    output = StringIO()
    with pytest.raises(CommandError, match="1 tickets could not be classified"):
        call_command("classify_tickets", "--dry-run", stdout=output)
    assert "2 high" in output.getvalue()


class TestUnknownToDjango:
    """A trigger cannot be asked; nor can a constraint that the models do not name."""

    pytestmark = pytest.mark.django_db(transaction=True)

    @pytest.fixture
    def trigger(self, attach_host: Attach, always_high: ModelVersion) -> Any:
        attach_host(models.Plain)
        table = models.Plain._meta.db_table
        create, drop = TRIGGERS[connection.vendor]
        with connection.cursor() as cursor:
            for statement in create:
                cursor.execute(statement.format(table=table))
        yield
        with connection.cursor() as cursor:
            for statement in drop:
                cursor.execute(statement.format(table=table))

    def test_sync_in_autocommit(self, trigger: None) -> None:
        ticket = models.Plain.objects.create(body="a fire")
        assert (value_of(ticket), about(ticket)) == (None, [REFUSED])
        assert "_do_insert" not in ticket.__dict__

    def test_sync_in_a_transaction(self, trigger: None) -> None:
        with transaction.atomic():
            before = models.Level.objects.create(code="before")
            ticket = models.Plain.objects.create(body="a fire")
        assert (value_of(ticket), about(ticket)) == (None, [REFUSED])
        assert models.Level.objects.filter(pk=before.pk).exists()

    def test_async(self, trigger: None, configure: Callable[..., None]) -> None:
        configure(MODE="async")
        with transaction.atomic():
            tickets = [models.Plain.objects.create(body=f"fire {number}") for number in range(3)]
        outbox.drain()
        for ticket in tickets:
            assert (value_of(ticket), about(ticket)) == (None, [REFUSED])

    def test_backfill(self, trigger: None) -> None:
        with ticket_priority.muted():
            tickets = [models.Plain.objects.create(body=f"fire {number}") for number in range(3)]
        call_command("classify_tickets", verbosity=0)
        for ticket in tickets:
            assert (value_of(ticket), about(ticket)) == (None, [REFUSED])

    def test_a_persons_decision(self, trigger: None) -> None:
        ticket = models.Plain.objects.create(body="a fire")
        with pytest.raises(PriorityRefusedError, match="the database refuses it"):
            ticket_priority.override(ticket, Priority.HIGH)
        ticket_priority.override(ticket, Priority.LOW)
        assert value_of(ticket) == 0

    def test_what_fails_without_the_plugin_fails_as_before(self, trigger: None) -> None:
        with pytest.raises(Exception, match="(?i)null"):
            models.Plain.objects.create(body=None)
        assert not models.Plain.objects.exists()


_WHEN = "NEW.priority = 2"
TRIGGERS: dict[str, tuple[list[str], list[str]]] = {
    "sqlite": (
        [
            f"CREATE TRIGGER no_high_{event} BEFORE {event} ON {{table}} WHEN {_WHEN} "
            "BEGIN SELECT RAISE(ABORT, 'no high'); END"
            for event in ("INSERT", "UPDATE")
        ],
        ["DROP TRIGGER no_high_INSERT", "DROP TRIGGER no_high_UPDATE"],
    ),
    "postgresql": (
        [
            "CREATE FUNCTION no_high() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF {_WHEN} THEN RAISE EXCEPTION 'no high'; END IF; RETURN NEW; END $$",
            "CREATE TRIGGER no_high BEFORE INSERT OR UPDATE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION no_high()",
        ],
        ["DROP TRIGGER no_high ON {table}", "DROP FUNCTION no_high"],
    ),
    "mysql": (
        [
            f"CREATE TRIGGER no_high_{event} BEFORE {event} ON {{table}} FOR EACH ROW "
            f"IF {_WHEN} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no high'; END IF"
            for event in ("INSERT", "UPDATE")
        ],
        ["DROP TRIGGER no_high_INSERT", "DROP TRIGGER no_high_UPDATE"],
    ),
}
