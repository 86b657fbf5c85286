"""The machine learning half: knows no Django, and imports neither torch nor numpy by itself."""

from __future__ import annotations
