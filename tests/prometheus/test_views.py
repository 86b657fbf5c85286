from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError, connections
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE
from tests.support.classifiers import FaultyClassifier
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import kill_switch

pytestmark = [
    pytest.mark.usefixtures("counting"),
    pytest.mark.urls("tests.prometheus.urls"),
    pytest.mark.django_db,
]

TOKEN = "as-long-as-you-like"


@pytest.fixture
def scrape(configure: Callable[..., None]) -> Callable[[], dict[str, float]]:
    """Return a function that scrapes with the token: the samples by name and labels' values."""
    configure(METRICS={"TOKEN": TOKEN})

    def scrape() -> dict[str, float]:
        response = Client().get("/metrics/", headers={"Authorization": f"Bearer {TOKEN}"})
        assert response.status_code == 200
        return {
            " ".join((sample.name, *sample.labels.values())): sample.value
            for family in text_string_to_metric_families(response.content.decode())
            for sample in family.samples
        }

    return scrape


class TestWhoMay:
    @pytest.mark.parametrize(
        "given",
        [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"],
    )
    @pytest.mark.parametrize("token", [None, "", TOKEN])
    def test_not_who_says_nothing_or_something_else(
        self, configure: Callable[..., None], given: str | None, token: str | None
    ) -> None:
        configure(METRICS={"TOKEN": token})
        headers = {} if given is None else {"Authorization": given}
        response = Client().get("/metrics/", headers=headers)
        assert response.status_code == 401
        assert response["WWW-Authenticate"] == "Bearer"
        assert b"ticket_priority" not in response.content
        assert b'TICKET_PRIORITY["METRICS"]["TOKEN"]' in response.content

    def test_who_bears_the_token(self, configure: Callable[..., None]) -> None:
        configure(METRICS={"TOKEN": TOKEN})
        response = Client().get("/metrics/", headers={"Authorization": f"bearer {TOKEN}"})
        assert response.status_code == 200
        assert "no-store" in response["Cache-Control"]

    def test_who_may_view_predictions(self) -> None:
        client, user = Client(), User.objects.create_user("lead")
        client.force_login(user)
        assert client.get("/metrics/").status_code == 403
        user.user_permissions.add(Permission.objects.get(codename="view_prediction"))
        assert client.get("/metrics/").status_code == 200
        assert client.post("/metrics/").status_code == 405

    def test_nobody_where_nothing_is_counted(
        self, configure: Callable[..., None], admin_client: Client
    ) -> None:
        configure(METRICS={"ENABLED": False})
        assert admin_client.get("/metrics/").status_code == 404


class TestWhatItSays:
    def test_what_was_counted(
        self,
        faulty: type[FaultyClassifier],
        scrape: Callable[[], dict[str, float]],
        django_capture_on_commit_callbacks: Any,
    ) -> None:
        name = "ticket_priority_predictions_total sync high ok applied"
        before = scrape().get(name, 0)
        with django_capture_on_commit_callbacks(execute=True):
            Ticket.objects.create(**OUTAGE)
        assert scrape()[name] == before + 1

    def test_what_the_database_knows(
        self, faulty: type[FaultyClassifier], scrape: Callable[[], dict[str, float]]
    ) -> None:
        version = ModelVersion.objects.get()
        found = scrape()
        assert found[f"ticket_priority_model_version active {version.name}"] == 1
        assert found["ticket_priority_load_error active"] == 0
        assert found["ticket_priority_switched_on"] == 1
        assert found["ticket_priority_pending_oldest_seconds"] == 0
        assert found["ticket_priority_failed"] == 0
        kill_switch.turn(on=False)
        for _ in range(2):
            Ticket.objects.create(**OUTAGE)
        first, second = Prediction.objects.order_by("pk")
        Prediction.objects.filter(pk=first.pk).update(
            created_at=timezone.now() - timedelta(hours=1)
        )
        ModelVersion.objects.update(load_error="no memory")
        found = scrape()
        assert found["ticket_priority_pending disabled"] == 2
        assert 3600 <= found["ticket_priority_pending_oldest_seconds"] < 3660
        assert found["ticket_priority_load_error active"] == 1
        assert found["ticket_priority_switched_on"] == 0
        Prediction.objects.filter(pk=second.pk).update(state="failed")
        assert scrape()["ticket_priority_failed"] == 1

    def test_three_queries(
        self, scrape: Callable[[], dict[str, float]], django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(3):
            scrape()

    def test_a_database_that_does_not_answer_leaves_the_counters(
        self, scrape: Callable[[], dict[str, float]]
    ) -> None:
        def refuse(*args: Any) -> None:
            raise OperationalError("gone")

        with connections["default"].execute_wrapper(refuse):
            found = scrape()
        assert "ticket_priority_breaker_open" in found
        assert "ticket_priority_failed" not in found

    def test_open_metrics(self, admin_client: Client) -> None:
        accept = "application/openmetrics-text; version=1.0.0"
        response = admin_client.get("/metrics/", headers={"Accept": accept})
        assert response["Content-Type"].startswith("application/openmetrics-text")
        assert response.content.endswith(b"# EOF\n")
