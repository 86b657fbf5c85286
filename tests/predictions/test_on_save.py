from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

import ticket_priority
from helpdesk.models import Ticket
from tests.support.classifiers import InterruptedClassifier
from tests.support.settings import overlay
from ticket_priority import classifiers, tasks
from ticket_priority.exceptions import ModelUnavailableError
from ticket_priority.models import ModelVersion, Override, Prediction
from ticket_priority.predictions import reclassify
from ticket_priority.priorities import Priority
from ticket_priority.signals import priority_overridden, priority_predicted
from ticket_priority.sources.registry import get_source

pytestmark = pytest.mark.django_db

OUTAGE = {"subject": "outage", "description": "fire breach down"}
INVOICE = {"subject": "invoice", "description": "refund slow delayed"}
TYPO = {"subject": "typo", "description": "font colour wish"}

State, Reason = Prediction.State, Prediction.Reason


def only_prediction(ticket: Ticket) -> Prediction:
    prediction: Prediction = Prediction.objects.for_instance(ticket).get()
    return prediction


@pytest.mark.parametrize(
    ("fields", "expected"),
    [(OUTAGE, Priority.HIGH), (INVOICE, Priority.MEDIUM), (TYPO, Priority.LOW)],
)
def test_a_new_ticket_is_inserted_with_its_priority(
    active_model: ModelVersion, fields: dict[str, str], expected: Priority
) -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        ticket = Ticket.objects.create(**fields)
    statements = [query["sql"] for query in queries if "helpdesk_ticket" in query["sql"]]
    assert len(statements) == 1
    assert statements[0].startswith("INSERT")
    assert ticket.priority == expected
    assert Ticket.objects.get().priority == expected


def test_a_prediction_holds_what_one_would_ask(active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    prediction = only_prediction(ticket)
    assert prediction.state == State.APPLIED
    assert prediction.reason == Reason.OK
    assert prediction.model_version == active_model
    assert prediction.priority == Priority.HIGH
    assert sum(p for p in prediction.probabilities.values() if p) == pytest.approx(1, abs=1e-6)
    assert prediction.confidence == prediction.prob_high
    assert prediction.latency_ms is not None
    assert prediction.latency_ms > 0
    assert len(prediction.text_hash) == 64
    assert prediction.decided_at is not None


def test_sync_mode_costs_one_query_to_ask_and_one_to_record(active_model: ModelVersion) -> None:
    Ticket.objects.create(**OUTAGE)
    with CaptureQueriesContext(connection) as queries:
        Ticket.objects.create(**TYPO)
    own = [q["sql"] for q in queries if "SAVEPOINT" not in q["sql"]]
    assert len(own) == 3


@pytest.mark.parametrize("chosen", list(Priority))
def test_a_priority_that_a_person_gives_stays(active_model: ModelVersion, chosen: Priority) -> None:
    ticket = Ticket.objects.create(**OUTAGE, priority=chosen)
    ticket.refresh_from_db()
    assert ticket.priority == chosen
    assert not Prediction.objects.exists()


def test_saving_again_classifies_no_more(active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    ticket.subject = "typo"
    ticket.save()
    assert Prediction.objects.count() == 1
    assert ticket.priority == Priority.HIGH


def test_a_ticket_without_text_is_saved_unset(active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(subject=" ", description="\u200b")
    assert ticket.priority is None
    assert only_prediction(ticket).reason == Reason.EMPTY_TEXT


def test_a_ticket_saves_without_any_model(db: None, fresh_classifier: None) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    assert ticket.priority is None
    prediction = only_prediction(ticket)
    assert (prediction.state, prediction.reason) == (State.PENDING, Reason.NO_MODEL)


def test_what_waited_for_a_model_is_classified_when_there_is_one(
    toy_version: ModelVersion, fresh_classifier: None
) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    assert tasks.drain_predictions() == 0
    toy_version.activate()
    assert tasks.drain_predictions() == 1
    ticket.refresh_from_db()
    assert ticket.priority == Priority.HIGH


def test_a_ticket_saves_when_the_artifact_is_damaged(
    active_model: ModelVersion, artifact_root: Path
) -> None:
    (artifact_root / active_model.directory / "model.onnx").write_bytes(b"garbage")
    ticket = Ticket.objects.create(**OUTAGE)
    assert only_prediction(ticket).state == State.PENDING
    active_model.refresh_from_db()
    assert "differs from its checksum" in active_model.load_error


def test_a_ticket_saves_when_classifying_raises(active_model: ModelVersion, settings: Any) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        SERVING={"CLASSIFIERS": {"transformer": "tests.support.classifiers.FailingClassifier"}},
    )
    with transaction.atomic():
        ticket = Ticket.objects.create(**OUTAGE)
    prediction = only_prediction(ticket)
    assert (prediction.state, prediction.reason) == (State.PENDING, Reason.MODEL_ERROR)
    assert ticket.priority is None


def test_a_switched_off_plugin_keeps_tickets_for_later(
    active_model: ModelVersion, settings: Any
) -> None:
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "ENABLED": False}
    ticket = Ticket.objects.create(**OUTAGE)
    assert only_prediction(ticket).reason == Reason.DISABLED
    assert tasks.drain_predictions() == 0
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "ENABLED": True}
    assert tasks.drain_predictions() == 1
    ticket.refresh_from_db()
    assert ticket.priority == Priority.HIGH


