"""Hosts with odd priority columns, and odd text."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import ANY

from tests.foreign import models
from tests.foreign.models.columns import Level, Urgency
from tests.foreign.oddity import SOMETHING, Oddity, steps, steps_but
from ticket_priority import muted
from ticket_priority.priorities import Priority


def levels(*keys: int) -> Callable[[], None]:
    """Return a function that creates the host's priorities under these keys."""

    def create() -> None:
        Level.objects.bulk_create(Level(pk=key, name=f"Level {key}") for key in keys)

    return create


def an_urgent_one() -> None:
    with muted():
        models.UniquePriority.objects.create(body="The roof is on fire", priority=2)


COLUMNS = (
    Oddity(
        name="foreign_key",
        model=models.ForeignKeyPriority,
        prepare=levels(1, 2, 3),
        values=(1, 2, 3),
    ),
    Oddity(
        name="foreign_key_to_a_missing_row",
        commits=True,
        model=models.ForeignKeyPriority,
        prepare=levels(1, 2),
        values=(1, 2, 3),
        state="suggested",
        checks=(SOMETHING,),
    ),
    Oddity(
        name="foreign_key_to_a_row_made_anew",
        model=models.ForeignKeyPriority,
        prepare=levels(1, 2, 4),
        values=(1, 2, 3),
        state="suggested",
        checks=(SOMETHING,),
    ),
    Oddity(
        name="foreign_key_without_to_host",
        model=models.ForeignKeyPriority,
        prepare=levels(1, 2, 3),
        options={"to_host": None},
        answer=Priority.LOW,
        decision=Priority.MEDIUM,
        state="suggested",
        checks=(SOMETHING,),
    ),
    Oddity(
        name="default_that_queries",
        model=models.QueryingDefault,
        prepare=levels(1, 2, 3),
        values=(1, 2, 3),
        unset=9,
        fails={"admin_list": "the default is called once a row"},
    ),
    Oddity(
        name="default_that_asks_for_its_row",
        model=models.DemandingDefault,
        prepare=levels(1, 2, 3, 9),
        values=(1, 2, 3),
        unset=9,
        fails=steps("the default is asked for once a row", "admin_list"),
    ),
    Oddity(
        name="default_that_asks_for_a_missing_row",
        model=models.DemandingDefault,
        prepare=levels(1, 2, 3),
        values=(1, 2, 3),
        without=steps_but("the host itself can save no ticket", "check"),
    ),
    Oddity(
        name="enum_column",
        model=models.EnumPriority,
        values=(Urgency.LATER, Urgency.SOON, Urgency.NOW),
    ),
    Oddity(
        name="enum_column_with_a_default",
        model=models.EnumDefault,
        values=(Urgency.LATER, Urgency.SOON, Urgency.NOW),
        unset=Urgency.UNKNOWN,
    ),
    Oddity(name="text_choices", model=models.TextChoices, values=("P3", "P2", "P1"), unset=""),
    Oddity(
        name="choices_without_a_class",
        model=models.FewChoices,
        state="suggested",
        checks=("ticket_priority.E019",),
    ),
    Oddity(
        name="check_constraint",
        model=models.ConstrainedPriority,
        state="suggested",
        checks=("ticket_priority.W027",),
    ),
    Oddity(
        name="check_constraint_on_two_columns",
        model=models.ConstrainedTogether,
        state="suggested",
    ),
    Oddity(
        name="unique_constraint",
        model=models.UniquePriority,
        prepare=an_urgent_one,
        state="suggested",
        # MariaDB knows no constraint with a condition.
        vendors=("sqlite", "postgresql"),
        without=steps("the urgent one would be there too", "train_labels", "admin_list"),
    ),
    Oddity(name="not_null", checks=("ticket_priority.W034",), model=models.NotNull, unset=1),
    Oddity(
        name="not_null_without_a_default",
        model=models.NotNullWithoutDefault,
        registers_itself=True,
        unset=ANY,
        checks=(SOMETHING,),
    ),
    Oddity(
        name="callable_default",
        checks=("ticket_priority.W034",),
        model=models.CallableDefault,
        unset=1,
    ),
    Oddity(
        name="database_default",
        checks=("ticket_priority.W034",),
        model=models.DatabaseDefault,
        unset=1,
        fails=steps(
            "the default is not known then, so a late answer is never applied",
            "create_with_a_hanging_model",
        ),
    ),
    Oddity(
        name="text_of_a_property",
        model=models.TextMethods,
        options={"text_fields": ("body", "title")},
    ),
    Oddity(
        name="text_of_a_method",
        model=models.TextMethods,
        options={"text_fields": ("body", "summary")},
    ),
    Oddity(
        name="two_priority_fields",
        model=models.TwoPriorities,
        registers_itself=True,
        checks=(SOMETHING,),
    ),
)
