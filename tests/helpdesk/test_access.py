from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser, Group, User

from helpdesk.access import AGENTS_GROUP, agents, is_agent
from helpdesk.models import Ticket
from ticket_priority.sources.registry import get_source

pytestmark = pytest.mark.django_db


def test_staff_and_members_of_the_group_are_agents(agent: User) -> None:
    boss = User.objects.create_user("boss", is_staff=True)
    customer = User.objects.create_user("customer")
    gone = User.objects.create_user("gone", is_staff=True, is_active=False)
    assert is_agent(agent)
    assert is_agent(boss)
    assert not is_agent(customer)
    assert not is_agent(gone)
    assert not is_agent(AnonymousUser())


def test_an_agent_in_several_groups_is_listed_once(agent: User) -> None:
    agent.groups.add(Group.objects.create(name="Night shift"))
    User.objects.create_user("customer")
    assert list(agents()) == [agent]


def test_the_migrations_create_the_group() -> None:
    assert Group.objects.filter(name=AGENTS_GROUP).exists()


def test_over_the_api_agents_see_and_change_what_they_do_on_the_pages(agent: User) -> None:
    Ticket.objects.create(subject="Lamp")
    source = get_source(Ticket)
    customer = User.objects.create_user("customer")
    assert source.visible_rows(agent).count() == source.changeable_rows(agent).count() == 1
    assert source.visible_rows(customer).count() == source.changeable_rows(customer).count() == 0
