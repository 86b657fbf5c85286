from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Case, Q, Value, When
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ticket_priority.fields import PriorityField
from ticket_priority.priorities import Priority


class Queue(models.Model):
    """A team that tickets are assigned to, such as Billing or Facilities."""

    name = models.CharField(_("name"), max_length=80, unique=True)
    slug = models.SlugField(_("slug"), max_length=80, unique=True)

    class Meta:
        ordering = ["name"]
        verbose_name = _("queue")
        verbose_name_plural = _("queues")

    def __str__(self) -> str:
        return self.name


class TicketQuerySet(models.QuerySet["Ticket"]):
    """What the pages of the agents ask for."""

    def active(self) -> TicketQuerySet:
        """Return the tickets somebody still has to work on."""
        return self.filter(status__in=(Ticket.Status.OPEN, Ticket.Status.PENDING))

    def in_working_order(self) -> TicketQuerySet:
        """Order by priority, then the oldest first.

        A ticket without priority may be urgent, so it comes right after those with high priority.
        """
        return self.order_by(
            Case(
                When(priority=Priority.HIGH, then=Value(0)),
                When(priority__isnull=True, then=Value(1)),
                When(priority=Priority.MEDIUM, then=Value(2)),
                default=Value(3),
                output_field=models.SmallIntegerField(),
            ),
            "created_at",
            "pk",
        )

    def search(self, words: str) -> TicketQuerySet:
        """Return the tickets whose text or requester holds every word; `#12` finds one number."""
        found = self
        for word in words.replace("\x00", "").split()[:10]:
            match = (
                Q(subject__icontains=word)
                | Q(description__icontains=word)
                | Q(requester__icontains=word)
            )
            number = word.removeprefix("#")
            if number.isascii() and number.isdigit() and len(number) < 18:
                match |= Q(pk=int(number))
            found = found.filter(match)
        return found


class Ticket(models.Model):
    """A request of a customer, with its automatic priority."""

    class Status(models.TextChoices):
        OPEN = "open", _("Open")
        PENDING = "pending", _("Pending")
        SOLVED = "solved", _("Solved")
        CLOSED = "closed", _("Closed")

    subject = models.CharField(_("subject"), max_length=200)
    description = models.TextField(_("description"), blank=True)
    requester = models.EmailField(_("requester"), blank=True)
    queue = models.ForeignKey(
        Queue,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="tickets",
        verbose_name=_("queue"),
    )
    language = models.CharField(
        _("language"), max_length=12, blank=True, help_text=_("Language code, such as en or pt-br.")
    )
    status = models.CharField(
        _("status"), max_length=10, choices=Status.choices, default=Status.OPEN
    )
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="assigned_tickets",
        verbose_name=_("assignee"),
    )
    priority = PriorityField(
        _("priority"),
        text_fields=("subject", "description"),
        created_field="created_at",
        language_field="language",
        visible_to="helpdesk.access.tickets_of_agents",
        changeable_by="helpdesk.access.tickets_of_agents",
    )
    external_id = models.CharField(
        _("external id"),
        max_length=100,
        unique=True,
        null=True,
        blank=True,
        editable=False,
        help_text=_("The ticket's id in the system it was imported from."),
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    updated_at = models.DateTimeField(_("updated"), auto_now=True)

    objects = TicketQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        verbose_name = _("ticket")
        verbose_name_plural = _("tickets")
        indexes = [
            models.Index(fields=["status", "priority", "created_at"], name="ticket_working_order"),
            models.Index(fields=["queue", "status"], name="ticket_queue_status"),
            models.Index(fields=["-created_at"], name="ticket_newest"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk} {self.subject}"

    def get_absolute_url(self) -> str:
        return reverse("helpdesk:ticket", kwargs={"pk": self.pk})


class Comment(models.Model):
    """A message about a ticket, by an agent, or by the requester when `author` is null."""

    ticket = models.ForeignKey(
        Ticket, on_delete=models.CASCADE, related_name="comments", verbose_name=_("ticket")
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="ticket_comments",
        verbose_name=_("author"),
    )
    body = models.TextField(_("text"))
    is_internal = models.BooleanField(
        _("internal note"), default=False, help_text=_("Never sent to the requester.")
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)

    class Meta:
        ordering = ["created_at", "pk"]
        verbose_name = _("comment")
        verbose_name_plural = _("comments")
        indexes = [models.Index(fields=["ticket", "created_at"], name="comment_thread")]

    def __str__(self) -> str:
        return f"{self.ticket_id}: {self.body[:50]}"
