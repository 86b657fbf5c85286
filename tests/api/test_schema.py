from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from rest_framework.test import APIClient

OPERATIONS = {
    ("/api/predict/", "post"): "ticket_priority_predict",
    ("/api/predictions/", "get"): "ticket_priority_predictions",
    ("/api/predictions/{id}/", "get"): "ticket_priority_prediction",
    ("/api/overrides/", "get"): "ticket_priority_overrides",
    ("/api/tickets/{source}/{object_id}/", "get"): "ticket_priority_ticket",
    ("/api/tickets/{source}/{object_id}/override/", "post"): "ticket_priority_override",
    ("/api/tickets/{source}/{object_id}/classify/", "post"): "ticket_priority_classify",
    ("/api/info/", "get"): "ticket_priority_info",
    ("/api/health/", "get"): "ticket_priority_health",
}


@pytest.fixture
def document(staff: APIClient) -> Any:
    response = staff.get("/api/schema/?format=json")
    assert response.status_code == 200
    return response.json()


@pytest.mark.parametrize("urlconf", ["helpdesk.urls", "ticket_priority.api.urls"])
def test_the_schema_is_valid_and_gives_no_warning(urlconf: str, tmp_path: Any) -> None:
    call_command(
        "spectacular",
        "--validate",
        "--fail-on-warn",
        f"--urlconf={urlconf}",
        f"--file={tmp_path / 'schema.yml'}",
    )


def test_operations_keep_their_ids(document: Any) -> None:
    found = {
        (path, method): operation["operationId"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert found == OPERATIONS
    assert document["info"]["title"] == "Ticket priority"


def test_errors_are_described(document: Any) -> None:
    responses = {
        operation["operationId"]: set(operation["responses"])
        for operations in document["paths"].values()
        for operation in operations.values()
    }
    usual = {"401", "403", "429"}
    assert responses["ticket_priority_predict"] == usual | {"200", "400", "413", "415", "503"}
    assert responses["ticket_priority_override"] >= usual | {"201", "400", "404"}
    assert responses["ticket_priority_classify"] == usual | {"201", "404", "503"}
    assert responses["ticket_priority_predictions"] == usual | {"200", "400", "404"}
    assert responses["ticket_priority_health"] == {"200", "503"}
    headers = document["paths"]["/api/predict/"]["post"]["responses"]["503"]["headers"]
    assert "Retry-After" in headers
    refused = document["paths"]["/api/tickets/{source}/{object_id}/override/"]["post"]["responses"]
    assert "OVERRIDE_RATE" in refused["429"]["description"]
    assert refused["429"]["content"] == refused["403"]["content"]
    assert "Retry-After" in refused["429"]["headers"]


def test_the_schema_agrees_with_the_answers(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["TicketPriority"]["enum"] == ["low", "medium", "high"]
    assert schemas["PriorityPredictRequest"]["properties"]["texts"]["maxItems"] == 64
    examples = document["paths"]["/api/predict/"]["post"]["requestBody"]["content"]
    assert examples["application/json"]["examples"]


def test_a_page_for_people_is_there_where_the_host_has_one(staff: APIClient) -> None:
    for url in ("/api/predictions/", "/api/info/", "/api/predict/"):
        page = staff.get(url, HTTP_ACCEPT="text/html")
        assert page["Content-Type"].startswith("text/html"), url
        assert page.status_code in (200, 403, 405)


def test_a_host_without_browsable_api_gets_json(staff: APIClient, settings: Any) -> None:
    settings.REST_FRAMEWORK = {
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "EXCEPTION_HANDLER": "no.such.handler",
        "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
    }
    response = staff.get("/api/info/", HTTP_ACCEPT="*/*")
    assert response["Content-Type"] == "application/json"
    assert staff.get("/api/predictions/").status_code == 403


def test_answers_are_not_to_be_cached(staff: APIClient) -> None:
    assert "no-store" in staff.get("/api/info/")["Cache-Control"]
