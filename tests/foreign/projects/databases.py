"""A second database of the kind that the tests run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def beside(database: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of a database like this one, under another name."""
    if "sqlite3" in database["ENGINE"]:
        file = Path(database["TEST"]["NAME"]).with_name(f"{name}.sqlite3")
        return {**database, "NAME": str(file), "TEST": {"NAME": str(file)}}
    return {**database, "NAME": f"{database['NAME']}_{name}", "TEST": {}}
