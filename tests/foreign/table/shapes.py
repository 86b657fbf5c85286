"""Hosts with odd managers, inheritance, tables, companions, databases and users."""

from __future__ import annotations

from tests.foreign import models
from tests.foreign.oddity import SOMETHING, Oddity, steps

SHAPES = (
    Oddity(
        name="default_manager_that_hides_rows",
        model=models.HidingManager,
        without=steps(
            "the host's admin shows open tickets only", "admin_list", "override_in_the_admin"
        ),
    ),
    Oddity(name="soft_delete", model=models.SoftDelete, survives_delete=True),
    Oddity(name="base_manager_that_joins", model=models.JoiningBaseManager),
    Oddity(name="proxy", model=models.ProxyOfPlain),
    Oddity(
        name="proxy_beside_its_model",
        model=models.ProxyOfPlain,
        beside=(models.Plain,),
        checks=(SOMETHING,),
    ),
    Oddity(name="child_of_a_model", model=models.ChildOfPlain),
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
)