def test_muted_saves_are_left_alone(active_model: ModelVersion) -> None:
    with ticket_priority.muted():
        ticket = Ticket.objects.create(**OUTAGE)
    assert ticket.priority is None
    assert not Prediction.objects.exists()


def test_fixtures_are_loaded_as_they_are(active_model: ModelVersion, tmp_path: Path) -> None:
    fields = {
        **OUTAGE,
        "requester": "a@b.example",
        "language": "en",
        "status": "open",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
    }
    fixture = tmp_path / "tickets.json"
    fixture.write_text(json.dumps([{"model": "helpdesk.ticket", "pk": 7, "fields": fields}]))
    call_command("loaddata", str(fixture), verbosity=0)
    assert Ticket.objects.get(pk=7).priority is None
    assert not Prediction.objects.exists()


def test_a_rolled_back_ticket_leaves_no_prediction(active_model: ModelVersion) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Ticket.objects.create(**OUTAGE)
        raise IntegrityError
    assert not Prediction.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("atomic", [True, False])
def test_a_ticket_saves_where_the_plugin_is_not_migrated(
    active_model: ModelVersion, atomic: bool
) -> None:
    table = Prediction._meta.db_table
    with connection.schema_editor() as editor:
        editor.alter_db_table(Prediction, table, "set_aside")
    try:
        if atomic:
            with transaction.atomic():
                ticket = Ticket.objects.create(**OUTAGE)
        else:
            ticket = Ticket.objects.create(**OUTAGE)
        stored = Ticket.objects.get(pk=ticket.pk)
        assert stored.subject == "outage"
        # A priority with no prediction to show for it would pass for a person's.
        assert stored.priority is None
        assert ticket.priority is None
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(Prediction, "set_aside", table)


@pytest.mark.django_db(transaction=True)
def test_the_public_signal_tells_of_a_prediction_after_the_commit(
    active_model: ModelVersion,
) -> None:
    seen: list[Any] = []

    def receiver(**kwargs: Any) -> None:
        seen.append((kwargs["instance"], kwargs["prediction"].priority))

    priority_predicted.connect(receiver)
    try:
        with transaction.atomic():
            ticket = Ticket.objects.create(**OUTAGE)
            assert seen == []
    finally:
        priority_predicted.disconnect(receiver)
    assert seen == [(ticket, Priority.HIGH)]


