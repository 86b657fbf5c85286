"""The on-disk model artifact: layout, checksums, atomic publishing. Nothing here unpickles."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ticket_priority.exceptions import ArtifactError, NameTakenError
from ticket_priority.ml.artifacts import scratch
from ticket_priority.ml.artifacts.reading import parse_object, read_object, read_small
from ticket_priority.ml.types import ARTIFACT_FORMAT, CLASS_NAMES, ArtifactFile

REQUIRED_FILES: Final = (ArtifactFile.CONFIG, ArtifactFile.METRICS)
_CHUNK: Final = 1 << 20
_PROBE: Final = ".write-probe"
_PROVISIONAL: Final = ".provisional"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified artifact. `digest` is the SHA-256 of its manifest, which lists its `files`.

    `manifest` is that file as it was verified; `dataset` describes what it was trained on, where
    that is known.
    """

    directory: Path
    kind: str
    digest: str
    metrics: dict[str, Any]
    files: tuple[str, ...] = ()
    dataset: dict[str, Any] = field(default_factory=dict)
    manifest: bytes = field(default=b"", repr=False)


def write(staged: Path, directory: Path) -> Artifact:
    """Copy the files of `staged` to a folder that is new or empty, the manifest last.

    For a file system that cannot rename folders, such as a mounted bucket: what is half written has
    no manifest and so is no artifact. Raises ArtifactError; the folder is empty again then.
    """
    check_unused(directory)
    names: list[str] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        names = _files(staged)
        _copy(staged, directory, names)
        _write_manifest(directory)
    except OSError as error:
        _undo_copy(directory, names)
        raise ArtifactError(
            f"Cannot write the artifact to {directory}: {error}. Check its free space."
        ) from error
    return read(directory)


