"""What the journey must know of a foreign host: an entry of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, models

from ticket_priority.priorities import Priority

SOMETHING = "something"
"""In `Oddity.checks`: any message about the source, where its id is not settled yet."""

CREATING = (
    "create_sync",
    "create_async",
    "create_suggest",
    "create_switched_off",
    "create_without_a_model",
    "create_with_a_hanging_model",
)
OVERRIDING = (
    "override_in_code",
    "override_by_the_api",
    "override_in_the_admin",
    "override_by_the_hosts_own_save",
)
LATER = ("backfill", "classify_again_in_the_admin", "train_labels", "erase", "delete")
SHOWING = ("admin_list", "api_list", "api_list_of_an_agent", "check")
STEPS = (*CREATING, *OVERRIDING, *LATER, *SHOWING)
ADMIN_STEPS = ("admin_list", "override_in_the_admin", "classify_again_in_the_admin")

Row = Callable[[int], dict[str, Any]]


def nothing_more(number: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """A ticket model, how it is attached, and what of the journey's outcome it changes.

    `values` are the host's own for low, medium and high, and `unset` the one of a ticket that
    nobody has decided. The model answers `answer`, the person decides `decision`, and `state` is
    what becomes of an answer in the modes sync and async. `fails` names the steps that do not
    work yet and says why: a strict xfail. `without` names the steps that the host cannot take.
    Both may say a step of one database only: "delete on mysql".
    """

    name: str
    model: type[models.Model]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `register()`, beside those that the journey gives; None leaves one out."""
    registers_itself: bool = False
    """Whether it has a PriorityField, whose options are then the source's."""
    tickets: type[models.Model] | None = None
    """The class of the tickets, where that is a child of `model`."""
    beside: tuple[type[models.Model], ...] = ()
    """Other models that are registered too."""
    row: Row = nothing_more
    """The column values of the n-th ticket, beside its body."""
    prepare: Callable[[], None] | None = None
    """Creates the rows that tickets need."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Django settings of the host."""
    values: tuple[Any, Any, Any] = (0, 1, 2)
    unset: Any = None
    answer: Priority = Priority.HIGH
    decision: Priority = Priority.LOW
    state: str = "applied"
    in_time: bool = True
    """Whether a save may wait for the model; not where the host makes up the keys."""
    survives_delete: bool = False
    """Whether the row stays when the host deletes a ticket."""
    checks: tuple[str, ...] = ()
    """The ids of what `check` says about the source."""
    sees_nothing: bool = False
    """Whether the agent may see no ticket, once they are no superuser."""
    commits: bool = False
    """Whether each statement is committed, as some constraints are looked at only then."""
    project: str = ""
    """The settings module in `projects/` that the host needs; most need none."""
    vendors: tuple[str, ...] = ("sqlite", "postgresql", "mysql")
    fails: Mapping[str, str] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)

    def why_failing(self, step: str) -> str:
        return _about(self.fails, step)

    def leaves_out(self, step: str) -> bool:
        return connection.vendor not in self.vendors or bool(_about(self.without, step))


def steps_but(why: str, *names: str) -> dict[str, str]:
    """Give every step but these one reason."""
    return steps(why, *(name for name in STEPS if name not in names))


def steps(why: str, *names: str) -> dict[str, str]:
    """Give several steps one reason, for `fails` and `without`."""
    return dict.fromkeys(names, why)


def steps_on(vendor: str, why: str, *names: str) -> dict[str, str]:
    """Give several steps one reason, on one database."""
    return steps(why, *(f"{name} on {vendor}" for name in names))


def _about(reasons: Mapping[str, str], step: str) -> str:
    return reasons.get(step) or reasons.get(f"{step} on {connection.vendor}", "")


def names_are_unique(oddities: Iterable[Oddity]) -> tuple[Oddity, ...]:
    found = tuple(oddities)
    names = [oddity.name for oddity in found]
    assert len(names) == len(set(names)), "two oddities have one name"
    return found
