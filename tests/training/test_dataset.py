from __future__ import annotations

import gc
import hashlib
import json
import stat
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

import ticket_priority
from helpdesk.models import Ticket
from tests.support.settings import overlay
from ticket_priority.exceptions import DatasetError
from ticket_priority.ml.evaluation.report import data_lines
from ticket_priority.ml.types import LabelledText
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.predictions.outbox import drain
from ticket_priority.predictions.reclassify import classify_instances
from ticket_priority.priorities import Priority
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import get_source
from ticket_priority.training.dataset import assemble, build, collect, deduplicate
from ticket_priority.training.labels import _created_at, labelled_texts, labels_of, labels_since


def labels() -> dict[str, int]:
    rows = labelled_texts(get_source(Ticket))
    return {row.text: row.label for row in rows}


def bulk(*rows: tuple[str, int | None]) -> None:
    Ticket.objects.bulk_create([Ticket(description=text, priority=label) for text, label in rows])


@pytest.mark.django_db
def test_a_label_is_what_a_person_set(active_model: ModelVersion) -> None:
    bulk(("imported low", 0), ("imported unset", None))
    Ticket.objects.create(subject="outage predicted and never reviewed")
    reviewed = Ticket.objects.create(subject="outage overruled")
    ticket_priority.override(reviewed, Priority.LOW)
    confirmed = Ticket.objects.create(subject="outage confirmed")
    ticket_priority.override(confirmed, Priority.HIGH)
    assert labels() == {"imported low": 0, "outage overruled": 0, "outage confirmed": 2}


@pytest.mark.django_db
def test_a_suggestion_followed_in_the_hosts_own_form_is_a_label(
    active_model: ModelVersion, settings: Any
) -> None:
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "suggest"}
    ticket = Ticket.objects.create(subject="outage")
    drain()
    Ticket.objects.filter(pk=ticket.pk).update(priority=2)
    assert Prediction.objects.get().state == Prediction.State.SUGGESTED
    assert labels() == {"outage": 2}


@pytest.mark.django_db
def test_what_people_change_in_the_hosts_own_way_is_a_label(active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(subject="outage")
    Ticket.objects.filter(pk=ticket.pk).update(priority=0)
    assert labels() == {"outage": 0}
    ticket_priority.override(ticket, Priority.MEDIUM)
    Ticket.objects.filter(pk=ticket.pk).update(priority=2)
    assert labels() == {"outage": 1}, "a stale form that writes the prediction back is no label"


@pytest.mark.django_db
def test_what_a_stale_form_put_back_is_no_label_until_somebody_decides(
    active_model: ModelVersion, settings: Any
) -> None:
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "suggest"}
    ticket = Ticket.objects.create(subject="outage")
    drain()
    Prediction.objects.update(reason=Prediction.Reason.STALE_FORM)
    Ticket.objects.filter(pk=ticket.pk).update(priority=1)
    dropped: Counter[str] = Counter()
    assert list(labelled_texts(get_source(Ticket), dropped=dropped)) == []
    assert dropped == {"put back by a stale form": 1}
    ticket_priority.override(ticket, Priority.MEDIUM)
    assert labels() == {"outage": 1}


@pytest.mark.django_db
def test_the_last_override_counts() -> None:
    bulk(("a", 0))
    ticket = Ticket.objects.get()
    for priority in (Priority.HIGH, Priority.MEDIUM):
        ticket_priority.override(ticket, priority)
    assert labels() == {"a": 1}


@pytest.mark.django_db
def test_empty_texts_are_left_out_and_counted() -> None:
    bulk((" \u200b", 0), ("text", 1))
    dropped: Counter[str] = Counter()
    rows = list(labelled_texts(get_source(Ticket), dropped=dropped))
    assert [row.text for row in rows] == ["text"]
    assert dropped == {"empty text": 1}


@pytest.mark.django_db
def test_labels_cost_a_constant_number_of_queries(django_assert_num_queries: Any) -> None:
    bulk(*((f"ticket {index}", index % 3) for index in range(50)))
    get_source(Ticket)
    labels()
    with django_assert_num_queries(6):
        labels()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "There are 0 usable tickets"),
        ([("word " * index, 1) for index in range(1, 80)], "All 79 labelled tickets are medium"),
        (
            [(f"{'word ' * index}", int(index < 3)) for index in range(1, 80)],
            "Only 2 labelled tickets are medium",
        ),
        ([("", index % 3) for index in range(80)], "80 empty text"),
    ],
    ids=["none", "one class", "too few of a class", "empty"],
)
def test_too_little_to_learn_from_is_said(rows: list[tuple[str, int]], message: str) -> None:
    bulk(*rows)
    with pytest.raises(DatasetError, match=message):
        build([get_source(Ticket)])


