from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import ticket_priority
from helpdesk.models import Ticket
from tests.conftest import publish_toy
from tests.predictions.test_on_save import INVOICE, OUTAGE, TYPO
from tests.support.settings import overlay
from ticket_priority import classifiers, tasks
from ticket_priority.classifiers import slots
from ticket_priority.exceptions import ModelUnavailableError
from ticket_priority.models import ModelVersion, Prediction, ShadowPrediction
from ticket_priority.predictions import audit, outbox, shadow
from ticket_priority.priorities import Priority
from ticket_priority.reports import shadow as shadow_report
from ticket_priority.sources.registry import get_source
from ticket_priority.starter.install import install_linear
from ticket_priority.training.labels import labelled_texts

pytestmark = pytest.mark.django_db


@pytest.fixture
def rival(active_model: ModelVersion) -> ModelVersion:
    """The starter, of another kind than the active version, and the shadow."""
    version = install_linear()
    version.start_shadow()
    return version


def said() -> dict[str, int | None]:
    return dict(ShadowPrediction.objects.values_list("object_id", "priority"))


def use_classifiers(settings: Any, **paths: str) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        SERVING={
            "CLASSIFIERS": {
                "transformer": "ticket_priority.ml.serving.onnx.OnnxClassifier",
                "linear": "ticket_priority.ml.serving.linear.LinearClassifier",
                **paths,
            }
        },
    )


class TestAnswering:
    def test_it_answers_to_no_effect(
        self, active_model: ModelVersion, rival: ModelVersion, admin_client: Client
    ) -> None:
        tickets = [Ticket.objects.create(**text) for text in (OUTAGE, TYPO)]
        serving = classifiers.get_classifier()
        assert shadow.catch_up() == 2
        expected, _other = classifiers.load(rival).classify(
            [get_source(Ticket).text_of(ticket) for ticket in tickets]
        )
        row = ShadowPrediction.objects.get(object_id=str(tickets[0].pk))
        assert (row.model_version, row.priority) == (rival, expected.priority)
        assert (row.prob_low, row.prob_medium, row.prob_high) == pytest.approx(
            expected.probabilities
        )
        assert [ticket.priority for ticket in Ticket.objects.order_by("pk")] == [2, 0]
        assert classifiers.get_classifier().classifier is serving.classifier
        assert {row.model_version for row in Prediction.objects.all()} == {active_model}
        listed = admin_client.get("/api/predictions/").json()["results"]
        assert {row["model_version"] for row in listed} == {active_model.name}
        assert list(labelled_texts(get_source(Ticket))) == []

    def test_a_save_costs_the_same_queries(self, active_model: ModelVersion) -> None:
        Ticket.objects.create(**OUTAGE)
        counts = []
        for begin in (lambda: None, install_linear().start_shadow):
            begin()
            with CaptureQueriesContext(connection) as captured:
                Ticket.objects.create(**OUTAGE)
            counts.append(len(captured))
        assert counts[0] == counts[1]

    def test_its_table_does_not_tell_what_is_held_back(
        self, rival: ModelVersion, active_model: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit, "draw", lambda mode: audit.MODE)
        ticket = Ticket.objects.create(**OUTAGE)
        assert shadow.catch_up() == 1
        assert sum(map(sum, shadow.agreement(rival, active_model))) == 0
        assert shadow_report.report(rival, active_model)["compared"] == 0
        ticket_priority.override(ticket, Priority.LOW)
        assert sum(map(sum, shadow.agreement(rival, active_model))) == 1
        assert shadow_report.report(rival, active_model)["labels"]["labelled"] == 1

    def test_only_what_came_since_and_each_ticket_once(
        self, active_model: ModelVersion, toy_run: Any, artifact_root: Path
    ) -> None:
        Ticket.objects.create(**OUTAGE)
        publish_toy(toy_run, artifact_root, "toy-2").start_shadow()
        later = Ticket.objects.create(**TYPO)
        with ticket_priority.muted():
            Ticket.objects.create(**INVOICE)
        assert shadow.catch_up() == 1
        assert said() == {str(later.pk): Priority.LOW}
        assert shadow.catch_up() == 0

    def test_what_a_person_decided_and_what_waits_for_the_active_version_is_left_out(
        self, rival: ModelVersion, settings: Any
    ) -> None:
        settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "async"}
        Ticket.objects.create(**OUTAGE, priority=Priority.LOW)
        Ticket.objects.create(**TYPO)
        assert shadow.catch_up() == 0
        outbox.drain()
        assert shadow.catch_up() == 1

    def test_the_live_road_comes_first(self, rival: ModelVersion, settings: Any) -> None:
        Ticket.objects.create(**OUTAGE)
        settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "async"}
        Ticket.objects.create(**TYPO)
        assert shadow.catch_up() == 0
        outbox.drain()
        assert shadow.catch_up() == 2

    def test_batches(self, rival: ModelVersion, settings: Any) -> None:
        settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, SERVING={"BATCH_SIZE": 2})
        for _number in range(5):
            Ticket.objects.create(**OUTAGE)
        assert list(shadow.batches()) == [2, 2, 1]
        rival.refresh_from_db()
        assert (rival.shadow_claimed_at, rival.shadow_attempts) == (None, 0)

    def test_the_sweep_asks_it_in_a_task_of_its_own(self, rival: ModelVersion) -> None:
        from django_q.models import OrmQ

        OrmQ.objects.all().delete()
        Ticket.objects.create(**OUTAGE)
        tasks.sweep()
        (queued,) = OrmQ.objects.all()
        assert queued.func() == "ticket_priority.tasks.ask_shadow"
        assert tasks.ask_shadow() == 1
        rival.stop_shadow()
        tasks.sweep()
        assert OrmQ.objects.count() == 1

    def test_switched_off_it_is_not_asked(self, rival: ModelVersion, settings: Any) -> None:
        Ticket.objects.create(**OUTAGE)
        settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "ENABLED": False}
        assert not shadow.is_wanted()
        assert shadow.catch_up() == 0


