from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests.admin.conftest import METRICS, MakePrediction, MakeTicket
from tests.admin.pages import forms_of, messages_of
from tests.conftest import publish_toy
from ticket_priority.admin.figures import REWRITTEN, Figures
from ticket_priority.classifiers import get_classifier
from ticket_priority.ml.evaluation.metrics import report
from ticket_priority.ml.evaluation.robustness import PERTURBATIONS
from ticket_priority.ml.types import ArtifactFile
from ticket_priority.models import ModelVersion
from ticket_priority.priorities import Priority

URL = "/admin/ticket_priority/modelversion/"


def page_of(version: ModelVersion) -> str:
    return f"{URL}{version.pk}/change/"


def activate_page_of(version: ModelVersion) -> str:
    return f"{URL}{version.pk}/activate/"


class TestList:
    def test_figures_stand_beside_the_baselines(
        self, admin_client: Client, version: ModelVersion
    ) -> None:
        page = admin_client.get(URL).content.decode()
        for text in (version.name, version.base_model, "800", "0.875", "0.861", "0.688", "0.190"):
            assert text in page

    def test_the_active_one_and_the_broken_one_are_marked(
        self, admin_client: Client, version: ModelVersion
    ) -> None:
        ModelVersion.objects.create(
            name="broken", kind="x", directory="x", digest="0", load_error="gone"
        )
        assert "tp-mark--active" not in admin_client.get(URL).content.decode()
        version.activate()
        page = admin_client.get(URL).content.decode()
        assert page.count("tp-mark--active") == 1
        assert page.count("tp-mark--error") == 1

    def test_nobody_adds_or_edits(self, admin_client: Client, version: ModelVersion) -> None:
        assert admin_client.get(f"{URL}add/").status_code == 403
        assert admin_client.post(page_of(version), {"name": "x"}).status_code == 403


