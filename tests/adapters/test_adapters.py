"""What an adapter may say of its host, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction

import ticket_priority
from tests.uuid_host.adapters import CaseSource, case_reassessed
from tests.uuid_host.models import Case, Event
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions.reclassify import classify_instances
from ticket_priority.priorities import Priority
from ticket_priority.sources.registry import get_source, register
from ticket_priority.training.labels import labelled_texts

pytestmark = pytest.mark.django_db

OUTAGE = "outage fire breach down"
TYPO = "typo font wish colour"

State = Prediction.State
Attach = Callable[..., None]


def named(adapter: str) -> dict[str, str | None]:
    """Options of a source whose adapter brings the text fields."""
    return {"adapter": f"tests.uuid_host.adapters.{adapter}", "text_fields": None}


def history() -> list[tuple[int | None, int | None, str, str, str]]:
    fields = ("before", "after", "who", "via", "reason")
    return list(Event.objects.order_by("pk").values_list(*fields))


def muted_case(**values: Any) -> Case:
    with ticket_priority.muted():
        return Case.objects.create(**values)


def test_an_adapter_may_bring_its_text_fields(attach: Attach, active_model: ModelVersion) -> None:
    attach(**named("CaseSource"))
    source = get_source(Case)
    assert isinstance(source, CaseSource)
    assert source.text_fields == ("body",)
    assert Case.objects.create(body=OUTAGE).urgency == 2


def test_the_project_may_name_others(attach: Attach) -> None:
    attach(adapter="tests.uuid_host.adapters.CaseSource", text_fields="key")
    assert get_source(Case).text_fields == ("key",)


class TestWriteHistory:
    def test_of_a_prediction_before_the_insert(
        self, attach: Attach, active_model: ModelVersion
    ) -> None:
        attach(**named("CaseSource"))
        case = Case.objects.create(body=OUTAGE)
        assert history() == [(None, 2, "", "sync", "")]
        assert Event.objects.get().case == case

    def test_of_a_prediction_by_a_worker(self, attach: Attach, active_model: ModelVersion) -> None:
        attach(**named("CaseSource"), mode="async", unset=(None, 3))
        Case.objects.create(body=OUTAGE, urgency=3)
        assert history() == []
        outbox.drain()
        assert history() == [(3, 2, "", "async", "")]

    def test_of_a_backfill(self, attach: Attach, active_model: ModelVersion) -> None:
        attach(**named("CaseSource"))
        Case.objects.bulk_create([Case(body=OUTAGE), Case(body=TYPO), Case(body=OUTAGE, urgency=5)])
        call_command("classify_tickets", verbosity=0)
        assert sorted(history()) == [(None, 2, "", "sync", ""), (None, 4, "", "sync", "")]

    def test_of_an_override(self, attach: Attach, admin_user: User) -> None:
        attach(**named("CaseSource"))
        case = muted_case(body=OUTAGE, urgency=2)
        ticket_priority.override(case, Priority.LOW, user=admin_user, via="admin", reason="Drill.")
        assert history() == [(2, 4, "admin", "admin", "Drill.")]

    def test_of_nothing_where_nothing_changed(
        self, attach: Attach, active_model: ModelVersion, admin_user: User
    ) -> None:
        attach(**named("CaseSource"), mode="suggest")
        case = Case.objects.create(body=OUTAGE)
        outbox.drain()
        confirmed = muted_case(body=OUTAGE, urgency=2)
        ticket_priority.override(confirmed, Priority.HIGH, user=admin_user)
        Case.objects.create(body=OUTAGE, urgency=4)
        Case.objects.create(body="")
        assert Prediction.objects.for_instance(case).get().state == State.SUGGESTED
        assert history() == []

    def test_of_a_prediction_of_the_value_that_was_there(
        self, attach: Attach, active_model: ModelVersion
    ) -> None:
        attach(**named("CaseSource"), unset=(None, 2))
        case = Case.objects.create(body=OUTAGE, urgency=2)
        assert Prediction.objects.for_instance(case).get().state == State.APPLIED
        assert history() == []

    def test_of_none_that_was_rolled_back(self, attach: Attach, active_model: ModelVersion) -> None:
        attach(**named("CaseSource"))
        with transaction.atomic():
            Case.objects.create(body=OUTAGE)
            transaction.set_rollback(True)
        assert history() == []


class TestHistoryThatCannotBeWritten:
    """A real refusal of the database, which spoils the transaction where nothing contains it."""

    def test_a_new_ticket_keeps_its_priority(
        self, attach: Attach, active_model: ModelVersion, caplog: pytest.LogCaptureFixture
    ) -> None:
        attach(**named("ForgetfulSource"))
        Case.objects.create(body=OUTAGE)
        assert Case.objects.get().urgency == 2
        assert Prediction.objects.get().state == State.APPLIED
        assert "lacks a change of its priority" in caplog.text

    def test_a_worker_applies_it_once(self, attach: Attach, active_model: ModelVersion) -> None:
        attach(**named("ForgetfulSource"), mode="async")
        Case.objects.create(body=OUTAGE)
        assert outbox.drain() == 1
        assert Case.objects.get().urgency == 2
        assert Prediction.objects.get().state == State.APPLIED
        assert outbox.drain() == 0

    def test_a_backfill_goes_on(self, attach: Attach, active_model: ModelVersion) -> None:
        attach(**named("ForgetfulSource"))
        Case.objects.bulk_create([Case(body=OUTAGE), Case(body=TYPO)])
        call_command("classify_tickets", verbosity=0)
        assert sorted(Case.objects.values_list("urgency", flat=True)) == [2, 4]

    def test_an_override_stands(self, attach: Attach, admin_user: User) -> None:
        attach(**named("ForgetfulSource"))
        case = muted_case(body=OUTAGE, urgency=2)
        ticket_priority.override(case, Priority.LOW, user=admin_user)
        case.refresh_from_db()
        assert case.urgency == 4
        assert Override.objects.get().user == admin_user


class TestConnect:
    def test_the_hosts_own_signal_records_a_decision(
        self, attach: Attach, admin_user: User
    ) -> None:
        attach(**named("CaseSource"))
        case = muted_case(body=OUTAGE, urgency=2)
        case_reassessed.send(sender=Case, case=case, before=4, after=2, user=admin_user)
        record = Override.objects.get()
        assert (record.from_priority, record.to_priority) == (Priority.LOW, Priority.HIGH)
        assert (record.user, record.via) == (admin_user, "desk")

    def test_attaching_again_listens_once(self, attach: Attach, admin_user: User) -> None:
        attach(**named("CaseSource"))
        attach(**named("CaseSource"))
        case = muted_case(body=OUTAGE, urgency=2)
        case_reassessed.send(sender=Case, case=case, before=4, after=2, user=admin_user)
        assert Override.objects.count() == 1

    def test_a_value_of_no_class_is_no_decision(self, attach: Attach, admin_user: User) -> None:
        attach(**named("CaseSource"))
        case = muted_case(body=OUTAGE, urgency=9)
        case_reassessed.send(sender=Case, case=case, before=4, after=9, user=admin_user)
        assert not Override.objects.exists()


class TestWants:
    def test_a_ticket_that_is_not_wanted_is_left_alone(
        self, attach: Attach, active_model: ModelVersion
    ) -> None:
        attach(**named("CaseSource"))
        draft = Case.objects.create(body=f"draft {OUTAGE}")
        assert draft.urgency is None
        assert not Prediction.objects.exists()

    def test_a_change_of_one_is_not_recorded(self, attach: Attach) -> None:
        attach(**named("FormSource"), record_changes=True)
        draft, case = muted_case(body="draft"), muted_case(body="lift")
        for ticket in (draft, case):
            ticket.urgency = 2
            ticket.save()
        assert [record.object_id for record in Override.objects.all()] == [str(case.pk)]


class TestAnAdapterThatFails:
    def test_saves_the_ticket_and_says_so(
        self,
        attach: Attach,
        active_model: ModelVersion,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        attach(**named("BrokenSource"))
        Case.objects.create(body=f"unwanted {OUTAGE}")
        assert Case.objects.get().urgency is None
        assert "no such queue" in caplog.text
        call_command("classify_tickets", verbosity=0)
        assert Case.objects.get().urgency == 2

    def test_saves_a_change_that_nobody_can_attribute(
        self, attach: Attach, caplog: pytest.LogCaptureFixture
    ) -> None:
        attach(**named("BrokenSource"), record_changes=True)
        case = muted_case(body=OUTAGE, urgency=4)
        case.urgency = 2
        case.save()
        assert Case.objects.get().urgency == 2
        assert "nobody is signed in" in caplog.text
        assert not Override.objects.exists()


class TestATicketThatCannotBeRead:
    @pytest.fixture(autouse=True)
    def unreadable(self, attach: Attach, active_model: ModelVersion) -> None:
        attach(**named("UnreadableSource"), mode="async")

    def test_keeps_no_other_waiting(self) -> None:
        bad = Case.objects.create(body="unreadable")
        good = Case.objects.create(body=OUTAGE)
        assert outbox.drain() == 1
        assert Prediction.objects.for_instance(good).get().state == State.APPLIED
        waiting = Prediction.objects.for_instance(bad).get()
        assert (waiting.state, waiting.reason) == (State.PENDING, "model_error")

    def test_fails_alone_in_a_backfill(self) -> None:
        with ticket_priority.muted():
            bad, good = Case.objects.create(body="unreadable"), Case.objects.create(body=OUTAGE)
        states = {row.object_id: row.state for row in classify_instances([bad, good])}
        assert states == {str(bad.pk): State.FAILED, str(good.pk): State.APPLIED}


class TestLabelOf:
    def labels(self) -> dict[str, int]:
        return {row.text: row.label for row in labelled_texts(get_source(Case))}

    def test_the_adapter_says_which_rows_and_which_label(
        self, attach: Attach, admin_user: User
    ) -> None:
        attach(**named("LabelSource"), unset=(None, 3))
        muted_case(body="default", urgency=3)
        muted_case(body="not the owner's word", urgency=2)
        muted_case(body="the owner's word", urgency=3, owner=admin_user)
        overruled = muted_case(body="overruled", urgency=3)
        ticket_priority.override(overruled, Priority.LOW)
        assert self.labels() == {"the owner's word": 1, "overruled": 0}

    def test_what_a_person_said_outlives_a_programs_change(self, attach: Attach) -> None:
        attach(**named("LabelSource"), record_changes=True)
        case = muted_case(body="escalated later", urgency=3)
        ticket_priority.override(case, Priority.LOW)
        Case.objects.update(urgency=1)
        assert self.labels() == {"escalated later": 0}

    def test_where_changes_are_not_recorded_the_column_counts(self, attach: Attach) -> None:
        attach(**named("LabelSource"))
        case = muted_case(body="changed on the host's page", urgency=3)
        ticket_priority.override(case, Priority.LOW)
        Case.objects.update(urgency=1)
        assert self.labels() == {"changed on the host's page": 2}

    def test_a_prediction_is_no_label_whatever_the_adapter_says(
        self, attach: Attach, active_model: ModelVersion, admin_user: User
    ) -> None:
        attach(**named("LabelSource"))
        case = Case.objects.create(body=OUTAGE, owner=admin_user)
        assert case.urgency == 2
        assert self.labels() == {}


def test_a_history_written_by_saving_is_no_second_decision(
    attach: Attach, admin_user: User
) -> None:
    attach(**named("SavingSource"), record_changes=True)
    case = muted_case(body=OUTAGE, urgency=2)
    ticket_priority.override(case, Priority.LOW, user=admin_user)
    assert Override.objects.count() == 1
    case.refresh_from_db()
    assert case.urgency == 4


def test_a_registration_in_code_takes_an_adapter_too(attach: Attach) -> None:
    attach()
    source = register("uuid_host.Case", adapter="tests.uuid_host.adapters.CaseSource")
    assert source.text_fields == ("body",)
    assert get_source(Case) is source


def test_a_prediction_again_tells_the_history_again(
    attach: Attach, active_model: ModelVersion
) -> None:
    attach(**named("CaseSource"))
    case = Case.objects.create(body=OUTAGE)
    case.body = TYPO
    case.save()
    classify_instances([case])
    assert history() == [(None, 2, "", "sync", ""), (2, 4, "", "sync", "")]
