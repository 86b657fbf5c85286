"""A disk that fills up at each write on the way to a version, and under the tickets."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, transaction

import ticket_priority
from helpdesk.models import Ticket
from tests.ml.conftest import toy_rows
from tests.support.faults import full_database, full_disk
from ticket_priority.classifiers import load
from ticket_priority.exceptions import ArtifactError, TicketPriorityError
from ticket_priority.ml.__main__ import main
from ticket_priority.ml.artifacts import store
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.models.rows import content_type_of
from ticket_priority.predictions import outbox
from ticket_priority.sources.registry import get_source
from ticket_priority.starter.install import STARTER_DIRECTORY, install_linear
from ticket_priority.training import dataset, run

pytestmark = pytest.mark.django_db

State = Prediction.State


def call(name: str, *arguments: object) -> str:
    out = StringIO()
    call_command(name, *map(str, arguments), stdout=out)
    return out.getvalue()


@pytest.fixture
def labelled_tickets(db: None) -> None:
    Ticket.objects.bulk_create(
        [Ticket(subject=row.text, priority=row.label) for row in toy_rows(240, 5)]
    )


@pytest.fixture
def old(artifact_root: Path, fresh_classifier: None) -> ModelVersion:
    """Return a version that is active before the disk fills up."""
    version = install_linear()
    version.activate()
    return version


def is_as_it_was(root: Path, old: ModelVersion) -> bool:
    load(old).classify(["The printer is on fire."])
    return (
        list(ModelVersion.objects.all()) == [old]
        and ModelVersion.objects.active() == old
        and {path.name for path in root.iterdir()} <= {".training.lock", old.directory}
    )


@pytest.mark.parametrize("free_bytes", [0, 1_000, 1_000_000])
def test_an_import_says_that_there_is_no_room_and_succeeds_once_there_is(
    old: ModelVersion, artifact_root: Path, free_bytes: int
) -> None:
    with (
        full_disk(free_bytes),
        pytest.raises(CommandError, match="Check its permissions and free space"),
    ):
        call("import_priority_model", STARTER_DIRECTORY)
    assert is_as_it_was(artifact_root, old)
    call("import_priority_model", STARTER_DIRECTORY, "--activate=always")
    assert ModelVersion.objects.active() != old


@pytest.mark.parametrize(
    ("after", "free_bytes", "advice"),
    [
        ("Reading labelled", 1_000, "set TMPDIR to another folder"),
        ("Training on", 10, "Check the free space and the permissions of"),
        ("Training on", 3_000, "Check the free space and the permissions of"),
        ("Publishing", 4_000, "bring it in with `manage.py import_priority_model "),
    ],
    ids=["texts", "metrics.csv", "model", "artifact"],
)
def test_a_training_says_that_there_is_no_room_and_succeeds_once_there_is(
    labelled_tickets: None,
    old: ModelVersion,
    configure: Any,
    artifact_root: Path,
    after: str,
    free_bytes: int,
    advice: str,
) -> None:
    configure(TRAINING={"MODEL_NAME": "linear"})
    with ExitStack() as filled:

        def fill(line: str) -> None:
            if line.startswith(after):
                filled.enter_context(full_disk(free_bytes))

        with pytest.raises(TicketPriorityError, match=advice) as caught:
            run.train_model(run.configure(), progress=fill)
    assert is_as_it_was(artifact_root, old)
    outputs = artifact_root.parent / "outputs"
    assert not [*outputs.glob("*/.*"), *outputs.glob("*/*/.*")]
    kept = list(outputs.glob("*/*/artifact"))
    if after == "Publishing":
        assert f"import_priority_model {kept[0]}`" in str(caught.value)
        call("import_priority_model", kept[0], "--activate=always")
        assert ModelVersion.objects.first().dataset["rows"]["train"] > 0
    else:
        assert not kept
        call("train_priority_model", "--activate=always")
    assert ModelVersion.objects.active() != old


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_a_training_whose_version_finds_no_room_in_the_database_can_be_brought_in(
    labelled_tickets: None, old: ModelVersion, configure: Any, artifact_root: Path
) -> None:
    configure(TRAINING={"MODEL_NAME": "linear"})
    with ExitStack() as filled:

        def fill(line: str) -> None:
            if line.startswith("Comparing"):
                filled.enter_context(full_database())

        with pytest.raises(TicketPriorityError, match="not be registered: .* is full") as caught:
            run.train_model(run.configure(), progress=fill)
    assert is_as_it_was(artifact_root, old)
    (kept,) = artifact_root.parent.glob("outputs/*/*/artifact")
    assert str(kept) in str(caught.value)
    call("import_priority_model", kept, "--activate=always")
    assert ModelVersion.objects.active() != old


def test_an_export_appears_only_when_it_is_whole(labelled_tickets: None, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = dataset.build([get_source(Ticket)])
    assert len(rows) == 240
    with full_disk(2_000), pytest.raises(CommandError, match="TMPDIR"):
        call("export_training_data", path)
    assert not list(tmp_path.iterdir())


def test_an_artifact_that_finds_no_room_leaves_its_folder_empty(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with full_disk(1_000), pytest.raises(ArtifactError, match="Check its free space"):
        store.write(STARTER_DIRECTORY, out)
    assert not list(out.iterdir())
    assert store.write(STARTER_DIRECTORY, out).kind == "linear"


def test_training_from_a_file_says_so_too(
    labelled_tickets: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    call("export_training_data", data)
    arguments = ["fit", str(data), f"--out={tmp_path / 'out'}", "--model-name=linear", "--quiet"]
    arguments.append(f"--output-dir={tmp_path / 'outputs'}")
    with full_disk(3_000):
        assert main(arguments) == 1
    assert "Check the free space and the permissions of" in capsys.readouterr().err
    assert main(arguments) == 0


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "autocommit"])
class TestAFullDatabase:
    def test_saves_a_ticket_or_refuses_it_and_nothing_between(
        self, old: ModelVersion, configure: Any, mode: str, atomic: bool
    ) -> None:
        configure(MODE=mode)
        told: list[int] = []
        with full_database():
            for _ in range(400):
                with suppress(OperationalError):
                    told.append(open_ticket(atomic))
        assert list(Ticket.objects.order_by("pk").values_list("pk", flat=True)) == told
        assert len(told) < 400
        predicted = set(Prediction.objects.values_list("object_id", flat=True))
        prioritised = Ticket.objects.exclude(priority=None).values_list("pk", flat=True)
        assert {str(pk) for pk in prioritised} <= predicted <= {str(pk) for pk in told}
        if mode == "async":
            assert outbox.drain() == len(predicted) > 0

    def test_that_has_room_for_a_ticket_alone_saves_it(
        self, old: ModelVersion, configure: Any, mode: str, atomic: bool
    ) -> None:
        configure(MODE=mode)
        with ticket_priority.muted():
            last = Ticket.objects.create(subject="last", description="long " * 300)
        about = {"content_type": content_type_of(Ticket), "object_id": "0", "state": State.APPLIED}
        with full_database():
            with pytest.raises(OperationalError, match="full"):
                while True:
                    Prediction.objects.create(**about)
            last.delete()
            pk = open_ticket(atomic)
        assert Ticket.objects.get().pk == pk
        assert Ticket.objects.get().priority is None
        assert not Prediction.objects.exclude(object_id="0").exists()
        call("classify_tickets")
        assert Ticket.objects.get().priority is not None


def open_ticket(atomic: bool) -> int:
    with transaction.atomic() if atomic else nullcontext():
        return Ticket.objects.create(subject="Outage", description="Nothing works.").pk
