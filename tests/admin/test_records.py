from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_q.models import OrmQ

from helpdesk.models import Ticket
from tests.admin.conftest import MakePrediction, MakeTicket
from tests.admin.pages import messages_of
from tests.predictions.test_on_save import OUTAGE
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions.overrides import override
from ticket_priority.predictions.workers import DRAIN_TASK
from ticket_priority.priorities import Priority

PREDICTIONS = "/admin/ticket_priority/prediction/"
OVERRIDES = "/admin/ticket_priority/override/"

State, Reason = Prediction.State, Prediction.Reason


class TestPredictions:
    def test_the_list_links_to_tickets_without_a_query_for_each(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        def count() -> int:
            with CaptureQueriesContext(connection) as queries:
                admin_client.get(PREDICTIONS)
            return len(queries)

        ticket = make_ticket()
        make_prediction(ticket, priority=2)
        page = admin_client.get(PREDICTIONS).content.decode()
        assert f'href="/admin/helpdesk/ticket/{ticket.pk}/change/"' in page
        few = count()
        for _number in range(10):
            make_prediction(make_ticket(), priority=2)
        assert count() == few

    def test_a_ticket_that_no_admin_shows_is_named(
        self, admin_client: Client, make_case: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        case = make_case()
        row = make_prediction(case, priority=2)
        assert f"Case {case.pk}" in admin_client.get(PREDICTIONS).content.decode()
        assert admin_client.get(f"{PREDICTIONS}{row.pk}/change/").status_code == 200

    @pytest.mark.parametrize(
        "query",
        [
            {"state__exact": "failed"},
            {"reason__exact": "model_error"},
            {"priority__exact": "0"},
            {"mode__exact": "async"},
        ],
    )
    def test_filters(
        self,
        admin_client: Client,
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
        query: dict[str, str],
    ) -> None:
        ticket = make_ticket()
        make_prediction(ticket, priority=2)
        wanted = make_prediction(
            ticket, priority=0, state=State.FAILED, reason=Reason.MODEL_ERROR, mode="async"
        )
        response = admin_client.get(PREDICTIONS, query)
        assert list(response.context["cl"].result_list) == [wanted]

    def test_nobody_edits(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        row = make_prediction(make_ticket(), priority=2)
        assert admin_client.get(f"{PREDICTIONS}add/").status_code == 403
        assert admin_client.post(f"{PREDICTIONS}{row.pk}/change/", {}).status_code == 403
        assert admin_client.post(f"{PREDICTIONS}{row.pk}/delete/", {}).status_code == 403
        assert Prediction.objects.get() == row


class TestRetrying:
    def retry(self, client: Client, *rows: Prediction) -> list[str]:
        data = {"action": "retry_failed", "_selected_action": [str(row.pk) for row in rows]}
        return messages_of(client.post(PREDICTIONS, data, follow=True))

    def test_a_failed_prediction_is_worked_off_after_all(
        self,
        active_model: ModelVersion,
        admin_client: Client,
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
    ) -> None:
        ticket = make_ticket(**OUTAGE)
        failed = make_prediction(
            ticket, state=State.FAILED, reason=Reason.MODEL_ERROR, mode="async", attempts=5
        )
        assert self.retry(admin_client, failed) == ["1 prediction is pending again."]
        assert outbox.drain() == 1
        failed.refresh_from_db()
        ticket.refresh_from_db()
        assert (failed.state, failed.attempts) == (State.APPLIED, 1)
        assert ticket.priority == Priority.HIGH

    def test_a_worker_is_told(
        self,
        admin_client: Client,
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
        django_capture_on_commit_callbacks: Any,
    ) -> None:
        failed = make_prediction(make_ticket(), state=State.FAILED, reason=Reason.MODEL_ERROR)
        with django_capture_on_commit_callbacks(execute=True):
            self.retry(admin_client, failed)
        assert [queued.func() for queued in OrmQ.objects.all()] == [DRAIN_TASK]

    def test_what_a_person_may_have_decided_is_left(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        had_priority, overruled, outdated = (make_ticket() for _number in range(3))
        failed = {"state": State.FAILED, "reason": Reason.MODEL_ERROR}
        rows = [
            make_prediction(had_priority, value_before=0, **failed),
            make_prediction(overruled, **failed),
            make_prediction(outdated, **failed),
        ]
        override(overruled, Priority.LOW)
        applied = make_prediction(outdated, priority=2)
        (told,) = self.retry(admin_client, *rows, applied)
        assert told.startswith("3 failed predictions were left")
        assert Prediction.objects.filter(state=State.FAILED).count() == 3
        assert Prediction.objects.get(pk=applied.pk).state == State.APPLIED

    def test_rows_that_have_not_failed(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        row = make_prediction(make_ticket(), priority=2)
        assert self.retry(admin_client, row) == ["None of these has failed."]

    def test_needs_the_permission(
        self,
        client_with: Callable[..., Client],
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
    ) -> None:
        row = make_prediction(make_ticket(), state=State.FAILED, reason=Reason.MODEL_ERROR)
        self.retry(client_with("view_prediction"), row)
        row.refresh_from_db()
        assert row.state == State.FAILED
        self.retry(client_with("view_prediction", "change_prediction"), row)
        row.refresh_from_db()
        assert row.state == State.PENDING


def test_overrides_are_listed_and_nobody_edits_them(
    admin_client: Client, admin_user: Any, make_ticket: MakeTicket
) -> None:
    ticket = make_ticket(priority=0)
    record = override(ticket, Priority.HIGH, user=admin_user, reason="The boss.", via="page")
    page = admin_client.get(OVERRIDES).content.decode()
    for text in (f"Ticket {ticket.pk}", "The boss.", str(admin_user), "tp-badge--high"):
        assert text in page
    assert admin_client.get(f"{OVERRIDES}{record.pk}/change/").status_code == 200
    assert admin_client.get(f"{OVERRIDES}add/").status_code == 403
    assert admin_client.post(f"{OVERRIDES}{record.pk}/delete/").status_code == 403
    assert Override.objects.get() == record
    assert Ticket.objects.get().priority == Priority.HIGH
