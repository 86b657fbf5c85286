"""The admin: `OverrideAdminMixin` for a host's tickets, and pages for this app's own models."""

from __future__ import annotations

from ticket_priority.admin.records import OverrideAdmin, PredictionAdmin
from ticket_priority.admin.runs import TrainingRunAdmin
from ticket_priority.admin.switching import SwitchChangeAdmin
from ticket_priority.admin.tickets import OverrideAdminMixin
from ticket_priority.admin.versions import ModelVersionAdmin

__all__ = [
    "ModelVersionAdmin",
    "OverrideAdmin",
    "OverrideAdminMixin",
    "PredictionAdmin",
    "SwitchChangeAdmin",
    "TrainingRunAdmin",
]
