from __future__ import annotations

from django.contrib import admin

from helpdesk.models import Comment, Queue, Ticket
from ticket_priority.admin import OverrideAdminMixin


@admin.register(Queue)
class QueueAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Edit queues."""

    list_display = ("name", "slug")
    search_fields = ("name",)
    prepopulated_fields = {"slug": ("name",)}


class CommentInline(admin.TabularInline):  # type: ignore[type-arg]
    """Edit the comments of a ticket on its page."""

    model = Comment
    extra = 0
    fields = ("author", "body", "is_internal", "created_at")
    readonly_fields = ("created_at",)
    autocomplete_fields = ("author",)


@admin.register(Ticket)
class TicketAdmin(OverrideAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Edit tickets, with their predictions and overrides."""

    list_display = ("subject", "status", "queue", "assignee", "language", "created_at")
    list_filter = ("status", "queue", "language", "assignee")
    list_select_related = ("queue", "assignee")
    search_fields = ("subject", "description", "requester")
    date_hierarchy = "created_at"
    autocomplete_fields = ("assignee", "queue")
    readonly_fields = ("external_id", "created_at", "updated_at")
    inlines = (CommentInline,)
