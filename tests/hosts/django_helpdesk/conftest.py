from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from routes import Desk

    from ticket_priority.models import ModelVersion


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    """Leave no test in the language of the request before it."""
    yield
    from django.utils import translation

    translation.deactivate()


@pytest.fixture
def active_model(db: None) -> ModelVersion:
    """The toy model serves: "outage" is high, "invoice" medium, "typo" low."""
    from toy_model import activate_toy

    return activate_toy()


@pytest.fixture
def desk(active_model: ModelVersion, tmp_path: Path) -> Desk:
    from routes import set_up_desk

    return set_up_desk(tmp_path / "mailbox")


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    """Lay keys over the project's TICKET_PRIORITY."""

    def configure(**keys: Any) -> None:
        settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, **keys}

    return configure


@pytest.fixture
def without_queue(configure: Callable[..., None]) -> None:
    """As where django-q2 is not installed: pending tickets are drained at the commit."""
    configure(QUEUE="ticket_priority.queues.inline.InlineQueue")


@pytest.fixture(params=[False, True], ids=["autocommit", "atomic requests"])
def atomic_requests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", request.param)
    return bool(request.param)


@pytest.fixture
def customers_may_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """HELPDESK_ALLOW_NON_STAFF_TICKET_UPDATE, which the host reads once, as it is imported."""
    from helpdesk.decorators import check_staff_status

    monkeypatch.setattr("helpdesk.settings.HELPDESK_ALLOW_NON_STAFF_TICKET_UPDATE", True)
    for module in ("decorators", "update_ticket", "views.permissions", "views.staff"):
        rule = check_staff_status(False)(False)
        monkeypatch.setattr(f"helpdesk.{module}.is_helpdesk_staff", rule)
