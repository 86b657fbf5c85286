"""Whether the host takes a priority for a ticket: asked before it is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any

from django.core.exceptions import FieldError, ValidationError
from django.db import DatabaseError, models
from django.utils.translation import gettext as _

from ticket_priority.sources.column import PriorityColumn

Ask = Callable[[Any], object]
"""Raises ValidationError where the host objects to a ticket."""


def why_refused(source: PriorityColumn, ticket: models.Model, value: Any, *, using: str) -> str:
    """Say why the host does not take a value for the priority of a ticket; empty if it may.

    Asked are the column (type, choices, validators), the row of a foreign key, each constraint
    that names the column, and the model's `clean()` where it has one. What a trigger or a
    constraint that only the database knows says, remains to be seen. Raises DatabaseError.
    """
    column = source.host_field
    if why := why_unfit(column, value):
        return why
    if isinstance(column, models.ForeignKey) and not row_exists(column, value, using=using):
        label = column.remote_field.model._meta.label
        return _("no %(model)s has the key %(key)s") % {"model": label, "key": value}
    rules = list(_rules(column, ticket, using))
    if rules:
        candidate = copy(ticket)
        source.set_value(candidate, value)
    return next((why for why, ask in rules if _objects(ask, candidate)), "")


def lacks_value(source: PriorityColumn, ticket: models.Model, *, using: str) -> bool:
    """Say whether the host's table takes no ticket without a priority. Raises DatabaseError."""
    column, value = source.host_field, source.value_of(ticket)
    if value is None and not column.null and not column.generated:
        return True
    constraints = _constraints(column, type(ticket)) if value in (None, "") else ()
    return any(
        _objects(partial(constraint.validate, model, using=using), ticket)
        for model, constraint in constraints
        if isinstance(constraint, models.CheckConstraint)
    )


def may_lack_value(source: PriorityColumn) -> bool:
    """Say whether the host's table may take no ticket without a priority."""
    column = source.host_field
    has_default = column.has_default() or column.has_db_default()
    return not (column.null or has_default) or any(_constraints(column, source.model))


def why_unfit(column: models.Field[Any, Any], value: Any) -> str:
    """Say why a column can hold a value in no row; empty if it may. The database is not asked."""
    if column.generated:
        return _("the database computes the column")
    choices = [key for key, _label in column.flatchoices]
    try:
        python = column.to_python(value)
        plain = column.get_prep_value(python)
        if choices and not {value, python, plain}.intersection(choices):
            return _("it is not among the column's choices")
        _validate(column, python, plain)
    except Exception:
        # A field of somebody's own may raise anything.
        return _("the column cannot hold it")
    return "" if value is not None or column.null else _("the column cannot hold it")


def row_exists(column: models.ForeignKey[Any, Any], value: Any, *, using: str) -> bool:
    """Say whether a foreign key's row exists, and may be chosen. Raises DatabaseError."""
    rows = column.remote_field.model._base_manager.using(using)
    rows = rows.complex_filter(column.get_limit_choices_to())
    return bool(rows.filter(**{column.target_field.attname: value}).exists())


def refused_in_every_row(
    source: PriorityColumn, values: Mapping[str, Any], *, using: str
) -> dict[str, list[str]]:
    """Return the names of the values that a constraint on no other column refuses."""
    column, refused = source.host_field, defaultdict(list)
    for _model, constraint in _constraints(column, source.model):
        if not isinstance(constraint, models.CheckConstraint):
            continue
        for name, value in values.items():
            against = {column.name: models.Value(value, column)}
            with suppress(FieldError):
                if not models.Q(constraint.condition).check(against, using=using):
                    refused[constraint.name].append(name)
    return dict(refused)


def _validate(column: models.Field[Any, Any], python: Any, plain: Any) -> None:
    """Run the column's validators; some fields have those of what they store."""
    try:
        column.run_validators(python)
    except TypeError:
        column.run_validators(plain)


def _rules(
    column: models.Field[Any, Any], ticket: models.Model, using: str
) -> Iterator[tuple[str, Ask]]:
    for model, constraint in _constraints(column, type(ticket)):
        why = _("the constraint %(name)s forbids it") % {"name": constraint.name}
        yield why, partial(constraint.validate, model, using=using)
    together = [names for model in _tables(type(ticket)) for names in model._meta.unique_together]
    if column.unique or any(column.name in names for names in together):
        yield _("another ticket has it"), lambda candidate: candidate.validate_unique()
    if type(ticket).clean is not models.Model.clean:
        why = _("the model's own validation refuses it")
        # What it says of the ticket as it is does not concern the priority.
        if not _objects(lambda present: present.clean(), copy(ticket)):
            yield why, lambda candidate: candidate.clean()


def _constraints(
    column: models.Field[Any, Any], host: type[models.Model]
) -> Iterator[tuple[type[models.Model], models.BaseConstraint]]:
    for model in _tables(host):
        for constraint in model._meta.constraints:
            # Fields, expressions and condition are all in what it prints.
            if column.name in repr(constraint):
                yield model, constraint


def _tables(host: type[models.Model]) -> list[type[models.Model]]:
    concrete = host._meta.concrete_model or host
    return [concrete, *concrete._meta.all_parents]


def _objects(ask: Ask, ticket: models.Model) -> bool:
    try:
        ask(ticket)
    except ValidationError:
        return True
    except DatabaseError:
        raise
    except Exception:
        # A rule that cannot be asked.
        return False
    return False
