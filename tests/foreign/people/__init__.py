"""A user model without permissions."""

from __future__ import annotations
