"""The serving room: runs a published artefact with onnxruntime and tokenizers, never torch."""

from __future__ import annotations

import os
from importlib.util import find_spec

_REQUIRED = ("numpy", "safetensors")

if _missing := [name for name in _REQUIRED if find_spec(name) is None]:
    raise ImportError(
        f"ticket_priority.serving needs {', '.join(_missing)}. "
        'Install what serving needs with: pip install "django-ticket-priority[serving]"'
    )

# Read when onnxruntime is imported: left alone, it tells Microsoft of each process that does so.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
