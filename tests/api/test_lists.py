from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from helpdesk.models import Ticket
from tests.api.conftest import overrule, predict, quiet, version
from tests.uuid_host.models import Case
from ticket_priority.models import Prediction
from ticket_priority.sources.base import TicketSource

URL = "/api/predictions/"


def ids(client: APIClient, query: str, url: str = URL) -> list[int]:
    response = client.get(f"{url}?{query}")
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


def test_a_row_says_everything_about_a_prediction(viewer: APIClient, ticket: Ticket) -> None:
    row = predict(ticket, model_version=version("v1"), latency_ms=12.5, decided_at=timezone.now())
    found = viewer.get(f"{URL}{row.pk}/").json()
    assert viewer.get(URL).json()["results"] == [found]
    assert found.pop("created_at")
    assert found.pop("decided_at")
    assert found == {
        "id": row.pk,
        "source": "helpdesk.Ticket",
        "object_id": str(ticket.pk),
        "state": "applied",
        "reason": "ok",
        "mode": "sync",
        "priority": "high",
        "priority_id": 2,
        "confidence": 0.8,
        "probabilities": {"low": 0.1, "medium": 0.1, "high": 0.8},
        "model_version": "v1",
        "latency_ms": 12.5,
    }


def test_low_is_shown_as_low_and_nothing_as_null(viewer: APIClient, ticket: Ticket) -> None:
    low = predict(ticket, priority=0)
    pending = predict(ticket, state="pending", reason="queued", priority=None, confidence=None)
    assert viewer.get(f"{URL}{low.pk}/").json()["priority"] == "low"
    found = viewer.get(f"{URL}{pending.pk}/").json()
    assert [found[name] for name in ("priority", "priority_id", "probabilities")] == [None] * 3


def test_filters_narrow(
    superuser: APIClient, ticket: Ticket, cases: TicketSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = datetime(2026, 3, 1, 12, tzinfo=UTC)
    case = quiet(Case, body="x")
    first = predict(ticket, 0.4, created_at=day, model_version=version("v1"))
    second = predict(ticket, 0.9, priority=0, created_at=day + timedelta(days=1))
    third = predict(case, 0.6, state="suggested", reason="person_decided", created_at=day)
    for query, expected in {
        "source=helpdesk.ticket": [second, first],
        "source=UUID_HOST.CASE": [third],
        f"object_id={case.pk}": [third],
        "state=suggested": [third],
        "reason=person_decided": [third],
        "priority=low": [second],
        "priority=high": [third, first],
        "model_version=v1": [first],
        "min_confidence=0.6": [third, second],
        "max_confidence=0.6": [third, first],
        "created_after=2026-03-02T00:00:00Z": [second],
        "created_before=2026-03-02T00:00:00Z": [third, first],
        "created_after=2026-03-02T11:00:00%2B02:00": [second],
        "state=applied&priority=high": [first],
        "model_version=none": [],
        "unknown=1": [third, second, first],
    }.items():
        assert ids(superuser, query) == [row.pk for row in expected], query


@pytest.mark.parametrize(
    "query",
    [
        "source=no.Such",
        "source=%00",
        "object_id=%00",
        "object_id=" + "9" * 256,
        "state=done",
        "priority=urgent",
        "priority=2",
        "model_version=%00",
        "min_confidence=2",
        "min_confidence=nan",
        "max_confidence=-1e400",
        "max_confidence=1e999999999",
        "created_after=yesterday",
        "created_after=0001-01-01T00:00:00%2B14:00",
        "created_before=9999-12-31T23:59:59-14:00",
    ],
)
def test_a_wrong_filter_is_refused_by_name(viewer: APIClient, ticket: Ticket, query: str) -> None:
    response = viewer.get(f"{URL}?{query}")
    assert response.status_code == 400, response.content
    assert list(response.json()) == [query.partition("=")[0]]


def test_ordering(viewer: APIClient, ticket: Ticket) -> None:
    a, b, c = (predict(ticket, probability).pk for probability in (0.5, 0.9, 0.5))
    assert ids(viewer, "") == [c, b, a]
    assert ids(viewer, "ordering=id") == [a, b, c]
    assert ids(viewer, "ordering=confidence") == [c, a, b]
    assert ids(viewer, "ordering=-confidence") == [b, c, a]
    assert ids(viewer, "ordering=model_version__digest") == [c, b, a]


def test_pages_do_not_overlap(viewer: APIClient, ticket: Ticket, settings: Any) -> None:
    settings.REST_FRAMEWORK = {"PAGE_SIZE": 1, "DEFAULT_PAGINATION_CLASS": None}
    rows = [predict(ticket).pk for _ in range(7)]
    seen: list[int] = []
    url = f"{URL}?page_size=3&ordering=confidence"
    pages = 0
    while url:
        page = viewer.get(url).json()
        seen += [row["id"] for row in page["results"]]
        url, pages = page["next"], pages + 1
    assert (pages, sorted(seen)) == (3, rows)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("page=0", 404),
        ("page=99999999999999999999", 404),
        ("page=" + "9" * 5000, 404),
        ("page=%00", 404),
        ("page_size=0", 200),
        ("page_size=-1", 200),
        ("page_size=x", 200),
        ("page_size=" + "9" * 5000, 200),
    ],
)
def test_odd_pages(viewer: APIClient, ticket: Ticket, query: str, code: int) -> None:
    assert viewer.get(f"{URL}?{query}").status_code == code


