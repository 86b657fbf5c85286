"""Training off the box: what the helpdesk exports and what it takes back."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

import ticket_priority
from helpdesk.models import Ticket
from tests.conftest import publish_toy
from tests.support.settings import overlay
from tests.training.test_run import spread_over_days
from ticket_priority.ml.__main__ import main
from ticket_priority.ml.artifacts import store
from ticket_priority.ml.data.jsonl import describe, read_splits
from ticket_priority.ml.types import TrainingConfig
from ticket_priority.models import ModelVersion
from ticket_priority.priorities import Priority
from ticket_priority.sources.registry import get_source
from ticket_priority.training.dataset import build
from ticket_priority.training.lock import hold

pytestmark = pytest.mark.django_db


@pytest.fixture
def labelled_tickets(db: None) -> None:
    from tests.ml.conftest import toy_rows

    Ticket.objects.bulk_create(
        [Ticket(subject=row.text, priority=row.label, language="en") for row in toy_rows(240, 5)]
    )


@pytest.fixture
def elsewhere(toy_run: Any, tmp_path: Path) -> Path:
    """Return an artifact as `python -m ticket_priority.ml fit` leaves it."""
    directory = tmp_path / "elsewhere"
    store.write(toy_run.artifact_dir, directory)
    return directory


def call(name: str, *arguments: object) -> str:
    out = StringIO()
    call_command(name, *map(str, arguments), stdout=out)
    return out.getvalue()


def test_an_export_holds_what_training_here_would_see(
    labelled_tickets: None, tmp_path: Path
) -> None:
    ticket_priority.override(Ticket.objects.filter(priority=2)[0], Priority.LOW)
    path = tmp_path / "data.jsonl"
    said = call("export_training_data", path)
    dataset = build([get_source(Ticket)])
    found, split_by = read_splits(path)
    for name in ("train", "validation", "test"):
        assert list(found[name]) == list(getattr(dataset, name))
    assert describe(found, split_by)["fingerprint"] == dataset.fingerprint
    assert split_by == "random"
    assert len({row.group for row in found["train"]}) > 100
    provenances = [row.provenance for rows in found.values() for row in rows]
    assert provenances.count("override") == 1
    assert "Labels by provenance: 1 override, " in said
    assert str(path) in said


def test_only_its_owner_may_read_an_export(labelled_tickets: None, tmp_path: Path) -> None:
    call("export_training_data", tmp_path / "data.jsonl")
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_export_replaces_no_file_unless_it_is_told_to(
    labelled_tickets: None, tmp_path: Path
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("mine")
    with pytest.raises(CommandError, match="exists already"):
        call("export_training_data", path)
    assert path.read_text() == "mine"
    summary = json.loads(call("export_training_data", path, "--force", "--json"))
    assert summary["file"] == str(path)
    assert sum(summary["rows"].values()) == len(path.read_text().splitlines())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_export_that_cannot_be_written_is_named(labelled_tickets: None, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be written: No such file or directory"):
        call("export_training_data", tmp_path / "nowhere" / "data.jsonl")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 300, "cannot be written: File name too long"),
        ("nowhere/data.jsonl", "cannot be written: No such file or directory"),
        ("folder", "is a folder"),
    ],
)
def test_a_bad_target_is_named_before_the_tickets_are_read(
    tmp_path: Path, name: str, message: str
) -> None:
    """Of an empty table, whoever reads it first says that there is no ticket."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(CommandError, match=message):
        call("export_training_data", tmp_path / name, "--force")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize(
    "command",
    [
        ("check_training_data",),
        ("classify_tickets",),
        ("export_training_data", "data.jsonl"),
        ("import_priority_model", "artifact"),
        ("train_priority_model",),
    ],
    ids=lambda command: command[0],
)
def test_an_unknown_database_is_named(command: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="--database: invalid choice: 'nope'"):
        call(*command, "--database=nope")


def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no ticket whose priority a person set"):
        call("export_training_data", tmp_path / "data.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_an_imported_model_serves(
    elsewhere: Path, artifact_root: Path, fresh_classifier: None
) -> None:
    said = call("import_priority_model", elsewhere)
    version = ModelVersion.objects.get()
    assert version.is_active
    assert version.digest == store.read(elsewhere).digest
    assert version.config["max_epochs"] == 10
    assert version.base_model == version.config["model_name"]
    assert version.metrics["model"]["accuracy"] > 0.8
    assert "too few" not in said
    assert "There are 0 usable tickets" in said
    assert version.name in said
    assert Ticket.objects.create(subject="outage fire breach").priority == Priority.HIGH


