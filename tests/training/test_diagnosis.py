from __future__ import annotations

import json
import random
from collections.abc import Iterator
from io import StringIO
from math import sqrt
from pathlib import Path
from typing import Any, NoReturn

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from helpdesk.models import Ticket
from tests.support.settings import overlay
from ticket_priority.exceptions import TrainingError
from ticket_priority.sources.registry import get_source
from ticket_priority.training import diagnosis
from ticket_priority.training.dataset import collect
from ticket_priority.training.run import configure, train_model

pytestmark = pytest.mark.django_db

WORDS = ("printer", "letter", "window", "door", "coffee", "parking", "badge", "chair", "lamp")
CUES = (("typo", "wish", "font"), ("slow", "invoice", "refund"), ("outage", "fire", "breach"))
LANGUAGES = ("de", "en", "fr")


def texts(count: int) -> Iterator[str]:
    """Yield texts of which every third is about the same class, and no two are alike."""
    draw = random.Random(8)  # noqa: S311
    for index in range(count):
        own = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=9))
        words = draw.choices(WORDS, k=5) + draw.choices(CUES[index % 3], k=6) + [own]
        draw.shuffle(words)
        yield " ".join(words)


def fill(labels: list[int], **fields: list[Any]) -> None:
    Ticket.objects.bulk_create(
        Ticket(
            description=text,
            priority=label,
            **{name: values[place] for name, values in fields.items()},
        )
        for place, (text, label) in enumerate(zip(texts(len(labels)), labels, strict=True))
    )


def learnable(count: int) -> list[int]:
    return [index % 3 for index in range(count)]


def at_random(count: int) -> list[int]:
    draw = random.Random(2)  # noqa: S311
    return [draw.randrange(3) for _ in range(count)]


def diagnosed(**options: Any) -> diagnosis.Diagnosis:
    return diagnosis.diagnose(collect([get_source(Ticket)]), **options)


def check(*arguments: str) -> str:
    out = StringIO()
    call_command("check_training_data", *arguments, stdout=out)
    return out.getvalue()


def said(found: diagnosis.Diagnosis) -> str:
    return "\n".join(found.findings())


def test_good_labels_give_nothing_to_complain_of() -> None:
    fill(learnable(180), language=["en"] * 180)
    found = diagnosed()
    assert found.refusal == ""
    assert not found.has_nothing_to_learn
    assert found.suspects == []
    assert list(found.findings()) == [
        "The last quarter of the labels gave +0.0 points of macro F1 to a quick model: more labels "
        "would help little."
    ]
    assert found.figures["languages"] == {"en": 180}


def test_a_likely_mislabel_is_listed_by_its_key_and_its_text_only_on_demand() -> None:
    labels = learnable(180)
    labels[30] = 2
    fill(labels)
    ticket = Ticket.objects.order_by("pk")[30]
    listed = f"helpdesk.Ticket {ticket.pk}: high (host), looks low"
    plain = check()
    assert listed in plain
    assert "1 of 180 tickets is likely mislabelled." in plain
    assert "manage.py check_training_data" not in plain
    assert "near-copies;" not in plain, "there are none"
    assert ticket.description not in plain
    assert ticket.description in check("--show-texts")
    assert listed not in check("--suspects=0")
    (suspect,) = json.loads(check("--json"))["suspects"]
    assert suspect["pk"] == str(ticket.pk)
    assert "text" not in suspect


def test_nothing_to_learn_is_said_plainly_and_is_no_refusal() -> None:
    fill(at_random(180))
    found = diagnosed()
    assert found.has_nothing_to_learn
    assert "There is nothing to learn that a quick model could find" in said(found)
    assert found.refusal == ""
    assert "There is nothing to learn" in check()


@pytest.mark.parametrize("count", [6, 37])
def test_of_too_few_tickets_no_verdict_is_given(count: int) -> None:
    fill(at_random(count) if count > 6 else [0, 1, 0, 1, 0, 1])
    found = diagnosed()
    assert found.refusal.startswith(f"There are {count} usable tickets")
    fitted = found.figures["fitted"]
    assert fitted is None or fitted["p_value"] >= diagnosis.SIGNIFICANT
    assert not found.has_nothing_to_learn
    assert "nothing to learn" not in said(found)
    assert "more labels" not in said(found)


def test_one_is_told_in_the_singular() -> None:
    found = diagnosis.Diagnosis(
        {
            "small_classes": {"high": 1},
            "same_texts": {"conflicting": 0},
            "near_copies": {"conflicting": 1, "share": 0.0},
            "leakage": {"near_copies": 1},
            "fields": {},
            "fitted": {"p_value": 0.0, "likely_mislabels": 1, "rows": 90},
        }
    )
    assert list(found.findings()) == [
        "Only 1 ticket is high: figures about this class say little below 50.",
        "1 group of tickets with near-copies bears different labels; two of a group agree in 0% of "
        "the cases.",
        "1 test ticket has a near-copy among those to train: the figures will be too good.",
        "1 of 90 tickets is likely mislabelled.",
    ]


