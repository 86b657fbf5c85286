from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from helpdesk.models import Ticket
from tests.admin.pages import forms_of, messages_of
from tests.admin.test_versions import URL, page_of
from tests.conftest import publish_toy
from tests.predictions.test_on_save import OUTAGE
from ticket_priority.models import ModelVersion, ShadowPrediction
from ticket_priority.predictions import shadow


@pytest.fixture
def second(active_model: ModelVersion, toy_run: Any, artifact_root: Path) -> ModelVersion:
    return publish_toy(toy_run, artifact_root, "toy-2")


def shadow_page_of(version: ModelVersion) -> str:
    return f"{URL}{version.pk}/shadow/"


def button(client: Client, version: ModelVersion) -> dict[str, str]:
    """Return what the shadow's button on the version's page posts."""
    forms = forms_of(client.get(page_of(version)))
    (form,) = [form for form in forms if form.action == shadow_page_of(version)]
    return form.values


def test_a_version_is_made_the_shadow_and_its_page_shows_how_it_does(
    admin_client: Client, second: ModelVersion, active_model: ModelVersion
) -> None:
    response = admin_client.post(shadow_page_of(second), button(admin_client, second), follow=True)
    assert "toy-2 is the shadow" in messages_of(response)[0]
    assert ModelVersion.objects.shadow() == second
    page = admin_client.get(page_of(second)).content.decode()
    assert "There is no ticket to compare on yet." in page
    assert "tp-mark--shadow" in admin_client.get(URL).content.decode()
    Ticket.objects.create(**OUTAGE)
    shadow.catch_up()
    page = admin_client.get(page_of(second)).content.decode()
    assert "Tickets compared with toy-1: 1, of which 100% got the same answer." in page
    assert "shadow: High" in page
    response = admin_client.post(shadow_page_of(second), button(admin_client, second), follow=True)
    assert "no longer the shadow" in messages_of(response)[0]
    assert ModelVersion.objects.shadow() is None
    page = admin_client.get(page_of(second)).content.decode()
    assert "No longer the shadow; it was from" in page
    assert (
        shadow_page_of(active_model) not in admin_client.get(page_of(active_model)).content.decode()
    )


def test_the_active_one_and_a_broken_one_are_refused(
    admin_client: Client, second: ModelVersion, active_model: ModelVersion, artifact_root: Path
) -> None:
    response = admin_client.post(shadow_page_of(active_model), follow=True)
    assert "toy-1 is active" in messages_of(response)[0]
    (artifact_root / "toy-2" / "model.onnx").unlink()
    response = admin_client.post(shadow_page_of(second), follow=True)
    assert "toy-2 was not made the shadow" in messages_of(response)[0]
    assert ModelVersion.objects.shadow() is None


def test_it_needs_the_permission_to_change_and_a_post(
    client_with: Callable[..., Client], second: ModelVersion
) -> None:
    viewer = client_with("view_modelversion")
    assert shadow_page_of(second) not in viewer.get(page_of(second)).content.decode()
    assert viewer.post(shadow_page_of(second)).status_code == 403
    changer = client_with("change_modelversion", "view_modelversion")
    assert changer.get(shadow_page_of(second)).status_code == 405
    assert changer.post(f"{URL}999/shadow/").status_code == 404
    changer.post(shadow_page_of(second))
    assert ModelVersion.objects.shadow() == second


def test_a_forged_post_is_refused(admin_user: Any, second: ModelVersion) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(shadow_page_of(second)).status_code == 403
    assert ModelVersion.objects.shadow() is None


def test_the_shadow_is_not_deleted_and_one_that_was_goes_with_its_answers(
    admin_client: Client, second: ModelVersion
) -> None:
    second.start_shadow()
    Ticket.objects.create(**OUTAGE)
    shadow.catch_up()
    assert "It is the shadow; end that first." in admin_client.get(page_of(second)).content.decode()
    assert admin_client.post(f"{URL}{second.pk}/delete/", {"post": "yes"}).status_code == 403
    second.stop_shadow()
    page = admin_client.get(f"{URL}{second.pk}/delete/").content.decode()
    assert "Shadow predictions: 1" in page
    admin_client.post(f"{URL}{second.pk}/delete/", {"post": "yes"})
    assert not ModelVersion.objects.filter(pk=second.pk).exists()
    assert not ShadowPrediction.objects.exists()
