"""Use case: an artifact that was trained elsewhere becomes a registered model version."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ticket_priority.conf import get_settings
from ticket_priority.exceptions import DatasetError
from ticket_priority.ml.artifacts import store
from ticket_priority.ml.evaluation.figures import Metrics
from ticket_priority.ml.types import ProgressCallback
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.registry import all_sources
from ticket_priority.training import registration
from ticket_priority.training.dataset import Dataset, build
from ticket_priority.training.gate import check_gate_settings
from ticket_priority.training.lock import hold

logger = logging.getLogger(__name__)


def import_model(
    directory: Path,
    *,
    sources: Sequence[TicketSource] | None = None,
    activate: str = "if-better",
    using: str | None = None,
    progress: ProgressCallback = logger.info,
) -> registration.TrainingOutcome:
    """Publish an artifact that was trained elsewhere, register, and activate by the gate.

    Every file is compared with the artifact's manifest. The gate compares on the test split of
    the labelled tickets here, where there are enough, and where the active version's tickets were
    split in the same way. `using` is as in `train_model`. Raises TrainingInProgressError,
    TrainingError, or ArtifactError, also where the artifact cannot be served here; no version is
    registered then.
    """
    root = get_settings().artifact_root
    with hold(root):
        check_gate_settings()
        store.sweep(root, owner=registration.owner(), is_registered=registration.is_registered)
        progress(f"Verifying {directory}")
        found = store.read(directory)
        progress("Reading labelled tickets to compare on")
        dataset: Dataset | None = None
        try:
            dataset = build(all_sources() if sources is None else sources, using=using)
        except DatasetError as error:
            progress(f"Not compared: {error}")
        config = dict(Metrics.read(found.metrics).hyperparameters)
        base_model = str(config.get("model_name", ""))[:300]
        progress("Publishing the artifact")
        with registration.to_be_registered(root) as name:
            artifact = store.take(found, root, name, owner=registration.owner())
            registration.require_servable(artifact)
            fields = {"config": config, "dataset": artifact.dataset, "base_model": base_model}
            outcome = registration.register(artifact, dataset, activate, progress, **fields)
        return registration.activate_passing(outcome)
