"""The model that ships with the package, for the time before the first label."""

from __future__ import annotations
