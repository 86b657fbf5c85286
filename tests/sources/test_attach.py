"""A model the plugin does not own: UUID keys, a scale of its own, no column added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction

import ticket_priority
from tests.support.classifiers import InterruptedClassifier
from tests.support.settings import overlay
from tests.uuid_host.models import Case, Escalation
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions import outbox, reclassify
from ticket_priority.priorities import Priority
from ticket_priority.sources.registry import get_source
from ticket_priority.training.labels import labelled_texts

pytestmark = pytest.mark.django_db

OUTAGE = "outage fire breach down"

State = Prediction.State


def test_sync_writes_the_hosts_own_value_in_the_first_insert(
    attach: Callable[..., None], active_model: ModelVersion
) -> None:
    attach()
    case = Case.objects.create(body=OUTAGE)
    assert case.urgency == 2
    assert Case.objects.get().urgency == 2
    assert Prediction.objects.for_instance(case).get().object_id == str(case.pk)


def test_a_child_of_the_model_is_classified_too(
    attach: Callable[..., None], active_model: ModelVersion
) -> None:
    attach()
    child = Escalation.objects.create(body=OUTAGE)
    assert Case.objects.get(pk=child.pk).urgency == 2
    assert Prediction.objects.for_instance(child).count() == 1


def test_async_writes_it_later_and_only_over_what_was_there(
    attach: Callable[..., None], active_model: ModelVersion
) -> None:
    attach(mode="async")
    quick, slow = Case.objects.create(body=OUTAGE), Case.objects.create(body=OUTAGE)
    Case.objects.filter(pk=slow.pk).update(urgency=5)
    assert outbox.drain() == 2
    quick.refresh_from_db()
    slow.refresh_from_db()
    assert (quick.urgency, slow.urgency) == (2, 5)


def test_suggest_leaves_the_column_alone(
    attach: Callable[..., None], active_model: ModelVersion
) -> None:
    attach(mode="suggest")
    case = Case.objects.create(body=OUTAGE)
    outbox.drain()
    case.refresh_from_db()
    assert case.urgency is None
    assert Prediction.objects.get().state == State.SUGGESTED


def test_a_value_that_means_unset_is_written_over_and_is_no_label(
    attach: Callable[..., None], active_model: ModelVersion
) -> None:
    attach(unset=(None, 3))
    case = Case.objects.create(body=OUTAGE, urgency=3)
    assert case.urgency == 2
    with ticket_priority.muted():
        Case.objects.create(body="typo font", urgency=3)
        Case.objects.create(body="typo wish", urgency=5)
    rows = list(labelled_texts(get_source(Case)))
    assert [(row.text, row.label) for row in rows] == [("typo wish", Priority.LOW)]


def test_backfill_pages_through_uuid_keys(
    attach: Callable[..., None], active_model: ModelVersion, settings: Any
) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, SERVING={"BATCH_SIZE": 3})
    attach()
    Case.objects.bulk_create([Case(body=OUTAGE) for _ in range(8)])
    assert [size for _, size in reclassify.backfill(get_source(Case))] == [3, 3, 2]
    assert Case.objects.filter(urgency=2).count() == 8


def test_an_override_translates_both_ways(
    attach: Callable[..., None], active_model: ModelVersion, admin_user: User
) -> None:
    attach()
    case = Case.objects.create(body=OUTAGE, urgency=1)
    record = ticket_priority.override(case, Priority.LOW, user=admin_user)
    case.refresh_from_db()
    assert case.urgency == 4
    assert (record.from_priority, record.to_priority) == (Priority.HIGH, Priority.LOW)


def test_labels_are_what_the_hosts_people_set(
    attach: Callable[..., None], active_model: ModelVersion
) -> None:
    Case.objects.bulk_create([Case(body=f"old {value}", urgency=value) for value in range(7)])
    attach(labelled=lambda cases: cases.exclude(urgency=5))
    found = {row.text: row.label for row in labelled_texts(get_source(Case))}
    assert found == {"old 1": 2, "old 2": 2, "old 3": 1, "old 4": 0}


def test_a_default_is_a_label_where_a_person_is_said_to_have_set_it(
    attach: Callable[..., None], admin_user: User
) -> None:
    Case.objects.create(body="left as it was", urgency=3)
    Case.objects.create(body="triaged", urgency=3, owner=admin_user)
    attach(unset=(None, 3), labelled=lambda cases: cases.filter(owner__isnull=False))
    found = {row.text: row.label for row in labelled_texts(get_source(Case))}
    assert found == {"triaged": 1}


def test_a_person_may_use_a_value_that_no_class_is_written_as(
    attach: Callable[..., None], active_model: ModelVersion
) -> None:
    attach()
    raised, foreign = Case.objects.create(body=OUTAGE), Case.objects.create(body=OUTAGE)
    Case.objects.filter(pk=raised.pk).update(urgency=1, body="typo font wish")
    Case.objects.filter(pk=foreign.pk).update(urgency=9)
    for case in (raised, foreign):
        case.refresh_from_db()
    reclassify.classify_instances([raised, foreign])
    assert sorted(Case.objects.values_list("urgency", flat=True)) == [1, 9]


def test_an_override_to_the_hosts_default_stands_and_is_learnt(
    attach: Callable[..., None], active_model: ModelVersion, settings: Any
) -> None:
    attach(unset=(None, 3))
    with ticket_priority.muted():
        case = Case.objects.create(body=OUTAGE, urgency=3)
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        SERVING={"CLASSIFIERS": {"transformer": "tests.support.classifiers.InterruptedClassifier"}},
    )
    InterruptedClassifier.meanwhile = lambda: ticket_priority.override(
        Case.objects.get(), Priority.MEDIUM
    )
    reclassify.classify_instances([case])
    assert Case.objects.get().urgency == 3
    rows = labelled_texts(get_source(Case))
    assert [row.label for row in rows] == [Priority.MEDIUM]


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.django_db(transaction=True)
def test_a_mapping_with_a_hole_saves_the_ticket_all_the_same(
    attach: Callable[..., None], active_model: ModelVersion, atomic: bool
) -> None:
    attach(to_host={"low": 4, "medium": 3}, from_host=None)
    if atomic:
        with transaction.atomic():
            case = Case.objects.create(body=OUTAGE)
    else:
        case = Case.objects.create(body=OUTAGE)
    assert Case.objects.get(pk=case.pk).urgency is None
    prediction = Prediction.objects.get()
    assert (prediction.state, prediction.reason) == (State.PENDING, Prediction.Reason.MODEL_ERROR)


def test_backfill_leaves_alone_what_a_person_set_to_the_default(
    attach: Callable[..., None], active_model: ModelVersion, admin_user: User
) -> None:
    attach(unset=(None, 3))
    with ticket_priority.muted():
        case = Case.objects.create(body=OUTAGE, urgency=3)
    ticket_priority.override(case, Priority.MEDIUM, user=admin_user)
    assert [counts["skipped"] for counts, _ in reclassify.backfill(get_source(Case))] == [1]
    assert not Prediction.objects.exists()
