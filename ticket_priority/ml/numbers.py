"""What counts as a number in a setting or in a JSON file, where True is none."""

from __future__ import annotations

import math
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Say whether a value is an int or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Say whether a value is an int, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_positive(value: object) -> TypeGuard[float]:
    """Say whether a value is a finite number above 0 that fits a float."""
    try:
        return is_number(value) and 0 < float(value) < math.inf
    except OverflowError:
        return False