def provenances() -> dict[str, str]:
    rows = labelled_texts(get_source(Ticket))
    return {row.text: row.provenance for row in rows}


@pytest.mark.django_db
def test_a_label_knows_why_it_is_believed(active_model: ModelVersion) -> None:
    bulk(("imported", 0))
    Ticket.objects.create(subject="typo with a priority", priority=2)
    for subject, priority in (("outage overruled", Priority.LOW), ("outage right", Priority.HIGH)):
        ticket_priority.override(Ticket.objects.create(subject=subject), priority)
    changed = Ticket.objects.create(subject="outage changed in the host")
    twice = Ticket.objects.create(subject="outage overruled and changed in the host")
    ticket_priority.override(twice, Priority.LOW)
    Ticket.objects.filter(pk__in=[changed.pk, twice.pk]).update(priority=1)
    assert provenances() == {
        "imported": "host",
        "typo with a priority": "host",
        "outage overruled": "override",
        "outage right": "confirmation",
        "outage changed in the host": "host_change",
        "outage overruled and changed in the host": "host_change",
    }


@pytest.mark.django_db
def test_a_prediction_left_on_a_ticket_that_a_person_worked_on_is_a_label(
    active_model: ModelVersion,
) -> None:
    for subject in ("outage worked on", "outage unseen"):
        Ticket.objects.create(subject=subject, status="solved" if "worked" in subject else "open")
    source = replace(get_source(Ticket), reviewed=lambda rows: rows.filter(status="solved"))
    dropped: Counter[str] = Counter()
    (row,) = labelled_texts(source, dropped=dropped)
    assert (row.text, row.label, row.provenance) == ("outage worked on", 2, "reviewed")
    assert dropped == {"unreviewed prediction": 1}
    strict = replace(source, labelled=lambda rows: rows.none())
    assert [row.text for row in labelled_texts(strict)] == ["outage worked on"]


@pytest.mark.django_db
def test_a_predicted_default_is_a_label_only_once_it_was_reviewed(
    active_model: ModelVersion,
) -> None:
    """A host's default means that nobody decided, until the model says the same and one sees it."""
    source = replace(get_source(Ticket), unset=(None, 2))
    Ticket.objects.create(subject="outage", status="solved")
    bulk(("default and never predicted", 2))
    assert list(labelled_texts(source)) == []
    reviewed = replace(source, reviewed=lambda rows: rows)
    assert [row.text for row in labelled_texts(reviewed)] == ["outage"]


@pytest.mark.django_db
def test_a_label_weighs_what_the_settings_say_of_its_provenance(settings: Any) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY, TRAINING={"LABEL_WEIGHTS": {"override": 3}}
    )
    bulk(("imported", 0), ("overruled", 0))
    ticket_priority.override(Ticket.objects.get(description="overruled"), Priority.HIGH)
    rows = labelled_texts(get_source(Ticket))
    assert {row.text: row.weight for row in rows} == {"imported": 1.0, "overruled": 3.0}


