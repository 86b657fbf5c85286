from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from helpdesk.models import Ticket
from tests.conftest import publish_toy
from ticket_priority.classifiers import load
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.sources.registry import get_source
from ticket_priority.training.dataset import build

pytestmark = pytest.mark.django_db


@pytest.fixture
def labelled_tickets(db: None) -> None:
    from tests.ml.conftest import toy_rows

    Ticket.objects.bulk_create(
        [Ticket(subject=row.text, priority=row.label, language="en") for row in toy_rows(240, 5)]
    )


def evaluate(*arguments: str) -> str:
    out = StringIO()
    call_command("evaluate_priority_model", *arguments, stdout=out)
    return out.getvalue()


def test_the_active_version_is_scored_on_the_test_split_of_today(
    labelled_tickets: None, active_model: ModelVersion
) -> None:
    found = json.loads(evaluate("--json"))
    test = build([get_source(Ticket)]).test
    answers = load(active_model).classify([row.text for row in test])
    hits = sum(row.label == answer.priority for row, answer in zip(test, answers, strict=True))
    assert found["model_version"] == "toy-1"
    assert found["served"]["n"] == len(test)
    assert found["served"]["accuracy"] == pytest.approx(hits / len(test))
    assert found["served"]["by_language"]["en"]["n"] == len(test)
    assert found["served"]["majority"]["macro_f1"] < 0.5
    assert found["dataset"]["split"]["by"] == "random"
    assert found["robustness"]["n"] == len(test)
    kept = found["robustness"]["by_perturbation"]["html"]["kept"]
    assert kept == 1.0, "what the model reads is the same"
    low, high = found["served"]["intervals"]["accuracy"]
    said = evaluate()
    assert f"{found['served']['accuracy']:.3f} [{low:.3f}, {high:.3f}]" in said
    assert "majority" in said
    assert "\nhtml " in said
    assert "toy-1 (active)" in said


def test_nothing_is_written(labelled_tickets: None, active_model: ModelVersion) -> None:
    before = list(Ticket.objects.order_by("pk").values())
    evaluate()
    assert list(Ticket.objects.order_by("pk").values()) == before
    assert list(ModelVersion.objects.values("metrics")) == [{"metrics": active_model.metrics}]
    assert not Prediction.objects.exists()


def test_another_version_can_be_named(
    labelled_tickets: None, active_model: ModelVersion, toy_run: Any, artifact_root: Path
) -> None:
    publish_toy(toy_run, artifact_root, "toy-2")
    said = evaluate("toy-2")
    assert "Model version  toy-2\n" in said
    with pytest.raises(CommandError, match=r"no model version 'toy-3'. The newest: toy-2, toy-1"):
        evaluate("toy-3")


def test_it_is_said_where_the_version_may_know_the_test(
    labelled_tickets: None, active_model: ModelVersion
) -> None:
    assert "split in an unknown way, so it may have been trained on part" in evaluate()
    active_model.dataset = {"split": {"by": "time"}}
    active_model.save()
    assert "split differently, so it may have been trained on part" in evaluate()
    active_model.dataset = {"split": {"by": "random"}}
    active_model.save()
    assert "may have been trained" not in evaluate()


def test_no_active_version_is_named(db: None, fresh_classifier: None) -> None:
    with pytest.raises(CommandError, match="No model version is active"):
        evaluate()


def test_too_few_labels_are_named(active_model: ModelVersion) -> None:
    with pytest.raises(CommandError, match="There are 0 usable tickets"):
        evaluate()


def test_near_copies_alone_leave_no_test(active_model: ModelVersion) -> None:
    text = "the very same words about the very same printer on the third floor again and again"
    Ticket.objects.bulk_create(
        [Ticket(subject=f"{text} {n:03}", priority=n % 3) for n in range(90)]
    )
    with pytest.raises(CommandError, match="The test split is empty"):
        evaluate()


@pytest.mark.parametrize("option", ["--until=2026-01-01", "--limit=3"])
def test_what_belongs_to_a_replay_is_refused(active_model: ModelVersion, option: str) -> None:
    with pytest.raises(CommandError, match="give --since too"):
        evaluate(option)


def test_a_damaged_version_is_named(
    labelled_tickets: None, active_model: ModelVersion, artifact_root: Path
) -> None:
    (artifact_root / "toy-1" / "model.onnx").write_bytes(b"")
    with pytest.raises(CommandError, match="altered|checksum"):
        evaluate()
    active_model.refresh_from_db()
    assert active_model.load_error == "", "nothing is written"