class TestPage:
    def test_shows_scores_confusion_serving_data_and_configuration(
        self, admin_client: Client, version: ModelVersion
    ) -> None:
        page = admin_client.get(page_of(version)).content.decode()
        for text in (
            "TF-IDF + logistic regression",
            "Most frequent class",
            "0.842",
            "0.712",
            "truly High",
            "predicted Low",
            "(93%)",
            "int8",
            "no less accurate than the torch model",
            "0.958",
            "135.4 MB",
            "max_epochs",
            "7 duplicate",
            "bf16-mixed",
        ):
            assert text in page, text

    def test_figures_as_served_come_first_with_their_intervals(
        self, admin_client: Client, version: ModelVersion
    ) -> None:
        served = report(
            [0] * 44 + [1] * 48 + [2] * 28,
            probabilities=[[0.6, 0.3, 0.1]] * 50 + [[0.1, 0.8, 0.1]] * 40 + [[0.0, 0.1, 0.9]] * 30,
            languages=["en"] * 50 + [""] * 40 + ["pt-br"] * 30,
        )
        version.metrics = {**METRICS, "served": served}
        version.save()
        page = admin_client.get(page_of(version)).content.decode()
        low, high = served["intervals"]["macro_f1"]
        for text in (
            "This model, as served",
            f"{served['macro_f1']:.3f}",
            f"{low:.3f} – {high:.3f}",
            "pt-br",
            ">unknown<",
            f"{served['by_language']['en']['calibration_error']:.3f}",
        ):
            assert text in page, text
        assert [score.rows for score in Figures(version).scores] == [120, 120, 120, 120]
        assert f"{served['accuracy']:.3f}" in admin_client.get(URL).content.decode()
        asked = admin_client.get(activate_page_of(version)).content.decode()
        assert f"{low:.3f} – {high:.3f}" in asked
        german = admin_client.get(page_of(version), HTTP_ACCEPT_LANGUAGE="de").content.decode()
        assert f"{low:.3f} – {high:.3f}".replace(".", ",") in german
        assert "Dieses Modell, wie es läuft" in german

    def test_how_far_rewriting_moves_the_answers_is_shown(
        self, admin_client: Client, version: ModelVersion
    ) -> None:
        moved = {"kept": 0.93, "raised": 0.04, "shift": 0.1234}
        figures = {"n": 84, "overall": moved, "by_perturbation": {"plea": moved}}
        version.metrics = {**METRICS, "robustness": figures}
        version.save()
        page = admin_client.get(page_of(version)).text
        for text in (
            "A plea for priority",
            "All together",
            "93%",
            "4%",
            "0.123",
            "Test tickets: 84",
        ):
            assert text in page, text
        assert "Written in HTML" not in page, "it was not measured"
        german = admin_client.get(page_of(version), HTTP_ACCEPT_LANGUAGE="de").text
        assert "Bitte um Vorrang" in german

    def test_every_rewriting_has_a_title(self) -> None:
        assert [name for name, _title in REWRITTEN] == [*PERTURBATIONS, "overall"]

    def test_an_imported_version_is_beside_the_majority_of_the_tickets_here(
        self, admin_client: Client, version: ModelVersion
    ) -> None:
        here = {**report([0, 1, 2], [0, 1, 1]), "majority": report([0, 1, 2], [1] * 3)}
        version.metrics = {**METRICS, "served": here}
        version.save()
        assert [(str(score.label), score.rows) for score in Figures(version).scores[:3]] == [
            ("This model, as served", 3),
            ("Most frequent class, same tickets", 3),
            ("This model, as trained", 120),
        ]
        assert "Most frequent class, same tickets" in admin_client.get(page_of(version)).text

    def test_the_load_error_is_shown(self, admin_client: Client, version: ModelVersion) -> None:
        ModelVersion.objects.update(load_error="model.onnx was altered")
        assert "model.onnx was altered" in admin_client.get(page_of(version)).content.decode()

    @pytest.mark.parametrize(
        "metrics",
        [
            {},
            [],
            {"model": None, "serving": "int8", "training": 3},
            {"model": {"accuracy": "good", "confusion_matrix": [[1, 2], [3, 4]]}},
            {"model": {"confusion_matrix": [[0, 0, 0], ["x", None, 1], [0, 0, 1]]}},
            {"robustness": 3},
            {"robustness": {"n": "x", "overall": {"kept": None}, "by_perturbation": {"html": 1}}},
            {"served": 3, "model": {"intervals": [1], "by_language": "en"}},
            {"served": {"intervals": {"accuracy": [0.1, "x"]}, "by_language": {"en": 1}}},
            {"model": {"per_class": {"low": 1, "high": {"f1": None}}}, "serving": {"int8": {}}},
        ],
    )
    def test_missing_and_odd_figures_do_not_break_it(
        self, admin_client: Client, version: ModelVersion, metrics: Any
    ) -> None:
        ModelVersion.objects.update(metrics=metrics, dataset=metrics, config=metrics)
        assert admin_client.get(page_of(version)).status_code == 200
        assert admin_client.get(activate_page_of(version)).status_code == 200
        assert admin_client.get(URL).status_code == 200

    @pytest.mark.parametrize("key", [*METRICS, *METRICS["model"]])
    def test_each_missing_key(self, admin_client: Client, version: ModelVersion, key: str) -> None:
        metrics = copy.deepcopy(METRICS)
        metrics.pop(key, None)
        metrics.get("model", {}).pop(key, None)
        ModelVersion.objects.update(metrics=metrics)
        assert admin_client.get(page_of(version)).status_code == 200

    def test_a_version_a_real_training_registered(
        self, admin_client: Client, toy_version: ModelVersion
    ) -> None:
        page = admin_client.get(page_of(toy_version)).content.decode()
        figures = Figures(toy_version)
        accuracy = figures.figure("model", "accuracy")
        assert accuracy is not None
        assert f"{accuracy:.3f}" in page
        assert [score.is_model for score in figures.scores] == [True, False, False]
        assert [priority for priority, _support, _lines in figures.classes] == list(
            reversed(Priority)
        )
        assert sum(total for _true, _cells, total in figures.confusion) == 60
        assert any(export.is_served for export in figures.metrics.serving.exports)


