from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from django.db import InterfaceError
from rest_framework.test import APIClient

from tests.api.conftest import Login, version
from tests.support.settings import overlay
from ticket_priority.classifiers import get_classifier, loaded_model_version
from ticket_priority.models import ModelVersion
from ticket_priority.models.versions import ModelVersionQuerySet

URL = "/api/health/"


def health(**headers: str) -> tuple[int, dict[str, Any]]:
    response = APIClient().get(URL, **headers)
    return response.status_code, response.json()


def test_without_a_version_nothing_can_serve(db: None, fresh_classifier: None) -> None:
    assert health() == (
        503,
        {"status": "unavailable", "model_loaded": False, "active_model": None, "breaker": "closed"},
    )


def test_a_published_version_is_ok_and_is_not_loaded_by_asking(active_model: ModelVersion) -> None:
    found = {
        "status": "ok",
        "model_loaded": False,
        "active_model": active_model.name,
        "breaker": "closed",
    }
    assert health() == (200, found)
    assert health() == (200, found)
    assert loaded_model_version() is None


def test_a_loaded_version_is_ok(active_model: ModelVersion) -> None:
    get_classifier()
    assert health() == (
        200,
        {
            "status": "ok",
            "model_loaded": True,
            "active_model": active_model.name,
            "breaker": "closed",
        },
    )


def test_a_lost_artifact_cannot_serve(active_model: ModelVersion, artifact_root: Path) -> None:
    shutil.rmtree(artifact_root)
    assert health()[0] == 503


def test_a_version_that_did_not_load_cannot_serve(active_model: ModelVersion) -> None:
    ModelVersion.objects.update(load_error="no memory")
    status, body = health()
    assert (status, body["status"]) == (503, "unavailable")
    assert "memory" not in str(body)
    get_classifier()
    assert ModelVersion.objects.get().load_error == ""
    assert health()[0] == 200


def test_an_older_version_that_goes_on_serving_is_degraded(active_model: ModelVersion) -> None:
    get_classifier()
    version("broken").activate()
    assert health() == (
        200,
        {"status": "degraded", "model_loaded": True, "active_model": "broken", "breaker": "closed"},
    )


def test_a_model_that_is_left_alone_is_degraded(active_model: ModelVersion) -> None:
    get_classifier().breaker.trip()
    code, body = health()
    assert (code, body["status"], body["breaker"]) == (200, "degraded", "open")


def test_a_lost_database_is_no_500(
    db: None, fresh_classifier: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise InterfaceError("server closed the connection")

    monkeypatch.setattr(ModelVersionQuerySet, "active", fail)
    status, body = health()
    assert status == 503
    assert "connection" not in str(body)


def test_it_is_open_to_everybody_and_never_throttled(
    db: None, fresh_classifier: None, settings: Any, login: Login
) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, API={"THROTTLE_RATE": "1/day"})
    headers = ({}, {"HTTP_AUTHORIZATION": "Token wrong"}, {"HTTP_ACCEPT": "text/html"})
    assert [health(**each)[0] for each in headers] == [503, 503, 503]


def test_it_costs_one_query(active_model: ModelVersion, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        health()
