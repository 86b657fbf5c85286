"""Who works the queue: staff, and members of the group "Agents"."""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.mixins import AccessMixin
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.utils.functional import SimpleLazyObject

AGENTS_GROUP: Final = "Agents"


def is_agent(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Return whether `user` may see tickets and work on them."""
    if not isinstance(user, User) or not user.is_active:
        return False
    return user.is_staff or user.groups.filter(name=AGENTS_GROUP).exists()


def agents() -> QuerySet[User]:
    """Return the active users a ticket can be assigned to, by name."""
    # A subquery, not a join: a user in several groups would be listed several times.
    members = User.groups.through.objects.filter(group__name=AGENTS_GROUP).values("user")
    return User.objects.filter(Q(is_staff=True) | Q(pk__in=members), is_active=True).order_by(
        "username"
    )


def agent(request: HttpRequest) -> dict[str, Any]:
    """Template context: `is_agent`, looked up only where a template asks."""
    user = getattr(request, "user", AnonymousUser())
    return {"is_agent": SimpleLazyObject(lambda: is_agent(user))}


class AgentRequiredMixin(AccessMixin):
    """Sends strangers to the login page; answers 403 to everybody else who is no agent."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return self.handle_no_permission()
        if not is_agent(request.user):
            self.raise_exception = True
            return self.handle_no_permission()
        return super().dispatch(request, *args, **kwargs)  # type: ignore[misc, no-any-return]