def test_an_imported_model_says_what_it_was_trained_on(
    toy_run: Any, artifact_root: Path, tmp_path: Path, fresh_classifier: None
) -> None:
    staged = tmp_path / "staged"
    store.write(toy_run.artifact_dir, staged)
    (staged / "dataset.json").write_text('{"rows": {"train": 240}}')
    (staged / "manifest.json").unlink()
    store.write(staged, tmp_path / "elsewhere")
    outcome = json.loads(call("import_priority_model", tmp_path / "elsewhere", "--json"))
    assert outcome["activated"] is True
    assert ModelVersion.objects.get().dataset == {"rows": {"train": 240}} == outcome["dataset"]


def test_an_imported_model_must_be_no_worse_on_the_tickets_here(
    labelled_tickets: None,
    elsewhere: Path,
    active_model: ModelVersion,
) -> None:
    said = call("import_priority_model", elsewhere)
    imported = ModelVersion.objects.exclude(pk=active_model.pk).get()
    assert imported.is_active, "the same model is no worse than itself"
    assert "of toy-1" in said
    assert imported.metrics["served"]["n"] > 0
    assert "the labelled tickets here" in said
    assert "its own test split" in said


def test_an_import_is_not_compared_where_the_active_version_knew_the_test(
    labelled_tickets: None, elsewhere: Path, artifact_root: Path, fresh_classifier: None
) -> None:
    spread_over_days()
    call("train_priority_model", "--model-name=linear")
    ours = ModelVersion.objects.active()
    assert ours is not None
    Ticket.objects.update(created_at=timezone.now())
    said = call("import_priority_model", elsewhere)
    assert f"not comparable: {ours.name} was trained on tickets that were split differ" in said
    assert ModelVersion.objects.active() == ours
    call("import_priority_model", elsewhere, "--activate=always")
    assert ModelVersion.objects.active() != ours


def test_imports_from_exports_are_compared_with_each_other(
    labelled_tickets: None, artifact_root: Path, tmp_path: Path, fresh_classifier: None
) -> None:
    call("export_training_data", tmp_path / "data.jsonl")
    for name in ("first", "second"):
        arguments = [str(tmp_path / "data.jsonl"), "--out", str(tmp_path / name), "--quiet"]
        assert main(["fit", *arguments, "--model-name=linear", f"--output-dir={tmp_path}"]) == 0
    call("import_priority_model", tmp_path / "first")
    first = ModelVersion.objects.active()
    assert first is not None
    said = call("import_priority_model", tmp_path / "second")
    assert f"of {first.name}" in said
    assert ModelVersion.objects.active() != first


def test_a_starter_knew_none_of_the_tickets_here(
    labelled_tickets: None, elsewhere: Path, artifact_root: Path, fresh_classifier: None
) -> None:
    call("activate_priority_model", "--starter=linear")
    starter = ModelVersion.objects.active()
    assert starter is not None
    assert starter.dataset["split"]["by"] == "time", "unlike the tickets here"
    said = call("import_priority_model", elsewhere)
    assert f"of {starter.name}" in said
    assert ModelVersion.objects.active() != starter


def test_a_model_that_is_worse_on_the_tickets_here_does_not_serve(
    labelled_tickets: None, active_model: ModelVersion, tmp_path: Path
) -> None:
    """It was trained elsewhere, where high meant low."""
    from tests.ml.conftest import toy_rows, write_tiny_encoder
    from ticket_priority.ml.trainers.pipeline import fit

    (tmp_path / "encoder").mkdir()
    train, validation, test = (
        [replace(row, label=2 - row.label) for row in toy_rows(count, seed)]
        for count, seed in ((240, 1), (36, 2), (36, 3))
    )
    config = TrainingConfig(
        model_name=str(write_tiny_encoder(tmp_path / "encoder")),
        output_dir=str(tmp_path / "outputs"),
        batch_size=16,
        max_length=48,
        learning_rate=2e-3,
        accelerator="cpu",
        precision="32-true",
        threads=1,
        quantize=False,
    )
    result = fit(train, validation, test, config, show_progress_bar=False)
    store.write(result.artifact_dir, tmp_path / "elsewhere")
    said = call("import_priority_model", tmp_path / "elsewhere")
    assert "of toy-1, which stays active" in said
    assert ModelVersion.objects.count() == 2
    assert ModelVersion.objects.active() == active_model


