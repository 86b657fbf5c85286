"""The host's priority column: what its values mean, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from django.core.exceptions import FieldDoesNotExist
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models.expressions import DatabaseDefault
from django.db.models.fields import NOT_PROVIDED

from ticket_priority.exceptions import SourceError
from ticket_priority.priorities import Priority

IDENTITY: Final[Mapping[str, Any]] = {priority.slug: priority.value for priority in Priority}

_called_defaults: ContextVar[dict[Any, Any] | None] = ContextVar(
    "ticket_priority_called_defaults", default=None
)


@contextmanager
def defaults_called_once(called: dict[Any, Any] | None = None) -> Iterator[None]:
    """Call each column's default at most once in this context, as it may query the database.

    `called` keeps the values from one context to another.
    """
    if called is None:
        called = _called_defaults.get()
    token = _called_defaults.set({} if called is None else called)
    try:
        yield
    finally:
        _called_defaults.reset(token)


@dataclass(frozen=True, slots=True)
class PriorityColumn:
    """The priority column of a host model, and the scale of its values.

    `to_host` maps each class name to the host's own value; `from_host` maps the host's values
    back to class names (None: the inverse of `to_host`). `unset` lists the host values that mean
    "nobody has decided": by default None, the empty string and the field's own default. Values of
    an enumeration may be given as its members or as the column stores them.
    """

    model: type[models.Model]
    priority_field: str = "priority"
    to_host: Mapping[str, Any] = field(default_factory=lambda: dict(IDENTITY))
    from_host: Mapping[Any, str] | None = None
    unset: tuple[Any, ...] | None = None

    @property
    def label(self) -> str:
        """The host model as `app_label.ModelName`."""
        return self.model._meta.label

    @property
    def host_field(self) -> models.Field[Any, Any]:
        """The host's priority field; raises FieldDoesNotExist."""
        found = self.model._meta.get_field(self.priority_field)
        if not isinstance(found, models.Field):
            raise FieldDoesNotExist(f"{self.label}.{self.priority_field} is not a column.")
        return found

    @property
    def default_value(self) -> Any:
        """The column's value where none was given; None where that is not known."""
        column = self.host_field
        default = _default_of(column) if column.has_default() else column.db_default
        if isinstance(default, models.Value):
            default = default.value
        return None if default is NOT_PROVIDED else default

    @property
    def unset_values(self) -> tuple[Any, ...]:
        """The host values that mean "nobody has decided"."""
        if self.unset is not None:
            return tuple(self.unset)
        default = self.default_value
        return (None, "") if default in (None, "") else (None, "", default)

    @property
    def host_values(self) -> Mapping[Any, str]:
        """The class name of each host value."""
        if self.from_host is not None:
            return self.from_host
        return {host: slug for slug, host in self.to_host.items()}

    def value_of(self, instance: models.Model) -> Any:
        """Return the host's priority value in the column's own type (a form's "3" becomes 3)."""
        return self.clean(getattr(instance, self.host_field.attname))

    def clean(self, value: Any) -> Any:
        """Convert a raw value to the column's type, if it can be converted."""
        column = self.host_field
        if isinstance(column, models.ForeignKey):
            column = column.target_field
        try:
            return column.to_python(value)
        except Exception:
            return value

    def plain(self, value: Any) -> Any:
        """Return a value as the database stores it, if it can be converted: no Enum's member."""
        try:
            return self.host_field.get_prep_value(value)
        except Exception:
            return value

    def as_json(self, value: Any) -> Any:
        """Return a value as JSON can hold it and `clean` gives it back; None: not yet known."""
        if isinstance(value, DatabaseDefault):
            return None
        plain = self.plain(value)
        try:
            json.dumps(plain, cls=DjangoJSONEncoder)
        except TypeError:
            return str(plain)
        return plain

    def is_unset(self, value: Any) -> bool:
        """Say whether a host value means "nobody has decided"."""
        if isinstance(value, DatabaseDefault):
            return True
        unset = self.unset_values
        return value in unset or self.plain(value) in unset

    def to_priority(self, value: Any) -> Priority | None:
        """Translate a host value; None when it is unset or means no class."""
        return None if self.is_unset(value) else self.meaning_of(value)

    def meaning_of(self, value: Any) -> Priority | None:
        """Translate a host value that a person chose, even one that otherwise means unset."""
        slugs = self.host_values
        slug = slugs.get(value) or slugs.get(self.plain(value))
        return None if slug is None else Priority.from_slug(slug)

    def to_host_value(self, priority: int) -> Any:
        """Translate a class id; raises SourceError when `to_host` lacks the class."""
        slug = Priority(priority).slug
        try:
            return self.clean(self.to_host[slug])
        except KeyError:
            raise SourceError(
                f'The source {self.label} has no host value for "{slug}": add it to "to_host".'
            ) from None

    def is_among(self, update_fields: Collection[str] | None) -> bool:
        """Say whether a save of these fields (None: of all) writes the priority."""
        if update_fields is None:
            return True
        return not {self.host_field.name, self.host_field.attname}.isdisjoint(update_fields)

    def set_on(self, instance: models.Model, priority: int) -> None:
        """Set the priority in memory, without saving."""
        self.set_value(instance, self.to_host_value(priority))

    def set_value(self, instance: models.Model, value: Any) -> None:
        """Set a host value in memory, without saving."""
        setattr(instance, self.host_field.attname, value)

    def write(self, instance: models.Model, priority: int, *, using: str | None) -> None:
        """Write only the priority and the `auto_now` columns to the row."""
        values: dict[str, Any] = {self.host_field.attname: self.to_host_value(priority)}
        for column in self.model._meta.concrete_fields:
            if getattr(column, "auto_now", False):
                values[column.attname] = column.pre_save(instance, add=False)
        self.queryset(using).filter(pk=instance.pk).update(**values)

    def reset(self, instance: models.Model, value: Any, *, using: str) -> None:
        """Restore a host value, in the row and in memory."""
        self.queryset(using).filter(pk=instance.pk).update(**{self.host_field.attname: value})
        self.set_value(instance, value)

    def compare_and_set(self, pk: Any, *, before: Any, priority: int, using: str | None) -> bool:
        """Write the priority unless the column has changed from `before`; True if written."""
        column = self.host_field.attname
        rows = self.queryset(using).filter(pk=pk)
        rows = rows.filter(**{f"{column}__isnull": True} if before is None else {column: before})
        return rows.update(**{column: self.to_host_value(priority)}) == 1

    def queryset(self, using: str | None = None) -> models.QuerySet[Any]:
        """Return every row of the host model, also those that its default manager hides."""
        return self.model._base_manager.using(using)

    def unset_condition(self) -> models.Q:
        """Match the rows whose value means "nobody has decided"."""
        column = self.host_field.attname
        condition = models.Q()
        for value in self.unset_values:
            if value is None:
                condition |= models.Q(**{f"{column}__isnull": True})
            elif self._is_storable(value):
                condition |= models.Q(**{column: value})
        return condition

    def _is_storable(self, value: Any) -> bool:
        try:
            self.host_field.to_python(value)
            self.host_field.get_prep_value(value)
        except Exception:
            # A field of somebody's own may raise anything.
            return False
        return value != "" or isinstance(self.host_field, models.CharField | models.TextField)

    def condition_of(self, priority: int) -> models.Q:
        """Match the rows with a host value of this class."""
        values = [value for value in self.host_values if self.to_priority(value) == priority]
        return models.Q(**{f"{self.host_field.attname}__in": values})

    def values_in_doubt(self, *priorities: int) -> list[Any]:
        """Return the values of these classes that mean unset unless a person chose them."""
        unset = [value for value in self.host_values if self.is_unset(value)]
        return [value for value in unset if self.meaning_of(value) in priorities]


def _default_of(column: models.Field[Any, Any]) -> Any:
    called = _called_defaults.get()
    if called is None:
        return _call_default(column)
    if column not in called:
        called[column] = _call_default(column)
    return called[column]


def _call_default(column: models.Field[Any, Any]) -> Any:
    try:
        return column.get_default()
    except Exception:
        # It may look for a row that is not there.
        return None
