from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from helpdesk.access import agents
from helpdesk.models import Comment, Queue, Ticket
from ticket_priority.priorities import Priority


class OpenTicketForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form for requesters. `reference` is hidden from people, so only bots fill it in."""

    description = forms.CharField(
        label=_("What happened?"),
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 9}),
        help_text=_(
            "What did you try, what did you see, who else is affected, and by when do you need it?"
        ),
    )
    language = forms.ChoiceField(label=_("Your language"), choices=settings.LANGUAGES)
    reference = forms.CharField(
        label=_("Leave this field empty"),
        required=False,
        widget=forms.TextInput(attrs={"tabindex": "-1", "autocomplete": "off"}),
    )

    class Meta:
        model = Ticket
        fields = ("requester", "subject", "description", "queue", "language")
        labels = {
            "requester": _("Your e-mail address"),
            "subject": _("Subject"),
            "queue": _("Where should it go?"),
        }
        widgets = {"requester": forms.EmailInput(attrs={"autocomplete": "email"})}

    field_order = ["requester", "subject", "description", "queue", "language", "reference"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["requester"].required = True
        queue = self.fields["queue"]
        assert isinstance(queue, forms.ModelChoiceField)  # noqa: S101
        queue.empty_label = _("I am not sure")
        if not Queue.objects.exists():
            del self.fields["queue"]
        current = (get_language() or settings.LANGUAGE_CODE).split("-")[0]
        self.fields["language"].initial = current

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.cleaned_data.get("reference"):
            # A browser may have filled it in, and its user must be able to send the form again.
            data = QueryDict(mutable=True)
            data.update(self.data)
            data[self.add_prefix("reference")] = ""
            self.data = data
            raise ValidationError(
                _("This looked like it was sent by a program. If you are a person, send it again."),
                code="bot",
            )
        return cleaned


class QueueFilterForm(forms.Form):
    """The filters of the queue page, from the query string; an invalid one is ignored."""

    ACTIVE = "active"
    ALL = "all"

    q = forms.CharField(
        label=_("Search"),
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": _("Words or #number")}),
    )
    status = forms.ChoiceField(
        label=_("Status"),
        required=False,
        choices=[(ACTIVE, _("Unsolved")), *Ticket.Status.choices, (ALL, _("All"))],
    )
    queue = forms.ModelChoiceField(
        Queue.objects.all(), label=_("Queue"), required=False, empty_label=_("All")
    )
    priority = forms.ChoiceField(
        label=_("Priority"),
        required=False,
        choices=[
            ("", _("All")),
            *((priority.slug, priority.label) for priority in reversed(Priority)),
            ("unset", _("Unset")),
        ],
    )
    assignee = forms.ChoiceField(
        label=_("Assignee"),
        required=False,
        choices=[("", _("Anybody")), ("me", _("Me")), ("nobody", _("Nobody"))],
    )


class TicketPropertiesForm(forms.ModelForm):  # type: ignore[type-arg]
    """Status, assignee and queue. Saves only the fields that the user changed."""

    class Meta:
        model = Ticket
        fields = ("status", "assignee", "queue")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assignee, queue = self.fields["assignee"], self.fields["queue"]
        assert isinstance(assignee, forms.ModelChoiceField)  # noqa: S101
        assert isinstance(queue, forms.ModelChoiceField)  # noqa: S101
        assignee.queryset = agents(besides=self.instance.assignee_id)
        assignee.empty_label = _("Nobody")
        queue.empty_label = _("No queue")
        for field in self.fields.values():
            # Compare with what the page showed, not with what was saved since.
            field.show_hidden_initial = True

    def save(self, commit: bool = True) -> Ticket:
        if commit and self.changed_data:
            self.instance.save(update_fields=[*self.changed_data, "updated_at"])
        ticket: Ticket = self.instance
        return ticket


class CommentForm(forms.ModelForm):  # type: ignore[type-arg]
    """A reply to the requester, or an internal note."""

    class Meta:
        model = Comment
        fields = ("body", "is_internal")
        labels = {"body": _("Your answer or note")}
        widgets = {"body": forms.Textarea(attrs={"rows": 5}), "is_internal": forms.HiddenInput}


class PriorityForm(forms.Form):
    """A person's decision about the priority."""

    priority = forms.TypedChoiceField(
        label=_("Priority"),
        coerce=int,
        choices=[(priority.value, priority.label) for priority in reversed(Priority)],
        widget=forms.RadioSelect,
    )
    reason = forms.CharField(
        label=_("Reason (optional)"),
        required=False,
        max_length=500,
        widget=forms.TextInput,
    )
