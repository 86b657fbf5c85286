"""A model's files, tampered with: refused everywhere, while the version before serves on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from helpdesk.models import Ticket
from tests.conftest import publish_toy
from tests.support import tampering
from tests.support.tampering import Damage, edit, listed
from ticket_priority import classifiers
from ticket_priority.exceptions import ArtifactError
from ticket_priority.ml.artifacts import store
from ticket_priority.models import ModelVersion
from ticket_priority.priorities import Priority

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite]

AS_REGISTERED = "is not the manifest that was registered"

TAMPERED: dict[str, tuple[Damage, str, str]] = {
    "a file is missing": (tampering.missing, "cannot be read", "cannot be read"),
    "a file is cut short": (tampering.truncated, "altered", "altered"),
    "a link leads out": (tampering.linked_out, "leads out", "leads out"),
    "a pipe": (tampering.piped, "is no file", "is no file"),
    "a file above": (listed("../outside"), AS_REGISTERED, "a path outside it"),
    "a file elsewhere": (listed("/etc/passwd"), AS_REGISTERED, "a path outside it"),
    "no path at all": (listed("\ud800\0"), AS_REGISTERED, "a path outside it"),
    "a later format": (edit("manifest.json", format=99), AS_REGISTERED, "upgrade"),
    "no manifest": (
        lambda folder: (folder / "manifest.json").unlink(),
        "no readable artifact",
        "no readable artifact",
    ),
}
"""The damage to a published artifact, and why it is refused: once registered, and as an import."""

MALICIOUS: dict[str, tuple[Damage, str]] = {
    "of another kind": (edit("config.json", kind="linear"), "learned is None"),
    "of no kind": (edit("config.json", kind="oracle"), "of kind 'oracle'"),
    "a later format": (edit("config.json", format=99), "format 99 is newer"),
    "weights above": (tampering.external_weights("../outside.bin"), "model.onnx cannot be loaded"),
    "weights elsewhere": (
        tampering.external_weights("{folder}/outside.bin"),
        "model.onnx cannot be loaded",
    ),
    "a temperature that is no number": (
        edit("config.json", temperature=float("nan")),
        "NaN is no number",
    ),
    "a temperature below 0": (edit("config.json", temperature=-1), "temperature is -1"),
    "a temperature beyond floats": (
        edit("config.json", temperature=10**400),
        "not a positive number",
    ),
    "an endless prefix": (edit("config.json", prefix="a" * 1_001), "prefix is not a text"),
    "a padding beyond integers": (edit("config.json", pad_token_id=2**70), "not a token id"),
    "a deep configuration": (tampering.nested("config.json"), "config.json is not JSON"),
    "a huge configuration": (tampering.huge("config.json", 17 << 20), "larger than 16 MiB"),
    "deep metrics": (tampering.nested("metrics.json"), "metrics.json is not JSON"),
    "a deep tokenizer": (tampering.nested("tokenizer.json"), "tokenizer.json cannot be loaded"),
}
"""What an artifact could hold whose checksums are right, and why it is refused."""


def by_name(cases: dict[str, Any]) -> Any:
    rows = [(case if isinstance(case, tuple) else (case,)) for case in cases.values()]
    names = ("damage", "message", "on_import")[: len(rows[0])]
    return pytest.mark.parametrize(names, rows, ids=list(cases))


@pytest.fixture
def serving(active_model: ModelVersion) -> ModelVersion:
    """Return the version that this process has in memory."""
    assert classifiers.get_classifier().model_version == active_model
    return active_model


@pytest.fixture
def import_refused(artifact_root: Path) -> Callable[[Path, str], None]:
    """Return a function that shows that an import is refused, and leaves nothing."""

    def refused(folder: Path, message: str) -> None:
        with pytest.raises(CommandError, match=re.escape(message)):
            call_command("import_priority_model", folder, "--activate=always", stdout=StringIO())
        assert not ModelVersion.objects.exists()
        left = {path.name for path in artifact_root.iterdir()} if artifact_root.exists() else set()
        assert left <= {".training.lock"}

    return refused


def assert_it_does_not_serve(
    version: ModelVersion, message: str, before: ModelVersion, lead: Client
) -> None:
    """Try to activate a version, then have it be active all the same."""
    with pytest.raises(CommandError, match=f"{version.name} was not activated: .*") as caught:
        call_command("activate_priority_model", version.name, stdout=StringIO())
    assert message in str(caught.value)
    assert ModelVersion.objects.active() == before
    version.activate()
    assert classifiers.get_classifier().model_version == before
    assert Ticket.objects.create(subject="outage fire breach").priority == Priority.HIGH
    version.refresh_from_db()
    assert message in version.load_error
    page = lead.get(f"/admin/ticket_priority/modelversion/{version.pk}/change/")
    assert message in page.content.decode().replace("&#x27;", "'")
    out = StringIO()
    with pytest.raises(SystemExit) as code:
        call_command("priority_status", stdout=out)
    assert code.value.code == 2
    assert message in out.getvalue()


@by_name(TAMPERED)
def test_a_registered_version_that_was_tampered_with_does_not_serve(
    serving: ModelVersion,
    toy_run: Any,
    artifact_root: Path,
    admin_client: Client,
    damage: Damage,
    message: str,
    on_import: str,
) -> None:
    version = publish_toy(toy_run, artifact_root, "toy-2")
    damage(artifact_root / "toy-2")
    assert_it_does_not_serve(version, message, serving, admin_client)


@by_name(TAMPERED)
def test_an_artifact_that_was_tampered_with_is_not_imported(
    toy_run: Any,
    tmp_path: Path,
    import_refused: Callable[[Path, str], None],
    damage: Damage,
    message: str,
    on_import: str,
) -> None:
    store.write(toy_run.artifact_dir, tmp_path / "elsewhere" / "model")
    damage(tmp_path / "elsewhere" / "model")
    import_refused(tmp_path / "elsewhere" / "model", on_import)


def forged(toy_run: Any, folder: Path, damage: Damage) -> Path:
    """Write an artifact with a damage inside and a manifest that is right about it."""
    shutil.copytree(toy_run.artifact_dir, folder)
    damage(folder)
    store._write_manifest(folder)
    return folder


def registered(folder: Path) -> ModelVersion:
    """Register an artifact without looking at it."""
    digest = sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return ModelVersion.objects.create(
        name=folder.name, kind="transformer", directory=folder.name, digest=digest
    )


@by_name(MALICIOUS)
def test_a_malicious_artifact_is_not_imported(
    toy_run: Any,
    tmp_path: Path,
    import_refused: Callable[[Path, str], None],
    damage: Damage,
    message: str,
) -> None:
    import_refused(forged(toy_run, tmp_path / "elsewhere", damage), message)


@by_name(MALICIOUS)
def test_a_malicious_artifact_does_not_serve(
    serving: ModelVersion,
    toy_run: Any,
    artifact_root: Path,
    admin_client: Client,
    damage: Damage,
    message: str,
) -> None:
    """Its row was written past the import."""
    version = registered(forged(toy_run, artifact_root / "toy-2", damage))
    assert_it_does_not_serve(version, message, serving, admin_client)


def test_one_flipped_bit_in_any_file_is_found(toy_run: Any, artifact_root: Path) -> None:
    version = publish_toy(toy_run, artifact_root, "toy-1")
    folder = artifact_root / "toy-1"
    names = [path.name for path in folder.iterdir()]
    assert len(names) == 6
    for name in names:
        whole = (folder / name).read_bytes()
        for place in (0, None, -1):
            tampering.flip(folder / name, place)
            with pytest.raises(ArtifactError, match=rf"{re.escape(name)} (differs|is not)"):
                classifiers.load(version)
            (folder / name).write_bytes(whole)
    classifiers.load(version)


def test_an_additional_file_is_neither_read_nor_taken(
    toy_run: Any, tmp_path: Path, artifact_root: Path, fresh_classifier: None
) -> None:
    mark = tmp_path / "mark"
    folder = tmp_path / "elsewhere"
    store.write(toy_run.artifact_dir, folder)
    for name in ("pytorch_model.bin", "last.ckpt", "config.py", "weights.bin"):
        (folder / name).write_bytes(tampering.evil_pickle(mark))
    call_command("import_priority_model", folder, "--activate=always", stdout=StringIO())
    version = ModelVersion.objects.get()
    taken = artifact_root / version.directory
    assert {path.name for path in taken.iterdir()} == {
        *store.read(folder).files,
        "manifest.json",
    }
    (taken / "pytorch_model.bin").write_bytes(tampering.evil_pickle(mark))
    assert Ticket.objects.create(subject="outage fire breach").priority == Priority.HIGH
    assert not mark.exists()


def test_weights_beside_the_model_that_are_not_listed_are_not_taken(
    toy_run: Any, tmp_path: Path, import_refused: Callable[[Path, str], None]
) -> None:
    """They would not be verified, and could be exchanged afterwards."""
    folder = forged(toy_run, tmp_path / "elsewhere", tampering.external_weights("weights.bin"))
    (tmp_path / "outside.bin").rename(folder / "weights.bin")
    import_refused(folder, "model.onnx cannot be loaded")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_pickle_in_the_place_of_a_file_is_not_unpickled(
    toy_run: Any, tmp_path: Path, import_refused: Callable[[Path, str], None], name: str
) -> None:
    mark = tmp_path / "mark"
    content = tampering.evil_pickle(mark)
    folder = forged(
        toy_run,
        tmp_path / "elsewhere",
        lambda folder: (folder / name).write_bytes(content) and None,
    )
    import_refused(folder, name)
    assert not mark.exists()


def without_numbers(folder: Path) -> None:
    """Make every weight of the graph no number."""
    model = onnx.load(folder / "model.onnx")
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(weight) * np.float32("nan")
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, folder / "model.onnx")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_gives_no_probabilities_is_not_imported(
    toy_run: Any, tmp_path: Path, import_refused: Callable[[Path, str], None]
) -> None:
    folder = forged(toy_run, tmp_path / "elsewhere", without_numbers)
    import_refused(folder, "The model answers with numbers that are not finite")


def test_a_tokenizer_that_panics_is_not_imported(
    toy_run: Any, tmp_path: Path, import_refused: Callable[[Path, str], None]
) -> None:
    import_refused(
        forged(toy_run, tmp_path / "elsewhere", tampering.panicking),
        "tokenizer.json cannot be used: its reader panics",
    )


@pytest.mark.parametrize("deadline", [None, 60_000])
def test_a_tokenizer_that_panics_loses_no_ticket(
    toy_run: Any, artifact_root: Path, configure: Any, fresh_classifier: None, deadline: Any
) -> None:
    """A panic is no Exception: it would go through whatever keeps a save safe."""
    configure(SERVING={"DEADLINE_MS": deadline})
    registered(forged(toy_run, artifact_root / "toy-1", tampering.panicking)).activate()
    ticket = Ticket.objects.create(subject="outage fire breach")
    ticket.refresh_from_db()
    assert ticket.priority is None
