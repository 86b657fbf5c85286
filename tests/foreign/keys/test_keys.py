"""Rows about a ticket are found by its key, whatever kind of key that is and however it is given.

Each host has two tickets that are classified: `answered`, and `decided`, which a person decided.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client

import ticket_priority
from tests.foreign.keys import models
from ticket_priority.admin.listing import ConfidenceFilter, PredictionStateFilter, PriorityFilter
from ticket_priority.models import ModelVersion, Override, Prediction, ShadowPrediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions.shadow import batches
from ticket_priority.predictions.standings import priorities_of
from ticket_priority.sources import get_source, registry
from ticket_priority.sources.keys import key_text
from ticket_priority.training.labels import audited_labels, labelled_texts, labels_of

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("fresh_classifier"),
    # A naive time as a key is the host's own warning.
    pytest.mark.filterwarnings("ignore:DateTimeField .* received a naive datetime"),
]

TEXT = "The whole system is down"
State = Prediction.State


@dataclass(frozen=True)
class Kind:
    """A model, and the columns of its n-th ticket as the host gives them."""

    model: Any
    row: Callable[[int], dict[str, Any]]


LONG = "".join(f"{number}-" for number in range(130))
KINDS = {
    "number": Kind(models.Numbered, lambda n: {}),
    "number as text": Kind(models.Numbered, lambda n: {"id": f"00{n}"}),
    "UUID": Kind(models.Unique, lambda n: {}),
    "UUID as text": Kind(models.Unique, lambda n: {"id": str(uuid.uuid4())}),
    "UUID in hexadecimal digits": Kind(models.Unique, lambda n: {"id": uuid.uuid4().hex}),
    "UUID in upper case": Kind(models.Unique, lambda n: {"id": str(uuid.uuid4()).upper()}),
    "UUID as a URN": Kind(models.Unique, lambda n: {"id": uuid.uuid4().urn}),
    "message id": Kind(models.Mail, lambda n: {"message_id": f"<{'x' * 180}.{n}@mail.example>"}),
    # They begin with the same 255 characters.
    "long message id": Kind(models.LongMail, lambda n: {"message_id": f"<{LONG}.{n}@m.example>"}),
    "short message id": Kind(models.LongMail, lambda n: {"message_id": f"<{n}@m.example>"}),
    "letter case": Kind(models.Coded, lambda n: {"code": ["", "aB1", "ab1", "AB1", "Ab1"][n]}),
    "slash": Kind(models.Coded, lambda n: {"code": f"2026/000{n}"}),
    "slash at the ends": Kind(models.Coded, lambda n: {"code": f"/{n}/"}),
    "other characters": Kind(models.Coded, lambda n: {"code": f"%2F_5F?#ü 😀,İ'\"{n}"}),
    "own collation": Kind(models.Collated, lambda n: {"code": f"A{n}"}),
    "key of the parent": Kind(models.CodedChild, lambda n: {"code": f"A{n}"}),
    "opaque": Kind(models.Hidden, lambda n: {}),
    "lower case": Kind(models.Lowered, lambda n: {"code": f"AbC{n}"}),
    "decimal": Kind(models.Priced, lambda n: {"number": Decimal(n)}),
    "decimal as text": Kind(models.Priced, lambda n: {"number": f"{n}.5"}),
    "time": Kind(models.Timed, lambda n: {"at": datetime(2026, 5, 1, n, tzinfo=UTC)}),
    "time elsewhere": Kind(
        models.Timed, lambda n: {"at": datetime(2026, 5, 1, n, tzinfo=ZoneInfo("Asia/Tokyo"))}
    ),
    "composite": Kind(models.Composite, lambda n: {"tenant": "a,b/%2C", "number": n}),
    "composite as text": Kind(
        models.Composite,
        lambda n: {"tenant": "a", "number": f"0{n}", "case": uuid.uuid4().hex},
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    before = dict(registry._sources)
    registry._sources.clear()
    found = KINDS[request.param]
    register(found.model)
    yield found
    registry._sources.clear()
    registry._sources.update(before)


def register(model: Any) -> None:
    rule = "tests.foreign.keys.models.first_team"
    # Low is chosen only where a person or the model is known to have said so.
    given = {"visible_to": rule, "changeable_by": rule, "unset": (None, 0)}
    registry.register(model, text_fields="body", priority_field="severity", **given)


@pytest.fixture(autouse=True)
def served(db: None, artifact_root: Path) -> None:
    cache.clear()
    call_command("activate_priority_model", starter="linear", verbosity=0)


@pytest.fixture
def create(kind: Kind) -> Callable[..., Any]:
    """Return a function that creates the next ticket, and reads it as the host does later."""
    numbers = count(1)

    def create(**values: Any) -> Any:
        made = kind.model(**{"body": TEXT, **kind.row(next(numbers)), **values})
        made.save()
        outbox.drain()
        return kind.model.objects.get(pk=made.pk)

    return create


@pytest.fixture
def answered(create: Any) -> Any:
    return create()


@pytest.fixture
def decided(create: Any, answered: Any) -> Any:
    ticket = create()
    ticket_priority.override(ticket, 0, reason="no hurry")
    ticket.refresh_from_db()
    return ticket


@pytest.fixture
def agent(client: Client) -> Client:
    client.force_login(User.objects.create_user("ana"))
    return client


def states_of(ticket: Any) -> list[str]:
    return list(Prediction.objects.for_instance(ticket).values_list("state", flat=True))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_ticket_and_its_prediction_find_each_other(
    kind: Kind, create: Any, configure: Any, mode: str
) -> None:
    configure(MODE=mode)
    first, second = create(), create()
    for ticket in (first, second):
        assert ticket.severity == 2
        assert states_of(ticket) == [State.APPLIED]
        assert list(priorities_of([ticket])) == [key_text(kind.model, ticket.pk)]


def test_only_what_people_said_is_a_label(kind: Kind, answered: Any, decided: Any) -> None:
    source, key = get_source(kind.model), key_text(kind.model, decided.pk)
    found = [(text.pk, text.label, text.provenance) for text in labelled_texts(source)]
    assert found == [(key, 0, "override")]
    keys = [key_text(kind.model, ticket.pk) for ticket in (answered, decided)]
    assert labels_of(source, keys) == audited_labels(source, keys) == {key: 0}


def test_the_admin_filters_find_the_tickets(
    kind: Kind, create: Any, answered: Any, decided: Any
) -> None:
    with ticket_priority.muted():
        unseen = create()

    def keys(*tickets: Any) -> list[Any]:
        return sorted((ticket.pk for ticket in tickets), key=str)

    def shown(by: Any, name: str, value: str) -> list[Any]:
        admin = type("Admin", (), {"low_confidence": 1.0})
        rows = by(None, {name: [value]}, kind.model, admin).queryset(None, kind.model.objects.all())
        return keys(*rows)

    assert shown(PriorityFilter, "ticket_priority", "high") == keys(answered)
    assert shown(PriorityFilter, "ticket_priority", "low") == keys(decided)
    assert shown(PriorityFilter, "ticket_priority", "unset") == keys(unseen)
    state = "ticket_priority_state"
    assert shown(PredictionStateFilter, state, "applied") == keys(answered, decided)
    assert shown(PredictionStateFilter, state, "none") == keys(unseen)
    confidence = "ticket_priority_confidence"
    assert shown(ConfidenceFilter, confidence, "low") == keys(answered, decided)
    assert shown(ConfidenceFilter, confidence, "low-unreviewed") == keys(answered)


def test_the_api_shows_and_changes_a_ticket(kind: Kind, answered: Any, agent: Client) -> None:
    (row,) = agent.get("/api/predictions/").json()["results"]
    for key in {row["object_id"], key_text(kind.model, answered.pk)}:
        page = f"/api/tickets/{kind.model._meta.label}/{quote(key, safe='')}/"
        shown = agent.get(page)
        assert shown.status_code == 200, (key, shown.content)
        assert shown.json()["prediction"]["id"] == row["id"]
        assert shown.json()["object_id"] == row["object_id"]
        done = agent.post(f"{page}override/", {"priority": "low"}, "application/json")
        assert done.status_code == 201, done.content
        assert agent.post(f"{page}classify/").status_code == 201
    answered.refresh_from_db()
    assert answered.severity == 0


def test_the_api_lists_the_rows_of_visible_tickets(
    kind: Kind, create: Any, answered: Any, agent: Client
) -> None:
    hidden = create(team=2)
    for ticket in (answered, hidden):
        ticket_priority.override(ticket, 0)
    for page in ("predictions", "overrides"):
        found = agent.get(f"/api/{page}/").json()
        assert [row["object_id"] for row in found["results"]] == [key_text(kind.model, answered.pk)]


def test_a_backfill_takes_each_ticket_once(kind: Kind, create: Any, decided: Any) -> None:
    with ticket_priority.muted():
        unseen = create()
    for _run in range(2):
        call_command("classify_tickets", verbosity=0)
    assert states_of(unseen) == states_of(decided) == [State.APPLIED]
    decided.refresh_from_db()
    assert decided.severity == 0


def test_the_shadow_answers_about_the_same_tickets(kind: Kind, answered: Any, create: Any) -> None:
    active = ModelVersion.objects.get()
    active.pk, active.name, active.is_active = None, "shadow", None
    active.save()
    active.start_shadow()
    ticket = create()
    assert sum(batches()) == 1
    (row,) = ShadowPrediction.objects.for_instance(ticket)
    assert row.text_hash == Prediction.objects.for_instance(ticket).get().text_hash


def test_a_deleted_ticket_takes_only_its_own_rows_along(
    kind: Kind, create: Any, answered: Any, decided: Any
) -> None:
    answered.delete()
    assert Prediction.objects.count() == Override.objects.count() == 1
    assert states_of(decided) == [State.APPLIED]
    decided.delete()
    assert Prediction.objects.count() == Override.objects.count() == 0


def test_erasing_finds_what_is_gone_and_nothing_else(
    kind: Kind, create: Any, answered: Any, decided: Any
) -> None:
    call_command("erase_priority_data", gone=True, verbosity=0)
    assert states_of(answered) == states_of(decided) == [State.APPLIED]
    source = registry._sources.pop(kind.model)
    answered.delete()
    registry._sources[kind.model] = source
    call_command("erase_priority_data", gone=True, verbosity=0)
    assert states_of(decided) == [State.APPLIED]
    assert Prediction.objects.count() == 1
    name = f"{kind.model._meta.label}:{key_text(kind.model, decided.pk)}"
    call_command("erase_priority_data", ticket=[name], verbosity=0)
    assert not Prediction.objects.exists() and not Override.objects.exists()
