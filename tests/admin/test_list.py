from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from helpdesk.models import Ticket
from tests.admin.conftest import MakePrediction, MakeTicket
from tests.admin.pages import form_of, messages_of
from tests.predictions.test_on_save import INVOICE, OUTAGE, TYPO
from tests.support.settings import overlay
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions.overrides import override
from ticket_priority.priorities import Priority

URL = "/admin/helpdesk/ticket/"
CASES = "/admin/uuid_host/case/"
second_site = pytest.mark.urls("tests.admin.urls")

State, Reason = Prediction.State, Prediction.Reason


def rows_of(response: Any) -> list[Any]:
    return list(response.context["cl"].result_list)


def cells_of(response: Any, column: str) -> list[str]:
    html = response.content.decode()
    found = re.findall(rf'<td class="field-{column}(?: [^"]*)?">(.*?)</td>', html, re.DOTALL)
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", cell)).strip() for cell in found]


class TestColumns:
    def test_badge_confidence_and_state(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        agreed, overruled, pending = (
            make_ticket(subject=name, priority=priority)
            for name, priority in (("a", 2), ("b", 0), ("c", None))
        )
        make_prediction(agreed, priority=0, state=State.SUPERSEDED)
        make_prediction(agreed, priority=2)
        make_prediction(overruled, priority=2)
        make_prediction(pending, state=State.PENDING, reason=Reason.QUEUED)
        make_ticket(subject="d", priority=1)
        response = admin_client.get(URL, {"o": "1"})
        assert [row.subject for row in rows_of(response)] == ["a", "b", "c", "d"]
        assert cells_of(response, "ticket_priority") == ["High", "Low", "Unset", "Medium"]
        assert cells_of(response, "ticket_priority_prediction") == [
            "87% applied",
            "High 87% applied",
            "pending",
            "–",
        ]
        assert 'title="waiting for a worker"' in response.content.decode()

    def test_the_badge_sorts_by_priority(
        self, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        for priority in (1, 0, 2):
            make_ticket(priority=priority)
        headers = admin_client.get(URL).context["cl"].list_display
        column = [getattr(item, "__name__", item) for item in headers].index("ticket_priority")
        descending = rows_of(admin_client.get(URL, {"o": f"-{column}"}))
        assert [row.priority for row in descending] == [2, 1, 0]
        ascending = rows_of(admin_client.get(URL, {"o": f"{column}"}))
        assert [row.priority for row in ascending] == [0, 1, 2]

    def test_predictions_cost_one_query_however_long_the_page(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        def count() -> list[str]:
            with CaptureQueriesContext(connection) as queries:
                admin_client.get(URL)
            return [query["sql"] for query in queries]

        make_prediction(make_ticket(priority=2), priority=2)
        few = count()
        for _number in range(20):
            make_prediction(make_ticket(priority=2), priority=2)
        many = count()
        assert len(few) == len(many)
        assert sum("ticket_priority_prediction" in sql for sql in many) == 1

    @second_site
    def test_a_host_with_uuid_keys_and_numbers_of_its_own(
        self, admin_client: Client, make_case: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        make_prediction(make_case(urgency=1), priority=2)
        response = admin_client.get(CASES)
        assert cells_of(response, "ticket_priority") == ["High"]
        assert cells_of(response, "ticket_priority_prediction") == ["87% applied"]


class TestFilters:
    @pytest.mark.parametrize(
        ("wanted", "expected"), [("high", [2]), ("medium", [1]), ("low", [0]), ("unset", [None])]
    )
    def test_priority(
        self, admin_client: Client, make_ticket: MakeTicket, wanted: str, expected: list[Any]
    ) -> None:
        for priority in (0, 1, 2, None):
            make_ticket(priority=priority)
        found = rows_of(admin_client.get(URL, {"ticket_priority": wanted}))
        assert [row.priority for row in found] == expected

    @second_site
    def test_priority_by_the_hosts_numbers(
        self, admin_client: Client, make_case: MakeTicket
    ) -> None:
        for urgency in (1, 2, 3, 4, 5, None):
            make_case(urgency=urgency)
        found = {
            wanted: sorted(
                row.urgency or 0
                for row in rows_of(admin_client.get(CASES, {"ticket_priority": wanted}))
            )
            for wanted in ("high", "medium", "low", "unset")
        }
        assert found == {"high": [1, 2], "medium": [3], "low": [4, 5], "unset": [0]}

    def check_predictions(
        self, client: Client, url: str, make: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        applied, pending, without, unsure, reviewed = (make() for _number in range(5))
        make_prediction(applied, state=State.PENDING, reason=Reason.QUEUED)
        make_prediction(applied, priority=2)
        make_prediction(pending, priority=2, confidence=0.4)
        make_prediction(pending, state=State.PENDING, reason=Reason.QUEUED)
        make_prediction(unsure, priority=1, confidence=0.41)
        make_prediction(reviewed, priority=1, confidence=0.41)
        override(reviewed, Priority.LOW)
        expected = {
            ("ticket_priority_state", "pending"): {pending},
            ("ticket_priority_state", "applied"): {applied, unsure, reviewed},
            ("ticket_priority_state", "failed"): set(),
            ("ticket_priority_state", "none"): {without},
            ("ticket_priority_confidence", "low"): {unsure, reviewed},
            ("ticket_priority_confidence", "low-unreviewed"): {unsure},
        }
        found = {
            (name, value): set(rows_of(client.get(url, {name: value}))) for name, value in expected
        }
        assert found == expected
        facets = client.get(url, {"_facets": "True"}).content.decode()
        assert "applied (3)" in facets
        assert "no prediction (1)" in facets

    def test_state_and_confidence_of_the_newest_prediction(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        self.check_predictions(admin_client, URL, make_ticket, make_prediction)

    @second_site
    def test_state_and_confidence_with_uuid_keys_among_other_tickets(
        self,
        admin_client: Client,
        make_case: MakeTicket,
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
    ) -> None:
        make_prediction(make_ticket(), state=State.PENDING, reason=Reason.QUEUED)
        self.check_predictions(admin_client, CASES, make_case, make_prediction)

    def test_integer_keys_among_tickets_with_uuid_keys(
        self,
        admin_client: Client,
        make_case: MakeTicket,
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
    ) -> None:
        make_prediction(make_case(), state=State.PENDING, reason=Reason.QUEUED)
        self.check_predictions(admin_client, URL, make_ticket, make_prediction)

    def test_an_unknown_value_shows_the_whole_list_with_an_error(
        self, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        make_ticket()
        response = admin_client.get(URL, {"ticket_priority": "urgent"})
        assert response.status_code == 302
        assert response["Location"].endswith("?e=1")


class TestActions:
    def run(self, client: Client, action: str, tickets: list[Any], url: str = URL) -> list[str]:
        data = {"action": action, "_selected_action": [str(ticket.pk) for ticket in tickets]}
        return messages_of(client.post(url, data, follow=True))

    def test_a_person_sets_many(
        self,
        admin_client: Client,
        admin_user: Any,
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
    ) -> None:
        chosen = [make_ticket(priority=0), make_ticket()]
        other = make_ticket(priority=1)
        pending = make_prediction(chosen[1], state=State.PENDING, reason=Reason.QUEUED)
        told = self.run(admin_client, "set_priority_high", chosen)
        assert told == ["The priority of 2 tickets is now High."]
        priorities = dict(Ticket.objects.values_list("pk", "priority"))
        assert priorities == {chosen[0].pk: 2, chosen[1].pk: 2, other.pk: 1}
        records = Override.objects.order_by("from_priority")
        found = {(row.object_id, row.from_priority, row.to_priority) for row in records}
        assert found == {(str(chosen[0].pk), 0, 2), (str(chosen[1].pk), None, 2)}
        assert {(row.user, row.via) for row in records} == {(admin_user, "admin")}
        pending.refresh_from_db()
        assert pending.state == State.SUPERSEDED

    @second_site
    def test_tickets_that_the_user_may_not_change_are_left(
        self, admin_client: Client, make_case: MakeTicket
    ) -> None:
        free, locked = make_case(urgency=3), make_case(urgency=3, body="locked")
        told = self.run(admin_client, "set_priority_low", [free, locked], CASES)
        assert told == [
            "You may not change 1 of the tickets.",
            "The priority of 1 ticket is now Low.",
        ]
        free.refresh_from_db()
        locked.refresh_from_db()
        assert (free.urgency, locked.urgency) == (4, 3)
        assert Override.objects.get().object_id == str(free.pk)

    def test_who_may_only_view_has_no_actions(
        self, client_with: Callable[..., Client], make_ticket: MakeTicket
    ) -> None:
        ticket = make_ticket(priority=0)
        client = client_with("view_ticket")
        assert "set_priority_high" not in client.get(URL).content.decode()
        self.run(client, "set_priority_high", [ticket])
        ticket.refresh_from_db()
        assert ticket.priority == 0

    def test_classifying_tells_what_came_of_it(
        self,
        active_model: ModelVersion,
        admin_client: Client,
        make_ticket: MakeTicket,
        settings: Any,
    ) -> None:
        settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, SERVING={"BATCH_SIZE": 2})
        outage, invoice = make_ticket(**OUTAGE), make_ticket(**INVOICE)
        decided = make_ticket(**TYPO, priority=2)
        empty = make_ticket(subject=" ", description="")
        told = self.run(admin_client, "classify_tickets", [outage, invoice, decided, empty])
        assert sorted(told) == [
            "2 priorities were set.",
            "A person decided the priority, so it stays; the prediction is a suggestion.",
            "The ticket has no text.",
        ]
        priorities = dict(Ticket.objects.values_list("pk", "priority"))
        assert priorities == {outage.pk: 2, invoice.pk: 1, decided.pk: 2, empty.pk: None}
        assert not Override.objects.exists()

    def test_classifying_without_a_model_says_so(
        self, fresh_classifier: None, admin_client: Client, make_ticket: MakeTicket
    ) -> None:
        (told,) = self.run(admin_client, "classify_tickets", [make_ticket(**OUTAGE)])
        assert "No model version is active" in told
        assert not Prediction.objects.exists()

    def test_accepting_suggestions(
        self, admin_client: Client, make_ticket: MakeTicket, make_prediction: MakePrediction
    ) -> None:
        suggested, done, without = make_ticket(), make_ticket(priority=2), make_ticket()
        for ticket in (suggested, done):
            make_prediction(ticket, priority=2, state=State.SUGGESTED)
        told = self.run(admin_client, "accept_suggested_priority", [suggested, done, without])
        assert told == ["1 suggestion was accepted.", "2 tickets have no suggestion to accept."]
        suggested.refresh_from_db()
        assert suggested.priority == Priority.HIGH
        record = Override.objects.get()
        assert (record.object_id, record.to_priority) == (str(suggested.pk), 2)
        assert record.prediction == Prediction.objects.for_instance(suggested).get()


@second_site
class TestEditableList:
    def post(self, client: Client, response: Any, **changes: Any) -> Any:
        sent = {**form_of(response, "changelist-form").values, **changes, "_save": "Save"}
        sent.pop("action", None)
        return client.post(URL, sent, follow=True)

    @pytest.fixture(autouse=True)
    def _rows(self, make_ticket: MakeTicket) -> None:
        self.second = make_ticket(subject="second", priority=1)
        self.first = make_ticket(subject="first")

    def test_changing_a_priority_records_an_override(
        self, admin_client: Client, admin_user: Any
    ) -> None:
        page = admin_client.get(URL)
        self.post(admin_client, page, **{"form-0-priority": "2", "form-1-subject": "renamed"})
        record = Override.objects.get()
        assert (record.object_id, record.user) == (str(self.first.pk), admin_user)
        assert (record.from_priority, record.to_priority, record.via) == (None, 2, "admin")
        values = dict(Ticket.objects.values_list("subject", "priority"))
        assert values == {"first": 2, "renamed": 1}

    def test_a_row_rendered_before_its_prediction_does_not_undo_it(
        self, admin_client: Client
    ) -> None:
        page = admin_client.get(URL)
        Ticket.objects.update(priority=Priority.HIGH)
        self.post(admin_client, page, **{"form-0-subject": "renamed"})
        values = dict(Ticket.objects.values_list("subject", "priority"))
        assert values == {"renamed": 2, "second": 2}
        assert not Override.objects.exists()
