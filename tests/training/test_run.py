from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.utils import timezone

from helpdesk.models import Ticket
from tests.conftest import publish_toy
from tests.support.settings import overlay
from ticket_priority.classifiers import get_classifier, load
from ticket_priority.exceptions import TrainingError, TrainingInProgressError
from ticket_priority.ml.hyperparameters import presets
from ticket_priority.models import ModelVersion
from ticket_priority.sources.registry import get_source
from ticket_priority.training import dataset as datasets
from ticket_priority.training import lock as training_lock
from ticket_priority.training import run as training

pytestmark = pytest.mark.django_db


@pytest.fixture
def labelled_tickets(db: None) -> None:
    from tests.ml.conftest import toy_rows

    Ticket.objects.bulk_create(
        [Ticket(subject=row.text, priority=row.label) for row in toy_rows(240, 5)]
    )


def spread_over_days() -> None:
    """Give each ticket a day of its own, so that they are split by time."""
    tickets = list(Ticket.objects.order_by("pk"))
    for age, ticket in enumerate(tickets):
        ticket.created_at = timezone.now() - timedelta(days=age)
    Ticket.objects.bulk_update(tickets, ["created_at"])


@pytest.fixture
def tiny_training(
    settings: Any, artifact_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Make the settings train a tiny encoder in seconds; return ARTIFACT_ROOT."""
    from tests.ml.conftest import write_tiny_encoder

    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        TRAINING={
            "MODEL_NAME": str(write_tiny_encoder(tmp_path_factory.mktemp("encoder"))),
            "HYPERPARAMETERS": {
                "max_epochs": 10,
                "batch_size": 16,
                "max_length": 48,
                "patience": None,
                "learning_rate": 2e-3,
                "accelerator": "cpu",
                "threads": 1,
                "precision": "32-true",
                "ensemble": False,
                "few_labels": 0,
            },
        },
    )
    return artifact_root


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("train_priority_model", *arguments, stdout=out)
    return out.getvalue()


def test_the_table_trains_a_version_that_serves(
    labelled_tickets: None, tiny_training: Path, fresh_classifier: None
) -> None:
    printed = run("--verbosity=1")
    version = ModelVersion.objects.get()
    assert version.is_active
    assert version.metrics["model"]["accuracy"] >= 0.8
    assert version.dataset["rows"]["test"] > 0
    assert {path.name for path in (tiny_training / version.directory).iterdir()} == {
        "config.json",
        "manifest.json",
        "metrics.json",
        "model.onnx",
        "model.safetensors",
        "tokenizer.json",
    }
    assert list(Path(version.run_directory, "checkpoints").glob("epoch=*-step=*.ckpt"))
    for word in ("TF-IDF + LR", "majority", "macro F1", version.name, str(tiny_training)):
        assert word in printed
    ticket = Ticket.objects.create(subject="outage fire breach", description="down lost")
    assert ticket.priority == 2


def test_a_linear_version_trains_serves_and_meets_the_same_gate(
    labelled_tickets: None, artifact_root: Path, fresh_classifier: None
) -> None:
    printed = run("--model-name=linear")
    version = ModelVersion.objects.get()
    assert (version.kind, version.base_model, version.is_active) == ("linear", "linear", True)
    assert version.metrics["model"]["accuracy"] >= 0.9
    assert {path.name for path in (artifact_root / version.directory).iterdir()} == {
        "config.json",
        "manifest.json",
        "metrics.json",
        "model.safetensors",
    }
    assert "macro F1" in printed
    assert "does better than this model" not in printed
    ticket = Ticket.objects.create(subject="outage fire breach", description="down lost")
    assert ticket.priority == 2
    assert get_classifier().model_version == version
    assert f"of {version.name}" in run("--model-name=linear", "--activate=if-better")


def test_a_version_keeps_its_figures_as_it_is_served(
    labelled_tickets: None, tiny_training: Path, fresh_classifier: None
) -> None:
    outcome = json.loads(run("--json", "--epochs=1", "--activate=never"))
    version = ModelVersion.objects.get()
    assert outcome["activated"] is False
    assert ModelVersion.objects.active() is None
    assert outcome["metrics"] == version.metrics
    assert outcome["metrics"]["tfidf_logreg"]["accuracy"] >= 0
    served, trained = version.metrics["served"], version.metrics["model"]
    classifier = load(version)
    test = datasets.build([get_source(Ticket)]).test
    answers = [answer.priority for answer in classifier.classify([row.text for row in test])]
    hits = sum(row.label == answer for row, answer in zip(test, answers, strict=True))
    assert served["accuracy"] == pytest.approx(hits / len(test))
    assert version.metrics["robustness"]["n"] == len(test)
    assert served["n"] == trained["n"] == len(test)
    assert served["majority"]["confusion_matrix"] == version.metrics["majority"]["confusion_matrix"]
    assert outcome["gate"] == {"majority": None, "active": None}, "it was not asked for"


def test_the_gate_says_by_how_much_and_how_surely(
    labelled_tickets: None, artifact_root: Path, fresh_classifier: None
) -> None:
    first = json.loads(run("--model-name=linear", "--json"))
    assert first["activated"] is True
    assert first["gate"]["active"] is None
    assert first["gate"]["majority"]["interval"][0] > 0
    assert "no version was active; macro_f1" in first["reason"]
    again = json.loads(run("--model-name=linear", "--json"))
    assert again["gate"]["active"]["difference"] == 0
    assert again["gate"]["active"]["interval"] == [0, 0]
    assert "a difference of +0.000 (90% interval +0.000 to +0.000), worse in 0%" in again["reason"]


def test_what_is_no_better_than_the_most_frequent_class_does_not_serve(
    labelled_tickets: None, tiny_training: Path, fresh_classifier: None
) -> None:
    outcome = json.loads(run("--json", "--epochs=1", "--learning-rate=1e-9"))
    assert outcome["activated"] is False
    assert "not shown to be better than the most frequent class alone" in outcome["reason"]
    assert "To overrule it, pass --activate=always" in outcome["reason"]
    assert ModelVersion.objects.active() is None
    assert json.loads(run("--json", "--epochs=1", "--learning-rate=1e-9", "--activate=always"))[
        "activated"
    ]


def test_a_worse_version_is_registered_but_does_not_serve(
    labelled_tickets: None, tiny_training: Path, fresh_classifier: None
) -> None:
    run("--model-name=linear")
    good = ModelVersion.objects.active()
    assert good is not None
    printed = run("--epochs=1", "--learning-rate=1e-7", "--seed=3")
    assert ModelVersion.objects.count() == 2
    assert ModelVersion.objects.active() == good
    assert "stays active" in printed
    assert "favours" not in printed
    listed = StringIO()
    call_command("activate_priority_model", "--list", "--json", stdout=listed)
    for row in json.loads(listed.getvalue()):
        served = ModelVersion.objects.get(name=row["name"]).metrics["served"]
        assert row["macro_f1"] == served["macro_f1"]


def test_where_the_kind_of_split_changed_it_is_said_whom_the_comparison_favours(
    labelled_tickets: None, tiny_training: Path, fresh_classifier: None
) -> None:
    spread_over_days()
    run("--model-name=linear")
    good = ModelVersion.objects.active()
    assert good is not None
    assert good.dataset["split"]["by"] == "time"
    Ticket.objects.update(created_at=timezone.now())
    outcome = json.loads(run("--json", "--epochs=1", "--learning-rate=1e-7", "--seed=3"))
    assert outcome["dataset"]["split"]["by"] == "random"
    assert ModelVersion.objects.active() == good
    assert f"of {good.name}, which stays active: a difference of -" in outcome["reason"]
    assert "Its tickets were split differently, so it may have been" in outcome["reason"]
    assert "trained on part of this test, which favours it" in outcome["reason"]
    assert f"activate_priority_model {outcome['model_version']}" in outcome["reason"]
    equal = json.loads(run("--json", "--model-name=linear"))
    assert equal["activated"] is True, "it is no worse all the same"


def test_a_version_that_cannot_be_served_is_registered_and_stays_inactive(
    labelled_tickets: None, artifact_root: Path, settings: Any
) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        SERVING={"CLASSIFIERS": {"linear": "tests.support.classifiers.FailingClassifier"}},
    )
    printed = run("--model-name=linear", "--activate=always")
    assert "cannot be served" in printed
    assert ModelVersion.objects.active() is None


@pytest.mark.parametrize(("name", "value"), [("GATE_METRIC", "f1"), ("GATE_TOLERANCE", "1%")])
def test_an_impossible_gate_is_found_before_training(
    labelled_tickets: None, tiny_training: Path, settings: Any, name: str, value: str
) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, TRAINING={name: value})
    with pytest.raises(CommandError, match=name):
        run()
    assert not (tiny_training.parent / "outputs").exists()


def test_another_training_at_the_same_time_is_refused(
    labelled_tickets: None, tiny_training: Path
) -> None:
    with (
        training_lock.hold(tiny_training),
        pytest.raises(TrainingInProgressError, match="Another training run"),
    ):
        training.train_model(training.configure(), sources=[get_source(Ticket)])
    assert not ModelVersion.objects.exists()


def test_an_output_directory_that_cannot_be_written_is_named(
    labelled_tickets: None, tiny_training: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="cannot be written"):
        run(f"--output-dir={tmp_path / 'file' / 'outputs'}")
    assert not ModelVersion.objects.exists()


def test_an_artifact_root_that_cannot_be_written_is_named(
    labelled_tickets: None, tiny_training: Path, settings: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "ARTIFACT_ROOT": tmp_path / "file/x"}
    with pytest.raises(CommandError, match="ARTIFACT_ROOT"):
        run()


def test_too_few_tickets_leave_everything_as_it_was(db: None, tiny_training: Path) -> None:
    with pytest.raises(CommandError, match="There are 0 usable tickets"):
        run()
    assert not ModelVersion.objects.exists()
    assert [path.name for path in tiny_training.iterdir()] == [".training.lock"]


def test_a_missing_checkpoint_is_named(labelled_tickets: None, tiny_training: Path) -> None:
    with pytest.raises(CommandError, match=r"nowhere\.ckpt"):
        run("--resume=nowhere.ckpt")
    assert not ModelVersion.objects.exists()


def test_training_can_be_resumed(
    labelled_tickets: None, tiny_training: Path, fresh_classifier: None
) -> None:
    run("--epochs=2", "--activate=never")
    first = ModelVersion.objects.get()
    checkpoint = next(Path(first.run_directory, "checkpoints").glob("epoch=1-*.ckpt"), None)
    checkpoint = checkpoint or next(Path(first.run_directory, "checkpoints").glob("last*.ckpt"))
    run("--epochs=4", f"--resume={checkpoint}", "--activate=never")
    second = ModelVersion.objects.exclude(pk=first.pk).get()
    rows = Path(second.run_directory).rglob("metrics.csv")
    epochs = {
        line.split(",")[0] for path in rows for line in path.read_text().splitlines()[1:] if line
    }
    assert "0" not in epochs


def test_an_impossible_configuration_is_a_named_error(db: None) -> None:
    with pytest.raises(TrainingError, match="max_epochs"):
        training.configure(max_epochs=0)


def test_the_settings_are_the_default_and_arguments_come_first(settings: Any) -> None:
    settings.TICKET_PRIORITY = {
        "TRAINING": {"MODEL_NAME": "a/b", "HYPERPARAMETERS": {"max_epochs": 7, "seed": 1}}
    }
    config = training.configure(seed=2, max_length=None)
    assert config.model_name == "a/b"
    assert (config.max_epochs, config.seed) == (7, 2)
    assert config.max_length == presets.configure("a/b").max_length
    assert training.configure("baseline").model_name == "linear"
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, TRAINING={"PRESET": "best"})
    assert training.configure().seeds == presets.configure("a/b", "best").seeds
    with pytest.raises(TrainingError, match="no preset 'quick'"):
        training.configure("quick")


def test_rollback_is_one_command(
    active_model: ModelVersion, toy_run: Any, artifact_root: Path
) -> None:
    second = publish_toy(toy_run, artifact_root, "toy-2")
    call_command("activate_priority_model", "toy-2", stdout=StringIO())
    assert get_classifier().model_version == second
    call_command("activate_priority_model", "--previous", stdout=StringIO())
    assert get_classifier().model_version == active_model


def test_a_damaged_version_cannot_be_activated(
    active_model: ModelVersion, toy_run: Any, artifact_root: Path
) -> None:
    publish_toy(toy_run, artifact_root, "toy-2")
    (artifact_root / "toy-2" / "model.onnx").write_bytes(b"")
    with pytest.raises(CommandError, match="was not activated"):
        call_command("activate_priority_model", "toy-2", stdout=StringIO())
    assert ModelVersion.objects.active() == active_model


def test_an_unknown_version_is_named(active_model: ModelVersion) -> None:
    with pytest.raises(CommandError, match="toy-1"):
        call_command("activate_priority_model", "nothing", stdout=StringIO())


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_ctrl_c_leaves_the_active_model_as_it_was(
    labelled_tickets: None, tiny_training: Path, active_model: ModelVersion, settings: Any
) -> None:
    """A real process, a real SIGINT in the middle of an epoch."""
    process = subprocess.Popen(
        [
            *(sys.executable, "manage.py", "train_priority_model", "--epochs=100000"),
            *("--learning-rate=1e-9", "--patience=100000", "--max-length=48", "--threads=1"),
            *("--trainable-layers=2", "--few-labels=0"),
        ],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "helpdesk.settings",
            "HELPDESK_DATABASE_NAME": connection.settings_dict["NAME"],
            "HELPDESK_ARTIFACT_ROOT": str(tiny_training),
            "HELPDESK_OUTPUT_DIR": str(tiny_training.parent / "outputs"),
            "HELPDESK_MODEL_NAME": settings.TICKET_PRIORITY["TRAINING"]["MODEL_NAME"],
        },
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if any(tiny_training.parent.rglob("*.ckpt")):
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "The active model is as it was" in printed
    assert list(ModelVersion.objects.all()) == [active_model]
    assert ModelVersion.objects.active() == active_model
    assert sorted(path.name for path in tiny_training.iterdir()) == [".training.lock", "toy-1"]
