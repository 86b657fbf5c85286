from __future__ import annotations

from typing import Any, ClassVar, Final

from django.core.exceptions import ObjectDoesNotExist
from django.db import models, router
from django.urls import include, path
from drf_spectacular.utils import (
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
    extend_schema_view,
)
from drf_spectacular.views import SpectacularAPIView
from rest_framework import generics, permissions, status
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from ticket_priority.api import schema, scoping, serializers
from ticket_priority.api.base import PluginView
from ticket_priority.api.errors import (
    PriorityRefused,
    TooManyDecisions,
    model_at_work,
    model_required,
)
from ticket_priority.api.filters import (
    FilterBackend,
    OverrideFilter,
    PredictionFilter,
    StableOrdering,
)
from ticket_priority.api.health import check_health, describe_service
from ticket_priority.api.pagination import Pages
from ticket_priority.api.permissions import SeesTickets, may_see_some
from ticket_priority.exceptions import OverrideRateError, PriorityRefusedError, SourceError
from ticket_priority.models import Override, Prediction
from ticket_priority.predictions import audit
from ticket_priority.predictions.on_save import classify_with_version
from ticket_priority.predictions.overrides import override
from ticket_priority.predictions.reclassify import classify_instances
from ticket_priority.predictions.standings import priorities_of
from ticket_priority.sources.base import TicketSource
from ticket_priority.sources.keys import LONGEST, key_text, read_keys, ticket_key
from ticket_priority.sources.registry import find_source

SHOWN_OVERRIDES: Final = 20


class PredictView(PluginView, generics.GenericAPIView[Any]):
    """Classify texts that belong to no ticket. They are neither stored nor logged."""

    serializer_class = serializers.PredictRequestSerializer

    @schema.operation(
        "predict",
        {
            200: PolymorphicProxySerializer(
                component_name="PriorityPredictResponse",
                serializers=[
                    serializers.PredictAnswerSerializer,
                    serializers.PredictAnswersSerializer,
                ],
                resource_type_field_name=None,
            )
        },
        *(400, 413, 415, 503),
        request=serializers.PredictRequestSerializer,
        examples=schema.PREDICT_EXAMPLES,
    )
    def post(self, request: Request) -> Response:
        body = self.get_serializer(data=request.data)
        body.is_valid(raise_exception=True)
        texts = body.validated_data.get("texts") or [body.validated_data["text"]]
        found: Any
        with model_at_work():
            version, found = classify_with_version(texts)
        results = serializers.ClassificationSerializer(found, many=True).data
        if "text" in body.validated_data:
            return Response({**results[0], "model_version": version.name})
        return Response({"results": results, "model_version": version.name})


class RowsMixin(PluginView):
    """Find rows about tickets that the user may see."""

    rows: ClassVar[models.QuerySet[Any]]

    def get_permissions(self) -> list[Any]:
        return [SeesTickets()]

    def get_queryset(self) -> models.QuerySet[Any]:
        if getattr(self, "swagger_fake_view", False):
            return self.rows.none()
        return scoping.visible(self.rows.all(), self.request.user)


class ListMixin(RowsMixin):
    """List such rows, with pages, filters and an order."""

    pagination_class: Any = Pages
    filter_backends: Any = [FilterBackend, StableOrdering]

    def count(self) -> int:
        """Count the rows of all pages."""
        return scoping.count(self.filter_queryset(self.rows.all()), self.request.user)  # type: ignore[attr-defined]


_PREDICTIONS: Final = Prediction.objects.with_version().shown()


@extend_schema_view(
    get=schema.operation(
        "predictions", {200: serializers.PredictionSerializer(many=True)}, 400, 404
    )
)
class PredictionListView(ListMixin, generics.ListAPIView[Prediction]):
    """List predictions, the newest first."""

    rows = _PREDICTIONS
    serializer_class = serializers.PredictionSerializer
    filterset_class = PredictionFilter
    ordering_fields = ("id", "created_at", "decided_at", "confidence", "priority", "latency_ms")


@extend_schema_view(
    get=schema.operation(
        "prediction",
        {200: serializers.PredictionSerializer},
        404,
        parameters=[schema.PREDICTION_ID],
    )
)
class PredictionView(RowsMixin, generics.RetrieveAPIView[Prediction]):
    """Show one prediction."""

    rows = _PREDICTIONS
    serializer_class = serializers.PredictionSerializer


@extend_schema_view(
    get=schema.operation("overrides", {200: serializers.OverrideSerializer(many=True)}, 400, 404)
)
class OverrideListView(ListMixin, generics.ListAPIView[Override]):
    """List the decisions of people, the newest first."""

    rows = Override.objects.select_related("user")
    serializer_class = serializers.OverrideSerializer
    filterset_class = OverrideFilter
    ordering_fields = ("id", "created_at", "from_priority", "to_priority")


class TicketMixin(PluginView):
    """Find the ticket that the URL names, among those that the user may see."""

    def get_permissions(self) -> list[Any]:
        return [permissions.IsAuthenticated()]

    def get_ticket(self, *, to_change: bool) -> tuple[TicketSource, models.Model]:
        """Return the source and the ticket.

        Raises NotFound where the user sees no such ticket, and PermissionDenied where the user may
        see no ticket of the source, or may not change this one.
        """
        try:
            source = find_source(self.kwargs["source"])
        except SourceError:
            raise NotFound from None
        user = self.request.user
        if not may_see_some(source, user):
            raise PermissionDenied
        key = _key(source, self.kwargs["object_id"])
        using = router.db_for_write(source.model) if to_change else None
        ticket = source.visible_rows(user, using).filter(pk=key).first()
        if ticket is None:
            raise NotFound
        if to_change and not source.changeable_rows(user, using).filter(pk=key).exists():
            raise PermissionDenied
        return source, ticket