@pytest.mark.parametrize("count", ["-1", "many"])
def test_only_a_number_of_suspects_can_be_listed(count: str) -> None:
    with pytest.raises(CommandError, match="is not a whole number of at least 0"):
        check(f"--suspects={count}")


def test_a_field_that_alone_tells_the_label_is_named() -> None:
    labels = learnable(180)
    fill(labels, language=[LANGUAGES[label] for label in labels])
    assert "The language alone tells the label in 100% of the cases" in said(diagnosed())


def test_a_field_that_says_nothing_is_not() -> None:
    fill(learnable(180), language=[LANGUAGES[index // 60] for index in range(180)])
    found = diagnosed()
    assert found.figures["fields"]["language"]["values"] == 3
    assert "alone tells" not in said(found)


def test_a_field_with_a_value_for_each_ticket_tells_nothing() -> None:
    """Each value would give its own ticket away, so a ticket is judged by the others."""
    fill(learnable(180), language=[f"x{index}" for index in range(180)])
    assert diagnosed().figures["fields"]["language"]["accuracy"] == 0


def test_copies_that_disagree_bound_what_can_be_reached() -> None:
    """Of forty tickets that were asked twice, ten got another label the second time."""
    fill(learnable(120))
    for place, ticket in enumerate(Ticket.objects.order_by("pk")[:40]):
        label = (int(ticket.priority or 0) + (place < 10)) % 3
        Ticket.objects.bulk_create([Ticket(description=ticket.description, priority=label)])
    found = diagnosed()
    assert found.figures["same_texts"] == {"compared": 80, "conflicting": 10, "share": 0.75}
    assert found.figures["reach"]["ceiling"] == pytest.approx(sqrt(0.75))
    assert "10 groups of tickets with the same text bear different labels" in said(found)
    assert "agree in 75% of the cases" in said(found)
    assert "hardly more than 0.87" in check()


def test_near_copies_that_disagree_are_counted_too() -> None:
    fill(learnable(120))
    first = Ticket.objects.order_by("pk")[0]
    Ticket.objects.bulk_create(
        [Ticket(description=f"{first.description} 17!", priority=2 - int(first.priority or 0))]
    )
    found = diagnosed()
    assert found.figures["near_copies"]["conflicting"] == 1
    assert found.figures["reach"]["ceiling"] is None, "two tickets are too few to say"
    assert "How good a model could get is unknown" in check()


def test_a_small_class_is_named() -> None:
    labels = [label if label < 2 or place < 60 else 0 for place, label in enumerate(learnable(180))]
    fill(labels)
    assert "Only 20 tickets are high" in said(diagnosed())


def test_what_training_would_refuse_ends_with_an_error(settings: Any) -> None:
    fill([1] * 80)
    with pytest.raises(CommandError, match="Training would be refused. All 80 labelled") as caught:
        check()
    assert caught.value.returncode == 1


def test_an_empty_table_is_refused_and_not_a_traceback() -> None:
    with pytest.raises(CommandError, match="There are 0 usable tickets"):
        check()


def test_only_so_many_tickets_are_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "FITTED_ROWS", 90)
    fill(learnable(180))
    found = diagnosed()
    assert found.figures["fitted"]["rows"] == 90
    assert sum(found.figures["rows"].values()) == 180


def test_without_scikit_learn_what_can_be_counted_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diagnosis, "_EXAMINER", "no.such.package.examine")
    fill(learnable(180))
    found = diagnosed()
    assert found.figures["fitted"] is None
    assert found.figures["classes"]["test"] == {"low": 9, "medium": 9, "high": 9}
    assert 'django-ticket-priority[ml]", or [linear]' in check()


def refuse(*splits: object, **options: object) -> NoReturn:
    """A trainer, named by path."""
    raise TrainingError("as far as this test goes")


def test_training_says_first_what_the_labels_are_worth(settings: Any, artifact_root: Path) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY, TRAINING={"TRAINER": "tests.training.test_diagnosis.refuse"}
    )
    fill(at_random(180))
    lines: list[str] = []
    with pytest.raises(TrainingError, match="as far as this test goes"):
        train_model(configure(), sources=[get_source(Ticket)], progress=lines.append)
    assert any(line.startswith("Note: There is nothing to learn") for line in lines)
    assert "More about the labels: manage.py check_training_data" in lines
    assert any(line.startswith("Leakage: of ") for line in lines)
    assert any(line == "Labels by provenance: 180 host" for line in lines)
