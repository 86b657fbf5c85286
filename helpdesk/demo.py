"""The demo helpdesk's team and tickets."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from helpdesk.access import AGENTS_GROUP
from helpdesk.models import Comment, Queue, Ticket
from ticket_priority.ml.text.normalisation import join_fields
from ticket_priority.ml.types import LabelledText
from ticket_priority.priorities import Priority

DEMO_DIRECTORY: Final = Path(__file__).resolve().parent / "demo_tickets"
LANGUAGES: Final = ("en", "de", "fr", "es", "pt")
QUEUES: Final = {
    "saas": "Software",
    "shop": "Online shop",
    "telecom": "Telecom",
    "bank": "Banking",
    "internal-it": "Internal IT",
    "facilities": "Facilities",
}
OPEN_SHARE: Final = 0.15
HISTORY_DAYS: Final = 120
LEAD: Final = "lead"
AGENT_NAMES: Final = {"lead": "Lena Lead", "mira": "Mira Alves", "tom": "Tom Okafor"}

_ANSWERS: Final = {
    "en": "Thank you for your message. We are looking into it and will write again.",
    "de": "Danke für die Nachricht. Wir sehen es uns an und melden uns wieder.",
    "fr": "Merci pour votre message. Nous regardons cela et revenons vers vous.",
    "es": "Gracias por su mensaje. Lo estamos revisando y le escribiremos de nuevo.",
    "pt": "Obrigado pela mensagem. Estamos a ver o que se passa e voltamos a escrever.",
}
_NOTE: Final = "Asked the requester by phone; nobody picked up. Trying again after lunch."
_INSERT_BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class DemoTicket:
    """One line of a demo file. `priority` is the rubric's, from `impact` and `urgency`."""

    id: str
    trade: str
    requester: str
    subject: str
    description: str
    impact: int
    urgency: int
    priority: str
    tags: tuple[str, ...]

    @property
    def language(self) -> str:
        return self.id.partition("-")[0]

    @property
    def external_id(self) -> str:
        return f"demo:{self.id}"


@dataclass(slots=True)
class LoadReport:
    """How many rows a load added."""

    users: int = 0
    queues: int = 0
    history: int = 0
    open: int = 0
    comments: int = 0


def read_demo_tickets(directory: Path = DEMO_DIRECTORY) -> Iterator[DemoTicket]:
    """Yield every demo ticket by language; raises ValueError with the file and the line."""
    for language in LANGUAGES:
        path = directory / f"{language}.jsonl"
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    values: dict[str, Any] = json.loads(line)
                    yield DemoTicket(**{**values, "tags": tuple(values["tags"])})
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error


def held_out(tickets: Iterable[DemoTicket]) -> frozenset[str]:
    """Return the ids of the tickets that stay open and unlabelled, by a hash of the id.

    They are OPEN_SHARE of each language, and the same ones every time.
    """
    by_language: dict[str, list[str]] = defaultdict(list)
    for ticket in tickets:
        by_language[ticket.language].append(ticket.id)
    chosen: set[str] = set()
    for ids in by_language.values():
        ids.sort(key=lambda id_: _number(id_, "held out"))
        chosen.update(ids[: round(len(ids) * OPEN_SHARE)])
    return frozenset(chosen)


def labelled_and_open_texts() -> tuple[list[LabelledText], list[LabelledText]]:
    """Return the labelled demo tickets and those held out, as training reads them.

    They have the dates of `load_demo_tickets`, so training splits them in the same way.
    """
    now = datetime(2026, 1, 1, tzinfo=UTC)
    tickets = list(read_demo_tickets())
    open_ids = held_out(tickets)
    labelled: list[LabelledText] = []
    unseen: list[LabelledText] = []
    for ticket in tickets:
        text = join_fields((ticket.subject, ticket.description))
        row = LabelledText(
            text=text,
            label=Priority.from_slug(ticket.priority).value,
            pk=ticket.id,
            language=ticket.language,
            provenance="host",
            created_at=_past_day(ticket, now).isoformat(timespec="microseconds"),
        )
        (unseen if ticket.id in open_ids else labelled).append(row)
    return labelled, unseen


@transaction.atomic
def load_demo_tickets(*, password: str, reset_passwords: bool = False) -> LoadReport:
    """Add the demo team, queues and tickets that are not there yet.

    About 85 % become labelled history: solved or closed over the last months, with the rubric's
    priority as a person's label. The others are open and without priority. No signal is sent, so
    nothing is classified here.
    """
    report = LoadReport()
    team = _load_team(report, password, reset=reset_passwords)
    queues = _load_queues(report)
    tickets = list(read_demo_tickets())
    open_ids = held_out(tickets)
    present = set(
        Ticket.objects.filter(external_id__startswith="demo:").values_list("external_id", flat=True)
    )
    now = timezone.now().replace(microsecond=0)
    rows = [
        _ticket(ticket, team, queues, now, is_open=ticket.id in open_ids)
        for ticket in tickets
        if ticket.external_id not in present
    ]
    report.open = sum(row.priority is None for row in rows)
    report.history = len(rows) - report.open
    # MariaDB gives bulk-created rows no primary keys, so they are read again.
    Ticket.objects.bulk_create(rows, batch_size=_INSERT_BATCH)
    new = {row.external_id for row in rows}
    saved = [
        ticket
        for ticket in Ticket.objects.filter(external_id__startswith="demo:").order_by("pk")
        if ticket.external_id in new
    ]
    report.comments = _load_comments(saved, team)
    _backdate(saved)
    return report


