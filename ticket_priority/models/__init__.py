"""The plugin's tables."""

from __future__ import annotations

from ticket_priority.models.predictions import (
    ABOUT_TICKETS,
    ErasedTicket,
    Override,
    Prediction,
    PredictionQuerySet,
    ShadowPrediction,
    plugin_database,
)
from ticket_priority.models.runs import TrainingRun
from ticket_priority.models.switching import SwitchChange
from ticket_priority.models.versions import ModelVersion

__all__ = [
    "ABOUT_TICKETS",
    "ErasedTicket",
    "ModelVersion",
    "Override",
    "Prediction",
    "PredictionQuerySet",
    "ShadowPrediction",
    "SwitchChange",
    "TrainingRun",
    "plugin_database",
]
