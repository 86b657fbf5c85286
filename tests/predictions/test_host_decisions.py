"""`record_changes`: which saves are a person's decision, and which undo a prediction unseen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import Case as Case_
from django.db.models import F, Value, When
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import ticket_priority
from tests.admin.pages import form_of
from tests.support.settings import overlay
from tests.uuid_host.models import Case
from ticket_priority.checks.sources import MIDDLEWARE
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions import outbox
from ticket_priority.predictions.standings import open_suggestions
from ticket_priority.priorities import Priority

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.uuid_host.urls")]

OUTAGE = "outage fire breach down"

State, Reason = Prediction.State, Prediction.Reason
Attach = Callable[..., None]


@pytest.fixture
def recording(attach: Attach, settings: Any) -> Attach:
    """Attach Case with its changes recorded, in a project with the middleware."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, MIDDLEWARE]
    attach(record_changes=True)
    return attach


@pytest.fixture
def case(recording: Attach) -> Case:
    return muted_case(urgency=4)


def muted_case(**values: Any) -> Case:
    with ticket_priority.muted():
        return Case.objects.create(**{"body": OUTAGE, **values})


def decisions() -> list[tuple[int | None, int]]:
    return list(Override.objects.order_by("pk").values_list("from_priority", "to_priority"))