def _key(source: TicketSource, text: str) -> Any:
    """Read a primary key in the form of `object_id`; raises NotFound for any other text."""
    keys = read_keys(source.model, [text]) if "\x00" not in text else []
    written = text if len(text) <= LONGEST else key_text(source.model, text)
    if not keys or key_text(source.model, keys[-1]).lower() != written.lower():
        raise NotFound
    return keys[-1]


class TicketView(TicketMixin, generics.GenericAPIView[Any]):
    """Show a ticket's priority, its latest prediction and its latest overrides."""

    serializer_class = serializers.TicketSerializer

    @schema.operation(
        "ticket", {200: serializers.TicketSerializer}, 404, parameters=schema.TICKET_PARAMETERS
    )
    def get(self, request: Request, source: str, object_id: str) -> Response:
        of, ticket = self.get_ticket(to_change=False)
        key = [ticket.pk]
        predictions = Prediction.objects.for_keys(of.model, key).with_version()
        overrides = Override.objects.for_keys(of.model, key).select_related("user")
        text = ticket_key(ticket)
        priority = priorities_of([ticket])[text]
        prediction = predictions.order_by("-pk").first()
        if prediction is not None and audit.held_back([prediction]):
            prediction = None
        latest_overrides = list(overrides.order_by("-pk")[:SHOWN_OVERRIDES])
        found = {
            "source": of.label,
            "object_id": text,
            "priority": priority,
            "prediction": prediction,
            "overrides": latest_overrides,
        }
        return Response(self.get_serializer(found).data)


class TicketOverrideView(TicketMixin, generics.GenericAPIView[Any]):
    """Set a ticket's priority, as the decision of the user."""

    serializer_class = serializers.OverrideRequestSerializer

    @schema.operation(
        "override",
        {201: serializers.OverrideSerializer, 429: schema.TOO_MANY_DECISIONS},
        *(400, 404, 409, 413, 415),
        parameters=schema.TICKET_PARAMETERS,
        request=serializers.OverrideRequestSerializer,
        examples=schema.OVERRIDE_EXAMPLES,
    )
    def post(self, request: Request, source: str, object_id: str) -> Response:
        ticket = self.get_ticket(to_change=True)[1]
        body = self.get_serializer(data=request.data)
        body.is_valid(raise_exception=True)
        try:
            record = override(ticket, **body.validated_data, user=request.user, via="api")
        except ObjectDoesNotExist:
            raise NotFound from None
        except OverrideRateError as error:
            raise TooManyDecisions(error) from None
        except PriorityRefusedError as error:
            raise PriorityRefused(str(error)) from None
        return Response(serializers.OverrideSerializer(record).data, status=status.HTTP_201_CREATED)


class TicketClassifyView(TicketMixin, generics.GenericAPIView[Any]):
    """Classify a ticket, again or for the first time. A priority that a person set is kept."""

    serializer_class = serializers.PredictionSerializer

    @schema.operation(
        "classify",
        {201: serializers.PredictionSerializer},
        *(404, 503),
        parameters=schema.TICKET_PARAMETERS,
        request=None,
    )
    def post(self, request: Request, source: str, object_id: str) -> Response:
        ticket = self.get_ticket(to_change=True)[1]
        with model_required():
            (prediction,) = classify_instances([ticket], bounded=True)
        if prediction.reason == Prediction.Reason.TICKET_GONE:
            raise NotFound
        if prediction.reason == Prediction.Reason.AUDIT:
            prediction = audit.blanked(prediction)
        return Response(self.get_serializer(prediction).data, status=status.HTTP_201_CREATED)


class InfoView(PluginView):
    """Show the release, the active model and the ticket sources."""

    @schema.operation("info", {200: serializers.ServiceInfoSerializer})
    def get(self, request: Request) -> Response:
        return Response(serializers.ServiceInfoSerializer(describe_service()).data)


class HealthView(PluginView):
    """Say whether a model can answer. Needs no credentials, for load balancers; loads nothing."""

    throttle_classes = []

    def get_authenticators(self) -> list[Any]:
        return []

    def get_permissions(self) -> list[Any]:
        return [permissions.AllowAny()]

    def get_renderers(self) -> list[Any]:
        return [JSONRenderer()]

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        return super().perform_content_negotiation(request, force=True)

    @extend_schema(
        operation_id="ticket_priority_health",
        tags=[schema.TAG],
        auth=[],
        examples=schema.HEALTH_EXAMPLES,
        responses={
            200: serializers.HealthSerializer,
            503: OpenApiResponse(serializers.HealthSerializer, description="No model can serve."),
        },
    )
    def get(self, request: Request) -> Response:
        health = check_health()
        code = (
            status.HTTP_503_SERVICE_UNAVAILABLE
            if health.status == "unavailable"
            else status.HTTP_200_OK
        )
        return Response(serializers.HealthSerializer(health).data, status=code)


class SchemaView(PluginView, SpectacularAPIView):
    """Show the OpenAPI schema of this API, with the paths at which the host mounts it."""

    generator_class = schema.PluginSchemaGenerator
    serve_public = True

    def get_renderers(self) -> list[Any]:
        return [renderer() for renderer in SpectacularAPIView.renderer_classes]

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        prefix = request.path_info.lstrip("/").removesuffix("schema/")
        self.urlconf: Any = [path(prefix, include("ticket_priority.api.urls"))]
        return super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
