"""Public signals; all but the last are sent after the commit. Receivers need `**kwargs`."""

from __future__ import annotations

from django.dispatch import Signal

priority_predicted = Signal()
"""A prediction was decided. Arguments: `instance` (the ticket), `prediction`.

Not sent for predictions that the audit holds back.
"""

priority_missing = Signal()
"""A new ticket was saved without an answer. Arguments: `instance` (the ticket), `prediction`.

The prediction is pending, or abstained where the ticket has no text.
"""

priority_overridden = Signal()
"""A person decided a priority. Arguments: `instance` (the ticket), `override`."""

model_version_activated = Signal()
"""A model version was activated. Arguments: `model_version`, `previous` (or None)."""

breaker_changed = Signal()
"""The circuit breaker of this process's model changed its state.

Sent at once, during a save or a worker's batch, so receivers must be quick and run no query.
Arguments: `version` (its name), `state` (a BreakerState).
"""
