"""Public signals, sent after the commit but for the last. Receivers must take `**kwargs`."""

from __future__ import annotations

from django.dispatch import Signal

priority_predicted = Signal()
"""A prediction was decided. Arguments: `instance` (the ticket), `prediction`.

Of one that the audit holds back nobody is told.
"""

priority_missing = Signal()
"""A new ticket was saved without an answer. Arguments: `instance` (the ticket), `prediction`.

It is pending, or abstained where there is no text.
"""

priority_overridden = Signal()
"""A person decided a priority. Arguments: `instance` (the ticket), `override`."""

model_version_activated = Signal()
"""Another model version serves from now on. Arguments: `model_version`, `previous` (or None)."""

breaker_changed = Signal()
"""A model is left alone in this process, tried again, or asked as before.

Sent at once, by the save or the worker that met it, so receivers must be quick and query nothing.
Arguments: `version` (its name), `state` (a BreakerState).
"""
