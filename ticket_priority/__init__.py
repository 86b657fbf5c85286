"""Automatic, overridable ticket priority for any Django helpdesk."""

from __future__ import annotations

__version__ = "0.1.0"