class TestTrouble:
    def test_a_shadow_that_cannot_be_loaded_is_noted_and_tried_again(
        self,
        active_model: ModelVersion,
        toy_run: Any,
        artifact_root: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        broken = publish_toy(toy_run, artifact_root, "toy-2")
        broken.start_shadow()
        weights, aside = artifact_root / "toy-2" / "model.onnx", artifact_root.parent / "aside"
        weights.rename(aside)
        ticket = Ticket.objects.create(**OUTAGE)
        assert ticket.priority == Priority.HIGH
        assert shadow.catch_up() == 0
        broken.refresh_from_db()
        assert "cannot be read" in broken.load_error
        assert Ticket.objects.create(**TYPO).priority == Priority.LOW
        active_model.refresh_from_db()
        assert active_model.load_error == ""
        aside.rename(weights)
        assert shadow.catch_up() == 0, "it is left alone for a while"
        monkeypatch.setattr(slots, "RETRY_SECONDS", 0)
        assert shadow.catch_up() == 2
        broken.refresh_from_db()
        assert broken.load_error == ""

    def test_a_shadow_that_answers_nothing_is_noted(
        self, rival: ModelVersion, settings: Any
    ) -> None:
        Ticket.objects.create(**OUTAGE)
        use_classifiers(settings, linear="tests.support.classifiers.FailingClassifier")
        assert shadow.catch_up() == 0
        rival.refresh_from_db()
        assert "MemoryError" in rival.load_error
        assert said() == {}
        assert Ticket.objects.create(**OUTAGE).priority == Priority.HIGH
        classifiers.reset()
        use_classifiers(settings)
        assert shadow.catch_up() == 2
        rival.refresh_from_db()
        assert rival.load_error == ""

    def test_one_ticket_that_it_cannot_read_does_not_hold_up_the_others(
        self, rival: ModelVersion, active_model: ModelVersion, settings: Any
    ) -> None:
        rival.activate()
        active_model.start_shadow()
        use_classifiers(settings, transformer="tests.support.classifiers.PoisonableClassifier")
        poisoned = Ticket.objects.create(subject="poison")
        good = Ticket.objects.create(**OUTAGE)
        gone = Ticket.objects.create(**OUTAGE)
        Ticket.objects.filter(pk=gone.pk)._raw_delete("default")
        assert shadow.catch_up() == 3
        assert said() == {str(poisoned.pk): None, str(good.pk): 2, str(gone.pk): None}
        assert shadow.catch_up() == 0

    def test_two_workers_do_not_ask_at_once(self, rival: ModelVersion) -> None:
        for _number in range(2):
            Ticket.objects.create(**OUTAGE)
        first = shadow.batches()
        assert next(first) == 2
        Ticket.objects.create(**OUTAGE)
        assert shadow.catch_up() == 0
        assert list(first) == [1]

    def test_a_shadow_that_kills_its_workers_is_given_up(
        self, rival: ModelVersion, settings: Any
    ) -> None:
        settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, QUEUE={"MAX_ATTEMPTS": 2})
        Ticket.objects.create(**OUTAGE)
        rows = ModelVersion.objects.filter(pk=rival.pk)
        for _death in range(2):
            assert shadow._claim(rival)
            assert shadow.catch_up() == 0, "the dead worker's claim holds"
            rows.update(shadow_claimed_at=timezone.now() - timedelta(hours=1))
        assert shadow.catch_up() == 0
        rival.refresh_from_db()
        assert "2 workers died" in rival.load_error
        rival.start_shadow()
        assert shadow.catch_up() == 1

    def test_it_ends_while_it_is_being_asked(self, rival: ModelVersion, settings: Any) -> None:
        settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, SERVING={"BATCH_SIZE": 1})
        for _number in range(3):
            Ticket.objects.create(**OUTAGE)
        asked = shadow.batches()
        assert next(asked) == 1
        rival.stop_shadow()
        assert list(asked) == []


