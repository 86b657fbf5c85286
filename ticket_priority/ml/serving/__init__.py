"""Serving. Runs a published artifact with onnxruntime and tokenizers, never torch."""

from __future__ import annotations

from importlib.util import find_spec

_REQUIRED = ("numpy", "safetensors")

if _missing := [name for name in _REQUIRED if find_spec(name) is None]:
    raise ImportError(
        f"ticket_priority.ml.serving needs {', '.join(_missing)}. "
        'Install what serving needs with: pip install "django-ticket-priority[serving]"'
    )
