from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import ticket_priority
from helpdesk.models import Ticket
from tests.support.settings import overlay
from tests.uuid_host.models import Case
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.priorities import Priority
from ticket_priority.reports import replay
from ticket_priority.starter.install import install_linear

pytestmark = pytest.mark.django_db

HIGH, MEDIUM, LOW = "outage breach fire", "invoice refund login", "typo font newsletter"
DAY = datetime(2026, 3, 10, 12, tzinfo=UTC)


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("evaluate_priority_model", *arguments, stdout=out)
    return out.getvalue()


def counted(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("--json", *arguments))["replays"]
    return found


def make(subject: str, created_at: datetime = DAY, **values: Any) -> Ticket:
    """Make a ticket that no model was asked about."""
    with ticket_priority.muted():
        ticket: Ticket = Ticket.objects.create(subject=subject, **values)
    Ticket.objects.filter(pk=ticket.pk).update(created_at=created_at)
    return ticket


def test_every_ticket_of_the_period_is_classified_and_nothing_written(
    active_model: ModelVersion,
) -> None:
    make(HIGH)
    make(HIGH, priority=0)
    make(LOW)
    make("")
    make(MEDIUM, DAY - timedelta(days=9))
    before = list(Ticket.objects.order_by("pk").values())
    (found,) = counted("--since=2026-03-09")
    assert found["classes"] == {"low": 1, "medium": 0, "high": 2}
    assert (found["tickets"], found["without_text"], found["failed"]) == (4, 1, 0)
    assert (found["model_version"], found["active"]) == ("toy-1", True)
    assert list(Ticket.objects.order_by("pk").values()) == before
    assert not Prediction.objects.exists()


def test_only_selects_reach_the_database(active_model: ModelVersion) -> None:
    make(HIGH)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        run("--since=2026-03-09")
    assert {query["sql"].split()[0] for query in queries} == {"SELECT"}


def test_a_period_ends_with_its_last_day_or_before_a_time(
    active_model: ModelVersion,
) -> None:
    for hour in (0, 12, 23):
        make(HIGH, datetime(2026, 3, 10, hour, 30, tzinfo=timezone.get_current_timezone()))
    (whole,) = counted("--since=2026-03-10", "--until=2026-03-10")
    (morning,) = counted("--since=2026-03-10", "--until=2026-03-10T12:00")
    (later,) = counted("--since=2026-03-10T12:00", "--until=2026-03-10T20:00")
    assert [one["tickets"] for one in (whole, morning, later)] == [3, 1, 1]


