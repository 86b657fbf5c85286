from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from tests.api.conftest import Login
from tests.support.settings import overlay


@pytest.fixture(autouse=True)
def strange_host(settings: Any) -> None:
    """The host knows no scope of ours."""
    settings.REST_FRAMEWORK = {"DEFAULT_THROTTLE_RATES": {}, "DEFAULT_THROTTLE_CLASSES": []}


def limit(settings: Any, rate: str | None) -> None:
    settings.TICKET_PRIORITY = overlay(settings.TICKET_PRIORITY, API={"THROTTLE_RATE": rate})


def test_each_user_has_a_rate(login: Login, settings: Any, viewer: APIClient) -> None:
    limit(settings, "2/hour")
    other = login("helpdesk.view_ticket")
    codes = [viewer.get("/api/predictions/").status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    refused = viewer.get("/api/overrides/")
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 3600
    assert other.get("/api/predictions/").status_code == 200


def test_it_can_be_switched_off(settings: Any, viewer: APIClient) -> None:
    limit(settings, "1/day")
    assert viewer.get("/api/predictions/").status_code == 200
    limit(settings, None)
    assert {viewer.get("/api/predictions/").status_code for _ in range(3)} == {200}
