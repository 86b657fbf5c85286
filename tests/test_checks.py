from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.core.checks import run_checks

from helpdesk.models import Ticket
from ticket_priority import sources
from ticket_priority.checks import register_configured_sources
from ticket_priority.sources import get_source, register


def found_ids() -> set[str | None]:
    return {message.id for message in run_checks(tags=["ticket_priority"])}


def test_the_demo_is_clean() -> None:
    assert found_ids() == set()


@pytest.mark.parametrize(
    ("value", "identifier"),
    [
        ([], "ticket_priority.E001"),
        ({"MODELNAME": "x"}, "ticket_priority.E002"),
        ({"MODE": "later"}, "ticket_priority.E003"),
        ({"GATE_METRIC": "f1"}, "ticket_priority.E008"),
        ({"TRAINING": {"max_epochs": 0}}, "ticket_priority.E004"),
        ({"TRAINING": {"epochs": 3}}, "ticket_priority.E004"),
        ({"LABEL_WEIGHTS": {"rumour": 0.5}}, "ticket_priority.E024"),
        ({"LABEL_WEIGHTS": {"host": 0}}, "ticket_priority.E024"),
        ({"LABEL_WEIGHTS": 0.5}, "ticket_priority.E024"),
        ({"API_MAX_TEXTS": 0}, "ticket_priority.E005"),
        ({"API_MAX_TEXTS": "64"}, "ticket_priority.E005"),
        ({"API_THROTTLE_RATE": "often"}, "ticket_priority.E006"),
        ({"API_PERMISSION_CLASSES": "rest_framework.permissions.AllowAny"}, "ticket_priority.E007"),
        ({"API_AUTHENTICATION_CLASSES": ["no.such.Class"]}, "ticket_priority.E007"),
    ],
)
def test_a_wrong_setting_is_found(settings: Any, value: Any, identifier: str) -> None:
    settings.TICKET_PRIORITY = value
    assert identifier in found_ids()


@pytest.mark.parametrize(
    "value",
    [
        {"API_THROTTLE_RATE": None, "API_MAX_TEXTS": 1},
        {"LABEL_WEIGHTS": {"host": 0.5, "override": 2}},
        {"API_THROTTLE_RATE": "5/s", "API_PERMISSION_CLASSES": []},
        {"API_PERMISSION_CLASSES": ("rest_framework.permissions.AllowAny",)},
    ],
)
def test_a_right_setting_is_not_complained_of(settings: Any, value: Any) -> None:
    settings.TICKET_PRIORITY = value
    assert found_ids() == set()


def test_a_rule_that_cannot_be_imported_is_found(settings: Any) -> None:
    before = get_source(Ticket)
    try:
        register(Ticket, text_fields="subject", visible_to="no.such.rule")
        assert found_ids() == {"ticket_priority.E016"}
    finally:
        sources._sources[Ticket] = before


def test_a_wrong_source_in_the_settings_is_found_not_raised(settings: Any) -> None:
    settings.TICKET_PRIORITY = {"SOURCES": {"helpdesk.Nothing": {"text_fields": ("subject",)}}}
    register_configured_sources()
    try:
        assert "ticket_priority.E010" in found_ids()
    finally:
        del settings.TICKET_PRIORITY
        register_configured_sources()


def test_deferred_modes_want_a_queue(settings: Any) -> None:
    settings.TICKET_PRIORITY = {**settings.TICKET_PRIORITY, "MODE": "async"}
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django_q"]
    assert not apps.is_installed("django_q")
    assert "ticket_priority.W030" in found_ids()


def test_deferred_sqlite_transactions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connections

    settings_dict = connections["default"].settings_dict
    if "sqlite" not in settings_dict["ENGINE"]:
        pytest.skip("says something of SQLite only")
    monkeypatch.setitem(settings_dict, "OPTIONS", {})
    assert "ticket_priority.W040" in found_ids()
