"""Use case: install the starter model of this release, for the time before the first label."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from django.utils.module_loading import import_string

from ticket_priority.conf import get_settings
from ticket_priority.db import identity_of
from ticket_priority.exceptions import ArtifactError, NameTakenError, TrainingError
from ticket_priority.ml.artifacts import linear, scratch, store
from ticket_priority.ml.artifacts.store import Artifact
from ticket_priority.ml.evaluation.figures import mapping
from ticket_priority.ml.hyperparameters.presets import EMBEDDED
from ticket_priority.ml.types import ArtifactFile, ProgressCallback, silent
from ticket_priority.models import ModelVersion, plugin_database

STARTER_DIRECTORY: Final = Path(__file__).resolve().parent / "model"
"""A published linear artifact. Its CARD.md says what it was trained on, and its figures."""

HEAD_DIRECTORY: Final = Path(__file__).resolve().parent / "head"
"""All files of an ensemble artifact but its members, and a head for the embedded encoder: what
makes the better starter of the linear one. It has its own CARD.md."""

CARD: Final = "CARD.md"

BETTER: Final = 'pip install "django-ticket-priority[ml,embedded]"'
"""What making the better starter needs; serving it needs the extra `serving` alone."""

_STAGING: Final = "starter-"

# By dotted path, because a web process never imports a trainer.
_WRITER: Final = "ticket_priority.ml.trainers.starter.write_members"


def install(*, progress: ProgressCallback = silent) -> ModelVersion:
    """Publish the better starter where it can be made, else the linear one; return its version.

    `progress` is told what is done, and why it is the linear one. Making the better one takes about
    a minute, 3 GB of memory, and 2 GB of disk meanwhile. An installed starter is left as it is.
    Raises ArtifactError, with what to do, where the shipped files were altered or ARTIFACT_ROOT
    cannot be written.
    """
    head = store.read(HEAD_DIRECTORY)
    # Found by its head, because two exports may differ in their bytes.
    known = ModelVersion.objects.filter(metrics__starter__head=head.digest).first()
    if known is not None and _folder_of(known).exists():
        return known
    try:
        return _install_better(head, known, progress)
    except TrainingError as error:
        progress(f"The small starter is installed: {error}")
    return install_linear()


def install_linear() -> ModelVersion:
    """Publish the linear starter and register it, as `install` does; return its version."""
    shipped = store.read(STARTER_DIRECTORY)

    def is_same(found: Artifact) -> bool:
        return found.digest == shipped.digest

    known = ModelVersion.objects.filter(digest=shipped.digest).first()
    if known is not None:
        if not _folder_of(known).exists():
            _publish(STARTER_DIRECTORY, known.directory, is_same)
        return known
    name = _free_name(_base_name(shipped), is_same)
    return _register(_publish(STARTER_DIRECTORY, name, is_same), linear.KIND)


def _install_better(
    head: Artifact, known: ModelVersion | None, progress: ProgressCallback
) -> ModelVersion:
    """Make, publish and register it; raises TrainingError, with why, where it cannot be made."""
    root = get_settings().artifact_root

    def is_same(found: Artifact) -> bool:
        return bool(mapping(found.metrics.get("starter")).get("head") == head.digest)

    if known is not None:
        name = known.directory
    else:
        name = _free_name(f"{_base_name(head)}-{EMBEDDED}", is_same)
        if (root / name).exists():
            return _register(store.read(root / name), EMBEDDED)
    words = store.read(STARTER_DIRECTORY)
    write = _load_writer(head)
    with _staging() as staged:
        progress("Making the better starter, which takes about a minute")
        serving = write(head.directory, words.directory, staged, progress=progress)
        _write_descriptions(head, serving, staged)
        progress("Publishing the artifact")
        published = _publish(staged, name, is_same)
    if known is None:
        return _register(published, EMBEDDED)
    known.digest = published.digest
    known.save(update_fields=["digest"])
    return known


def _publish(staged: Path, name: str, is_same: Callable[[Artifact], bool]) -> Artifact:
    """Publish it, unless another process that installs it too has been quicker."""
    root = get_settings().artifact_root
    try:
        return store.publish(staged, root, name, owner=identity_of(plugin_database()))
    except NameTakenError:
        found = store.read(root / name)
        if not is_same(found):
            raise
        return found


@contextmanager
def _staging() -> Iterator[Path]:
    """Give a temporary folder below OUTPUT_DIR; raises TrainingError.

    Those of processes that were killed are deleted now.
    """
    output = get_settings().output_dir
    for mark in scratch.stale(output.glob(f"{_STAGING}*/{scratch.MARK}")):
        store.remove(mark.parent)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=_STAGING, dir=output) as made,
            scratch.in_use(Path(made, scratch.MARK)),
        ):
            staged = Path(made, "artifact")
            staged.mkdir()
            yield staged
    except OSError as error:
        raise TrainingError(
            f"{output} cannot be written: {error.strerror or error}. Check its free space, or set "
            'TICKET_PRIORITY["OUTPUT_DIR"].'
        ) from error


def _load_writer(head: Artifact) -> Callable[..., dict[str, Any]]:
    """Return what writes the better starter's members.

    Raises TrainingError where it is not installed, or the settings name no class to serve it.
    """
    if head.kind not in get_settings().serving.classifiers:
        raise TrainingError(
            f"A better one is of kind {head.kind!r}, for which "
            'TICKET_PRIORITY["SERVING"]["CLASSIFIERS"] names no class.'
        )
    try:
        writer: Callable[..., dict[str, Any]] = import_string(_WRITER)
    except ImportError as error:
        raise TrainingError(f"A better one can be had after {BETTER}") from error
    return writer


def _write_descriptions(head: Artifact, serving: dict[str, Any], staged: Path) -> None:
    """Write the card, and the metrics with how it serves here and what it was made of."""
    metrics = head.metrics | {
        "serving": serving,
        "starter": head.metrics["starter"] | {"head": head.digest},
    }
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    (staged / ArtifactFile.METRICS).write_text(text, encoding="utf-8")
    (staged / CARD).write_bytes((head.directory / CARD).read_bytes())


def _folder_of(version: ModelVersion) -> Path:
    return get_settings().artifact_root / version.directory


def _register(published: Artifact, base_model: str) -> ModelVersion:
    version, _created = ModelVersion.objects.get_or_create(
        name=published.directory.name,
        defaults={
            "kind": published.kind,
            "directory": published.directory.name,
            "digest": published.digest,
            "base_model": base_model,
            "metrics": published.metrics,
            "dataset": published.metrics["starter"]["dataset"],
        },
    )
    return version


def _base_name(shipped: Artifact) -> str:
    # The release that it was built for, which may be an earlier one.
    return f"starter-{shipped.metrics['starter']['release']}"


def _free_name(base: str, is_same: Callable[[Artifact], bool]) -> str:
    """Return a name that no other version has; its folder is absent, or has the same starter."""
    names = chain([base], (f"{base}-{number}" for number in count(2)))
    return next(name for name in names if _is_free(name, is_same))


def _is_free(name: str, is_same: Callable[[Artifact], bool]) -> bool:
    version = ModelVersion.objects.filter(name=name).first()
    folder = get_settings().artifact_root / name
    if version is None and not folder.exists():
        return True
    try:
        found = store.read(folder)
    except ArtifactError:
        return False
    # Another process that installs it may have registered it a moment ago.
    return is_same(found) and (version is None or version.digest == found.digest)