class TestASave:
    def test_in_a_request_that_changes_the_urgency_is_a_decision(
        self, case: Case, admin_client: Client
    ) -> None:
        admin_client.post(f"/cases/{case.pk}/", {"urgency": "2"})
        admin_client.post(f"/cases/{case.pk}/?only=urgency", {"urgency": "3"})
        assert decisions() == [(0, 2), (2, 1)]

    @pytest.mark.parametrize(
        ("query", "values"),
        [
            ("", {"body": "lift"}),
            ("", {"urgency": "4", "body": "lift"}),
            ("?only=body", {"urgency": "2", "body": "lift"}),
        ],
        ids=["left out", "the same", "not written"],
    )
    def test_that_leaves_the_urgency_alone_is_none(
        self, case: Case, admin_client: Client, query: str, values: dict[str, str]
    ) -> None:
        admin_client.post(f"/cases/{case.pk}/{query}", values)
        case.refresh_from_db()
        assert (case.body, case.urgency) == ("lift", 4)
        assert decisions() == []

    @pytest.mark.parametrize(
        "written",
        [F("urgency") - 2, Value(2), Case_(When(urgency=4, then=Value(2)), default=Value(5))],
        ids=["F", "Value", "Case"],
    )
    def test_may_compute_it_in_the_database(
        self, attach: Attach, active_model: ModelVersion, written: Any
    ) -> None:
        attach(record_changes=True, adapter="tests.uuid_host.adapters.FormSource")
        case = muted_case(urgency=4)
        case.urgency = written
        case.save(update_fields=["urgency"])
        assert Case.objects.get().urgency == 2
        assert decisions() == [(0, 2)]

    def test_that_unsets_the_urgency_is_none(self, case: Case, admin_client: Client) -> None:
        admin_client.post(f"/cases/{case.pk}/", {"urgency": ""})
        case.refresh_from_db()
        assert case.urgency is None
        assert decisions() == []

    def test_between_values_of_one_class_confirms_it(
        self, case: Case, admin_client: Client
    ) -> None:
        admin_client.post(f"/cases/{case.pk}/", {"urgency": "5"})
        assert decisions() == [(0, 0)]

    def test_outside_a_request_is_nobodys(self, case: Case) -> None:
        case.urgency = 2
        case.save()
        assert decisions() == []

    def test_that_is_muted_is_left_alone(self, recording: Attach, admin_client: Client) -> None:
        recording(**{"adapter": "tests.uuid_host.adapters.FormSource"}, record_changes=True)
        case = muted_case(urgency=4)
        with ticket_priority.muted():
            case.urgency = 2
            case.save()
        case.urgency = 3
        case.save()
        assert decisions() == [(2, 1)]

    def test_costs_a_query_only_where_the_urgency_is_written(self, case: Case) -> None:
        def statements(**options: Any) -> list[str]:
            with CaptureQueriesContext(connection) as queries:
                case.save(**options)
            words = [query["sql"].split()[0] for query in queries]
            return [word for word in words if word in ("SELECT", "UPDATE", "INSERT")]

        assert statements(update_fields=["body"]) == ["UPDATE"]
        assert statements(update_fields=["urgency"]) == ["SELECT", "UPDATE"]
        assert statements() == ["SELECT", "UPDATE"]

    def test_costs_nothing_where_changes_are_not_recorded(
        self, attach: Attach, django_assert_num_queries: Any
    ) -> None:
        attach()
        case = muted_case(urgency=4)
        with django_assert_num_queries(1):
            case.save()

    def test_that_failed_leaves_nothing_behind_for_the_next(self, recording: Attach) -> None:
        recording(adapter="tests.uuid_host.adapters.FormSource", record_changes=True)
        case = muted_case(urgency=4)
        case.urgency, case.owner_id = 2, "nobody"  # type: ignore[assignment]
        with pytest.raises(ValueError, match="nobody"), transaction.atomic():
            case.save()
        case.owner_id = None
        case.save(update_fields=["body", "owner"])
        assert decisions() == []

    def test_that_is_rolled_back_decides_nothing(self, recording: Attach) -> None:
        recording(adapter="tests.uuid_host.adapters.FormSource", record_changes=True)
        case = muted_case(urgency=4)
        with transaction.atomic():
            case.urgency = 2
            case.save()
            transaction.set_rollback(True)
        assert decisions() == []

    def test_of_a_row_that_is_gone_is_the_hosts_own_affair(self, case: Case) -> None:
        stale = Case.objects.get(pk=case.pk)
        case.delete()
        stale.urgency = 2
        with pytest.raises(DatabaseError), transaction.atomic():
            stale.save(force_update=True)
        assert decisions() == []

    def test_that_an_adapter_cannot_explain_leaves_the_transaction_whole(
        self, attach: Attach
    ) -> None:
        attach(record_changes=True, adapter="tests.uuid_host.adapters.QueryingSource")
        case = muted_case(urgency=4)
        with transaction.atomic():
            case.urgency = 2
            case.save()
            assert Case.objects.get().urgency == 2
        assert decisions() == []

    def test_after_another_of_the_same_object_is_a_decision_too(
        self, attach: Attach, active_model: ModelVersion
    ) -> None:
        attach(record_changes=True, adapter="tests.uuid_host.adapters.FormSource")
        case = Case.objects.create(body=OUTAGE)
        assert case.urgency == 2
        for urgency in (5, 2):
            case.urgency = urgency
            case.save()
        assert decisions() == [(2, 0), (0, 2)]

    def test_of_a_new_ticket_is_no_override(self, recording: Attach) -> None:
        recording(adapter="tests.uuid_host.adapters.FormSource", record_changes=True)
        Case.objects.create(body=OUTAGE, urgency=2)
        assert decisions() == []

    def test_drops_a_pending_prediction(
        self, recording: Attach, active_model: ModelVersion, admin_client: Client
    ) -> None:
        recording(record_changes=True, mode="async")
        case = Case.objects.create(body=OUTAGE)
        admin_client.post(f"/cases/{case.pk}/", {"urgency": "4"})
        assert outbox.drain() == 0
        case.refresh_from_db()
        assert case.urgency == 4
        assert Prediction.objects.get().state == State.SUPERSEDED


@pytest.mark.urls("tests.admin.urls")
def test_the_admin_records_a_decision_once(
    recording: Attach, admin_client: Client, admin_user: User
) -> None:
    case = muted_case(urgency=4)
    url = f"/admin/uuid_host/case/{case.pk}/change/"
    form = form_of(admin_client.get(url), "case_form")
    admin_client.post(url, {**form.values, "urgency": "2", "ticket_priority_reason": "A drill."})
    record = Override.objects.get()
    assert (record.from_priority, record.to_priority) == (Priority.LOW, Priority.HIGH)
    assert (record.user, record.via, record.reason) == (admin_user, "admin", "A drill.")


