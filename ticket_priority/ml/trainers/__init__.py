"""Training. The only package that imports torch, Lightning and transformers."""

from __future__ import annotations

from importlib.util import find_spec

# What a linear model needs; `fit` checks for torch where a transformer is trained.
_REQUIRED = ("numpy", "sklearn", "safetensors")

if _missing := [name for name in _REQUIRED if find_spec(name) is None]:
    raise ImportError(
        f"ticket_priority.ml.trainers needs {', '.join(_missing)}. Install what training needs: "
        'pip install "django-ticket-priority[ml]", or [linear] for linear models alone'
    )
