from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.db import connection

from tests.conftest import publish_toy
from tests.support.classifiers import FaultyClassifier, SlowToLoadClassifier
from ticket_priority import classifiers
from ticket_priority.classifiers import get_classifier, loaded_model_version
from ticket_priority.classifiers.slots import Role, slot_for
from ticket_priority.exceptions import ModelTimeoutError, ModelUnavailableError
from ticket_priority.models import ModelVersion

LONG = 30.0


class InterruptedOnceClassifier(FaultyClassifier):
    """Its first load is interrupted, as by Ctrl+C."""

    loads: ClassVar[int] = 0

    def __init__(self, directory: Path, **options: object) -> None:
        type(self).loads += 1
        if type(self).loads == 1:
            raise KeyboardInterrupt


@pytest.mark.django_db
def test_an_interrupted_load_is_no_failure_of_the_version(
    active_model: ModelVersion, configure: Callable[..., None]
) -> None:
    path = f"{__name__}.InterruptedOnceClassifier"
    configure(SERVING={"CLASSIFIERS": {"transformer": path}})
    InterruptedOnceClassifier.loads = 0
    with pytest.raises(KeyboardInterrupt):
        get_classifier()
    assert get_classifier().model_version == active_model
    assert InterruptedOnceClassifier.loads == 2
    active_model.refresh_from_db()
    assert active_model.load_error == ""


@pytest.mark.django_db
def test_a_deadline_counts_from_the_start_of_the_load(
    active_model: ModelVersion, configure: Callable[..., None]
) -> None:
    path = "tests.support.classifiers.SlowToLoadClassifier"
    configure(SERVING={"CLASSIFIERS": {"transformer": path}})
    SlowToLoadClassifier.may_load = threading.Event()
    try:
        with pytest.raises(ModelTimeoutError):
            get_classifier(1)
        began = time.monotonic()
        with pytest.raises(ModelTimeoutError):
            get_classifier(1)
        assert time.monotonic() - began < 1, "the second caller waited again"
    finally:
        SlowToLoadClassifier.may_load.set()
    load = slot_for(Role.ACTIVE).follow(active_model, in_background=True)
    assert load is None or load.ended.wait(LONG)
    assert loaded_model_version() == active_model


@pytest.mark.django_db(transaction=True)
def test_a_caller_without_a_deadline_joins_a_load_in_the_background(
    active_model: ModelVersion, configure: Callable[..., None]
) -> None:
    path = "tests.support.classifiers.SlowToLoadClassifier"
    configure(SERVING={"CLASSIFIERS": {"transformer": path}})
    SlowToLoadClassifier.may_load = threading.Event()
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(get_classifier().classifier)
        finally:
            connection.close()

    with pytest.raises(ModelTimeoutError):
        get_classifier(0.01)
    caller = threading.Thread(target=ask)
    caller.start()
    SlowToLoadClassifier.may_load.set()
    caller.join(LONG)
    assert found == [get_classifier().classifier]


@pytest.mark.django_db
def test_a_failure_blocks_its_own_version_only(
    active_model: ModelVersion, toy_run: Any, artifact_root: Path
) -> None:
    (artifact_root / active_model.directory / "model.onnx").unlink()
    with pytest.raises(ModelUnavailableError, match="toy-1 cannot be loaded"):
        get_classifier()
    second = publish_toy(toy_run, artifact_root, "toy-2")
    second.activate()
    assert get_classifier().model_version == second
    assert classifiers.loaded_model_version() == second