def _load_team(report: LoadReport, password: str, *, reset: bool) -> list[User]:
    group, _ = Group.objects.get_or_create(name=AGENTS_GROUP)
    team = []
    for username, name in AGENT_NAMES.items():
        first, _, last = name.partition(" ")
        user, created = User.objects.get_or_create(
            username=username,
            defaults={
                "first_name": first,
                "last_name": last,
                "email": f"{username}@helpdesk.example",
                "is_staff": username == LEAD,
                "is_superuser": username == LEAD,
            },
        )
        if created or reset:
            user.set_password(password)
            user.save(update_fields=["password"])
        if created:
            report.users += 1
            user.groups.add(group)
        team.append(user)
    return team


def _load_queues(report: LoadReport) -> dict[str, Queue]:
    queues = {}
    for slug, name in QUEUES.items():
        queues[slug], created = Queue.objects.get_or_create(slug=slug, defaults={"name": name})
        report.queues += created
    return queues


def _ticket(
    demo: DemoTicket,
    team: Sequence[User],
    queues: dict[str, Queue],
    now: datetime,
    *,
    is_open: bool,
) -> Ticket:
    ticket = Ticket(
        external_id=demo.external_id,
        subject=demo.subject,
        description=demo.description,
        requester=demo.requester,
        queue=queues[demo.trade],
        language=demo.language,
    )
    assignee = team[_number(demo.id, "assignee", len(team))]
    if not is_open:
        ticket.created_at = _past_day(demo, now)
        ticket.priority = Priority.from_slug(demo.priority)
        ticket.assignee = assignee
        old = _days_ago(demo) > 30
        ticket.status = Ticket.Status.CLOSED if old else Ticket.Status.SOLVED
        return ticket
    ticket.created_at = now - timedelta(minutes=5 + _number(demo.id, "age", 3 * 24 * 60))
    if _number(demo.id, "taken", 3) == 0:
        ticket.assignee, ticket.status = assignee, Ticket.Status.PENDING
    return ticket


def _load_comments(tickets: Sequence[Ticket], team: Sequence[User]) -> int:
    comments = []
    for ticket in tickets:
        author = ticket.assignee
        key = str(ticket.external_id)
        is_open = ticket.priority is None
        if author is None or (not is_open and _number(key, "answered", 4)):
            continue
        answered_at = ticket.created_at + timedelta(minutes=4 + _number(key, "answer", 90))
        comments.append(
            Comment(
                ticket=ticket,
                author=author,
                body=_ANSWERS[ticket.language],
                created_at=min(answered_at, timezone.now()),
            )
        )
        if is_open and _number(key, "note", 2):
            colleague = team[(team.index(author) + 1) % len(team)]
            comments.append(
                Comment(
                    ticket=ticket,
                    author=colleague,
                    body=_NOTE,
                    is_internal=True,
                    created_at=min(answered_at + timedelta(minutes=25), timezone.now()),
                )
            )
    Comment.objects.bulk_create(comments, batch_size=_INSERT_BATCH)
    return len(comments)


def _backdate(tickets: Sequence[Ticket]) -> None:
    keys = [ticket.pk for ticket in tickets]
    for start in range(0, len(keys), _INSERT_BATCH):
        rows = Ticket.objects.filter(pk__in=keys[start : start + _INSERT_BATCH])
        done = (Ticket.Status.SOLVED, Ticket.Status.CLOSED)
        rows.filter(status__in=done).update(updated_at=F("created_at") + timedelta(days=1))


def _days_ago(demo: DemoTicket) -> int:
    return 2 + _number(demo.id, "day", HISTORY_DAYS - 2)


def _past_day(demo: DemoTicket, now: datetime) -> datetime:
    """Return when a ticket of the history came in, within office hours."""
    morning = (now - timedelta(days=_days_ago(demo))).replace(hour=7, minute=0, second=0)
    return morning + timedelta(minutes=_number(demo.id, "minute", 11 * 60))


def _number(key: str, purpose: str, below: int = 2**32) -> int:
    """Return a number from 0 to `below` - 1 that depends on the two texts only."""
    digest = sha256(f"{purpose}:{key}".encode()).digest()
    return int.from_bytes(digest[:8]) % below
