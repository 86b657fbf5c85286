"""Use case: certify a version's answers for today's AUTO_APPLY and COSTS."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from django.db import router

from ticket_priority import classifiers
from ticket_priority.conf import get_settings
from ticket_priority.exceptions import CertificationError
from ticket_priority.ml.artifacts.store import Artifact
from ticket_priority.ml.evaluation.figures import mapping
from ticket_priority.ml.policy.rule import METRICS_KEY, Certification, DecisionRule
from ticket_priority.ml.types import Classifier, ProgressCallback, silent
from ticket_priority.models import ModelVersion
from ticket_priority.sources.base import TicketSource
from ticket_priority.training.dataset import Dataset, build, split_of

logger = logging.getLogger(__name__)


def certify_candidate(
    artifact: Artifact,
    held_out: Dataset | None,
    trained_on: Any,
    progress: ProgressCallback = silent,
) -> dict[str, Any]:
    """Return a new artifact's metrics, with certificates where AUTO_APPLY asks for them.

    `trained_on` is the summary of the dataset that it was trained on. Certificates in an imported
    artifact say nothing about the tickets here, and are dropped. Never raises: without certificates
    every answer is only suggested.
    """
    metrics = {name: value for name, value in artifact.metrics.items() if name != METRICS_KEY}
    if get_settings().decisions.auto_apply is None:
        return metrics
    try:
        if held_out is None:
            raise CertificationError("there are too few labelled tickets")
        _require_unseen(trained_on, held_out)
        progress("Certifying the answers on tickets it was not fitted to")
        served = classifiers.build(artifact.kind, artifact.directory)
        found = _certify(served, held_out)
        metrics[METRICS_KEY] = found.as_dict()
        progress(f"{len(found.holding)} of {len(found.certificates)} certificates hold")
    except Exception as error:
        # A finished training must not be lost because there is no certificate.
        logger.warning("%s was not certified", artifact.directory.name, exc_info=True)
        progress(f"Not certified, so its answers are only suggested: {error}")
    return metrics


def recertify(
    version: ModelVersion,
    sources: Iterable[TicketSource],
    *,
    using: str | None = None,
    progress: ProgressCallback = silent,
) -> Certification:
    """Certify a version on today's labelled tickets, and store the certificates with it.

    Raises CertificationError, and what `dataset.build` and `load` raise; the version
    is unchanged then.
    """
    _rule()
    held_out = build(sources, using=using, progress=progress)
    if not version.is_starter:
        _require_unseen(version.dataset, held_out)
    progress(f"Certifying the answers of {version.name}")
    found = _certify(classifiers.load(version), held_out)
    version.metrics = {**mapping(version.metrics), METRICS_KEY: found.as_dict()}
    version.save(using=router.db_for_write(ModelVersion), update_fields=["metrics"])
    return found


def _certify(classifier: Classifier, held_out: Dataset) -> Certification:
    try:
        from ticket_priority.ml.policy import certification
    except ImportError as error:
        # A machine that only serves may import an artifact, but has no scipy.
        raise CertificationError(str(error)) from error
    rule = _rule()
    return certification.certify(
        classifier, held_out.validation, held_out.test, targets=rule.targets or {}, costs=rule.costs
    )


def _rule() -> DecisionRule:
    options = get_settings().decisions
    try:
        rule = DecisionRule.of(None, costs=options.costs, targets=options.auto_apply)
    except ValueError as error:
        raise CertificationError(f"TICKET_PRIORITY, {error}.") from error
    if rule.targets is None:
        raise CertificationError(
            'TICKET_PRIORITY["DECISIONS"]["AUTO_APPLY"] asks for no precision, so every '
            'answer is applied. Set it to something like {"high": 0.9, "medium": 0.8}.'
        )
    return rule


def _require_unseen(trained_on: Any, held_out: Dataset) -> None:
    """Raise CertificationError where the model may have been fitted to tickets of the splits."""
    today = held_out.summary()
    same_rows = mapping(trained_on).get("fingerprint") == today["fingerprint"]
    if not same_rows and split_of(trained_on) != split_of(today):
        raise CertificationError(
            "the tickets that it was trained on were split differently, or it isn't known how, so "
            "it may have seen those that it would be tested on. Train a version on the tickets "
            "here"
        )
