"""Hosts that no one here has written for: small ticket models, each with one oddity."""

from __future__ import annotations