@pytest.mark.django_db(transaction=True)
def test_a_receiver_with_a_database_error_loses_neither_ticket_nor_override(
    active_model: ModelVersion,
) -> None:
    def receiver(**kwargs: Any) -> None:
        ModelVersion.objects.create(name=active_model.name)

    for signal in (priority_predicted, priority_overridden):
        signal.connect(receiver)
    try:
        with transaction.atomic():
            ticket = Ticket.objects.create(**OUTAGE)
        ticket_priority.override(ticket, Priority.LOW)
    finally:
        for signal in (priority_predicted, priority_overridden):
            signal.disconnect(receiver)
    assert Ticket.objects.get().priority == Priority.LOW
    assert Override.objects.count() == 1


def test_saving_again_after_a_rollback_records_the_prediction_again(
    active_model: ModelVersion,
) -> None:
    ticket = Ticket(**OUTAGE)
    with transaction.atomic():
        ticket.save()
        transaction.set_rollback(True)
    ticket.save()
    assert only_prediction(ticket).priority == ticket.priority == Priority.HIGH


def test_a_copy_of_a_ticket_has_a_prediction_of_its_own(active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    first = ticket.pk
    ticket.pk, ticket._state.adding = None, True
    ticket.save()
    assert ticket.pk != first
    assert only_prediction(ticket).state == State.APPLIED
    assert Prediction.objects.count() == 2


def test_an_update_by_key_predicts_nothing(active_model: ModelVersion) -> None:
    with ticket_priority.muted():
        old = Ticket.objects.create(**OUTAGE)
    Ticket(pk=old.pk, **OUTAGE, created_at=old.created_at).save()
    old.refresh_from_db()
    assert old.priority is None
    assert not Prediction.objects.exists()


def test_a_ticket_inserted_under_a_given_key_is_left_for_a_worker(
    active_model: ModelVersion,
) -> None:
    ticket = Ticket.objects.create(pk=77, **OUTAGE)
    assert only_prediction(ticket).state == State.PENDING
    assert tasks.drain_predictions() == 1
    ticket.refresh_from_db()
    assert ticket.priority == Priority.HIGH


def test_a_value_that_is_no_priority_is_not_replaced(active_model: ModelVersion) -> None:
    with pytest.raises(ValueError, match="urgent"):
        Ticket(**OUTAGE, priority="urgent").save()


def test_deleting_a_ticket_deletes_what_is_stored_about_it(active_model: ModelVersion) -> None:
    ticket, other = Ticket.objects.create(**OUTAGE), Ticket.objects.create(**TYPO)
    ticket_priority.override(ticket, Priority.LOW)
    ticket.delete()
    assert [row.object_id for row in Prediction.objects.all()] == [str(other.pk)]
    assert not Override.objects.exists()


def test_classify_answers_in_order_and_stores_nothing(active_model: ModelVersion) -> None:
    answers = ticket_priority.classify(["typo font wish", "outage fire breach"])
    assert [answer.label for answer in answers] == ["low", "high"]
    assert not Prediction.objects.exists()


def test_classify_without_a_model_is_a_named_error(db: None, fresh_classifier: None) -> None:
    with pytest.raises(ModelUnavailableError, match="train_priority_model"):
        ticket_priority.classify(["outage"])


def imported(*rows: dict[str, Any]) -> list[Ticket]:
    return Ticket.objects.bulk_create([Ticket(**row) for row in rows])


def test_backfill_classifies_what_is_undecided(active_model: ModelVersion, settings: Any) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, SERVING={"BATCH_SIZE": 2})
    imported(OUTAGE, TYPO, INVOICE, {**OUTAGE, "priority": 0}, {"subject": ""})
    batches = list(reclassify.backfill(get_source(Ticket)))
    assert [size for _, size in batches] == [2, 2]
    total = sum((counts for counts, _ in batches), start=batches[0][0].__class__())
    assert (total["applied"], total["abstained"]) == (3, 1)
    assert list(Ticket.objects.order_by("pk").values_list("priority", flat=True)) == [
        2,
        0,
        1,
        0,
        None,
    ]


