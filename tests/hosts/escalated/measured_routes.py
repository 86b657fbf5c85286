"""The routes to measure: benchmarks/host_routes.py opens tickets by them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from routes import ROUTES


def open_ticket_by(folder: Path) -> dict[str, Callable[[str], Any]]:
    """Return by its name how each route opens a ticket with a text."""
    return {route.__name__.removeprefix("by_").replace("_", " "): route for route in ROUTES}