@pytest.mark.django_db
def test_a_table_is_read_in_batches_and_completely(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    monkeypatch.setattr("ticket_priority.training.labels._BATCH", 20)
    bulk(*((f"ticket {index}", index % 3) for index in range(50)))
    get_source(Ticket)
    labels()
    with django_assert_num_queries(3 * 6):
        assert len(labels()) == 50


class OriginalSource(TicketSource):
    """A host that keeps the first description of a ticket in its subject."""

    def text_at_creation(self, instance: Any) -> str:
        return str(instance.subject)


@pytest.mark.django_db
def test_texts_that_were_edited_since_are_counted_and_learnt_as_they_were(
    active_model: ModelVersion,
) -> None:
    for text in ("outage one", "outage two", "outage three"):
        ticket = Ticket.objects.create(subject=text)
        ticket_priority.override(ticket, Priority.LOW)
    edited = Ticket.objects.filter(subject="outage two")
    edited.update(description="and a remark that somebody added")
    Ticket.objects.filter(subject="outage three").update(subject="outage 3", description="all new")
    bulk(("imported", 0))

    def learnt(source: TicketSource) -> tuple[set[str], Counter[str]]:
        counted: Counter[str] = Counter()
        rows = labelled_texts(source, edited=counted)
        return {row.text for row in rows}, counted

    today = {"outage one", "outage two\nand a remark that somebody added", "outage 3\nall new"}
    assert learnt(get_source(Ticket)) == ({*today, "imported"}, {"known": 3, "since": 2})
    fields = {name: getattr(get_source(Ticket), name) for name in ("text_fields", "unset")}
    original = OriginalSource(model=Ticket, **fields)
    texts, counted = learnt(original)
    assert texts == {"outage one", "outage two", "outage 3"}
    assert counted == {"known": 3, "since": 2, "restored": 1}


@pytest.mark.django_db
def test_the_report_says_how_many_texts_were_edited(active_model: ModelVersion) -> None:
    ticket = Ticket.objects.create(subject="outage")
    ticket_priority.override(ticket, Priority.LOW)
    Ticket.objects.filter(pk=ticket.pk).update(subject="edited")
    summary = collect([get_source(Ticket)]).summary()
    assert summary["edited"] == {"known": 1, "since": 1, "restored": 0}
    assert any(
        line.startswith("Texts: 1 of 1 tickets whose first text is known were edited since; 0 of")
        for line in data_lines(summary)
    )
    nothing = assemble([]).summary()
    assert not any(line.startswith("Texts") for line in data_lines(nothing))


@pytest.mark.django_db
def test_the_first_prediction_holds_the_first_text(active_model: ModelVersion) -> None:
    """A later one, of an edited text, does not make the edit undone."""
    ticket = Ticket.objects.create(subject="outage")
    ticket.subject = "edited"
    ticket.save()
    classify_instances([ticket])
    ticket_priority.override(ticket, Priority.LOW)
    counted: Counter[str] = Counter()
    list(labelled_texts(get_source(Ticket), edited=counted))
    assert counted == {"known": 1, "since": 1}


@pytest.mark.django_db
def test_labels_of_named_tickets(active_model: ModelVersion) -> None:
    bulk(("a", 0), ("b", 2), ("c", None))
    tickets = {ticket.description: str(ticket.pk) for ticket in Ticket.objects.all()}
    found = labels_of(get_source(Ticket), tickets.values())
    assert found == {tickets["a"]: 0, tickets["b"]: 2}
    assert labels_of(get_source(Ticket), [tickets["b"]]) == {tickets["b"]: 2}
    assert labels_of(get_source(Ticket), []) == {}


@pytest.mark.django_db
def test_labels_that_came_in_since(active_model: ModelVersion) -> None:
    bulk(("old", 0), ("old and decided since", 0))
    Ticket.objects.update(created_at=timezone.now() - timedelta(days=9))
    decided = Ticket.objects.get(description="old and decided since")
    ticket_priority.override(decided, Priority.HIGH)
    ticket_priority.override(decided, Priority.LOW)
    bulk(("new", 1), ("new and unset", None))
    Ticket.objects.create(subject="outage predicted")
    both = Ticket.objects.create(subject="outage overruled")
    ticket_priority.override(both, Priority.LOW)
    since = timezone.now() - timedelta(days=1)
    source = replace(get_source(Ticket), created_field="created_at")
    assert labels_since(source, since) == 3
    assert labels_since(source, None) == 4
    assert labels_since(source, timezone.now()) == 0
    undated = replace(source, created_field=None)
    assert labels_since(undated, since) == 2, "decisions alone have a date"


def words_of(name: str, count: int) -> str:
    """Return words that no text of another name has."""
    stem = name.translate(str.maketrans("0123456789", "qrstuvwxyz"))
    return " ".join(f"{stem}{letter}" for letter in "abcdefghijklmnop"[:count])


def hundred_days(*, days: int = 100) -> None:
    """Three tickets a day in words of their own, of every class."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    for day in range(days):
        for label in range(3):
            text = words_of(f"{'xyz'[label]}{day}", 8)
            Ticket.objects.bulk_create(
                [
                    Ticket(
                        subject=f"day {day}",
                        description=text,
                        priority=label,
                        created_at=first + timedelta(days=day),
                    )
                ]
            )


def timed_source() -> TicketSource:
    return replace(get_source(Ticket), text_fields=("description",), created_field="created_at")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00.000000+00:00"),
        (datetime(2026, 1, 2, 3), "2026-01-02T02:00:00.000000+00:00"),
        (date(2026, 1, 2), "2026-01-01T23:00:00.000000+00:00"),
        (datetime.min, ""),
        (None, ""),
        ("yesterday", ""),
    ],
)
def test_a_time_of_creation_is_kept_in_one_form(settings: Any, value: Any, expected: str) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    ticket = Ticket()
    ticket.created_at = value
    assert _created_at(ticket, "created_at") == expected
    assert _created_at(ticket, None) == ""


@pytest.mark.django_db
def test_the_newest_tickets_are_the_test() -> None:
    hundred_days()
    dataset = build([timed_source()])
    assert dataset.summary()["split"] == {"by": "time", "reason": ""}
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(rows) for rows in splits] == [210, 45, 45]
    oldest = [min(row.created_at for row in rows) for rows in splits]
    newest = [max(row.created_at for row in rows) for rows in splits]
    assert newest[0] <= oldest[1] <= newest[1] <= oldest[2]


@pytest.mark.django_db
def test_tickets_of_one_import_are_split_at_random() -> None:
    bulk(*((words_of(f"t{index}", 6), index % 3) for index in range(90)))
    dataset = build([timed_source()])
    assert dataset.summary()["split"] == {
        "by": "random",
        "reason": "the tickets were created on too few days: 1, not 14",
    }


@pytest.mark.django_db
@pytest.mark.parametrize("created_field", [None, "created_at"])
def test_near_copies_never_straddle(created_field: str | None) -> None:
    hundred_days()
    for ticket in Ticket.objects.filter(subject__in=["day 5", "day 50", "day 80"]):
        ticket.pk, ticket.description = None, f"{ticket.description} thanks"
        ticket.created_at = datetime(2026, 4, 10, tzinfo=UTC)
        Ticket.objects.bulk_create([ticket])
    dataset = build([replace(timed_source(), created_field=created_field)])
    figures = dataset.summary()
    assert figures["near_copies"]["rows_in_groups"] == 18
    assert figures["near_copies"]["largest"] == [2, 2, 2, 2, 2]
    assert figures["leakage"]["near_copies"] == 0
    places: dict[str, set[str]] = {}
    for name in ("train", "validation", "test"):
        for row in getattr(dataset, name):
            places.setdefault(row.group, set()).add(name)
    assert {len(splits) for splits in places.values()} == {1}
    assert len(places) == 300


@pytest.mark.django_db
def test_a_summary_counts_provenances_and_can_be_stored() -> None:
    bulk(*((words_of(f"t{index}", 6), index % 3) for index in range(90)))
    ticket_priority.override(Ticket.objects.filter(priority=2)[0], Priority.LOW)
    summary = build([get_source(Ticket)]).summary()
    assert summary["provenance"] == {"override": 1, "host": 89}
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.django_db
def test_texts_wait_in_a_private_file_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bulk(*((words_of(f"t{index}", 6), index % 3) for index in range(90)))
    dataset = build([get_source(Ticket)])
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    del dataset
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.django_db
def test_rows_at_hand_need_no_provenance() -> None:
    rows = [
        LabelledText(text=words_of(f"t{index}", 6), label=index % 3, pk=str(index))
        for index in range(90)
    ]
    rows[0] = replace(rows[0], provenance="host")
    assert assemble(rows).summary()["provenance"] == {"host": 1, "unknown": 89}


def kept_of(*pairs: tuple[str, int]) -> tuple[list[tuple[str, int]], Counter[str]]:
    """Return the pairs of text and label that deduplication keeps, and the counts of the others."""
    dropped: Counter[str] = Counter()
    digests, labels = digested(*pairs)
    kept = deduplicate(digests, labels, dropped=dropped)
    return [pairs[place] for place in kept], dropped


def digested(*pairs: tuple[str, int]) -> tuple[Any, Any]:
    digests = np.array([hashlib.sha256(text.encode()).digest() for text, _ in pairs], dtype="V32")
    return digests, np.array([label for _, label in pairs], dtype=np.int8)


def test_duplicates_go_and_the_majority_decides() -> None:
    kept, dropped = kept_of(("a", 1), ("a", 1), ("a", 2), ("b", 0), ("b", 2), ("c", 0))
    assert kept == [("a", 1), ("c", 0)]
    assert dropped == {"duplicate": 2, "conflicting labels": 2}
    assert kept_of() == ([], {})


def test_the_row_that_is_kept_bears_the_label_of_the_majority() -> None:
    assert kept_of(("a", 2), ("a", 1), ("a", 1))[0] == [("a", 1)]
