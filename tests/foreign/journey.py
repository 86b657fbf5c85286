"""What the steps of the journey do with a host: make tickets, look at them, decide about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any
from urllib.parse import quote as urlquote

from django.contrib.admin.utils import quote
from django.db import connections, models, router
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse

import ticket_priority
from tests.foreign import urls
from tests.foreign.models import Plain
from tests.foreign.oddity import Oddity
from tests.support.classifiers import FaultyClassifier
from ticket_priority.middleware import acting_user_middleware
from ticket_priority.ml.types import Classification
from ticket_priority.models import Override, Prediction
from ticket_priority.models.rows import content_type_of
from ticket_priority.priorities import Priority
from ticket_priority.sources import registry
from ticket_priority.sources.base import TicketSource

TEXT = "The printer on the third floor is on fire"
SECRET = "Somebody asks for a rise"


def not_secret(rows: models.QuerySet[Any], user: Any) -> models.QuerySet[Any]:
    """`visible_to` and `changeable_by` of every foreign source."""
    return rows.exclude(body=SECRET)


@dataclass
class Journey:
    oddity: Oddity
    source: TicketSource
    agent: Any
    configure: Any
    read: list[str] = field(default_factory=list)
    """The texts that the model was asked about."""
    made: int = 0

    # Tickets

    def create(self, body: str = TEXT) -> Any:
        self.made += 1
        model = self.oddity.tickets or self.oddity.model
        ticket = model(body=body, **self.oddity.row(self.made))
        ticket.save()
        self.look_at_constraints()
        return ticket

    def create_unseen(self, body: str = TEXT) -> Any:
        with ticket_priority.muted():
            return self.fresh(self.create(body))

    def create_decided(self) -> Any:
        """Create a ticket that the model has answered and a person has overruled."""
        ticket = self.create_answered()
        ticket_priority.override(ticket, self.oddity.decision, user=self.agent)
        self.look_at_constraints()
        return self.fresh(ticket)

    def create_answered(self, body: str = TEXT) -> Any:
        ticket = self.create(body)
        self.drain()
        return self.fresh(ticket)

    def create_plain(self) -> Plain:
        """Create a ticket of a host without an oddity, which must not suffer from this one."""
        return Plain.objects.create(body=TEXT)

    def fresh(self, ticket: Any) -> Any:
        """Read the ticket as another process does."""
        return self.source.queryset().get(pk=ticket.pk)

    def value(self, ticket: Any) -> Any:
        return self.source.value_of(self.fresh(ticket))

    def value_for(self, priority: Priority) -> Any:
        return self.oddity.values[priority]

    @property
    def answered_value(self) -> Any:
        """The host value of a ticket that the model has answered."""
        is_applied = self.oddity.state == Prediction.State.APPLIED
        return self.value_for(self.oddity.answer) if is_applied else self.oddity.unset

    @property
    def decided_value(self) -> Any:
        return self.value_for(self.oddity.decision)

    def everything(self) -> models.QuerySet[Any]:
        return self.source.queryset(router.db_for_write(self.oddity.model))

    def look_at_constraints(self) -> None:
        """Have the database say now what it would say at the commit."""
        for using in {"default", router.db_for_write(self.oddity.model)}:
            # Others have said it already.
            if connections[using].features.can_defer_constraint_checks:
                connections[using].check_constraints()

    # The plugin's rows

    def drain(self) -> int:
        from ticket_priority.predictions import outbox

        decided = outbox.drain()
        self.look_at_constraints()
        return decided

    def predictions(self, ticket: Any) -> list[tuple[str, int | None]]:
        """Return state and class of what is stored about a ticket, by the key that it has now."""
        rows = Prediction.objects.for_instance(self.fresh(ticket)).order_by("pk")
        return [(row.state, row.priority) for row in rows]

    @property
    def expected(self) -> list[tuple[str, int | None]]:
        return [(self.oddity.state, self.oddity.answer)]

    def decisions(self, ticket: Any) -> list[tuple[int | None, int, Any]]:
        rows = Override.objects.for_instance(self.fresh(ticket)).order_by("pk")
        return [(row.from_priority, row.to_priority, row.user) for row in rows]

    @property
    def expected_decision(self) -> list[tuple[int | None, int, Any]]:
        is_applied = self.oddity.state == Prediction.State.APPLIED
        before = self.oddity.answer if is_applied else None
        return [(before, self.oddity.decision, self.agent)]

    def kept(self) -> int:
        """Count the rows about tickets of this host, whatever key they bear."""
        ours = content_type_of(self.oddity.model)
        tables = (Prediction, Override)
        return sum(table.objects.filter(content_type=ours).count() for table in tables)

    # The model

    def answer(self, texts: Sequence[str]) -> list[Classification]:
        self.read += texts
        sure = [0.01, 0.01, 0.01]
        sure[self.oddity.answer] = 0.98
        return [Classification(tuple(sure)) for _ in texts]

    @contextmanager
    def hanging_model(self) -> Iterator[None]:
        released = Event()
        FaultyClassifier.fault = lambda texts: released.wait(30) and self.answer(texts)
        try:
            yield
        finally:
            released.set()
            FaultyClassifier.fault = self.answer

    # People

    def host_saves(self, ticket: Any, priority: Priority) -> None:
        """Save the ticket on the host's own page, as the agent, where changes are recorded."""
        registry._sources[self.oddity.model] = replace(self.source, record_changes=True)

        def page(request: HttpRequest) -> HttpResponse:
            setattr(ticket, self.source.host_field.attname, self.value_for(priority))
            ticket.save()
            return HttpResponse()

        request = RequestFactory().post("/")
        request.user = self.agent
        acting_user_middleware(page)(request)
        self.look_at_constraints()

    def browser(self) -> Client:
        client = Client()
        client.force_login(self.agent)
        return client

    def object_id(self, client: Client) -> str:
        """Return the key of the newest ticket, as the API's list shows it."""
        shown = client.get("/api/predictions/", {"source": self.source.label}).json()
        return str(shown["results"][0]["object_id"])

    def address(self, client: Client) -> str:
        """Return that key as a part of an address."""
        return urlquote(self.object_id(client), safe="")

    def listed(self, query: str) -> set[Any]:
        """Return the keys of the tickets that the admin's list shows for a query."""
        request = RequestFactory().get(f"/?{query}")
        request.user = self.agent
        host = urls.site.get_model_admin(self.oddity.model)
        return {ticket.pk for ticket in host.get_changelist_instance(request).result_list}

    def admin_page(self, page: str, *keys: Any) -> str:
        meta = self.oddity.model._meta
        name = f"admin:{meta.app_label}_{meta.model_name}_{page}"
        return reverse(name, args=[quote(key) for key in keys])
