"""The stranger's first hour: what is installed, what the checks say, and where the tickets are."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import escalated
import pytest
from django.core import checks
from django.core.management import CommandError, call_command
from routes import OUTAGE, by_service
from toy_model import activate_toy

import ticket_priority
from ticket_priority.models import ModelVersion

HERE = Path(__file__).parent


@pytest.mark.parametrize("package", [escalated, ticket_priority])
def test_both_are_the_installed_ones(package: Any) -> None:
    assert "site-packages" in package.__file__


def test_the_host_gets_no_migration() -> None:
    assert run("makemigrations", "--check", "--dry-run").stdout == "No changes detected\n"


def test_the_checks_are_content() -> None:
    assert "no issues" in run("check").stdout


def test_the_hosts_tables_may_be_in_a_database_of_their_own(tmp_path: Path) -> None:
    databases = {"HOST_SQLITE": "default", "HOST_SUPPORT": "support"}
    environment = {name: str(tmp_path / alias) for name, alias in databases.items()}
    run(script="two_databases.py", HOST_DATABASE="sqlite", **environment)


def run(
    *arguments: str, script: str = "manage.py", **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=HERE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("mode", ["self_hosted", "synced"])
def test_where_tickets_are_local_there_is_nothing_to_warn_of(settings: Any, mode: str) -> None:
    settings.ESCALATED = {**settings.ESCALATED, "MODE": mode}
    assert checks.run_checks(tags=["ticket_priority"]) == []


def test_in_cloud_mode_the_check_says_that_there_is_nothing_to_classify(settings: Any) -> None:
    settings.ESCALATED = {**settings.ESCALATED, "MODE": "cloud"}
    (warning,) = checks.run_checks(tags=["ticket_priority"])
    assert warning.id == "ticket_priority.W060"
    assert "none here to classify" in warning.msg
    assert "self_hosted" in warning.hint


@pytest.mark.django_db
@pytest.mark.parametrize("command", ["classify_tickets", "train_priority_model"])
def test_in_cloud_mode_the_commands_say_so_too(
    settings: Any, model: ModelVersion, command: str
) -> None:
    settings.ESCALATED = {**settings.ESCALATED, "MODE": "cloud"}
    with pytest.raises(CommandError, match="stored in the cloud"):
        call_command(command)


@pytest.mark.django_db
def test_in_synced_mode_the_backlog_is_classified(settings: Any) -> None:
    ticket = by_service(OUTAGE)
    settings.ESCALATED = {**settings.ESCALATED, "MODE": "synced"}
    activate_toy()
    out = StringIO()
    call_command("classify_tickets", stdout=out)
    ticket.refresh_from_db()
    assert ticket.priority == "high"
    assert "1 applied" in out.getvalue()
