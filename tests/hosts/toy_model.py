"""The toy model that a host's tests classify with, from the folder that run.py names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ticket_priority.models import ModelVersion

ARTIFACT = Path(os.environ["TICKET_PRIORITY_TOY_MODEL"])
"""The published artifact; its parent is the ARTIFACT_ROOT of a host's settings."""


def activate_toy() -> ModelVersion:
    """Register the toy model and let it serve: "outage" high, "invoice" medium, "typo" low."""
    from ticket_priority import classifiers
    from ticket_priority.ml.artifacts import store as artifacts
    from ticket_priority.models import ModelVersion

    artifact = artifacts.read(ARTIFACT)
    version, _ = ModelVersion.objects.get_or_create(
        name=ARTIFACT.name,
        defaults={"kind": artifact.kind, "directory": ARTIFACT.name, "digest": artifact.digest},
    )
    version.activate()
    classifiers.reset()
    return version