class TestChoosing:
    def test_there_is_one_at_most(self, rival: ModelVersion, toy_run: Any, settings: Any) -> None:
        other = publish_toy(toy_run, settings.TICKET_PRIORITY["ARTIFACT_ROOT"], "toy-2")
        other.start_shadow()
        assert list(ModelVersion.objects.filter(is_shadow=True)) == [other]
        Ticket.objects.create(**OUTAGE)
        shadow.catch_up()
        assert {row.model_version for row in ShadowPrediction.objects.all()} == {other}
        with pytest.raises(ModelUnavailableError):
            other.directory = "nowhere"
            classifiers.reset()
            classifiers.get_shadow_classifier(other)

    def test_to_activate_it_ends_it(self, rival: ModelVersion) -> None:
        rival.activate()
        assert ModelVersion.objects.shadow() is None
        with pytest.raises(ValueError, match="active"):
            rival.start_shadow()

    def test_its_answers_go_with_the_ticket_and_with_the_version(self, rival: ModelVersion) -> None:
        tickets = [Ticket.objects.create(**OUTAGE) for _number in range(2)]
        shadow.catch_up()
        kept = str(tickets[1].pk)
        tickets[0].delete()
        assert list(said()) == [kept]
        rival.delete()
        assert said() == {}

    def test_by_command(self, active_model: ModelVersion, toy_run: Any, settings: Any) -> None:
        publish_toy(toy_run, settings.TICKET_PRIORITY["ARTIFACT_ROOT"], "toy-2")
        assert "toy-2 is the shadow" in activate("toy-2", "--shadow")
        assert ModelVersion.objects.active() == active_model
        assert "(the shadow)" in activate("--list")
        with pytest.raises(CommandError, match="toy-1 is active"):
            activate("toy-1", "--shadow")
        with pytest.raises(CommandError, match="toy-1 is not the shadow"):
            activate("toy-1", "--no-shadow")
        assert json.loads(activate("--no-shadow", "--json")) == {"shadow": None}
        assert ModelVersion.objects.shadow() is None
        with pytest.raises(CommandError, match="No version"):
            activate("--no-shadow")

    def test_one_that_cannot_be_loaded_is_refused(
        self, active_model: ModelVersion, toy_run: Any, artifact_root: Path
    ) -> None:
        publish_toy(toy_run, artifact_root, "toy-2")
        (artifact_root / "toy-2" / "model.onnx").unlink()
        with pytest.raises(CommandError, match="toy-2 was not made the shadow"):
            activate("toy-2", "--shadow")
        assert ModelVersion.objects.shadow() is None


def activate(*arguments: str) -> str:
    return printed("activate_priority_model", *arguments)


