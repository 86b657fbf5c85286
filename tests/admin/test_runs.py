from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.utils import timezone

from tests.training.test_history import dead_process, running
from ticket_priority.models import ModelVersion, TrainingRun

RUNS = "/admin/ticket_priority/trainingrun/"

pytestmark = pytest.mark.django_db


def test_the_list_says_what_ran_and_what_came_of_it(
    admin_client: Client, version: ModelVersion, artifact_root: Path
) -> None:
    now = timezone.now()
    TrainingRun.objects.create(
        trigger="schedule",
        state="succeeded",
        message="no version was active",
        model_version=version,
        started_at=now - timedelta(minutes=90),
        finished_at=now,
    )
    TrainingRun.objects.create(trigger="schedule", state="refused", message="too few new labels")
    page = admin_client.get(RUNS).content.decode()
    for words in ("succeeded", version.name, "too few new labels", "1\xa0hour, 30\xa0minutes"):
        assert words in page, words


def test_one_whose_process_died_is_shown_as_interrupted(
    admin_client: Client, artifact_root: Path
) -> None:
    run = running(pid=dead_process())
    page = admin_client.get(f"{RUNS}{run.pk}/change/").content.decode()
    assert "interrupted" in page
    assert "ended without a word" in page
    run = running(pid=dead_process())
    assert admin_client.get(f"{RUNS}?state__exact=interrupted").content.decode().count("row") >= 2
    run.refresh_from_db()
    assert run.state == TrainingRun.State.INTERRUPTED


def test_nobody_adds_edits_or_deletes(admin_client: Client, artifact_root: Path) -> None:
    run = running()
    assert admin_client.get(f"{RUNS}add/").status_code == 403
    assert admin_client.post(f"{RUNS}{run.pk}/change/", {"state": "failed"}).status_code == 403
    assert admin_client.post(f"{RUNS}{run.pk}/delete/", {"post": "yes"}).status_code == 403
