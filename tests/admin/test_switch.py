from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from helpdesk.models import Ticket
from tests.admin.pages import forms_of, messages_of
from tests.predictions.test_on_save import OUTAGE
from ticket_priority.models import ModelVersion, SwitchChange
from ticket_priority.predictions.kill_switch import is_on

URL = "/admin/ticket_priority/switchchange/"
TURN = f"{URL}turn/"


def button(client: Client) -> dict[str, str]:
    """Return what the page's button posts."""
    (form,) = [form for form in forms_of(client.get(URL)) if form.action == TURN]
    return form.values


def test_the_button_switches_off_and_on(
    admin_client: Client, admin_user: Any, active_model: ModelVersion
) -> None:
    assert "Classification is on" in admin_client.get(URL).content.decode()
    sent = button(admin_client) | {"reason": "all High"}
    assert "is off" in messages_of(admin_client.post(TURN, sent, follow=True))[0]
    assert not is_on()
    Ticket.objects.create(**OUTAGE)
    page = admin_client.get(URL).content.decode()
    assert "Classification is off" in page
    assert "all High" in page
    change = SwitchChange.objects.get()
    assert (change.user, change.reason) == (admin_user, "all High")
    response = admin_client.post(TURN, button(admin_client), follow=True)
    assert "is being classified" in messages_of(response)[0]
    assert is_on()


def test_a_second_click_changes_nothing(admin_client: Client) -> None:
    sent = button(admin_client)
    admin_client.post(TURN, sent, follow=True)
    assert messages_of(admin_client.post(TURN, sent, follow=True)) == []
    assert SwitchChange.objects.count() == 1


@pytest.mark.django_db
def test_it_needs_the_permission_and_a_post(client_with: Callable[..., Client]) -> None:
    viewer = client_with("view_switchchange")
    assert TURN not in viewer.get(URL).content.decode()
    assert viewer.post(TURN, {"turn": "off"}).status_code == 403
    switcher = client_with("add_switchchange", "view_switchchange")
    assert switcher.get(TURN).status_code == 405
    switcher.post(TURN, {"turn": "off"})
    assert not is_on()
    assert switcher.get(f"{URL}add/").status_code == 403


def test_a_forged_post_is_refused(admin_user: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(TURN, {"turn": "off"}).status_code == 403
    assert is_on()


def test_where_the_settings_switch_it_off_there_is_no_button(
    admin_client: Client, configure: Callable[..., None]
) -> None:
    configure(ENABLED=False)
    page = admin_client.get(URL).content.decode()
    assert "The settings switch it off" in page
    assert TURN not in page
