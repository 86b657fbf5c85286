from __future__ import annotations

import math
from typing import Any

import pytest

from ticket_priority.ml.numbers import is_number, is_positive, is_whole


@pytest.mark.parametrize(
    ("value", "number", "whole", "positive"),
    [
        (3, True, True, True),
        (0.5, True, False, True),
        (0, True, True, False),
        (-1.5, True, False, False),
        (math.inf, True, False, False),
        (math.nan, True, False, False),
        (10**400, True, True, False),
        (True, False, False, False),
        ("3", False, False, False),
        (None, False, False, False),
    ],
)
def test_what_is_a_number(value: Any, number: bool, whole: bool, positive: bool) -> None:
    assert (is_number(value), is_whole(value), is_positive(value)) == (number, whole, positive)
