"""What the table may say: a step that does not exist would be a mark without effect."""

from __future__ import annotations

import pytest

from tests.foreign import test_journey
from tests.foreign.oddity import STEPS
from tests.foreign.table import ODDITIES

pytestmark = pytest.mark.sqlite


def test_the_steps_are_the_tests_of_the_journey() -> None:
    groups = [found for name, found in vars(test_journey).items() if name.startswith("Test")]
    tests = [name for group in groups for name in vars(group) if name.startswith("test_")]
    assert tuple(name.removeprefix("test_") for name in tests) == STEPS


def test_every_mark_is_about_a_step() -> None:
    marked = {name for oddity in ODDITIES for name in (*oddity.fails, *oddity.without)}
    assert {name.partition(" on ")[0] for name in marked} <= set(STEPS)
    assert {name.partition(" on ")[2] for name in marked} <= {"", "sqlite", "postgresql", "mysql"}