class TestActivating:
    def test_asks_and_then_serves(
        self, admin_client: Client, toy_version: ModelVersion, fresh_classifier: None
    ) -> None:
        assert (
            activate_page_of(toy_version) in admin_client.get(page_of(toy_version)).content.decode()
        )
        page = admin_client.get(activate_page_of(toy_version))
        assert ModelVersion.objects.active() is None
        (form,) = [form for form in forms_of(page) if "logout" not in form.action + form.id]
        response = admin_client.post(activate_page_of(toy_version), form.values, follow=True)
        assert messages_of(response)[0].startswith("toy-1 is active.")
        assert get_classifier().model_version == toy_version

    def test_the_one_before_can_be_gone_back_to(
        self,
        admin_client: Client,
        active_model: ModelVersion,
        toy_run: Any,
        artifact_root: Path,
    ) -> None:
        second = publish_toy(toy_run, artifact_root, "toy-2")
        for version in (second, active_model):
            admin_client.post(activate_page_of(version))
            assert get_classifier().model_version == version
            assert ModelVersion.objects.active() == version

    def test_an_altered_artifact_is_refused_with_the_reason(
        self,
        admin_client: Client,
        active_model: ModelVersion,
        toy_run: Any,
        artifact_root: Path,
    ) -> None:
        broken = publish_toy(toy_run, artifact_root, "toy-2")
        with (artifact_root / "toy-2" / ArtifactFile.ONNX).open("ab") as file:
            file.write(b"x")
        response = admin_client.post(activate_page_of(broken), follow=True)
        (told,) = messages_of(response)
        assert told.startswith("toy-2 was not activated:")
        assert "altered" in told
        assert ModelVersion.objects.active() == active_model
        broken.refresh_from_db()
        assert "altered" in broken.load_error
        assert "cannot be loaded" in response.content.decode()

    def test_an_artifact_that_is_not_there(
        self, admin_client: Client, version: ModelVersion
    ) -> None:
        response = admin_client.post(activate_page_of(version), follow=True)
        assert "was not activated" in messages_of(response)[0]
        assert ModelVersion.objects.active() is None

    def test_needs_the_permission_to_change(
        self, client_with: Callable[..., Client], toy_version: ModelVersion
    ) -> None:
        viewer = client_with("view_modelversion")
        page = viewer.get(page_of(toy_version))
        assert page.status_code == 200
        assert activate_page_of(toy_version) not in page.content.decode()
        for response in (
            viewer.get(activate_page_of(toy_version)),
            viewer.post(activate_page_of(toy_version)),
        ):
            assert response.status_code == 403
        assert ModelVersion.objects.active() is None
        changer = client_with("change_modelversion")
        changer.post(activate_page_of(toy_version))
        assert ModelVersion.objects.active() == toy_version

    def test_a_forged_post_is_refused(self, admin_user: Any, toy_version: ModelVersion) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(admin_user)
        assert client.post(activate_page_of(toy_version)).status_code == 403
        assert ModelVersion.objects.active() is None

    def test_a_version_that_is_not_there(self, admin_client: Client) -> None:
        assert admin_client.post(f"{URL}999/activate/").status_code == 404


class TestDeleting:
    def test_one_that_nothing_needs(self, admin_client: Client, version: ModelVersion) -> None:
        page = admin_client.get(f"{URL}{version.pk}/delete/")
        form = [form for form in forms_of(page) if "post" in form.values][0]
        response = admin_client.post(f"{URL}{version.pk}/delete/", form.values, follow=True)
        assert not ModelVersion.objects.exists()
        assert any("were left in" in told for told in messages_of(response))

    def test_the_active_one_stays_and_the_page_says_why(
        self, admin_client: Client, version: ModelVersion
    ) -> None:
        version.activate()
        page = admin_client.get(page_of(version)).content.decode()
        assert "It is active; activate another version first." in page
        assert f"{URL}{version.pk}/delete/" not in page
        assert admin_client.post(f"{URL}{version.pk}/delete/", {"post": "yes"}).status_code == 403
        assert ModelVersion.objects.get() == version

    def test_one_with_predictions_stays_and_the_page_says_why(
        self,
        admin_client: Client,
        version: ModelVersion,
        make_ticket: MakeTicket,
        make_prediction: MakePrediction,
    ) -> None:
        make_prediction(make_ticket(), priority=2, model_version=version)
        assert "1 prediction refers to it." in admin_client.get(page_of(version)).content.decode()
        assert admin_client.post(f"{URL}{version.pk}/delete/", {"post": "yes"}).status_code == 403
        assert ModelVersion.objects.get() == version

    def test_not_in_bulk(self, admin_client: Client, version: ModelVersion) -> None:
        version.activate()
        data = {"action": "delete_selected", "_selected_action": [version.pk], "post": "yes"}
        admin_client.post(URL, data)
        assert ModelVersion.objects.get() == version
