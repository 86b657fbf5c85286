"""A model that really serves: a tiny encoder, trained once a session and published."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.classifiers import FaultyClassifier
    from ticket_priority.models import ModelVersion

# A test may import onnxruntime before the plugin does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    """Leave no test in the language of the request before it."""
    yield
    from django.utils import translation

    translation.deactivate()


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Train the tiny encoder; return the TrainingResult."""
    from tests.support.toy import train_toy

    return train_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout; return the file."""
    from django.conf import settings

    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder)],
        cwd=settings.BASE_DIR,
        check=True,
        capture_output=True,
        timeout=300,
    )
    (built,) = folder.glob("*.whl")
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