def test_a_page_is_never_larger_than_200(viewer: APIClient, ticket: Ticket) -> None:
    row = predict(ticket)
    Prediction.objects.bulk_create(
        Prediction(content_type_id=row.content_type_id, object_id="1", mode="sync", state="failed")
        for _ in range(205)
    )
    assert len(ids(viewer, "page_size=1000")) == 200


@pytest.mark.parametrize("url", [URL, "/api/overrides/"])
def test_a_page_costs_the_same_whatever_its_length(
    superuser: APIClient, cases: TicketSource, url: str, django_assert_num_queries: Any
) -> None:
    def add(number: int) -> None:
        for index in range(number):
            for row in (quiet(Ticket, subject="x"), quiet(Case, body="x")):
                known = version(f"{number}-{index}-{row.pk}")
                prediction = predict(row, model_version=known)
                overrule(row, 1, prediction=prediction, user=superuser.user)  # type: ignore[attr-defined]

    add(1)
    superuser.get(url)
    for number in (1, 5):
        add(number)
        with django_assert_num_queries(3):  # token, count, page
            assert superuser.get(url).status_code == 200


@pytest.mark.parametrize(
    "key", ["0", "99999999999999999999999", "9" * 5000, "-1", "abc", "1%00", "1.0"]
)
def test_a_prediction_that_is_not_there(superuser: APIClient, key: str) -> None:
    assert superuser.get(f"{URL}{key}/").status_code == 404


def test_overrides_are_listed_and_filtered(viewer: APIClient, ticket: Ticket) -> None:
    prediction = predict(ticket)
    user = viewer.user  # type: ignore[attr-defined]
    first = overrule(ticket, 0, from_priority=2, user=user, reason="no", prediction=prediction)
    second = overrule(ticket, 1, from_priority=0)
    url = "/api/overrides/"
    shown = viewer.get(url).json()["results"]
    assert [row["id"] for row in shown] == [second.pk, first.pk]
    assert shown[1] | {"created_at": None} == {
        "id": first.pk,
        "source": "helpdesk.Ticket",
        "object_id": str(ticket.pk),
        "prediction": prediction.pk,
        "user": user.username,
        "from_priority": "high",
        "to_priority": "low",
        "reason": "no",
        "via": "",
        "created_at": None,
    }
    assert ids(viewer, "to_priority=low", url) == [first.pk]
    assert ids(viewer, "from_priority=low", url) == [second.pk]
    assert ids(viewer, f"user={user.username}", url) == [first.pk]
    assert ids(viewer, f"object_id={ticket.pk}", url) == [second.pk, first.pk]
    assert viewer.get(f"{url}?user=%00").status_code == 400


def test_nothing_can_be_written_through_the_lists(superuser: APIClient, ticket: Ticket) -> None:
    row = predict(ticket)
    for method in ("post", "put", "patch", "delete"):
        for url in (URL, f"{URL}{row.pk}/", "/api/overrides/"):
            assert getattr(superuser, method)(url, {}, format="json").status_code == 405
