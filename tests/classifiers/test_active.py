from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.conftest import publish_toy
from tests.support.settings import overlay
from ticket_priority import classifiers
from ticket_priority.classifiers import get_classifier, loaded_model_version
from ticket_priority.exceptions import ModelUnavailableError
from ticket_priority.models import ModelVersion
from ticket_priority.starter.install import install_linear

pytestmark = pytest.mark.django_db


def test_the_model_is_loaded_once(active_model: ModelVersion) -> None:
    assert loaded_model_version() is None
    first = get_classifier()
    assert get_classifier().classifier is first.classifier
    assert loaded_model_version() == active_model


def test_following_the_active_version_costs_one_query(
    active_model: ModelVersion, django_assert_num_queries: Any
) -> None:
    get_classifier()
    with django_assert_num_queries(1):
        get_classifier()


def test_another_version_serves_without_a_restart(
    active_model: ModelVersion, toy_run: Any, artifact_root: Path
) -> None:
    before = get_classifier()
    second = publish_toy(toy_run, artifact_root, "toy-2")
    second.activate()
    after = get_classifier()
    assert after.model_version == second
    assert after.classifier is not before.classifier


def test_a_version_that_cannot_be_loaded_does_not_replace_the_one_that_serves(
    active_model: ModelVersion, toy_run: Any, artifact_root: Path
) -> None:
    get_classifier()
    broken = publish_toy(toy_run, artifact_root, "toy-2")
    (artifact_root / "toy-2" / "model.onnx").unlink()
    broken.activate()
    assert get_classifier().model_version == active_model
    broken.refresh_from_db()
    assert "cannot be read" in broken.load_error


def test_a_version_that_cannot_be_loaded_is_not_tried_at_every_ticket(
    active_model: ModelVersion, artifact_root: Path, django_assert_num_queries: Any
) -> None:
    (artifact_root / active_model.directory / "model.onnx").unlink()
    with pytest.raises(ModelUnavailableError, match="cannot be loaded"):
        get_classifier()
    with django_assert_num_queries(1), pytest.raises(ModelUnavailableError):
        get_classifier()


def test_an_unknown_kind_is_named(active_model: ModelVersion, settings: Any) -> None:
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY, SERVING={"CLASSIFIERS": {"linear": "x.Y"}}
    )
    with pytest.raises(ModelUnavailableError):
        get_classifier()
    active_model.refresh_from_db()
    assert "CLASSIFIERS" in active_model.load_error


def test_the_torch_classifier_serves_by_a_setting(
    active_model: ModelVersion, settings: Any
) -> None:
    onnx = get_classifier().classify(["outage fire breach down"])
    settings.TICKET_PRIORITY = overlay(
        settings.TICKET_PRIORITY,
        SERVING={
            "CLASSIFIERS": {"transformer": "ticket_priority.ml.trainers.classifier.TorchClassifier"}
        },
    )
    classifiers.reset()
    torch = get_classifier().classify(["outage fire breach down"])
    assert torch[0].label == onnx[0].label == "high"
    assert torch[0].confidence == pytest.approx(onnx[0].confidence, abs=0.02)


@pytest.mark.django_db(transaction=True)
def test_threads_share_one_load(active_model: ModelVersion) -> None:
    found: list[Any] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        try:
            barrier.wait()
            found.append(get_classifier().classifier)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def _classify_in_child(directory: Path, answers: Any) -> None:
    forgot = loaded_model_version() is None
    (answer,) = classifiers.build("transformer", directory).classify(["outage fire breach down"])
    answers.put((os.getpid(), forgot, answer.label))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_model_of_its_own(
    active_model: ModelVersion, artifact_root: Path, settings: Any
) -> None:
    """Two threads: a session with a thread pool is the one that a fork leaves behind broken."""
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, SERVING={"THREADS": 2})
    get_classifier().classify(["outage"])
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(
        target=_classify_in_child, args=(artifact_root / active_model.directory, answers)
    )
    child.start()
    try:
        pid, forgot, label = answers.get(timeout=30)
    finally:
        child.join(timeout=10)
        child.kill()
    assert pid != os.getpid()
    assert forgot
    assert label == "high"
    assert loaded_model_version() == active_model


def _tell_what_is_logged(told: Any) -> None:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("ticket_priority").addHandler(handler)
    for _ in range(2):
        loaded_model_version()
    told.put(messages)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_child_says_once_that_its_parent_had_loaded_a_model(
    db: None, artifact_root: Path, fresh_classifier: None, is_loaded: bool
) -> None:
    version = install_linear()
    version.activate()
    if is_loaded:
        get_classifier()
    else:
        loaded_model_version()
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    child = context.Process(target=_tell_what_is_logged, args=(told,))
    child.start()
    try:
        messages = told.get(timeout=30)
    finally:
        child.join(timeout=10)
        child.kill()
    assert len(messages) == int(is_loaded)
    assert all(version.name in message and "preload()" in message for message in messages)


def test_at_most_one_version_is_active(
    active_model: ModelVersion, toy_run: Any, artifact_root: Path
) -> None:
    second = publish_toy(toy_run, artifact_root, "toy-2")
    second.activate()
    assert list(ModelVersion.objects.filter(is_active=True)) == [second]
    active_model.activate()
    assert ModelVersion.objects.active() == active_model
