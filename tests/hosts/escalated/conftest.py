from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from escalated.models import ApiToken, Department, SlaPolicy
from toy_model import activate_toy

from ticket_priority.models import ModelVersion


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    """The host keeps rate limits in the cache."""
    cache.clear()


@pytest.fixture
def model(db: None) -> ModelVersion:
    return activate_toy()


@pytest.fixture
def asynchronous(model: ModelVersion, settings: Any) -> None:
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "async"}


@pytest.fixture
def sla(db: None) -> SlaPolicy:
    """The default policy, with hours of its own for each priority."""
    return SlaPolicy.objects.create(
        name="Standard",
        is_default=True,
        first_response_hours={"low": 24, "medium": 8, "high": 4, "urgent": 1, "critical": 0.5},
        resolution_hours={"low": 72, "medium": 24, "high": 10, "urgent": 6, "critical": 2},
    )


@pytest.fixture
def customer(db: None) -> User:
    return User.objects.create_user("customer", "customer@example.com", "x")


@pytest.fixture
def department(db: None) -> Department:
    return Department.objects.create(name="Support", slug="support")


@pytest.fixture
def agent(department: Department) -> User:
    user = User.objects.create_user("agent", "agent@example.com", "x")
    department.agents.add(user)
    return user


@pytest.fixture
def admin_user(db: None) -> User:
    return User.objects.create_superuser("admin", "admin@example.com", "x")


@pytest.fixture
def api_client(client: Any, agent: User) -> Iterator[Any]:
    """The test client, with the API token of an agent."""
    token = ApiToken.create_token(agent, "test")
    client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {token['plain_text_token']}"
    return client