def check_unused(directory: Path) -> None:
    """Raise ArtifactError when `directory` is not new or empty."""
    try:
        taken = any(path.name != _PROBE for path in directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise ArtifactError(f"{directory} is no folder to write to: {error.strerror}.") from error
    if taken:
        raise ArtifactError(f"{directory} is not empty: name another folder for the artifact.")


def check_writable(directory: Path) -> None:
    """Raise ArtifactError when no file can be written to `directory`; leaves none there."""
    is_missing = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / _PROBE
        probe.touch()
        probe.unlink()
        if is_missing:
            directory.rmdir()
    except OSError as error:
        raise ArtifactError(
            f"{directory} cannot be written: {error.strerror}. Name another folder."
        ) from error


def publish(
    staged: Path,
    root: Path,
    name: str,
    *,
    files: Collection[str] | None = None,
    manifest: bytes | None = None,
    owner: str = "",
) -> Artifact:
    """Copy files of `staged` (default: all) to `root/name` with a manifest, in one atomic step.

    The manifest is made from the files, unless one is given, which they must then match. `owner`
    may `sweep` up a copy whose process was killed. Raises NameTakenError, and ArtifactError when a
    file is missing or `root` cannot be written; nothing is left behind then.
    """
    target = root / name
    temporary = root / f".{name}-{secrets.token_hex(4)}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise _taken(target)
        # Beside the folder, not in it: every file there is the artifact's.
        with scratch.in_use(temporary.with_name(temporary.name + scratch.MARK), owner):
            try:
                temporary.mkdir(mode=0o700)
                staged_files = _files(staged)
                wanted = staged_files if files is None else set(files).intersection(staged_files)
                _copy(staged, temporary, wanted)
                if manifest is None:
                    _write_manifest(temporary)
                else:
                    (temporary / ArtifactFile.MANIFEST).write_bytes(manifest)
                read(temporary)
                for folder in _folders(temporary):
                    folder.chmod(0o755)
                _sync(temporary)
                temporary.rename(target)
                _sync_one(root)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and is_published(target):
            raise _taken(target) from error
        raise _cannot_publish(root, error) from error
    return read(target)


def _taken(target: Path) -> NameTakenError:
    return NameTakenError(f"{target} exists already: publish under another name.")


def _cannot_publish(root: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"Cannot publish to {root}: {error}. Check its permissions and free space, or set "
        'TICKET_PRIORITY["ARTIFACT_ROOT"] to a folder this process may write.'
    )


def seal(directory: Path) -> None:
    """Write the manifest into the folder of the files, so that they can be imported.

    Raises ArtifactError when one is missing or the folder cannot be written.
    """
    try:
        _write_manifest(directory)
    except OSError as error:
        raise ArtifactError(f"{directory} cannot be written: {error.strerror}.") from error


def take(artifact: Artifact, root: Path, name: str, *, owner: str = "") -> Artifact:
    """Publish a verified artifact from elsewhere; raises ArtifactError, also if it has changed."""
    return publish(
        artifact.directory,
        root,
        name,
        files=artifact.files,
        manifest=artifact.manifest,
        owner=owner,
    )


def read(directory: Path, *, expected_digest: str | None = None) -> Artifact:
    """Verify the artifact in `directory` and return it; raises ArtifactError with the reason.

    Every file's SHA-256 is compared with the manifest, and the manifest's own with
    `expected_digest` where one is given.
    """
    manifest_path = directory / ArtifactFile.MANIFEST
    try:
        _require_inside(directory, manifest_path)
        manifest_bytes = read_small(manifest_path)
    except OSError as error:
        advice = (
            "name the folder that training wrote"
            if expected_digest is None
            else "train again, or activate another version"
        )
        raise ArtifactError(
            f"{directory} holds no readable artifact ({error.strerror}): {advice}."
        ) from error
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    if expected_digest is not None and digest != expected_digest:
        raise ArtifactError(f"{manifest_path} is not the manifest that was registered.")
    manifest = parse_object(manifest_bytes, manifest_path)
    _check_format(manifest, manifest_path)
    files = manifest.get("files")
    if not isinstance(files, dict) or not set(REQUIRED_FILES) <= set(files):
        raise ArtifactError(f"{manifest_path} lists no {' and '.join(REQUIRED_FILES)}.")
    for name, expected in files.items():
        _verify_file(directory, name, expected)
    config = read_object(directory / ArtifactFile.CONFIG)
    if config.get("classes") != list(CLASS_NAMES):
        raise ArtifactError(f"{directory} was trained for other classes than {CLASS_NAMES}.")
    return Artifact(
        directory=directory,
        kind=str(config.get("kind", "")),
        digest=digest,
        metrics=read_object(directory / ArtifactFile.METRICS),
        files=tuple(files),
        dataset=(
            read_object(directory / ArtifactFile.DATASET) if ArtifactFile.DATASET in files else {}
        ),
        manifest=manifest_bytes,
    )


def is_published(directory: Path) -> bool:
    """Say whether an artifact was published there, without verifying it."""
    return (directory / ArtifactFile.MANIFEST).is_file()


@contextmanager
def provisional(
    root: Path, name: str, *, owner: str, is_registered: Callable[[str], bool]
) -> Iterator[None]:
    """Delete what the block publishes under a name if it fails before that is registered.

    Where the process is killed, the owner's next `sweep` deletes it. Hold the training lock. Raises
    ArtifactError when `root` cannot be written.
    """
    mark = root / f".{name}{_PROVISIONAL}"
    try:
        scratch.write(mark, owner)
    except OSError as error:
        mark.unlink(missing_ok=True)
        raise _cannot_publish(root, error) from error
    try:
        yield
    except NameTakenError:
        # The folder is another's.
        mark.unlink(missing_ok=True)
        raise
    except BaseException:
        _settle(mark, is_registered)
        raise
    mark.unlink(missing_ok=True)


def sweep(root: Path, *, owner: str, is_registered: Callable[[str], bool]) -> None:
    """Delete what an owner's killed processes left: half copies, and artifacts not registered.

    `owner` stands for the database that `is_registered` asks: other deployments may share `root`,
    and only their database knows what they have registered. Hold the training lock.
    """
    for mark in scratch.stale(root.glob(f".*{scratch.MARK}"), owner):
        remove(mark.with_name(mark.name.removesuffix(scratch.MARK)))
    for mark in root.glob(f".*{_PROVISIONAL}"):
        with suppress(OSError):
            if scratch.bears(mark, owner):
                _settle(mark, is_registered)


def _settle(mark: Path, is_registered: Callable[[str], bool]) -> None:
    name = mark.name.removeprefix(".").removesuffix(_PROVISIONAL)
    if not is_registered(name):
        remove(mark.with_name(name))
    mark.unlink(missing_ok=True)


def remove(directory: Path) -> None:
    """Delete a folder that no model version names."""
    shutil.rmtree(directory, ignore_errors=True)


def _undo_copy(directory: Path, names: Collection[str]) -> None:
    """Delete files that were copied, and the folders that are empty without them."""
    for name in (ArtifactFile.MANIFEST, *names):
        with suppress(OSError):
            (directory / name).unlink(missing_ok=True)
    for folder in reversed(_folders(directory)[1:]):
        with suppress(OSError):
            folder.rmdir()


def _files(staged: Path) -> list[str]:
    """Return the names of an artifact's files below `staged`, as the manifest has them."""
    names = (path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
    return sorted(name for name in names if name != ArtifactFile.MANIFEST)


def _folders(directory: Path) -> list[Path]:
    return [directory, *(path for path in directory.rglob("*") if path.is_dir())]


def _copy(staged: Path, directory: Path, names: Collection[str]) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(staged / name, directory / name)


def _write_manifest(directory: Path) -> None:
    files = {name: _sha256(directory / name) for name in _files(directory)}
    missing = [name for name in REQUIRED_FILES if name not in files]
    if missing:
        raise ArtifactError(f"The artifact to be published lacks {', '.join(missing)}.")
    manifest = {"format": ARTIFACT_FORMAT, "files": files}
    text = json.dumps(manifest, indent=2, sort_keys=True)
    (directory / ArtifactFile.MANIFEST).write_text(text + "\n", encoding="utf-8")


def _check_format(manifest: dict[str, Any], path: Path) -> None:
    version = manifest.get("format")
    if not isinstance(version, int):
        raise ArtifactError(f"{path} names no format.")
    if version > ARTIFACT_FORMAT:
        raise ArtifactError(
            f"{path} has format {version}; this release reads up to {ARTIFACT_FORMAT}: "
            "upgrade django-ticket-priority."
        )


def _verify_file(directory: Path, name: str, expected: object) -> None:
    parts = PurePosixPath(name).parts
    is_plain = "/".join(parts) == name and "\\" not in name and name.isprintable()
    if not parts or not is_plain or ".." in parts:
        raise ArtifactError(f"The manifest in {directory} names a path outside it: {name!r}.")
    try:
        _require_inside(directory, directory / name)
        actual = _sha256(directory / name)
    except OSError as error:
        raise ArtifactError(f"{directory / name} cannot be read: {error.strerror}.") from error
    if actual != expected:
        raise ArtifactError(f"{directory / name} differs from its checksum: it was altered.")


def _require_inside(directory: Path, path: Path) -> None:
    """Raise ArtifactError unless a path that exists is that of a file inside the artifact."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory)):
        raise ArtifactError(f"{path} is a link that leads out of the artifact.")
    if path.exists() and not path.is_file():
        raise ArtifactError(f"{path} is no file.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
