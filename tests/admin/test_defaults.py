"""A host whose default value is also a class: tickets with and without a decision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.admin.conftest import MakePrediction, MakeTicket
from tests.admin.pages import form_of, messages_of
from tests.admin.test_list import CASES, cells_of, rows_of
from tests.uuid_host.models import Case
from ticket_priority.admin.panel import TicketPanel
from ticket_priority.models import Override, Prediction
from ticket_priority.predictions.overrides import override
from ticket_priority.predictions.standings import open_suggestions, priorities_of
from ticket_priority.priorities import Priority
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import register, unregister

pytestmark = pytest.mark.urls("tests.admin.urls")

State, Reason = Prediction.State, Prediction.Reason
DEFAULT = 3


@pytest.fixture
def case_source() -> Iterator[TicketSource]:
    """Attach Case with a scale whose default, 3, is Medium."""
    yield register(
        Case,
        text_fields=("body",),
        priority_field="urgency",
        to_host={"low": 4, "medium": 3, "high": 2},
        from_host={1: "high", 2: "high", 3: "medium", 4: "low", 5: "low"},
        unset=(None, DEFAULT),
    )
    unregister(Case)


@pytest.fixture
def cases(make_case: MakeTicket, make_prediction: MakePrediction) -> dict[str, Case]:
    """Return cases with the default by its origin, and some with another value."""
    names = ("untouched", "pending", "suggested", "reopened", "predicted", "again", "decided")
    made = {name: make_case(body=name, urgency=DEFAULT) for name in names}
    made |= {"empty": make_case(body="empty"), "high": make_case(body="high", urgency=1)}
    make_prediction(made["pending"], state=State.PENDING, reason=Reason.QUEUED)
    make_prediction(made["suggested"], priority=1, state=State.SUGGESTED)
    make_prediction(made["reopened"], priority=2, state=State.SUGGESTED, reason=Reason.STALE_FORM)
    make_prediction(made["predicted"], priority=1)
    make_prediction(made["again"], priority=1)
    make_prediction(made["again"], priority=2, state=State.SUGGESTED)
    make_prediction(made["decided"], priority=2, state=State.SUGGESTED)
    override(made["decided"], Priority.MEDIUM)
    make_prediction(made["high"], priority=2)
    return made


def column_of(response: Any, column: str) -> dict[str, str]:
    bodies = [row.body for row in rows_of(response)]
    return dict(zip(bodies, cells_of(response, column), strict=True))


def found(client: Client, wanted: str) -> set[str]:
    return {row.body for row in rows_of(client.get(CASES, {"ticket_priority": wanted}))}


def test_the_list_says_unset_only_where_nobody_decided(
    admin_client: Client, cases: dict[str, Case]
) -> None:
    response = admin_client.get(CASES)
    assert column_of(response, "ticket_priority") == {
        "untouched": "Unset",
        "pending": "Unset",
        "suggested": "Unset",
        "reopened": "Unset",
        "predicted": "Medium",
        "again": "Medium",
        "decided": "Medium",
        "empty": "Unset",
        "high": "High",
    }
    predictions = column_of(response, "ticket_priority_prediction")
    assert predictions["predicted"] == "87% applied"
    assert predictions["suggested"] == "Medium 87% suggested"


def test_the_filter_finds_what_the_list_shows(admin_client: Client, cases: dict[str, Case]) -> None:
    assert found(admin_client, "medium") == {"predicted", "again", "decided"}
    assert found(admin_client, "high") == {"high"}
    assert found(admin_client, "low") == set()
    unset = {"untouched", "pending", "suggested", "reopened", "empty"}
    assert found(admin_client, "unset") == unset


def test_a_page_costs_two_queries_more_however_long(
    admin_client: Client, make_case: MakeTicket, make_prediction: MakePrediction
) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            admin_client.get(CASES)
        return len(queries)

    make_prediction(make_case(urgency=2), priority=2)
    none_in_doubt = count()
    make_prediction(make_case(urgency=DEFAULT), priority=1)
    one = count()
    for _number in range(10):
        make_prediction(make_case(urgency=DEFAULT), priority=1)
    assert (one, count()) == (none_in_doubt + 2, none_in_doubt + 2)


def test_a_host_without_such_a_default_pays_nothing(
    make_case: MakeTicket, case_source: TicketSource, django_assert_num_queries: Any
) -> None:
    register(Case, text_fields="body", priority_field="urgency", to_host=case_source.to_host)
    tickets = [make_case(urgency=value) for value in (None, 2, 3)]
    with django_assert_num_queries(0):
        assert list(priorities_of(tickets).values()) == [None, Priority.HIGH, Priority.MEDIUM]


@pytest.mark.parametrize(
    ("name", "priority", "automatic"),
    [
        ("untouched", None, False),
        ("suggested", None, False),
        ("predicted", Priority.MEDIUM, True),
        ("decided", Priority.MEDIUM, False),
    ],
)
def test_the_panel_says_who_decided(
    cases: dict[str, Case], name: str, priority: Priority | None, automatic: bool
) -> None:
    panel = TicketPanel.of(cases[name])
    assert (panel.priority, panel.is_automatic) == (priority, automatic)


def test_a_suggestion_is_open_until_the_default_was_decided_for(
    admin_client: Client, cases: dict[str, Case]
) -> None:
    case = cases["suggested"]
    assert set(open_suggestions(cases.values())) == {
        str(cases[name].pk) for name in ("suggested", "reopened", "again")
    }
    page = admin_client.get(f"{CASES}{case.pk}/change/")
    accept = form_of(page, "priority/accept")
    response = admin_client.post(accept.action, accept.values, follow=True)
    assert messages_of(response) == ["The priority is now Medium."]
    record = Override.objects.for_instance(case).get()
    assert (record.from_priority, record.to_priority) == (None, Priority.MEDIUM)
    assert str(case.pk) not in open_suggestions([case])


@pytest.mark.parametrize(
    ("name", "before"),
    [("untouched", None), ("predicted", Priority.MEDIUM), ("decided", Priority.MEDIUM)],
)
def test_a_decision_in_the_form_says_what_it_replaced(
    admin_client: Client, cases: dict[str, Case], name: str, before: Priority | None
) -> None:
    url = f"{CASES}{cases[name].pk}/change/"
    form = form_of(admin_client.get(url), "case_form")
    admin_client.post(url, {**form.values, "urgency": "1"})
    record = Override.objects.for_instance(cases[name]).first()
    assert (record.from_priority, record.to_priority) == (before, Priority.HIGH)


def test_a_reclassified_default_still_stands(
    admin_client: Client, cases: dict[str, Case], make_prediction: MakePrediction
) -> None:
    """An applied prediction decides, even when a newer one only suggests."""
    panel = TicketPanel.of(cases["again"])
    assert panel.priority == Priority.MEDIUM
    assert panel.suggestion is not None
    assert panel.suggestion.priority == Priority.HIGH
