"""Hosts that copy tickets, keep their history and bring them back."""

from __future__ import annotations