def test_answers_are_compared_with_what_was_applied_then_and_is_held_now(
    active_model: ModelVersion, toy_run: Any, artifact_root: Path
) -> None:
    """One was applied high and is so still, one was overruled, one applied by another model."""
    agreed = Ticket.objects.create(subject=HIGH)
    overruled = Ticket.objects.create(subject=HIGH)
    ticket_priority.override(overruled, Priority.LOW)
    other = Ticket.objects.create(subject=MEDIUM)
    Prediction.objects.filter(object_id=str(other.pk)).update(priority=Priority.LOW)
    make(LOW, timezone.now())
    assert agreed.priority == Priority.HIGH
    (found,) = counted(f"--since={date.today() - timedelta(days=1)}")
    then, now = found["applied_then"], found["held_now"]
    assert (then["compared"], then["same"], then["higher"], then["lower"]) == (3, 2, 1, 0)
    assert then["matrix"] == [[0, 1, 0], [0, 0, 0], [0, 0, 2]]
    assert (now["compared"], now["same"], now["higher"], now["lower"]) == (3, 2, 1, 0)
    assert now["matrix"] == [[0, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_what_was_applied_first_is_what_was_applied_then(active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(subject=HIGH)
    first = Prediction.objects.get()
    Prediction.objects.filter(pk=first.pk).update(priority=Priority.MEDIUM)
    first.pk, first.priority = None, Priority.LOW
    first.save(force_insert=True)
    assert ticket.priority == Priority.HIGH
    (found,) = counted(f"--since={date.today() - timedelta(days=1)}")
    assert found["applied_then"]["matrix"][Priority.MEDIUM] == [0, 0, 1]


def test_only_labels_that_people_gave_are_the_truth(active_model: ModelVersion) -> None:
    """An unreviewed prediction is none, whatever its ticket holds."""
    Ticket.objects.create(subject=HIGH)
    overruled = Ticket.objects.create(subject=HIGH)
    ticket_priority.override(overruled, Priority.MEDIUM)
    confirmed = Ticket.objects.create(subject=HIGH)
    ticket_priority.override(confirmed, Priority.HIGH)
    make(LOW, timezone.now(), priority=0)
    assert Override.objects.count() == 2
    (found,) = counted(f"--since={date.today() - timedelta(days=1)}")
    labels = found["labels"]
    assert labels["n"] == 3
    assert labels["accuracy"] == pytest.approx(2 / 3)
    assert labels["per_class"]["high"]["recall"] == 1.0
    assert labels["per_class"]["medium"]["recall"] == 0.0
    assert labels["intervals"]["accuracy"][0] < 2 / 3
    said = run(f"--since={date.today() - timedelta(days=1)}")
    assert "labels people gave" in said
    assert "0.667 [" in said


def test_without_labels_it_says_so(active_model: ModelVersion) -> None:
    make(HIGH)
    assert counted("--since=2026-03-09")[0]["labels"] is None
    assert "People gave no labels" in run("--since=2026-03-09")


def test_the_active_version_stands_beside_another(
    active_model: ModelVersion, artifact_root: Path
) -> None:
    make(HIGH)
    make(LOW)
    version = install_linear()
    named, active = counted(version.name, "--since=2026-03-09")
    assert (named["model_version"], active["model_version"]) == (version.name, "toy-1")
    assert named["tickets"] == active["tickets"] == 2
    assert active["classes"] == {"low": 1, "medium": 0, "high": 1}
    assert (named["caution"], bool(active["caution"])) == ("", True)
    said = run(version.name, "--since=2026-03-09")
    assert "toy-1 (active)" in said
    assert "Note: toy-1 may have been trained on tickets from before" in said


def test_many_tickets_are_read_in_batches_and_progress_is_said(
    active_model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_BATCH", 4)
    for place in range(10):
        make(f"{HIGH} {place}")
    said = run("--since=2026-03-09")
    assert "helpdesk.Ticket: 10 tickets" in said
    assert [line for line in said.splitlines() if " of 10" in line and line.startswith("  ")] == [
        "  4 of 10",
        "  8 of 10",
        "  10 of 10",
    ]
    assert counted("--since=2026-03-09")[0]["tickets"] == 10
    assert counted("--since=2026-03-09", "--limit=6")[0]["tickets"] == 6
    assert run("--since=2026-03-09", "--verbosity=0") == ""


def test_a_ticket_that_fails_is_counted_and_the_command_fails(
    active_model: ModelVersion, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        SERVING={"CLASSIFIERS": {"transformer": "tests.support.classifiers.PoisonableClassifier"}},
    )
    make(HIGH)
    make("poison")
    out = StringIO()
    with pytest.raises(CommandError, match="1 tickets could not be classified"):
        call_command("evaluate_priority_model", "--since=2026-03-09", "--json", stdout=out)
    (found,) = json.loads(out.getvalue())["replays"]
    assert (found["failed"], found["classes"]["high"]) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--since=yesterday",), "'yesterday' is no date such as 2026-11-01"),
        (("--since=2026-03-10", "--until=2026-03-09"), "ends before it begins"),
        (("--since=2026-03-10", "--limit=0"), "--limit must be at least 1"),
        (("--since=2026-03-10", "--source=no.Such"), "no ticket source 'no.Such'"),
    ],
)
def test_impossible_periods_are_refused_in_a_line(
    active_model: ModelVersion, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        run(*arguments)


def test_nothing_in_the_period_is_no_error(active_model: ModelVersion) -> None:
    (found,) = counted("--since=2026-03-09")
    assert found["tickets"] == 0
    assert not any(math.isnan(value) for value in found["classes"].values())
    assert "0 tickets" in run("--since=2026-03-09")


class TestOtherHosts:
    def test_a_source_that_knows_no_times_is_refused(
        self, active_model: ModelVersion, attach: Callable[..., None]
    ) -> None:
        attach()
        with pytest.raises(CommandError, match=r"tickets of uuid_host\.Case were created: it nam"):
            run("--since=2026-03-09", "--source=uuid_host.Case")

    def test_a_field_that_is_no_column_of_dates_is_refused(
        self, active_model: ModelVersion, attach: Callable[..., None]
    ) -> None:
        attach(created_field="body")
        with pytest.raises(CommandError, match="its body is no column of dates"):
            run("--since=2026-03-09", "--source=uuid_host.Case")

    def test_keys_of_another_kind_and_days_without_times(
        self,
        active_model: ModelVersion,
        attach: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(replay, "_BATCH", 2)
        attach(created_field="reported_on")
        days = [date(2026, 3, day) for day in (9, 10, 11, 11, 12, 13)]
        with ticket_priority.muted():
            for day in days:
                Case.objects.create(body=HIGH, urgency=5, reported_on=day)
            Case.objects.create(body=HIGH, urgency=5)
        source = "--source=uuid_host.Case"
        (found,) = counted("--since=2026-03-10", "--until=2026-03-12", source)
        assert found["classes"]["high"] == 4
        assert found["held_now"]["matrix"][Priority.LOW] == [0, 0, 4]
        assert found["labels"]["n"] == 4
