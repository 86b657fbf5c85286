from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.core.checks import run_checks

from ticket_priority.checks import register_configured_sources


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
        ({"TRAINING": {"max_epochs": 0}}, "ticket_priority.E004"),
        ({"TRAINING": {"epochs": 3}}, "ticket_priority.E004"),
    ],
)
def test_a_wrong_setting_is_found(settings: Any, value: Any, identifier: str) -> None:
    settings.TICKET_PRIORITY = value
    assert identifier in found_ids()


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
