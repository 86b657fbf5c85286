"""Use case: the model that came with this release, for the time before the first label."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ticket_priority import artifacts, linear_config
from ticket_priority.conf import get_settings
from ticket_priority.exceptions import ArtifactError
from ticket_priority.models import ModelVersion

STARTER_DIRECTORY: Final = Path(__file__).resolve().parent / "model"
"""A published linear artefact. CARD.md in it says what it was trained on and how it does."""


def install() -> ModelVersion:
    """Publish the starter to ARTIFACT_ROOT and register it; return its version.

    What is there already is left as it is. Raises ArtifactError with what to do when the files
    were altered or ARTIFACT_ROOT cannot be written.
    """
    shipped = artifacts.read(STARTER_DIRECTORY)
    root = get_settings().artifact_root
    known = ModelVersion.objects.filter(digest=shipped.digest).first()
    if known is not None:
        if not (root / known.directory).exists():
            artifacts.publish(STARTER_DIRECTORY, root, known.directory)
        return known
    published = _publish(shipped, root)
    version, _created = ModelVersion.objects.get_or_create(
        name=published.directory.name,
        defaults={
            "kind": published.kind,
            "directory": published.directory.name,
            "digest": published.digest,
            "base_model": linear_config.KIND,
            "metrics": published.metrics,
            "dataset": published.metrics["starter"]["dataset"],
        },
    )
    return version


def _publish(shipped: artifacts.Artifact, root: Path) -> artifacts.Artifact:
    """Publish the starter under a name that is free, or find it where no version names it."""
    # The release it was built for, which may be an earlier one than this.
    base = f"starter-{shipped.metrics['starter']['release']}"
    name, number = base, 1
    while not _is_free(name, shipped.digest, root):
        number += 1
        name = f"{base}-{number}"
    if (root / name).exists():
        return artifacts.read(root / name)
    return artifacts.publish(STARTER_DIRECTORY, root, name)


def _is_free(name: str, digest: str, root: Path) -> bool:
    """Whether no version has the name, and nothing but this starter lies under it."""
    if ModelVersion.objects.filter(name=name).exists():
        return False
    if not (root / name).exists():
        return True
    try:
        artifacts.read(root / name, expected_digest=digest)
    except ArtifactError:
        return False
    return True
