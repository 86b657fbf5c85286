"""The REST API, on Django REST framework. Mount `ticket_priority.api.urls`."""

from __future__ import annotations

from importlib.util import find_spec

_REQUIRED = ("rest_framework", "drf_spectacular", "django_filters")

if _missing := [name for name in _REQUIRED if find_spec(name) is None]:
    raise ImportError(
        f"ticket_priority.api needs {', '.join(_missing)}. "
        'Install it with: pip install "django-ticket-priority[api]"'
    )
