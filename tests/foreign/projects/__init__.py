"""Settings modules of hosts whose oddity is the project's own: its databases, its users."""

from __future__ import annotations
