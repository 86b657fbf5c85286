"""Hosts whose tickets have odd primary keys."""

from __future__ import annotations