class TestASecondSaveOfTheNewTicket:
    """A host that creates a ticket and saves the same object again, as it was."""

    @pytest.fixture(autouse=True)
    def deferred(self, attach: Attach, active_model: ModelVersion) -> None:
        attach(mode="async", unset=(None, 3))

    def test_keeps_what_the_worker_applied_in_between(self) -> None:
        case = Case.objects.create(body=OUTAGE, urgency=3)
        outbox.drain()
        case.body = "outage, with a note"
        case.save()
        assert case.urgency == 2
        stored = Case.objects.get()
        assert (stored.urgency, stored.body) == (2, "outage, with a note")

    def test_of_other_fields_keeps_it_too(self) -> None:
        case = Case.objects.create(body=OUTAGE, urgency=3)
        outbox.drain()
        case.save(update_fields=["body"])
        assert Case.objects.get().urgency == 2
        case.save()
        assert Case.objects.get().urgency == 2

    def test_before_the_worker_comes_changes_nothing(self) -> None:
        case = Case.objects.create(body=OUTAGE, urgency=3)
        case.save()
        assert Case.objects.get().urgency == 3
        outbox.drain()
        assert Case.objects.get().urgency == 2

    def test_after_a_person_decided_does_not_bring_the_prediction_back(self) -> None:
        case = Case.objects.create(body=OUTAGE, urgency=3)
        outbox.drain()
        ticket_priority.override(Case.objects.get(), Priority.LOW)
        case.save()
        assert Case.objects.get().urgency == 3

    def test_with_another_urgency_is_the_hosts_word(self) -> None:
        case = Case.objects.create(body=OUTAGE, urgency=3)
        outbox.drain()
        case.urgency = 5
        case.save()
        assert Case.objects.get().urgency == 5

    def test_that_writes_no_urgency_leaves_a_value_set_elsewhere(self) -> None:
        case = Case.objects.create(body=OUTAGE, urgency=3)
        outbox.drain()
        Case.objects.update(urgency=5)
        case.save(update_fields=["body"])
        assert case.urgency == 3
        assert Case.objects.get().urgency == 5

    def test_in_sync_mode_asks_nothing(
        self, attach: Attach, django_assert_num_queries: Any
    ) -> None:
        attach(unset=(None, 3))
        case = Case.objects.create(body=OUTAGE, urgency=3)
        assert case.urgency == 2
        with django_assert_num_queries(1):
            case.save()

    def test_records_no_decision(self, attach: Attach) -> None:
        attach(
            mode="async",
            unset=(None, 3),
            record_changes=True,
            adapter="tests.uuid_host.adapters.FormSource",
        )
        case = Case.objects.create(body=OUTAGE, urgency=3)
        outbox.drain()
        case.save()
        assert Case.objects.get().urgency == 2
        assert decisions() == []


