from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from django.core.paginator import Paginator
from rest_framework.pagination import PageNumberPagination


class _Paginator(Paginator):  # type: ignore[type-arg]
    """Asks the view for the number of rows."""

    def __init__(self, rows: Any, per_page: int, *, count: Callable[[], int]) -> None:
        super().__init__(rows, per_page)
        self._count = count

    @cached_property
    def count(self) -> int:
        return self._count()


class Pages(PageNumberPagination):
    """`?page=` and `?page_size=`, independent of the host's defaults."""

    page_size = 50
    max_page_size = 200
    page_query_param = "page"
    page_size_query_param = "page_size"

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> list[Any] | None:
        self.django_paginator_class: Any = partial(_Paginator, count=view.count)
        return super().paginate_queryset(queryset, request, view)