def printed(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


class TestByHand:
    def test_without_a_queue_a_command_asks_it(self, rival: ModelVersion) -> None:
        for text in (OUTAGE, TYPO):
            Ticket.objects.create(**text)
        assert "2 of 2" in printed("classify_tickets", "--shadow")
        assert len(said()) == 2
        answer = json.loads(printed("classify_tickets", "--shadow", "--json"))
        assert answer == {"shadow": rival.name, "answered": 0}

    def test_it_says_what_is_wrong(self, active_model: ModelVersion, settings: Any) -> None:
        with pytest.raises(CommandError, match="No version is the shadow"):
            printed("classify_tickets", "--shadow")
        rival = install_linear()
        rival.start_shadow()
        Ticket.objects.create(**OUTAGE)
        assert shadow._claim(rival)
        with pytest.raises(CommandError, match="another process is at work"):
            printed("classify_tickets", "--shadow")
        rival.start_shadow()
        use_classifiers(settings, linear="tests.support.classifiers.FailingClassifier")
        Ticket.objects.create(**OUTAGE)
        with pytest.raises(CommandError, match="no memory left"):
            printed("classify_tickets", "--shadow")


@pytest.fixture
def answered(active_model: ModelVersion, rival: ModelVersion) -> Iterator[list[Ticket]]:
    """Six tickets: the active version says 2 2 2 0 0 1, the shadow 2 0 0 0 1 None; labels follow.

    The shadow's answers are put in its rows by hand, so that they are known.
    """
    served = (OUTAGE, OUTAGE, OUTAGE, TYPO, TYPO, INVOICE)
    tickets = [Ticket.objects.create(**text) for text in served]
    assert [ticket.priority for ticket in tickets] == [2, 2, 2, 0, 0, 1]
    shadow.catch_up()
    for ticket, priority in zip(tickets, (2, 0, 0, 0, 1, None), strict=True):
        ShadowPrediction.objects.for_instance(ticket).update(priority=priority)
    for ticket, label in zip(tickets[:4], (2, 0, 2, 1), strict=True):
        ticket_priority.override(ticket, label)
    yield tickets


class TestReport:
    def test_both_are_counted_against_each_other_and_against_labels(
        self, answered: list[Ticket], rival: ModelVersion, active_model: ModelVersion
    ) -> None:
        figures = shadow_report.report(rival, active_model)
        assert (figures["answered"], figures["failed"], figures["waiting"]) == (5, 1, 0)
        assert figures["compared"] == 5
        assert figures["agreement"] == {"share": 2 / 5, "table": [[1, 1, 0], [0, 0, 0], [2, 0, 1]]}
        assert figures["labels"] == {
            "labelled": 4,
            "both_right": 1,
            "shadow_alone_right": 1,
            "served_alone_right": 1,
            "neither_right": 1,
            "accuracy": {"shadow": 0.5, "served": 0.5},
            "recall": {
                "low": {"labelled": 1, "shadow": 1.0, "served": 0.0},
                "medium": {"labelled": 1, "shadow": 0.0, "served": 0.0},
                "high": {"labelled": 2, "shadow": 0.5, "served": 1.0},
            },
        }
        assert json.loads(printed("shadow_report", "--json")) == figures

    def test_it_is_printed(self, answered: list[Ticket], rival: ModelVersion) -> None:
        text = printed("shadow_report")
        for words in (
            "5 tickets compared with toy-1: 40.0% got the same answer",
            "1 both got right, 1 the shadow alone, 1 toy-1 alone, 1 neither",
            "recall of high (2)",
            "1 without an answer",
        ):
            assert words in text

    def test_a_ticket_that_was_edited_in_between_is_not_compared(
        self, rival: ModelVersion, active_model: ModelVersion
    ) -> None:
        ticket = Ticket.objects.create(**OUTAGE)
        Ticket.objects.filter(pk=ticket.pk).update(description="all is well again")
        shadow.catch_up()
        figures = shadow_report.report(rival, active_model)
        assert (figures["answered"], figures["compared"]) == (1, 0)
        assert "no ticket to compare" in printed("shadow_report")

    def test_nothing_yet(self, active_model: ModelVersion, rival: ModelVersion) -> None:
        assert "no ticket to compare with toy-1" in printed("shadow_report")
        Ticket.objects.create(**OUTAGE)
        assert "0 tickets answered, 1 waiting" in printed("shadow_report")
        shadow.catch_up()
        assert "Nobody has set the priority" in printed("shadow_report")

    def test_once_it_serves_it_is_compared_with_the_one_before(
        self, answered: list[Ticket], rival: ModelVersion
    ) -> None:
        rival.activate()
        text = printed("shadow_report", rival.name)
        assert "no longer the shadow" in text
        assert "compared with toy-1" in text
        with pytest.raises(CommandError, match="No version is the shadow"):
            printed("shadow_report")
        with pytest.raises(CommandError, match="never the shadow"):
            printed("shadow_report", "toy-1")
        with pytest.raises(CommandError, match="no model version 'x'"):
            printed("shadow_report", "x")

    def test_tickets_with_a_key_of_another_type(
        self, attach: Any, active_model: ModelVersion, rival: ModelVersion
    ) -> None:
        from tests.uuid_host.models import Case

        attach()
        case = Case.objects.create(body="outage fire breach down")
        assert shadow.catch_up() == 1
        ticket_priority.override(case, Priority.LOW)
        figures = shadow_report.report(rival, active_model)
        assert (figures["compared"], figures["labels"]["labelled"]) == (1, 1)
