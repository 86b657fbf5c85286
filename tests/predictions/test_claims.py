"""Who may claim a pending ticket: a process whose code knows its source; and wrong clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from helpdesk.models import Ticket
from tests.predictions.test_on_save import OUTAGE, only_prediction
from tests.uuid_host.models import Case
from ticket_priority.models import ModelVersion, Override, Prediction, TrainingRun
from ticket_priority.predictions import outbox, shadow
from ticket_priority.predictions.overrides import check_override_rate, override
from ticket_priority.priorities import Priority
from ticket_priority.sources import registry
from ticket_priority.starter.install import install_linear
from ticket_priority.training import schedule

pytestmark = pytest.mark.django_db

State = Prediction.State


@pytest.fixture
def pending(active_model: ModelVersion, attach: Callable[..., None]) -> Case:
    attach(mode="async")
    return Case.objects.create(body="outage fire breach down")


@pytest.fixture
def old_code(pending: Case) -> Iterator[Callable[[], None]]:
    """Return a function that makes this a process whose code lacks the source of the case."""
    source = registry.get_source(Case)

    def forget() -> None:
        registry.unregister(Case)

    yield forget
    registry._sources[Case] = source


def let_claims_expire() -> None:
    Prediction.objects.exclude(claimed_at=None).update(
        claimed_at=timezone.now() - timedelta(hours=1)
    )


def test_a_worker_whose_code_lacks_the_source_leaves_its_rows_to_others(
    pending: Case, old_code: Callable[[], None]
) -> None:
    source = registry.get_source(Case)
    old_code()
    for _ in range(7):
        assert outbox.drain() == 0
        let_claims_expire()
    waiting = Prediction.objects.get()
    assert (waiting.state, waiting.attempts, waiting.claim) == (State.PENDING, 0, "")
    registry._sources[Case] = source
    assert outbox.drain() == 1
    pending.refresh_from_db()
    assert pending.urgency == 2


def test_it_does_not_give_up_what_another_tried_in_vain(
    pending: Case, old_code: Callable[[], None]
) -> None:
    Prediction.objects.update(attempts=99)
    old_code()
    outbox.drain()
    assert Prediction.objects.get().state == State.PENDING


def test_a_source_that_was_taken_out_holds_up_neither_the_others_nor_the_shadow(
    pending: Case, old_code: Callable[[], None]
) -> None:
    old_code()
    install_linear().start_shadow()
    ticket = Ticket.objects.create(**OUTAGE)
    outbox.drain()
    assert only_prediction(ticket).state == State.APPLIED
    assert shadow.catch_up() == 1


@pytest.mark.parametrize("ahead", [timedelta(minutes=10), timedelta(days=400)])
def test_a_claim_made_while_the_clock_was_ahead_expires(pending: Case, ahead: timedelta) -> None:
    outbox._claim(1)
    Prediction.objects.update(claimed_at=timezone.now() + ahead)
    assert outbox.drain() == 1


def test_a_clock_that_is_a_little_ahead_loses_no_claim(pending: Case) -> None:
    outbox._claim(1)
    Prediction.objects.update(claimed_at=timezone.now() + timedelta(minutes=1))
    assert outbox.drain() == 0


def test_so_does_the_claim_on_the_shadow(pending: Case) -> None:
    version = install_linear()
    version.start_shadow()
    outbox.drain()
    ModelVersion.objects.filter(pk=version.pk).update(
        shadow_claimed_at=timezone.now() + timedelta(days=400)
    )
    assert shadow.catch_up() == 1


def test_decisions_made_while_the_clock_was_ahead_do_not_lock_a_person_out(
    active_model: ModelVersion, django_user_model: Any, configure: Callable[..., None]
) -> None:
    configure(DECISIONS={"OVERRIDE_RATE": "1/day"})
    ana = django_user_model.objects.create_user("ana")
    override(Ticket.objects.create(**OUTAGE), Priority.LOW, user=ana)
    Override.objects.update(created_at=timezone.now() + timedelta(days=400))
    check_override_rate(ana)


def test_a_run_begun_while_the_clock_was_ahead_does_not_end_the_schedule(
    db: None, configure: Callable[..., None]
) -> None:
    configure(TRAINING={"RETRAIN": {"min_new_labels": 1000}})
    TrainingRun.objects.create(
        trigger=TrainingRun.Trigger.SCHEDULE,
        state=TrainingRun.State.SUCCEEDED,
        started_at=timezone.now() + timedelta(days=400),
    )
    assert "the last scheduled run" not in schedule.retrain()
