"""Use case: score a model version on today's test split of the labelled tickets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ticket_priority.classifiers import load
from ticket_priority.exceptions import DatasetError
from ticket_priority.ml.types import ProgressCallback, silent
from ticket_priority.models import ModelVersion
from ticket_priority.sources.base import TicketSource
from ticket_priority.training.dataset import build
from ticket_priority.training.gate import HeldOut, other_split


def evaluate(
    version: ModelVersion,
    sources: Iterable[TicketSource],
    *,
    using: str | None = None,
    progress: ProgressCallback = silent,
) -> dict[str, Any]:
    """Score a version on the test split that a training would have today; ready for JSON.

    `served` has its figures as it is served, with those of the most frequent class under
    `majority`; `robustness` says how far its answers move where tickets are only written
    differently; `caution` why the figures may be too good, or "". Writes nothing. Raises
    DatasetError, ArtifactError or ModelUnavailableError.
    """
    classifier = load(version)
    progress("Reading labelled tickets")
    dataset = build(sources, using=using, progress=progress)
    held_out = HeldOut.of(dataset)
    if not held_out.rows:
        raise DatasetError(
            "The test split is empty: nearly all labelled tickets are near-copies of each other."
        )
    progress(f"Classifying {len(held_out.rows)} test tickets")
    served = held_out.score(classifier).figures(held_out.majority)
    progress("Classifying some of them again, rewritten")
    robustness = held_out.rewrite(classifier)
    caution = ""
    if way := other_split(version, held_out.split_by):
        caution = (
            f"{version.name} was trained on tickets that were split {way}, so it may have been "
            "trained on part of this test, which flatters it"
        )
    return {
        "model_version": version.name,
        "dataset": dataset.summary(),
        "served": served,
        "robustness": robustness,
        "caution": caution,
    }
