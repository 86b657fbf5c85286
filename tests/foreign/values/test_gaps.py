"""Tables that take no ticket without a priority: it is saved all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

import ticket_priority
from tests.foreign.values import models
from tests.support.classifiers import FaultyClassifier
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions.reclassify import classify_instances
from ticket_priority.priorities import Priority
from ticket_priority.sources import TicketSource
from ticket_priority.training.labels import labelled_texts

State, Reason = Prediction.State, Prediction.Reason
Attach = Callable[..., TicketSource]

pytestmark = pytest.mark.django_db

KEYS = {"low": 1, "medium": 2, "high": 3}
WORDS = {"low": "low", "medium": "medium", "high": "high"}
HOSTS = {
    "PriorityField": (models.NotNullField, None),
    "integer": (models.NotNull, None),
    "foreign key": (models.NotNullKey, KEYS),
    "constraint": (models.NotEmpty, WORDS),
}


@pytest.fixture(params=list(HOSTS))
def host(request: pytest.FixtureRequest, attach_host: Attach, always_high: ModelVersion) -> Any:
    for key in KEYS.values():
        models.Level.objects.create(pk=key, code=str(key))
    model, scale = HOSTS[request.param]
    return attach_host(model, **({"to_host": scale} if scale else {}))


def create(host: TicketSource, body: str = "a fire", **fields: Any) -> Any:
    with transaction.atomic():
        ticket = host.model(body=body, **fields)
        ticket.save()
    return ticket


def value_of(host: TicketSource, ticket: Any) -> Any:
    connection.check_constraints()
    return host.value_of(host.queryset().get(pk=ticket.pk))


def about(ticket: Any) -> list[tuple[str, str]]:
    rows = Prediction.objects.for_instance(ticket).order_by("pk")
    return [(row.state, row.reason) for row in rows]


def test_an_answer_is_in_the_insert(host: TicketSource) -> None:
    ticket = create(host)
    assert value_of(host, ticket) == host.to_host["high"]
    assert about(ticket) == [(State.APPLIED, Reason.OK)]


def switch_off(configure: Callable[..., None]) -> None:
    configure(ENABLED=False)


def have_no_model(configure: Callable[..., None]) -> None:
    ModelVersion.objects.update(is_active=False)


def have_a_model_that_fails(configure: Callable[..., None]) -> None:
    def fail(texts: Any) -> None:
        raise MemoryError

    FaultyClassifier.fault = fail


def classify_later(configure: Callable[..., None]) -> None:
    configure(MODE="async")


def only_suggest(configure: Callable[..., None]) -> None:
    configure(MODE="suggest")


@pytest.mark.parametrize(
    ("prevent", "expected"),
    [
        (switch_off, (State.PENDING, Reason.DISABLED)),
        (have_no_model, (State.PENDING, Reason.NO_MODEL)),
        (have_a_model_that_fails, (State.PENDING, Reason.MODEL_ERROR)),
        (classify_later, (State.PENDING, Reason.QUEUED)),
        (only_suggest, (State.PENDING, Reason.QUEUED)),
    ],
)
def test_without_an_answer_it_is_medium(
    host: TicketSource, configure: Callable[..., None], prevent: Any, expected: tuple[str, str]
) -> None:
    prevent(configure)
    ticket = create(host)
    FaultyClassifier.fault = None
    assert value_of(host, ticket) == host.to_host["medium"]
    assert about(ticket) == [expected]


def test_without_text_it_is_medium(host: TicketSource) -> None:
    ticket = create(host, body=" ")
    assert value_of(host, ticket) == host.to_host["medium"]
    assert about(ticket) == [(State.ABSTAINED, Reason.EMPTY_TEXT)]


def test_what_is_held_back_is_medium(host: TicketSource, configure: Callable[..., None]) -> None:
    configure(DECISIONS={"AUDIT_SHARE": 0.5})
    tickets = [create(host) for _number in range(20)]
    held_back = [ticket for ticket in tickets if about(ticket)[0][1] == Reason.AUDIT]
    assert held_back
    assert {value_of(host, ticket) for ticket in held_back} == {host.to_host["medium"]}


def test_a_worker_replaces_the_medium(host: TicketSource, configure: Callable[..., None]) -> None:
    configure(MODE="async")
    ticket = create(host)
    assert outbox.drain() == 1
    assert value_of(host, ticket) == host.to_host["high"]
    # The object that made the ticket is saved again, as some hosts do.
    ticket.save()
    assert value_of(host, ticket) == host.to_host["high"]


def test_what_a_person_chose_stays(host: TicketSource, configure: Callable[..., None]) -> None:
    configure(MODE="async")
    chosen = [create(host, **{host.host_field.attname: host.to_host["low"]})]
    if host.model is not models.NotNullField:
        # Without a default a Medium is a person's too.
        chosen.append(create(host, **{host.host_field.attname: host.to_host["medium"]}))
    values = [value_of(host, ticket) for ticket in chosen]
    outbox.drain()
    call_command("classify_tickets", verbosity=0)
    assert [value_of(host, ticket) for ticket in chosen] == values
    assert [about(ticket) for ticket in chosen] == [[]] * len(chosen)


def test_the_medium_is_no_label_and_may_be_replaced(
    host: TicketSource, configure: Callable[..., None]
) -> None:
    configure(MODE="suggest")
    ticket = create(host)
    outbox.drain()
    medium = host.to_host["medium"]
    chosen = create(host, **{host.host_field.attname: medium})
    labels = [text.label for text in labelled_texts(host)]
    assert labels == ([] if host.model is models.NotNullField else [Priority.MEDIUM])
    configure(MODE="sync")
    classify_instances([ticket, host.queryset().get(pk=chosen.pk)])
    assert value_of(host, ticket) == host.to_host["high"]
    if host.model is not models.NotNullField:
        assert value_of(host, chosen) == medium


def test_medium_may_be_what_the_host_does_not_take(
    attach_host: Attach, always_high: ModelVersion, configure: Callable[..., None]
) -> None:
    models.Level.objects.create(pk=1, code="low")
    host = attach_host(models.NotNullKey, to_host=KEYS)
    ticket = create(host)
    assert value_of(host, ticket) == 1
    assert about(ticket) == [(State.SUGGESTED, Reason.REFUSED)]


def test_a_given_key_overwrites_nothing(attach_host: Attach, always_high: ModelVersion) -> None:
    host = attach_host(models.NotNull)
    old = create(host, priority=0)
    with pytest.raises(IntegrityError), transaction.atomic():
        host.model(pk=old.pk, body="again").save()
    assert value_of(host, old) == 0
    new = host.model(pk=old.pk + 100, body="new")
    new.save()
    assert value_of(host, new) == 1


def test_a_priority_field_begins_as_medium_without_the_plugin(
    attach_host: Attach, always_high: ModelVersion
) -> None:
    host = attach_host(models.NotNullField)
    with ticket_priority.muted():
        alone = create(host)
    (in_bulk,) = models.NotNullField.objects.bulk_create([models.NotNullField(body="a fire")])
    assert [value_of(host, ticket) for ticket in (alone, in_bulk)] == [1, 1]
    call_command("classify_tickets", verbosity=0)
    assert {value_of(host, ticket) for ticket in models.NotNullField.objects.all()} == {2}


def test_the_implicit_default_is_in_no_migration() -> None:
    _name, _path, _args, options = models.NotNullField._meta.get_field("priority").deconstruct()
    assert options == {"blank": True}
