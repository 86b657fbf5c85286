"""Automatic, overridable ticket priority for any Django helpdesk."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Read when onnxruntime is imported, which otherwise reports each process to Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from ticket_priority.classifiers import get_classifier, preload
    from ticket_priority.predictions.on_save import classify
    from ticket_priority.predictions.overrides import override
    from ticket_priority.predictions.receivers import muted
    from ticket_priority.priorities import Priority
    from ticket_priority.sources import register

__all__ = [
    "Priority",
    "__version__",
    "classify",
    "get_classifier",
    "muted",
    "override",
    "preload",
    "register",
]

_EXPORTS = {
    "Priority": "priorities",
    "classify": "predictions.on_save",
    "get_classifier": "classifiers",
    "muted": "predictions.receivers",
    "override": "predictions.overrides",
    "preload": "classifiers",
    "register": "sources",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: Django's app registry is not ready when this package is imported.
    if name in _EXPORTS:
        return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
