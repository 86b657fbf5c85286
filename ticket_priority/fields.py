"""A priority column for a model you own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.db import models
from django.utils.translation import gettext_lazy as _

from ticket_priority.priorities import Priority
from ticket_priority.sources.registry import register


class PriorityField(models.PositiveSmallIntegerField):  # type: ignore[type-arg]
    """Holds a `Priority` or None (unset), and registers its model as a ticket source.

    `text_fields` and the other source options are `register()`'s. They belong to the running
    code, not to the schema, so migrations do not hold them.
    """

    description = _("Ticket priority")

    def __init__(
        self,
        *args: Any,
        text_fields: Sequence[str] = (),
        mode: str | None = None,
        created_field: str | None = None,
        language_field: str | None = None,
        segment_field: str | None = None,
        labelled: Any = None,
        reviewed: Any = None,
        visible_to: Any = None,
        changeable_by: Any = None,
        record_changes: bool = False,
        **kwargs: Any,
    ) -> None:
        self.source_options: dict[str, Any] = {
            "text_fields": text_fields,
            "mode": mode,
            "created_field": created_field,
            "language_field": language_field,
            "segment_field": segment_field,
            "labelled": labelled,
            "reviewed": reviewed,
            "visible_to": visible_to,
            "changeable_by": changeable_by,
            "record_changes": record_changes,
        }
        kwargs.setdefault("null", True)
        kwargs.setdefault("blank", True)
        kwargs["choices"] = Priority.choices
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("choices", None)
        return name, path, args, kwargs

    def contribute_to_class(
        self, cls: type[models.Model], name: str, private_only: bool = False
    ) -> None:
        super().contribute_to_class(cls, name, private_only)
        historical = cls._meta.apps is not apps
        if self.source_options["text_fields"] and not cls._meta.abstract and not historical:
            register(cls, priority_field=name, **self.source_options)
