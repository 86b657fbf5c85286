"""What a page or an action costs does not grow with the tickets: a few hundred of them show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.signals import pre_delete
from django.test import Client
from django.test.utils import CaptureQueriesContext

from helpdesk.models import Queue, Ticket
from tests.admin.conftest import MakePrediction, MakeTicket
from ticket_priority import muted
from ticket_priority.admin import bulk
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions.overrides import override

URL = "/admin/helpdesk/ticket/"
State, Reason = Prediction.State, Prediction.Reason


@contextmanager
def queries() -> Iterator[list[str]]:
    found: list[str] = []
    with CaptureQueriesContext(connection) as captured:
        yield found
    found += [query["sql"] for query in captured]


def tickets(number: int, **values: Any) -> list[Ticket]:
    with muted():
        return [Ticket.objects.create(subject=f"Jam {place}", **values) for place in range(number)]


def predict(about: list[Ticket], **values: Any) -> None:
    """Store rows as an import does, without their mark."""
    given = {"mode": "sync", "state": State.APPLIED, "reason": Reason.OK, **values}
    Prediction.objects.bulk_create(
        Prediction(content_type=content_type_of(Ticket), object_id=str(ticket.pk), **given)
        for ticket in about
    )


def shown(client: Client, query: str) -> set[int]:
    return {ticket.pk for ticket in client.get(f"{URL}?{query}").context["cl"].queryset}


def facets(client: Client) -> dict[str, str]:
    specs = client.get(f"{URL}?_facets=True").context["cl"].filter_specs[:3]
    changelist = client.get(f"{URL}?_facets=True").context["cl"]
    titles = [str(choice["display"]) for spec in specs for choice in spec.choices(changelist)]
    pairs = (title.rstrip(")").rpartition(" (") for title in titles if title != "All")
    return {title: number for title, _space, number in pairs}


@pytest.mark.django_db
@pytest.mark.parametrize("marked", [True, False])
class TestFilters:
    @pytest.fixture(autouse=True)
    def stored(self, marked: bool) -> None:
        self.old, self.unsure, self.held, self.none = (tickets(3) for _ in range(4))
        predict(self.old + self.unsure, priority=1, confidence=0.9, state=State.SUGGESTED)
        predict(self.old, priority=1, confidence=0.9)
        predict(self.unsure, priority=1, confidence=0.3)
        predict(self.held, priority=1, confidence=0.3, state=State.SUGGESTED, reason=Reason.AUDIT)
        override(self.unsure[0], 2)
        if marked:
            assert Prediction.objects.all().mark_newest() == 15

    def test_the_newest_prediction_decides(self, admin_client: Client) -> None:
        for query, expected in {
            "ticket_priority_state=applied": self.old + self.unsure,
            "ticket_priority_state=suggested": [],
            "ticket_priority_state=none": self.held + self.none,
            "ticket_priority_confidence=low": self.unsure,
            "ticket_priority_confidence=low-unreviewed": self.unsure[1:],
        }.items():
            assert shown(admin_client, query) == {ticket.pk for ticket in expected}, query

    def test_facets_count_what_the_filters_find(self, admin_client: Client) -> None:
        found = facets(admin_client)
        wanted = {"applied": "6", "suggested": "0", "no prediction": "6", "below 60%": "3"}
        wanted |= {"below 60%, not reviewed": "2", "High": "1", "Unset": "11"}
        assert {name: found[name] for name in wanted} == wanted

    def test_no_list_of_keys_is_sent_and_nothing_is_compared_one_by_one(
        self, admin_client: Client
    ) -> None:
        with queries() as sqls:
            shown(admin_client, "ticket_priority_state=none")
        assert len(sqls) <= 15
        if connection.vendor != "mysql":
            assert not any('NOT ("helpdesk_ticket"."id" IN' in sql for sql in sqls)


def test_a_ticket_with_many_predictions_shows_the_newest_alone(
    admin_client: Client, make_ticket: MakeTicket, version: ModelVersion
) -> None:
    ticket = make_ticket()
    predict([ticket] * 300, priority=0, confidence=0.5, model_version=version)
    predict([ticket], priority=2, confidence=0.75, model_version=version)
    with queries() as sqls:
        page = admin_client.get(URL)
    assert "75%" in page.content.decode()
    read = [sql for sql in sqls if "ticket_priority_prediction" in sql]
    assert len(read) == 1
    assert "metrics" not in read[0]
    with connection.cursor() as cursor:
        cursor.execute(read[0])
        assert len(cursor.fetchall()) == 1


def test_reclassifying_moves_the_mark(
    admin_client: Client, make_ticket: MakeTicket, active_model: ModelVersion
) -> None:
    ticket = make_ticket()
    for _turn in range(3):
        admin_client.post(f"{URL}{ticket.pk}/priority/classify/")
    marks = Prediction.objects.for_instance(ticket).order_by("pk").values_list("is_newest")
    assert [mark for (mark,) in marks] == [False, False, True]


class TestActions:
    @pytest.fixture(autouse=True)
    def few_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bulk, "MOST", 4)

    def run(self, client: Client, action: str) -> list[str]:
        chosen = {"_selected_action": [Ticket.objects.first().pk], "select_across": "1"}
        page = client.post(URL, {**chosen, "action": action, "index": "0"}, follow=True)
        return [str(message) for message in page.context["messages"]]

    def test_a_request_classifies_some_and_the_next_the_others(
        self, admin_client: Client, active_model: ModelVersion
    ) -> None:
        tickets(10)
        left = [self.run(admin_client, "classify_tickets")[0].split()[0] for _turn in range(2)]
        self.run(admin_client, "classify_tickets")
        assert left == ["6", "6"]
        assert Prediction.objects.values("object_id").distinct().count() == 10

    def test_so_do_decisions(self, admin_client: Client, db: None) -> None:
        made = tickets(6)
        self.run(admin_client, "set_priority_high")
        assert Override.objects.count() == 4
        self.run(admin_client, "set_priority_high")
        assert not Ticket.objects.exclude(priority=2).exists()
        assert len(made) == 6

    def test_nothing_is_read_after_a_refusal(
        self, admin_client: Client, db: None, configure: Any
    ) -> None:
        configure(DECISIONS={"OVERRIDE_RATE": "2/day"}, SERVING={"BATCH_SIZE": 2})
        tickets(9)
        assert "7 tickets were left" in self.run(admin_client, "set_priority_high")[-1]
        assert Override.objects.count() == 2


@pytest.mark.django_db
class TestDeleting:
    def cost(self, number: int) -> int:
        queue = Queue.objects.create(name=f"Q{number}", slug=f"q{number}")
        made = tickets(number, queue=queue)
        predict(made + made)
        with queries() as sqls:
            Ticket.objects.filter(queue=queue).delete()
        assert not Prediction.objects.exists()
        return len(sqls)

    def test_the_rows_of_many_tickets_go_together(self) -> None:
        # Django itself deletes a hundred rows a query.
        assert self.cost(300) <= self.cost(3) + 30

    def test_a_deletion_that_fails_leaves_nothing_for_the_next(
        self, make_prediction: MakePrediction
    ) -> None:
        (ticket,) = tickets(1)
        make_prediction(ticket)

        def refuse(**kwargs: Any) -> None:
            raise ValueError

        pre_delete.connect(refuse, sender=Ticket)
        try:
            with pytest.raises(ValueError), transaction.atomic():
                ticket.delete()
        finally:
            pre_delete.disconnect(refuse, sender=Ticket)
        assert Prediction.objects.exists()
        ticket.delete()
        assert not Prediction.objects.exists()
