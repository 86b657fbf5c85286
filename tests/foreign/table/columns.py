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


_UNHARMED = ("create_suggest", "create_switched_off", "create_without_a_model")
_REFUSED = steps_but("the database refuses the answer", *_UNHARMED, "check")
_REFUSED_KEY = steps_but("no row has the key that is written", *_UNHARMED)
_ASKING = ("admin_list", "check")

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
        fails=_REFUSED_KEY,
    ),
    Oddity(
        name="foreign_key_to_a_row_made_anew",
        model=models.ForeignKeyPriority,
        prepare=levels(1, 2, 4),
        values=(1, 2, 3),
        state="suggested",
        checks=(SOMETHING,),
        fails=_REFUSED_KEY,
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
        fails=_REFUSED_KEY,
    ),
    Oddity(
        name="default_that_queries",
        model=models.QueryingDefault,
        prepare=levels(1, 2, 3),
        values=(1, 2, 3),
        unset=9,
        fails=steps("the default is asked for again and again, and makes its row", *_ASKING),
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
        fails=steps("the check asks the default for its value", "check"),
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
        fails=steps_but("the value before is not JSON", "train_labels", "check"),
    ),
    Oddity(name="text_choices", model=models.TextChoices, values=("P3", "P2", "P1"), unset=""),
    Oddity(
        name="choices_without_a_class",
        model=models.FewChoices,
        state="suggested",
        checks=("ticket_priority.E019",),
        fails=steps_but(
            "a value that is no choice is written all the same",
            *("create_suggest", "create_switched_off", "create_without_a_model"),
            *("train_labels", "api_list_of_an_agent", "check"),
        ),
    ),
    Oddity(
        name="check_constraint",
        model=models.ConstrainedPriority,
        state="suggested",
        checks=(SOMETHING,),
        fails=_REFUSED | steps("the constraint is not looked at", "check"),
    ),
    Oddity(
        name="check_constraint_on_two_columns",
        model=models.ConstrainedTogether,
        state="suggested",
        fails=_REFUSED,
    ),
    Oddity(
        name="unique_constraint",
        model=models.UniquePriority,
        prepare=an_urgent_one,
        state="suggested",
        # MariaDB knows no constraint with a condition.
        vendors=("sqlite", "postgresql"),
        fails=_REFUSED,
        without=steps("the urgent one would be there too", "train_labels", "admin_list"),
    ),
    Oddity(name="not_null", model=models.NotNull, unset=1),
    Oddity(
        name="not_null_without_a_default",
        model=models.NotNullWithoutDefault,
        registers_itself=True,
        unset=ANY,
        checks=(SOMETHING,),
        fails=steps(
            "there is no value for a ticket that nobody has decided",
            *("create_async", "create_suggest", "create_switched_off", "create_without_a_model"),
            *("create_with_a_hanging_model", "backfill", "classify_again_in_the_admin"),
            *("admin_list", "check"),
        ),
    ),
    Oddity(name="callable_default", model=models.CallableDefault, unset=1),
    Oddity(
        name="database_default",
        model=models.DatabaseDefault,
        unset=1,
        fails=steps(
            "the value before is taken for None, and the ticket for decided",
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
        checks=(SOMETHING,),
        fails=steps("a method is read as text, and not called", "create_sync", "check"),
    ),
    Oddity(
        name="two_priority_fields",
        model=models.TwoPriorities,
        registers_itself=True,
        checks=(SOMETHING,),
        fails=steps("the second field replaces the first, unsaid", "check"),
    ),
)
