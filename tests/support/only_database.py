"""A pytest plugin (`-p tests.support.only_database`): keep the tests that use the database."""

from __future__ import annotations

from typing import Final

import pytest

_FIXTURES: Final = {"db", "transactional_db", "live_server"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if not _uses_database(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if _uses_database(item)]


def _uses_database(item: pytest.Item) -> bool:
    if item.get_closest_marker("django_db") is not None:
        return True
    return not _FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
