from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ticket_priority.exceptions import ArtifactError, NameTakenError
from ticket_priority.ml.artifacts import scratch, store
from ticket_priority.ml.types import CLASS_NAMES


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    folder = tmp_path / "staged"
    folder.mkdir()
    config = {"format": 1, "kind": "transformer", "classes": list(CLASS_NAMES)}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.json").write_text('{"model": {"accuracy": 0.5}}')
    (folder / "model.onnx").write_bytes(b"weights")
    return folder


def test_publish_verifies_and_reads_back(staged: Path, tmp_path: Path) -> None:
    published = store.publish(staged, tmp_path / "root", "v1")
    assert published.kind == "transformer"
    assert published.metrics == {"model": {"accuracy": 0.5}}
    again = store.read(tmp_path / "root" / "v1", expected_digest=published.digest)
    assert again == published


def test_publish_refuses_a_taken_name(staged: Path, tmp_path: Path) -> None:
    store.publish(staged, tmp_path, "v1")
    with pytest.raises(ArtifactError, match="exists already"):
        store.publish(staged, tmp_path, "v1")


def test_a_failed_publish_leaves_nothing(staged: Path, tmp_path: Path) -> None:
    (staged / "metrics.json").unlink()
    with pytest.raises(ArtifactError, match=r"lacks metrics\.json"):
        store.publish(staged, tmp_path / "root", "v1")
    assert list((tmp_path / "root").iterdir()) == []


def test_publish_says_what_to_do_about_a_root_that_cannot_be_written(
    staged: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="ARTIFACT_ROOT"):
        store.publish(staged, tmp_path / "file" / "root", "v1")


def _tamper(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"others!")


def _truncate(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def _drop_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _garble_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def _from_the_future(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))


def _point_outside(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../secret"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_tamper, "differs from its checksum"),
        (_truncate, "cannot be read"),
        (_drop_manifest, "holds no readable artifact"),
        (_garble_manifest, "is not JSON"),
        (_from_the_future, "upgrade"),
        (_point_outside, "path outside"),
    ],
)
def test_a_damaged_artifact_is_refused(
    staged: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    published = store.publish(staged, tmp_path / "root", "v1")
    damage(published.directory)
    with pytest.raises(ArtifactError, match=message):
        store.read(published.directory)


def test_another_manifest_than_the_registered_one_is_refused(staged: Path, tmp_path: Path) -> None:
    published = store.publish(staged, tmp_path, "v1")
    with pytest.raises(ArtifactError, match="not the manifest that was registered"):
        store.read(published.directory, expected_digest="0" * 64)


def test_an_artifact_is_taken_with_the_manifest_it_came_with(staged: Path, tmp_path: Path) -> None:
    path = store.write(staged, tmp_path / "elsewhere").directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "signed_by": "us"}))
    (path.parent / "notes.txt").touch()
    found = store.read(path.parent)
    taken = store.take(found, tmp_path / "root", "v1")
    assert taken.digest == found.digest
    assert (taken.directory / "manifest.json").read_bytes() == path.read_bytes()
    assert not (taken.directory / "notes.txt").exists()


def test_an_artifact_that_has_changed_is_not_taken(staged: Path, tmp_path: Path) -> None:
    found = store.write(staged, tmp_path / "elsewhere")
    _tamper(found.directory)
    with pytest.raises(ArtifactError, match="differs from its checksum"):
        store.take(found, tmp_path / "root", "v1")
    assert list((tmp_path / "root").iterdir()) == []


def test_a_trial_of_a_folder_leaves_nothing(tmp_path: Path) -> None:
    store.check_writable(tmp_path / "new")
    store.check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ArtifactError, match="cannot be written"):
        store.check_writable(Path("/proc/model"))


def test_other_classes_are_refused(staged: Path, tmp_path: Path) -> None:
    (staged / "config.json").write_text('{"kind": "transformer", "classes": ["a", "b"]}')
    with pytest.raises(ArtifactError, match="other classes"):
        store.publish(staged, tmp_path, "v1")


def test_an_artifact_may_hold_folders(staged: Path, tmp_path: Path) -> None:
    (staged / "member").mkdir()
    (staged / "member" / "weights").write_bytes(b"weights")
    artifact = store.publish(staged, tmp_path / "root", "v1")
    assert "member/weights" in artifact.files
    again = store.take(artifact, tmp_path / "elsewhere", "v1")
    assert (again.directory / "member" / "weights").read_bytes() == b"weights"
    assert again.digest == artifact.digest
    (again.directory / "member" / "weights").write_bytes(b"tampered")
    with pytest.raises(ArtifactError, match="member/weights differs"):
        store.read(again.directory)


@pytest.mark.parametrize(
    "name", ["../weights", "member/../../weights", "/etc/passwd", "member//weights", "a\\b", ""]
)
def test_a_manifest_that_leads_out_of_the_artifact_is_refused(
    staged: Path, tmp_path: Path, name: str
) -> None:
    artifact = store.publish(staged, tmp_path / "root", "v1")
    path = artifact.directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="a path outside it"):
        store.read(artifact.directory)


def test_a_sweep_deletes_what_bears_the_mark_of_its_own_database(
    staged: Path, tmp_path: Path
) -> None:
    """Deployments may share the folder, and may keep in it what they like."""
    root = tmp_path / "root"
    foreign = (".Trash-1000", ".venv-3.12", ".vscode-server", ".git", ".v9-abc", "v0")
    for name in foreign:
        (root / name).mkdir(parents=True)
        (root / name / "precious.txt").write_text("mine")
    # By hand, by an earlier release, or by a deployment with another database.
    (root / ".venv-3.12.unfinished").touch()
    (root / ".v0.provisional").touch()
    os.mkfifo(root / ".pipe.provisional")
    os.mkfifo(root / ".pipe.unfinished")
    for owner in ("staging", "production"):
        store.publish(staged, root, owner, owner=owner)
        scratch.write(root / f".{owner}.provisional", owner)
        (root / f".half-{owner}").mkdir()
        scratch.write(root / f".half-{owner}.unfinished", owner)
    before = {path.name for path in root.iterdir()}

    store.sweep(root, owner="staging", is_registered=lambda name: False)

    gone = {"staging", ".staging.provisional", ".half-staging", ".half-staging.unfinished"}
    assert {path.name for path in root.iterdir()} == before - gone
    assert all((root / name / "precious.txt").exists() for name in foreign)


def test_a_name_that_another_process_took_meanwhile_is_left_to_it(
    staged: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(NameTakenError),
        store.provisional(tmp_path, "v1", owner="us", is_registered=lambda name: False),
    ):
        store.publish(staged, tmp_path, "v1", owner="others")
        store.publish(staged, tmp_path, "v1", owner="us")
    assert store.read(tmp_path / "v1")
    assert {path.name for path in tmp_path.iterdir()} == {staged.name, "v1"}