def test_backfill_can_be_stopped_and_resumed(active_model: ModelVersion, settings: Any) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, SERVING={"BATCH_SIZE": 1})
    imported(OUTAGE, TYPO, INVOICE)
    next(reclassify.backfill(get_source(Ticket)))
    assert Prediction.objects.count() == 1
    list(reclassify.backfill(get_source(Ticket)))
    assert Prediction.objects.count() == 3
    assert not Ticket.objects.filter(priority=None).exists()


def test_backfill_in_suggest_mode_asks_once_and_writes_no_ticket(
    active_model: ModelVersion, settings: Any
) -> None:
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "suggest"}
    imported(OUTAGE, TYPO)
    for _ in range(2):
        list(reclassify.backfill(get_source(Ticket)))
    assert [row.state for row in Prediction.objects.all()] == [State.SUGGESTED] * 2
    assert Ticket.objects.filter(priority=None).count() == 2


def test_a_dry_run_writes_nothing(active_model: ModelVersion) -> None:
    imported(OUTAGE, TYPO, OUTAGE)
    ((counts, size),) = reclassify.backfill(get_source(Ticket), dry_run=True)
    assert (counts["high"], counts["low"], size) == (2, 1, 3)
    assert not Prediction.objects.exists()
    assert Ticket.objects.filter(priority=None).count() == 3


def test_reclassifying_follows_the_text(active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    Ticket.objects.filter(pk=ticket.pk).update(**TYPO)
    ticket.refresh_from_db()
    (prediction,) = reclassify.classify_instances([ticket])
    assert prediction.state == State.APPLIED
    ticket.refresh_from_db()
    assert ticket.priority == Priority.LOW


@pytest.mark.parametrize(
    "decide",
    [
        lambda ticket: ticket_priority.override(ticket, Priority.LOW),
        lambda ticket: ticket_priority.override(ticket, Priority.HIGH),
        lambda ticket: Ticket.objects.filter(pk=ticket.pk).update(priority=1),
    ],
    ids=["overridden", "confirmed", "written"],
)
def test_reclassifying_only_suggests_where_a_person_decided(
    active_model: ModelVersion, decide: Callable[[Ticket], Any]
) -> None:
    ticket = Ticket.objects.create(**OUTAGE)
    decide(ticket)
    ticket.refresh_from_db()
    decided = ticket.priority
    (prediction,) = reclassify.classify_instances([ticket])
    assert (prediction.state, prediction.reason) == (State.SUGGESTED, Reason.PERSON_DECIDED)
    ticket.refresh_from_db()
    assert ticket.priority == decided


def test_a_decision_while_the_model_is_busy_stands(
    active_model: ModelVersion, settings: Any
) -> None:
    """A person confirms the value that is there, which compare-and-set cannot see."""
    ticket = Ticket.objects.create(**OUTAGE)
    Ticket.objects.filter(pk=ticket.pk).update(**TYPO)
    ticket.refresh_from_db()
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        SERVING={"CLASSIFIERS": {"transformer": "tests.support.classifiers.InterruptedClassifier"}},
    )
    classifiers.reset()
    InterruptedClassifier.meanwhile = lambda: ticket_priority.override(
        Ticket.objects.get(), Priority.HIGH
    )
    (prediction,) = reclassify.classify_instances([ticket])
    assert prediction.priority == Priority.LOW
    assert (prediction.state, prediction.reason) == (State.SUGGESTED, Reason.PERSON_DECIDED)
    assert Ticket.objects.get().priority == Priority.HIGH


def test_empty_tickets_are_asked_about_once(active_model: ModelVersion) -> None:
    imported({"subject": ""})
    for _ in range(3):
        list(reclassify.backfill(get_source(Ticket)))
    assert Prediction.objects.count() == 1
