"""Hosts with odd managers, inheritance, tables, companions, databases and users."""

from __future__ import annotations

from tests.foreign import models
from tests.foreign.oddity import ADMIN_STEPS, SOMETHING, Oddity, steps

SHAPES = (
    Oddity(
        name="default_manager_that_hides_rows",
        model=models.HidingManager,
        without=steps("the host's admin shows open tickets only", *ADMIN_STEPS),
    ),
    Oddity(name="soft_delete", model=models.SoftDelete, survives_delete=True),
    Oddity(
        name="base_manager_that_joins",
        model=models.JoiningBaseManager,
    ),
    Oddity(
        name="proxy",
        model=models.Proxy,
    ),
    Oddity(
        name="proxy_beside_its_model",
        model=models.Proxy,
        beside=(models.Basis,),
        checks=(SOMETHING,),
        without=steps("the proxy's options are not used", "override_by_the_hosts_own_save"),
    ),
    Oddity(name="child_of_a_model", model=models.ChildOfBasis),
    Oddity(name="tickets_of_a_child", model=models.Parent, tickets=models.Child),
    Oddity(name="inherited_priority_field", model=models.FromAbstract, registers_itself=True),
    Oddity(name="simple_history", model=models.WithHistory, registers_itself=True),
    Oddity(name="odd_names", model=models.OddNames),
    Oddity(name="unmanaged", model=models.Unmanaged),
    Oddity(
        name="naive_time",
        model=models.Dated,
        settings={"USE_TZ": False},
        options={"created_field": "created_at"},
    ),
    Oddity(
        name="tickets_in_another_database",
        model=models.Dated,
        project="two_databases",
        commits=True,
    ),
    Oddity(
        name="read_replica",
        model=models.Dated,
        project="replica",
        commits=True,
        fails=steps(
            "a ticket is written to where it was read", "backfill", "classify_again_in_the_admin"
        ),
    ),
    Oddity(
        name="agent_without_permissions",
        model=models.Dated,
        options={"visible_to": None, "changeable_by": None},
        sees_nothing=True,
    ),
    Oddity(
        name="users_that_have_no_permissions",
        model=models.Dated,
        project="bare_user",
        options={"visible_to": None, "changeable_by": None},
        sees_nothing=True,
        fails=steps(
            "the user is asked for permissions that it does not have", "api_list_of_an_agent"
        ),
        without=steps("nobody sees a ticket", *ADMIN_STEPS, "override_by_the_api", "api_list"),
    ),
    Oddity(
        name="users_without_permissions",
        model=models.Dated,
        project="bare_user",
        without=steps("nobody can enter the admin", *ADMIN_STEPS),
    ),
)
