"""Public signals, sent after the commit. Every receiver must take `**kwargs`."""

from __future__ import annotations

from django.dispatch import Signal

priority_predicted = Signal()
"""A prediction was decided. Arguments: `instance` (the ticket), `prediction`.

Of one that the audit holds back nobody is told.
"""

priority_overridden = Signal()
"""A person decided a priority. Arguments: `instance` (the ticket), `override`."""

model_version_activated = Signal()
"""Another model version serves from now on. Arguments: `model_version`, `previous` (or None)."""
