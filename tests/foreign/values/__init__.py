"""Hosts whose tables do not take every value."""

from __future__ import annotations
