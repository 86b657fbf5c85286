from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import models

from tests.support.classifiers import FaultyClassifier
from ticket_priority.classifiers import get_classifier
from ticket_priority.ml.artifacts import store as artifacts
from ticket_priority.models import ModelVersion
from ticket_priority.sources import TicketSource, registry
from ticket_priority.starter.install import STARTER_DIRECTORY


@pytest.fixture
def attach_host() -> Iterator[Callable[..., TicketSource]]:
    """Return a function that makes a model a ticket source; have no other."""
    before = dict(registry._sources)
    registry._sources.clear()

    def attach_host(model: type[models.Model], **options: Any) -> TicketSource:
        return registry.register(model, **{"text_fields": ("body",), **options})

    yield attach_host
    registry._sources.clear()
    registry._sources.update(before)


@pytest.fixture
def always_high(
    db: None, artifact_root: Path, configure: Callable[..., None], fresh_classifier: None
) -> Iterator[ModelVersion]:
    """Return the active version, which answers high to each text."""
    shutil.copytree(STARTER_DIRECTORY, artifact_root / "starter")
    digest = artifacts.read(artifact_root / "starter").digest
    version = ModelVersion.objects.create(
        name="starter", kind="linear", directory="starter", digest=digest
    )
    version.activate()
    configure(
        MODE="sync",
        SERVING={"CLASSIFIERS": {"linear": "tests.support.classifiers.FaultyClassifier"}},
    )
    FaultyClassifier.fault = None
    get_classifier()
    yield version
