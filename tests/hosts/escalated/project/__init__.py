"""A small project with a helpdesk of escalated-django, as its README sets one up."""

from __future__ import annotations
