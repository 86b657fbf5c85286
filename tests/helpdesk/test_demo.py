from __future__ import annotations

from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from helpdesk import demo
from helpdesk.access import is_agent
from helpdesk.models import Comment, Queue, Ticket
from ticket_priority.models import Prediction
from ticket_priority.sources.registry import get_source


def load(**options: Any) -> str:
    out = StringIO()
    call_command("load_demo_tickets", stdout=out, **{"password": "a-password", **options})
    return out.getvalue()


def test_loading_twice_adds_nothing_the_second_time(db: None) -> None:
    assert "Log in as lead, mira, tom with the password a-password" in load()
    models = (Ticket, Comment, Queue, User)
    before = [model.objects.count() for model in models]
    assert before[0] >= 600
    assert "Added 0 labelled past tickets, 0 open ones, 0 comments, 0 queues and 0 users" in load()
    assert [model.objects.count() for model in models] == before


def test_most_tickets_are_labelled_history_and_the_rest_open_and_unset(db: None) -> None:
    load()
    now = timezone.now()
    total = Ticket.objects.count()
    past = Ticket.objects.filter(status__in=("solved", "closed"))
    waiting = Ticket.objects.active()
    assert past.count() + waiting.count() == total
    assert 0.82 < past.count() / total < 0.88
    assert not past.filter(priority=None).exists()
    assert not waiting.exclude(priority=None).exists()
    assert past.filter(created_at__lt=now - timedelta(days=90)).exists()
    assert not past.filter(created_at__lt=now - timedelta(days=122)).exists()
    assert not Ticket.objects.filter(created_at__gt=now).exists()
    for language in demo.LANGUAGES:
        share = waiting.filter(language=language).count() / total * len(demo.LANGUAGES)
        assert 0.12 < share < 0.18
    assert Comment.objects.filter(ticket__in=waiting).exists()


def test_labels_are_the_rubrics_and_the_open_tickets_are_none(db: None) -> None:
    load()
    by_id = {ticket.external_id: ticket for ticket in demo.read_demo_tickets()}
    labelled = get_source(Ticket).labelled_rows()
    assert not labelled.filter(status__in=("open", "pending")).exists()
    for ticket in labelled:
        assert ticket.get_priority_display().lower() == by_id[ticket.external_id].priority


def test_nothing_is_classified_yet(db: None) -> None:
    load()
    assert not Prediction.objects.exists()


def test_the_same_tickets_stay_open_every_time() -> None:
    tickets = list(demo.read_demo_tickets())
    assert demo.held_out(tickets) == demo.held_out(reversed(tickets))


def test_the_team_can_log_in_and_only_the_lead_is_superuser(db: None) -> None:
    load()
    assert list(User.objects.filter(is_superuser=True)) == [User.objects.get(username="lead")]
    for user in User.objects.all():
        assert is_agent(user)
        assert Client().login(username=user.username, password="a-password")


def test_a_password_is_changed_only_on_request(db: None, settings: Any) -> None:
    settings.DEBUG = True
    load(password=None)
    assert Client().login(username="mira", password="demo-helpdesk")
    load(password="other")
    load(password=None)
    assert Client().login(username="mira", password="other")


def test_a_site_without_debugging_needs_a_password(db: None) -> None:
    with pytest.raises(CommandError, match="--password"):
        load(password=None)
    assert not User.objects.exists()


def test_verbosity_0_is_silent(db: None) -> None:
    assert load(verbosity=0) == ""


def test_a_broken_file_is_named_with_its_line_and_nothing_is_loaded(
    db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "en.jsonl").write_text('{"id": "en-001"}\n')
    read = demo.read_demo_tickets
    monkeypatch.setattr(demo, "read_demo_tickets", lambda: read(tmp_path))
    with pytest.raises(CommandError, match=r"en\.jsonl, line 1"):
        load()
    assert not Ticket.objects.exists()
    assert not User.objects.exists()
