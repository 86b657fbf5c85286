from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

import ticket_priority
from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE, TYPO, only_prediction
from ticket_priority import classifiers
from ticket_priority.exceptions import SwitchedOffError
from ticket_priority.models import ModelVersion, Prediction, SwitchChange
from ticket_priority.predictions import kill_switch, outbox, shadow
from ticket_priority.priorities import Priority
from ticket_priority.sources.registry import get_source
from ticket_priority.starter.install import install_linear

State, Reason = Prediction.State, Prediction.Reason


def run(*words: str) -> str:
    out = StringIO()
    call_command("switch_priority", *words, stdout=out)
    return out.getvalue()


class TestSwitchedOff:
    @pytest.mark.parametrize("mode", ["sync", "async", "suggest"])
    def test_tickets_wait_and_are_classified_later(
        self, active_model: ModelVersion, configure: Callable[..., None], mode: str
    ) -> None:
        configure(MODE=mode)
        kill_switch.turn(on=False)
        ticket = Ticket.objects.create(**OUTAGE)
        assert ticket.priority is None
        assert only_prediction(ticket).state == State.PENDING
        assert outbox.drain() == 0
        kill_switch.turn(on=True)
        assert outbox.drain() == 1
        ticket.refresh_from_db()
        assert ticket.priority == (None if mode == "suggest" else Priority.HIGH)

    def test_what_waits_says_why(self, active_model: ModelVersion) -> None:
        kill_switch.turn(on=False)
        assert only_prediction(Ticket.objects.create(**OUTAGE)).reason == Reason.DISABLED

    def test_a_person_decides_as_ever_and_stays(self, active_model: ModelVersion) -> None:
        kill_switch.turn(on=False)
        ticket = Ticket.objects.create(**OUTAGE)
        ticket_priority.override(ticket, Priority.LOW)
        kill_switch.turn(on=True)
        outbox.drain()
        ticket.refresh_from_db()
        assert ticket.priority == Priority.LOW

    def test_nothing_asks_the_model(self, active_model: ModelVersion, admin_client: Client) -> None:
        install_linear().start_shadow()
        Ticket.objects.create(**OUTAGE)
        kill_switch.turn(on=False)
        with pytest.raises(SwitchedOffError, match="switch_priority on"):
            ticket_priority.classify(["The server is down"])
        with pytest.raises(CommandError, match="switched off"):
            call_command("classify_tickets")
        assert shadow.catch_up() == 0
        answer = admin_client.post(
            "/api/predict/", {"text": "The server is down"}, content_type="application/json"
        )
        assert answer.status_code == 503
        assert admin_client.get("/api/info/").json()["enabled"] is False
        assert not ticket_priority.preload()

    def test_a_drain_stops_between_batches(
        self, active_model: ModelVersion, configure: Callable[..., None], monkeypatch: Any
    ) -> None:
        configure(MODE="async", SERVING={"BATCH_SIZE": 1})
        for _ in range(3):
            Ticket.objects.create(**OUTAGE)
        settle = outbox._settle

        def settle_and_switch_off(*args: Any) -> bool:
            kill_switch.turn(on=False)
            return settle(*args)

        monkeypatch.setattr(outbox, "_settle", settle_and_switch_off)
        assert outbox.drain() == 1

    def test_the_model_stays_loaded(self, active_model: ModelVersion) -> None:
        loaded = classifiers.get_classifier().classifier
        kill_switch.turn(on=False)
        kill_switch.turn(on=True)
        assert classifiers.get_classifier().classifier is loaded

    def test_versions_can_still_be_compared(self, active_model: ModelVersion) -> None:
        kill_switch.turn(on=False)
        assert classifiers.find_version() == active_model


def test_it_costs_a_save_no_query(active_model: ModelVersion) -> None:
    Ticket.objects.create(**TYPO)
    counts = []
    for flips in (0, 2):
        for on in [False, True][:flips]:
            kill_switch.turn(on=on)
        with CaptureQueriesContext(connection) as captured:
            ticket = Ticket.objects.create(**OUTAGE)
        assert ticket.priority == Priority.HIGH
        counts.append(len(captured))
    assert counts[0] == counts[1]


@pytest.mark.django_db
def test_every_change_is_kept_and_no_other() -> None:
    assert kill_switch.turn(on=True) is None
    assert kill_switch.turn(on=False, reason="everything is High") is not None
    assert kill_switch.turn(on=False) is None
    kill_switch.turn(on=True)
    assert [(row.is_on, row.reason) for row in SwitchChange.objects.order_by("pk")] == [
        (False, "everything is High"),
        (True, ""),
    ]


@pytest.mark.django_db
class TestCommand:
    def test_off_status_on(self) -> None:
        assert "off since" in (told := run("off", "--reason", "all High today"))
        assert "all High today" in told
        assert "off since" in run("status")
        assert json.loads(run("status", "--json")) == {
            "on": False,
            "enabled": True,
            "since": SwitchChange.objects.get().created_at.isoformat(timespec="seconds"),
            "reason": "all High today",
        }
        assert "Classification is on since" in run("on")

    def test_never_switched(self) -> None:
        assert run("status") == "Classification is on.\n"
        assert json.loads(run("status", "--json"))["since"] is None

    def test_the_settings_are_stronger(self, configure: Callable[..., None]) -> None:
        configure(ENABLED=False)
        assert "ENABLED" in run("status")
        with pytest.raises(CommandError, match="ENABLED"):
            run("on")
        assert not kill_switch.is_on()

    @pytest.mark.django_db(transaction=True)
    def test_switching_on_tells_a_worker(self, active_model: ModelVersion) -> None:
        from django_q.models import OrmQ

        run("off")
        Ticket.objects.create(**OUTAGE)
        OrmQ.objects.all().delete()
        run("on")
        assert [task.func() for task in OrmQ.objects.all()] == [
            "ticket_priority.tasks.drain_predictions"
        ]


def test_backfill_resumes_where_it_was_switched_off(active_model: ModelVersion) -> None:
    with ticket_priority.muted():
        ticket = Ticket.objects.create(**OUTAGE)
    kill_switch.turn(on=False)
    with pytest.raises(CommandError):
        call_command("classify_tickets")
    kill_switch.turn(on=True)
    call_command("classify_tickets", stdout=StringIO())
    assert get_source(Ticket).value_of(Ticket.objects.get(pk=ticket.pk)) == Priority.HIGH
