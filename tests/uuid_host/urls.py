"""The test host's own pages, which change a case without asking the plugin."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework.authentication import BasicAuthentication
from rest_framework.decorators import api_view, authentication_classes
from rest_framework.request import Request
from rest_framework.response import Response

from tests.uuid_host.models import Case


def change(request: HttpRequest, key: UUID) -> HttpResponse:
    """Save a form whose values arrive as text; `only` names the fields that are written."""
    case = Case.objects.get(pk=key)
    _fill(case, request.POST.dict())
    case.save(update_fields=request.GET.getlist("only") or None)
    return HttpResponse()


async def change_async(request: HttpRequest, key: UUID) -> HttpResponse:
    case = await Case.objects.aget(pk=key)
    _fill(case, request.POST.dict())
    await case.asave()
    return HttpResponse()


@api_view(["PATCH"])
@authentication_classes([BasicAuthentication])
def patch(request: Request, key: UUID) -> Response:
    case = Case.objects.get(pk=key)
    _fill(case, request.data)
    case.save()
    return Response({"urgency": case.urgency})


def _fill(case: Case, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(case, name, None if value == "" else value)


urlpatterns = [
    path("cases/<uuid:key>/", change),
    path("cases/<uuid:key>/async/", change_async),
    path("cases/<uuid:key>/api/", patch),
]
