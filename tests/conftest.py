"""A model that really serves: a tiny encoder, trained once a run and published."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from tests.support.classifiers import FaultyClassifier
    from ticket_priority.models import ModelVersion

# A test may import onnxruntime before the plugin does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Tests run side by side: more threads than cores make each of them many times slower.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

SLOW = (
    "tests/starter/test_install.py::test_the_command_builds_what_is_shipped",
    "tests/queues/test_django_q.py::",
    "tests/test_plug_in.py::test_a_walk",
    "tests/training/test_schedule.py::TestRealProcesses",
    "tests/training/test_run.py::",
    "tests/ml/test_main.py::",
    "tests/ml/trainers/",
    "tests/starter/test_install.py::TestBetter",
    "tests/training/test_certify.py::",
    "tests/training/test_diagnosis.py::",
    "tests/training/test_exchange.py::",
    "tests/training/test_time_limit.py::",
    "tests/failures/test_full_disk.py::",
    "tests/failures/test_hostile_tickets.py::",
    "tests/failures/test_kills.py::",
    "tests/failures/test_tampering.py::",
    "tests/api/test_fuzz.py::",
    "tests/browser/",
    "tests/prometheus/test_processes.py::",
    "tests/helpdesk/test_wsgi.py::",
    "tests/test_isolation.py::",
    "tests/test_packaging.py::",
    "tests/test_plug_in.py::test_a_session",
)
"""Beginnings of the ids of tests that train, wait or start processes, the longest first."""

ONE_WORKER = (
    "tests/training/test_schedule.py::TestRealProcesses",
    "tests/ml/trainers/test_pipeline.py::",
    "tests/ml/trainers/test_few_labels.py::",
    "tests/ml/trainers/test_classifier.py::",
    "tests/ml/trainers/export/test_onnx.py::",
    "tests/browser/",
)
"""Tests with a costly fixture of their module: one worker runs them all (`--dist loadgroup`)."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, and begin with them: a long one at the end leaves cores idle."""

    def place(item: pytest.Item) -> int:
        found = (at for at, start in enumerate(SLOW) if item.nodeid.startswith(start))
        return next(found, len(SLOW))

    items.sort(key=place)
    for item in items:
        if place(item) < len(SLOW):
            item.add_marker(pytest.mark.slow)
        for start in ONE_WORKER:
            if item.nodeid.startswith(start):
                item.add_marker(pytest.mark.xdist_group(start.rstrip(":")))


@pytest.fixture(scope="session")
def once_a_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that fills a folder which all workers of the run share, once."""

    def once_a_run(name: str, fill: Callable[[Path], None]) -> Path:
        base = tmp_path_factory.getbasetemp()
        folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
        filled = folder.with_suffix(".filled")
        with FileLock(folder.with_suffix(".lock")):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return once_a_run


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    """Leave no test in the language of the request before it."""
    yield
    from django.utils import translation

    translation.deactivate()


@pytest.fixture(scope="session")
def toy_run(once_a_run: Callable[..., Path]) -> Any:
    """Train the tiny encoder; return the TrainingResult."""
    from tests.support.toy import train_toy
    from ticket_priority.ml.types import TrainingResult

    def train(folder: Path) -> None:
        result = train_toy(folder)
        paths = (result.artifact_dir, result.run_dir, result.best_checkpoint)
        kept = {"paths": [str(path) if path else None for path in paths], "metrics": result.metrics}
        (folder / "result.json").write_text(json.dumps(kept))

    kept = json.loads((once_a_run("toy", train) / "result.json").read_text())
    return TrainingResult(*(path and Path(path) for path in kept["paths"]), kept["metrics"])


@pytest.fixture(scope="session")
def wheel(once_a_run: Callable[..., Path]) -> Path:
    """Build the wheel of this checkout; return the file."""
    from django.conf import settings

    def build(folder: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder)],
            cwd=settings.BASE_DIR,
            check=True,
            capture_output=True,
            timeout=300,
        )

    (built,) = once_a_run("wheel", build).glob("*.whl")
    return built


@pytest.fixture
def artifact_root(tmp_path: Path, settings: Any) -> Path:
    """Point ARTIFACT_ROOT and OUTPUT_DIR into a folder of this test."""
    root = tmp_path / "models"
    settings.TICKET_PRIORITY = {
        **settings.TICKET_PRIORITY,
        "ARTIFACT_ROOT": root,
        "OUTPUT_DIR": tmp_path / "outputs",
    }
    return root


@pytest.fixture
def configure(settings: Any, artifact_root: Path) -> Callable[..., None]:
    """Return a function that sets keys of TICKET_PRIORITY."""

    def configure(**values: Any) -> None:
        from tests.support.settings import overlay

        settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, **values)

    return configure


@pytest.fixture
def fresh_classifier() -> Iterator[None]:
    """Begin and end with no model in this process's memory."""
    from ticket_priority import classifiers

    classifiers.reset()
    yield
    classifiers.reset()


@pytest.fixture
def toy_version(db: None, artifact_root: Path, toy_run: Any) -> ModelVersion:
    """Return a published, registered version that is not active."""
    return publish_toy(toy_run, artifact_root, "toy-1")


@pytest.fixture
def active_model(toy_version: ModelVersion, fresh_classifier: None) -> ModelVersion:
    """Return the active version: "outage" is high, "invoice" medium, "typo" low."""
    toy_version.activate()
    return toy_version


@pytest.fixture
def attach(settings: Any, artifact_root: Path) -> Iterator[Callable[..., None]]:
    """Attach the test host's Case through the settings, as a project does."""
    from tests.uuid_host.models import Case
    from ticket_priority.checks.sources import register_configured_sources
    from ticket_priority.sources import registry

    def attach(**options: Any) -> None:
        scale: dict[str, Any] = {
            "text_fields": ("body",),
            "priority_field": "urgency",
            "to_host": {"low": 4, "medium": 3, "high": 2},
            "from_host": {1: "high", 2: "high", 3: "medium", 4: "low", 5: "low"},
        }
        settings.TICKET_PRIORITY = {
            **settings.TICKET_PRIORITY,
            "SOURCES": {"uuid_host.Case": {**scale, **options}},
        }
        register_configured_sources()

    yield attach
    registry.unregister(Case)


def publish_toy(toy_run: Any, root: Path, name: str) -> ModelVersion:
    """Publish and register the toy run under a name of its own."""
    from ticket_priority.ml.artifacts import store as artifacts
    from ticket_priority.models import ModelVersion

    staged = root.parent / f"staged-{name}"
    shutil.copytree(toy_run.artifact_dir, staged)
    artifact = artifacts.publish(staged, root, name)
    return ModelVersion.objects.create(
        name=name,
        kind=artifact.kind,
        directory=name,
        digest=artifact.digest,
        base_model="tiny",
        metrics=artifact.metrics,
    )


@pytest.fixture
def faulty_model(
    active_model: ModelVersion, configure: Callable[..., None]
) -> Iterator[type[FaultyClassifier]]:
    """Serve by a loaded classifier that does what the test says, with a deadline of 100 ms."""
    from tests.support.classifiers import FaultyClassifier
    from ticket_priority import classifiers

    configure(
        SERVING={
            "CLASSIFIERS": {"transformer": "tests.support.classifiers.FaultyClassifier"},
            "DEADLINE_MS": 100,
        }
    )
    classifiers.get_classifier()
    FaultyClassifier.fault, FaultyClassifier.calls = None, 0
    yield FaultyClassifier
    FaultyClassifier.fault = None
