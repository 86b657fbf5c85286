"""Who may work on tickets: staff, and members of the group "Agents"."""

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


def agents(*, besides: int | None = None) -> QuerySet[User]:
    """Return the active users a ticket can be assigned to, by name, and the user `besides`.

    That is the present assignee, who may not be an agent any more.
    """
    # A subquery, not a join: a user in several groups would be listed several times.
    members = User.groups.through.objects.filter(group__name=AGENTS_GROUP).values("user")
    working = Q(is_active=True) & (Q(is_staff=True) | Q(pk__in=members))
    return User.objects.filter(working | Q(pk=besides)).order_by("username")


def tickets_of_agents(rows: QuerySet[Any], user: AbstractBaseUser) -> QuerySet[Any]:
    """Narrow tickets for the API as the pages do: agents see all, others none."""
    return rows if is_agent(user) else rows.none()


def request_is_agents(request: HttpRequest) -> bool:
    """Return `is_agent` of the request's user, asking the database once a request."""
    known: bool | None = getattr(request, "_is_agent", None)
    if known is None:
        known = is_agent(getattr(request, "user", AnonymousUser()))
        request._is_agent = known  # type: ignore[attr-defined]
    return known


def agent(request: HttpRequest) -> dict[str, Any]:
    """Return the template context `is_agent`, which is looked up when a template uses it."""
    return {"is_agent": SimpleLazyObject(lambda: request_is_agents(request))}


class AgentRequiredMixin(AccessMixin):
    """Redirect anonymous users to the login page, and answer 403 to users who are no agents."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return self.handle_no_permission()
        if not request_is_agents(request):
            self.raise_exception = True
            return self.handle_no_permission()
        return super().dispatch(request, *args, **kwargs)  # type: ignore[misc, no-any-return]
