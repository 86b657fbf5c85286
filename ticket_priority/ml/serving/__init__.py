"""Run published artifacts with onnxruntime, tokenizers and numpy, never with torch."""

from __future__ import annotations

from ticket_priority.ml.artifacts.kinds import SERVING

if _missing := SERVING.missing:
    raise ImportError(
        f"ticket_priority.ml.serving needs {', '.join(_missing)}. "
        f"Install what serving needs with: {SERVING.command}"
    )
