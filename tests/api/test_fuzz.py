"""Requests that schemathesis generates from the API's schema: none may be a server error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import signals
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.urls import include, path
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rest_framework.authtoken.models import Token
from schemathesis import GenerationMode, openapi
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from helpdesk.models import Ticket
from tests.api.conftest import overrule, predict
from ticket_priority.api.schema import PluginSchemaGenerator
from ticket_priority.starter.install import install_linear

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OPERATIONS = [
    ("post", "/api/predict/"),
    ("get", "/api/predictions/"),
    ("get", "/api/predictions/{id}/"),
    ("get", "/api/overrides/"),
    ("get", "/api/tickets/{source}/{object_id}/"),
    ("post", "/api/tickets/{source}/{object_id}/override/"),
    ("post", "/api/tickets/{source}/{object_id}/classify/"),
    ("get", "/api/info/"),
    ("get", "/api/health/"),
]
HAVE_INPUT = [
    operation
    for operation in OPERATIONS
    if operation[1] in ("/api/predict/", "/api/predictions/", "/api/overrides/")
    or operation[1].endswith("/override/")
]
some = settings(
    max_examples=20,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def open_connection() -> Iterator[None]:
    """Keep the test's own transaction open between requests, as Django's test client does."""
    ends = (signals.request_started, signals.request_finished)
    for signal in ends:
        signal.disconnect(close_old_connections)
    yield
    for signal in ends:
        signal.connect(close_old_connections)


@dataclass(frozen=True)
class Admin:
    """The headers of an administrator, and the path parameters of existing rows."""

    headers: dict[str, str]
    known: dict[str, Any]


@pytest.fixture
def admin(ticket: Ticket, configure: Any, fresh_classifier: None) -> Admin:
    """Have the linear starter serve an administrator, who sees a ticket."""
    configure(API={"THROTTLE_RATE": None})
    install_linear().activate()
    overrule(ticket, 1)
    user = User.objects.create_superuser("admin")
    return Admin(
        headers={"Authorization": f"Token {Token.objects.create(user=user).key}"},
        known={
            "source": "helpdesk.Ticket",
            "object_id": str(ticket.pk),
            "id": predict(ticket).pk,
        },
    )


@pytest.fixture(scope="module")
def schema() -> Any:
    """Return the schema that the API serves, with the demo's own WSGI application behind it."""
    urls: Any = [path("api/", include("ticket_priority.api.urls"))]
    served = openapi.from_dict(PluginSchemaGenerator(patterns=urls).get_schema(public=True))
    served.app = get_wsgi_application()
    return served


def test_every_operation_is_among_them(schema: Any) -> None:
    found = {
        (operation.ok().method, operation.ok().full_path)
        for operation in schema.get_all_operations()
    }
    assert found == set(OPERATIONS)


@pytest.mark.parametrize(
    ("method", "address", "mode"),
    [
        *((*operation, GenerationMode.POSITIVE) for operation in OPERATIONS),
        # The others take no input but the URL.
        *((*operation, GenerationMode.NEGATIVE) for operation in HAVE_INPUT),
    ],
)
def test_no_request_is_a_server_error(
    schema: Any, admin: Admin, method: str, address: str, mode: GenerationMode
) -> None:
    operation = schema[address][method]

    @some
    @given(case=operation.as_strategy(generation_mode=mode), exists=st.booleans())
    def ask(case: Any, exists: bool) -> None:
        if exists:
            named = {name: admin.known[name] for name in case.path_parameters or {}}
            case.path_parameters = named
        case.call_and_validate(headers=admin.headers, checks=CHECKS)

    ask()