class TestAFormThatWasOpenBefore:
    """The default is 3; a worker makes it 2; a form that showed 3 is posted."""

    @pytest.fixture
    def predicted(self, attach: Attach, active_model: ModelVersion, request: Any) -> Case:
        attach(
            mode=getattr(request, "param", "async"),
            unset=(None, 3),
            record_changes=True,
            adapter="tests.uuid_host.adapters.FormSource",
        )
        created = Case.objects.create(body=OUTAGE, urgency=3)
        outbox.drain()
        case = Case.objects.get(pk=created.pk)
        assert case.urgency == 2
        return case

    def post(self, case: Case, urgency: int | None, *, deliberate: bool = False) -> None:
        case.urgency = urgency
        case.is_about_urgency = deliberate  # type: ignore[attr-defined]
        case.save()

    def test_and_puts_the_old_value_back_makes_a_suggestion(self, predicted: Case) -> None:
        self.post(predicted, 3)
        prediction = Prediction.objects.get()
        assert (prediction.state, prediction.reason) == (State.SUGGESTED, Reason.STALE_FORM)
        assert decisions() == []
        case = Case.objects.get()
        assert case.urgency == 3
        assert open_suggestions([case]) == {str(case.pk): prediction}

    def test_and_empties_what_was_empty_makes_a_suggestion_too(
        self, attach: Attach, active_model: ModelVersion
    ) -> None:
        adapter = "tests.uuid_host.adapters.FormSource"
        attach(mode="async", record_changes=True, adapter=adapter)
        Case.objects.create(body=OUTAGE)
        outbox.drain()
        self.post(Case.objects.get(), None)
        assert Prediction.objects.get().reason == Reason.STALE_FORM
        assert decisions() == []

    def test_and_gives_another_value_decides(self, predicted: Case) -> None:
        self.post(predicted, 4)
        assert decisions() == [(2, 0)]
        assert Prediction.objects.get().state == State.APPLIED

    def test_and_is_about_the_urgency_decides(self, predicted: Case) -> None:
        self.post(predicted, 3, deliberate=True)
        assert decisions() == [(2, 1)]

    def test_long_ago_decides(self, predicted: Case, settings: Any) -> None:
        settings.TICKET_PRIORITY = overlay(
            settings.TICKET_PRIORITY, DECISIONS={"STALE_FORM_MINUTES": 30}
        )
        Prediction.objects.update(decided_at=timezone.now() - timedelta(minutes=31))
        self.post(predicted, 3)
        assert decisions() == [(2, 1)]

    def test_just_within_the_window_does_not(self, predicted: Case, settings: Any) -> None:
        settings.TICKET_PRIORITY = overlay(
            settings.TICKET_PRIORITY, DECISIONS={"STALE_FORM_MINUTES": 30}
        )
        Prediction.objects.update(decided_at=timezone.now() - timedelta(minutes=29))
        self.post(predicted, 3)
        assert decisions() == []

    @pytest.mark.parametrize("predicted", ["sync"], indirect=True)
    def test_cannot_be_where_the_ticket_was_created_with_its_prediction(
        self, predicted: Case
    ) -> None:
        self.post(predicted, 3)
        assert decisions() == [(2, 1)]

    @pytest.mark.parametrize("predicted", ["sync"], indirect=True)
    def test_and_before_a_late_prediction_in_sync_mode_makes_a_suggestion(
        self, predicted: Case
    ) -> None:
        case = muted_case(urgency=3)
        call_command("classify_tickets", verbosity=0)
        assert Case.objects.get(pk=case.pk).urgency == 2
        self.post(Case.objects.get(pk=case.pk), 3)
        late = Prediction.objects.for_instance(case).get()
        assert (late.state, late.reason) == (State.SUGGESTED, Reason.STALE_FORM)
        assert decisions() == []

    def test_and_before_a_colleague_decided_decides_nothing(
        self, predicted: Case, admin_user: User
    ) -> None:
        ticket_priority.override(predicted, Priority.LOW, user=admin_user)
        self.post(Case.objects.get(), 2)
        assert decisions() == [(2, 0)]
        Override.objects.update(created_at=timezone.now() - timedelta(hours=2))
        Case.objects.update(urgency=4)
        self.post(Case.objects.get(), 2)
        assert decisions() == [(2, 0), (0, 2)]

    @pytest.mark.parametrize("predicted", ["sync"], indirect=True)
    def test_and_before_a_colleague_decided_may_give_a_third_value(
        self, predicted: Case, admin_user: User
    ) -> None:
        ticket_priority.override(predicted, Priority.LOW, user=admin_user)
        self.post(Case.objects.get(), 3)
        assert decisions() == [(2, 0), (0, 1)]

    def test_names_what_was_replaced_where_a_default_was_decided_for(self, predicted: Case) -> None:
        self.post(predicted, 3, deliberate=True)
        self.post(predicted, 5, deliberate=True)
        assert decisions() == [(2, 1), (1, 0)]


def test_a_default_that_was_predicted_is_what_an_override_replaces(
    attach: Attach, active_model: ModelVersion
) -> None:
    attach(unset=(None, 3))
    case = Case.objects.create(body="invoice refund slow delayed", urgency=3)
    assert case.urgency == 3
    assert ticket_priority.override(case, Priority.HIGH).from_priority == Priority.MEDIUM
    untouched = muted_case(urgency=3)
    assert ticket_priority.override(untouched, Priority.HIGH).from_priority is None
