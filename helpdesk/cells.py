"""The cells of an imported row, and the ticket that they make."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Final

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from helpdesk.models import Queue, Ticket
from ticket_priority.priorities import Priority

FIELDS: Final = (
    "id",
    "subject",
    "description",
    "requester",
    "queue",
    "language",
    "status",
    "priority",
    "created_at",
)
UNSET: Final = "unset"

_LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})?")


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to read a file.

    `columns` maps field names (see `FIELDS`) to the file's column names; a field left out is
    looked for under its own name. `priorities` and `statuses` map the file's words, in lower
    case, to ours; `unset` means no priority.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    delimiter: str | None = None
    encoding: str = "utf-8-sig"
    priorities: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[str, str] = field(default_factory=dict)
    default_status: str = Ticket.Status.OPEN
    default_queue: str = ""
    default_language: str = ""
    date_format: str | None = None
    skip_invalid: bool = False
    dry_run: bool = False


class CellError(ValueError):
    """Why the cell of the field `name` cannot be imported; an empty name is the whole row."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name
        self.why = why


class TicketBuilder:
    """Make unsaved tickets from rows. Raises CellError, also for an unknown default queue."""

    def __init__(self, options: ImportOptions) -> None:
        self._options = options
        self._queues = {
            word.casefold(): queue
            for queue in Queue.objects.all()
            for word in (queue.slug, queue.name)
        }
        self._default_queue = self._queue(options.default_queue)
        # Every id of the file, to find duplicates: only this grows with the file.
        self._seen: dict[str, int] = {}

    def build(self, values: Mapping[str, str], number: int) -> Ticket:
        """Return the ticket of row `number`, from its stripped cells by field name."""
        for name, value in values.items():
            if "\x00" in value:
                raise CellError(name, "it holds a NUL character")
        return Ticket(
            external_id=self._external_id(values.get("id"), number),
            subject=_subject(values["subject"]),
            description=values["description"],
            requester=_requester(values.get("requester", "")),
            queue=self._queue(values.get("queue", "")) or self._default_queue,
            language=self._language(values.get("language", "")),
            status=self._status(values.get("status", "")),
            priority=self._priority(values.get("priority", "")),  # type: ignore[misc]
            created_at=self._created_at(values.get("created_at", "")),
        )

    def _external_id(self, value: str | None, number: int) -> str | None:
        if value is None:
            return None
        if not value:
            raise CellError("id", "it is empty")
        _check_length("id", value, 100)
        if value in self._seen:
            raise CellError("id", f'"{value}" is already in row {self._seen[value]}')
        self._seen[value] = number
        return value

    def _queue(self, value: str) -> Queue | None:
        if not value:
            return None
        try:
            return self._queues[value.casefold()]
        except KeyError as error:
            known = ", ".join(sorted({queue.slug for queue in self._queues.values()})) or "none"
            raise CellError("queue", f'there is no queue "{value}"; there are: {known}') from error

    def _language(self, value: str) -> str:
        code = value.replace("_", "-").lower()
        if not code:
            return self._options.default_language
        if len(code) > 12 or not _LANGUAGE_CODE.fullmatch(code):
            raise CellError("language", f'"{value}" is not a language code such as en or pt-br')
        return code

    def _status(self, value: str) -> str:
        if not value:
            return self._options.default_status
        word = self._options.statuses.get(value.casefold(), value.casefold())
        if word not in Ticket.Status.values:
            raise CellError(
                "status",
                f'"{value}" is none of {", ".join(Ticket.Status.values)}'
                f' (translate it with --status-map "{value}=closed")',
            )
        return word

    def _priority(self, value: str) -> Priority | None:
        if not value:
            return None
        word = self._options.priorities.get(value.casefold(), value.casefold())
        if word == UNSET:
            return None
        try:
            return Priority.from_slug(word)
        except KeyError as error:
            raise CellError(
                "priority",
                f'"{value}" is none of low, medium, high'
                f' (translate it with --priority-map "{value}=high")',
            ) from error

    def _created_at(self, value: str) -> datetime:
        if not value:
            return timezone.now()
        moment: datetime | date | None = None
        try:
            if self._options.date_format:
                moment = datetime.strptime(value, self._options.date_format)  # noqa: DTZ007
            else:
                moment = parse_datetime(value) or parse_date(value)
        except ValueError as error:
            raise CellError("created_at", f'"{value}" is no date: {error}') from error
        if moment is None:
            raise CellError(
                "created_at",
                f'"{value}" is no date such as 2026-03-31 or 2026-03-31T14:05'
                " (describe yours with --date-format)",
            )
        if not isinstance(moment, datetime):
            moment = datetime.combine(moment, time())
        if timezone.is_naive(moment):
            moment = timezone.make_aware(moment)
        return moment


def _subject(value: str) -> str:
    subject = " ".join(value.split())
    if not subject:
        raise CellError("subject", "it is empty")
    _check_length("subject", subject, 200)
    return subject


def _requester(value: str) -> str:
    if not value:
        return ""
    try:
        validate_email(value)
    except ValidationError as error:
        raise CellError("requester", f'"{value}" is not an e-mail address') from error
    _check_length("requester", value, 254)
    return value


def _check_length(name: str, value: str, most: int) -> None:
    if len(value) > most:
        raise CellError(name, f"it has {len(value)} characters; {most} are allowed")