@pytest.mark.parametrize(
    ("activate", "activated", "reason"),
    [
        ("if-better", False, "toy-1 stays active: there are too few labelled tickets"),
        ("always", True, "activation was asked for: there are too few labelled tickets"),
        ("never", False, "activation was not asked for"),
    ],
)
def test_without_labelled_tickets_nothing_replaces_the_active_model_unasked(
    elsewhere: Path, active_model: ModelVersion, activate: str, activated: bool, reason: str
) -> None:
    said = call("import_priority_model", elsewhere, f"--activate={activate}")
    imported = ModelVersion.objects.exclude(pk=active_model.pk).get()
    assert bool(imported.is_active) is activated
    assert reason in said


def test_an_altered_artifact_is_refused(elsewhere: Path, artifact_root: Path) -> None:
    with (elsewhere / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CommandError, match="differs from its checksum"):
        call("import_priority_model", elsewhere)
    assert not ModelVersion.objects.exists()
    assert [path.name for path in artifact_root.iterdir()] == [".training.lock"]


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path, artifact_root: Path) -> None:
    with pytest.raises(CommandError, match="holds no readable artifact") as caught:
        call("import_priority_model", tmp_path / "nothing")
    assert "train again" not in str(caught.value)


def test_files_that_the_manifest_does_not_list_stay_outside(
    elsewhere: Path, artifact_root: Path, fresh_classifier: None
) -> None:
    (elsewhere / ".DS_Store").touch()
    (elsewhere / "code.py").write_text("raise SystemExit")
    call("import_priority_model", elsewhere)
    directory = artifact_root / ModelVersion.objects.get().directory
    assert not {".DS_Store", "code.py"} & {path.name for path in directory.iterdir()}


def _without_weights(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def _of_unknown_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "kind": "oracle"}))


def _whole(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "classifier", "message"),
    [
        (
            _without_weights,
            "ticket_priority.ml.serving.onnx.OnnxClassifier",
            "model.onnx is missing",
        ),
        (_of_unknown_kind, "ticket_priority.ml.serving.onnx.OnnxClassifier", "of kind 'oracle'"),
        (_whole, "tests.support.classifiers.FailingClassifier", "no memory left for the model"),
    ],
)
@pytest.mark.parametrize("activate", ["always", "never"])
def test_an_artifact_that_cannot_be_served_is_refused(
    toy_run: Any,
    tmp_path: Path,
    artifact_root: Path,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Path], None],
    classifier: str,
    message: str,
    activate: str,
) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY, SERVING={"CLASSIFIERS": {"transformer": classifier}}
    )
    staged = tmp_path / "staged"
    shutil.copytree(toy_run.artifact_dir, staged)
    change(staged)
    store.write(staged, tmp_path / "elsewhere")
    with pytest.raises(CommandError, match="cannot be served here") as caught:
        call("import_priority_model", tmp_path / "elsewhere", f"--activate={activate}")
    assert message in str(caught.value)
    assert "Traceback" not in caplog.text
    assert not ModelVersion.objects.exists()
    assert [path.name for path in artifact_root.iterdir()] == [".training.lock"]


def test_an_artifact_without_figures_is_imported_and_reported(
    toy_run: Any, tmp_path: Path, artifact_root: Path, fresh_classifier: None
) -> None:
    staged = tmp_path / "staged"
    shutil.copytree(toy_run.artifact_dir, staged)
    (staged / "metrics.json").write_text('{"model": {}}')
    store.write(staged, tmp_path / "elsewhere")
    said = call("import_priority_model", tmp_path / "elsewhere")
    assert ModelVersion.objects.get().name in said
    assert "precision / recall" not in said


def test_an_import_waits_for_no_training(
    elsewhere: Path, artifact_root: Path, toy_run: Any
) -> None:
    publish_toy(toy_run, artifact_root, "toy-1")
    with (
        hold(artifact_root),
        pytest.raises(CommandError, match="Another training run"),
    ):
        call("import_priority_model", elsewhere)
