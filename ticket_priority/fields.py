"""A priority column for a model you own."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from django.apps import apps
from django.db import models
from django.utils.translation import gettext_lazy as _

from ticket_priority.priorities import Priority
from ticket_priority.sources import TicketSource, register
from ticket_priority.sources.column import PriorityColumn

_SOURCE_OPTIONS: Final = {item.name for item in fields(TicketSource)} - {
    item.name for item in fields(PriorityColumn)
}


class PriorityField(models.PositiveSmallIntegerField):  # type: ignore[type-arg]
    """Holds a `Priority` or None (unset), and registers its model as a ticket source.

    `text_fields` and the other source options are those of `register()`. They do not affect the
    schema, so migrations leave them out. With `null=False` and no default of its own a ticket
    begins as Medium, which counts as unset until a prediction is applied or a person decides.
    """

    description = _("Ticket priority")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = kwargs.keys() & _SOURCE_OPTIONS
        self.source_options: dict[str, Any] = {name: kwargs.pop(name) for name in given}
        options = {"null": True, "blank": True, "choices": Priority.choices, **kwargs}
        self.begins_as_medium = not (options["null"] or kwargs.keys() & {"default", "db_default"})
        if self.begins_as_medium:
            options["default"] = Priority.MEDIUM
        super().__init__(*args, **options)

    def deconstruct(self) -> Any:
        """Leave out the choices and Medium, so that migrations do not depend on them."""
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("choices", None)
        if self.begins_as_medium:
            kwargs.pop("default", None)
        return name, path, args, kwargs

    def contribute_to_class(
        self, cls: type[models.Model], name: str, private_only: bool = False
    ) -> None:
        """Register the model as a source where `text_fields` are given.

        A copy of another model's field, as in a table of former versions, registers nothing;
        Django itself copies the fields of abstract models.
        """
        first = getattr(self, "model", cls)
        super().contribute_to_class(cls, name, private_only)
        is_ticket = not cls._meta.abstract and (first is cls or first._meta.abstract)
        if self.source_options.get("text_fields") and is_ticket and cls._meta.apps is apps:
            register(cls, priority_field=name, **self.source_options)
