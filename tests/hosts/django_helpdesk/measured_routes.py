"""The routes to measure: benchmarks/host_routes.py opens tickets by them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from routes import CREATION, set_up_desk


def open_ticket_by(folder: Path) -> dict[str, Callable[[str], Any]]:
    """Return by its name how each route opens a ticket with a text."""
    desk = set_up_desk(folder / "mailbox")
    return {name: partial(open_by, desk) for name, open_by in CREATION.items()}
