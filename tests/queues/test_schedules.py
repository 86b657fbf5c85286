"""The schedules of django-q2, whose names are not unique."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from ticket_priority.predictions.workers import RETRAIN_NAME, SWEEP_NAME, ensure_schedules


def names() -> list[str]:
    from django_q.models import Schedule

    return sorted(Schedule.objects.values_list("name", flat=True))


@pytest.mark.django_db(transaction=True)
def test_two_processes_that_migrate_at_once_leave_one_of_each(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from django_q.models import Schedule

    configure(TRAINING={"RETRAIN": {}})
    Schedule.objects.all().delete()
    both = threading.Barrier(2)
    save = Schedule.save

    def save_together(self: Schedule, **options: Any) -> None:
        both.wait(30)
        save(self, **options)
        both.wait(30)

    monkeypatch.setattr(Schedule, "save", save_together)
    errors: list[Exception] = []

    def migrate() -> None:
        try:
            ensure_schedules("default")
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=migrate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert names() == [RETRAIN_NAME, SWEEP_NAME]


@pytest.mark.django_db
def test_a_later_migrate_mends_what_an_earlier_release_left(
    configure: Callable[..., None],
) -> None:
    from django_q.models import Schedule

    configure(TRAINING={"RETRAIN": {}})
    for _ in range(2):
        Schedule.objects.create(name=RETRAIN_NAME, func="ticket_priority.tasks.retrain")
    call_command("migrate", verbosity=0)
    assert names() == [RETRAIN_NAME, SWEEP_NAME]


@pytest.mark.django_db
def test_a_run_that_was_planned_while_the_clock_was_ahead_is_planned_anew(
    configure: Callable[..., None],
) -> None:
    from django_q.models import Schedule

    ensure_schedules("default")
    sweep = Schedule.objects.filter(name=SWEEP_NAME)
    soon = timezone.now() + timedelta(seconds=30)
    for planned, stays in ((soon, True), (timezone.now() + timedelta(days=400), False)):
        sweep.update(next_run=planned)
        ensure_schedules("default")
        found = sweep.get().next_run
        assert (abs(found - planned) < timedelta(seconds=1)) == stays
        assert found <= timezone.now() + timedelta(minutes=1)
