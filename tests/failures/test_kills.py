"""What a process leaves behind that is killed, whenever that happens."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from helpdesk.models import Ticket
from tests.support.classifiers import known_probabilities
from tests.support.kills import finished, killed_at_each_step
from ticket_priority import tasks
from ticket_priority.classifiers import load
from ticket_priority.ml.artifacts import store
from ticket_priority.ml.types import CLASS_NAMES
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.reports import backlog
from ticket_priority.sources.registry import get_source
from ticket_priority.starter.install import STARTER_DIRECTORY, install_linear
from ticket_priority.training.artifact_import import import_model
from ticket_priority.training.registration import is_registered, owner

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

State = Prediction.State


def test_a_process_that_is_killed_while_it_publishes_leaves_no_half_artifact(
    tmp_path: Path,
) -> None:
    staged, root = tmp_path / "staged", tmp_path / "root"
    staged.mkdir()
    root.mkdir()
    config = {"kind": "linear", "classes": list(CLASS_NAMES)}
    (staged / "config.json").write_text(json.dumps(config))
    (staged / "metrics.json").write_text("{}")
    (staged / "model.safetensors").write_bytes(b"weights")
    steps = []
    for step in killed_at_each_step(
        lambda: store.publish(staged, root, f"v{len(steps)}"), below=root
    ):
        for folder in root.glob("[!.]*"):
            store.read(folder)
        steps.append(step)
    assert {"open model.safetensors", "open manifest.json"} < set(steps)
    assert [step for step in steps if step.startswith("os.rename .v")]
    store.read(root / f"v{len(steps)}")
    store.sweep(root, owner="", is_registered=lambda name: True)
    assert not list(root.glob(".*"))


def test_a_process_that_is_killed_while_it_brings_in_a_version_leaves_one_that_serves(
    artifact_root: Path, fresh_classifier: None
) -> None:
    old = install_linear()
    old.activate()
    steps = []
    for step in killed_at_each_step(
        lambda: import_model(STARTER_DIRECTORY, sources=[], activate="always"),
        below=artifact_root,
    ):
        steps.append(step)
        versions = list(ModelVersion.objects.all())
        for version in versions:
            load(version).classify(["The printer is on fire."])
        assert [version.is_active for version in versions].count(True) == 1, step
        if "COMMIT" not in steps[:-1]:
            assert ModelVersion.objects.active() == old, step
        # What the next training or import begins with.
        store.sweep(artifact_root, owner=owner(), is_registered=is_registered)
        folders = {version.directory for version in versions}
        assert {path.name for path in artifact_root.iterdir()} - {".training.lock"} == folders, step
    newest = ModelVersion.objects.first()
    assert ModelVersion.objects.active() == newest != old
    expected = ("os.rename .", "INSERT INTO", "UPDATE", "COMMIT", "os.remove .")
    assert all(any(step.startswith(start) for step in steps) for start in expected)


@pytest.fixture
def served_by(active_model: ModelVersion, configure: Callable[..., None]) -> Callable[[str], None]:
    """Return a function that has workers ask a classifier of the tests, three times at most."""

    def serve(name: str) -> None:
        path = f"tests.support.classifiers.{name}"
        configure(
            MODE="async", SERVING={"CLASSIFIERS": {"transformer": path}}, QUEUE={"MAX_ATTEMPTS": 3}
        )

    return serve


def open_tickets(*subjects: str) -> list[Ticket]:
    return [Ticket.objects.create(subject=each, description="Help!") for each in subjects]


def let_claims_expire() -> None:
    Prediction.objects.exclude(claimed_at=None).update(
        claimed_at=timezone.now() - timedelta(hours=1)
    )


def test_a_worker_that_is_killed_at_any_step_answers_each_ticket_once(
    served_by: Callable[[str], None],
) -> None:
    served_by("KnownClassifier")
    tickets = open_tickets("first", "second")
    steps = []
    for step in killed_at_each_step(tasks.drain_predictions):
        steps.append(step)
        decided = Prediction.objects.filter(state=State.APPLIED)
        known = dict(decided.values_list("pk", "decided_at"))
        let_claims_expire()
        # Also where it had done all, and only its broker does not know.
        assert tasks.drain_predictions() == 2 - len(known), step
        assert dict(decided.filter(pk__in=known).values_list("pk", "decided_at")) == known, step
        assert [*decided.order_by("object_id").values_list("object_id", flat=True)] == sorted(
            str(ticket.pk) for ticket in tickets
        ), step
        for ticket in tickets:
            ticket.refresh_from_db()
            chances = known_probabilities(get_source(Ticket).text_of(ticket))
            assert ticket.priority == chances.index(max(chances)), step
        assert tasks.drain_predictions() == 0
        Prediction.objects.all().delete()
        tickets = open_tickets("first", "second")
    assert steps.count("COMMIT") > 2
    assert [step for step in steps if step.startswith("UPDATE") and "helpdesk_ticket" in step]


def test_a_ticket_that_kills_workers_is_given_up_and_holds_up_no_other(
    served_by: Callable[[str], None],
) -> None:
    served_by("DeadlyClassifier")
    open_tickets("first", "poison", "second")
    ends = []
    while not ends or ends[-1]:
        ends.append(finished(tasks.drain_predictions))
        let_claims_expire()
    assert ends == [signal.SIGKILL] * 3 + [0]
    _assert_only_poison_failed()


def test_a_ticket_that_takes_too_much_memory_is_given_up_and_the_worker_lives(
    served_by: Callable[[str], None],
) -> None:
    served_by("GreedyClassifier")
    open_tickets("first", "poison", "second")

    def work_with_little_memory() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (256 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        assert tasks.drain_predictions() == 2
        for _ in range(3):
            let_claims_expire()
            assert tasks.drain_predictions() == 0

    assert finished(work_with_little_memory) == 0
    _assert_only_poison_failed()


def _assert_only_poison_failed() -> None:
    (failed,) = Prediction.objects.filter(state=State.FAILED)
    assert Ticket.objects.get(pk=failed.object_id).subject == "poison"
    assert failed.attempts == 3
    assert backlog.read().failed == 1
    assert Prediction.objects.filter(state=State.APPLIED).count() == 2
    assert Ticket.objects.filter(priority=None).get().subject == "poison"
