"""The routes to measure: benchmarks/host_routes.py opens tickets by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from journeys import ROADS


def open_ticket_by(folder: Path) -> dict[str, Callable[[str], Any]]:
    """Return by its name how each route opens a ticket with a text."""
    return {road.__name__.removeprefix("by_").replace("_", " "): road for road in ROADS}
