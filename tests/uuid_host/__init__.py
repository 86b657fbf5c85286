"""A test-only app whose ticket has a UUID key."""

from __future__ import annotations
