"""What the OpenAPI schema adds to the serializers: errors, examples, the priority's type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)

from ticket_priority import __version__
from ticket_priority.api import serializers
from ticket_priority.ml.types import CLASS_NAMES

TAG: Final = "ticket priority"

_VERSION: Final = "20260301-120000"
_OK: Final = {"status": "ok", "model_loaded": True, "active_model": _VERSION, "breaker": "closed"}
_NO_MODEL: Final = {"status": "unavailable", "model_loaded": False, "active_model": None}
_ANSWER: Final = {
    "priority": "high",
    "priority_id": 2,
    "confidence": 0.87,
    "probabilities": {"low": 0.04, "medium": 0.09, "high": 0.87},
}


def _request(name: str, body: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample(name, body, request_only=True)


def _response(name: str, body: dict[str, Any], code: int = 200) -> OpenApiExample:
    return OpenApiExample(name, body, response_only=True, status_codes=[str(code)])


PREDICT_EXAMPLES: Final = [
    _request("One text", {"text": "All tills are down."}),
    _request("Several texts", {"texts": ["All tills are down.", "A typo in the newsletter."]}),
    _response("One answer", {**_ANSWER, "model_version": _VERSION}),
    _response("Several answers", {"results": [_ANSWER], "model_version": _VERSION}),
]
OVERRIDE_EXAMPLES: Final = [
    _request("Raise the priority", {"priority": "high", "reason": "The whole shop is affected."})
]
HEALTH_EXAMPLES: Final = [
    _response("A model serves", _OK),
    _response("No model was ever activated", {**_OK, **_NO_MODEL}, 503),
]
PREDICTION_ID: Final = OpenApiParameter(
    "id", {"type": "integer", "minimum": 0}, OpenApiParameter.PATH
)
TICKET_PARAMETERS: Final = [
    OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.PATH, description=text)
    for name, text in (
        ("source", "The ticket's model, such as helpdesk.Ticket, in any case."),
        (
            "object_id",
            "The ticket's primary key, written as in the lists and percent-encoded: it may hold "
            "any character, also a slash.",
        ),
    )
]

_INVALID: Final = {
    "type": "object",
    "description": "Messages by field; `detail` where the body or the page is invalid.",
    "additionalProperties": {},
    "example": {"text": ["This field may not be blank."]},
}
_DESCRIPTIONS: Final = {
    400: "The request is not valid.",
    401: "No valid credentials were given.",
    403: "This user may not do it, or the CSRF token is missing.",
    404: "It does not exist, or this user may not see it.",
    409: "The ticket's model or its database does not take this priority.",
    413: "The body is larger than DATA_UPLOAD_MAX_MEMORY_SIZE.",
    415: "The body is not application/json.",
    429: "Too many requests; Retry-After is the number of seconds to wait.",
    503: "No model can answer; Retry-After is the number of seconds to wait.",
}


TOO_MANY_DECISIONS: Final = OpenApiResponse(
    serializers.ErrorSerializer,
    description=f"{_DESCRIPTIONS[429]} Also: more decisions than OVERRIDE_RATE allows.",
)


def operation(
    name: str,
    success: dict[int, Any],
    *failures: int,
    parameters: Sequence[OpenApiParameter] = (),
    **more: Any,
) -> Callable[[Any], Any]:
    """Describe a view's method by its responses; every operation may also fail with 401, 403, 429.

    `more` is passed to `extend_schema`.
    """
    responses = dict(success)
    for code in (*failures, 401, 403, 429):
        description = _DESCRIPTIONS[code]
        body = _INVALID if code == 400 else serializers.ErrorSerializer
        responses.setdefault(code, OpenApiResponse(body, description=description))
    retry_after = OpenApiParameter(
        "Retry-After",
        OpenApiTypes.INT,
        OpenApiParameter.HEADER,
        description="Seconds.",
        response=[code for code in (429, 503) if code in responses],
    )
    return extend_schema(
        operation_id=f"ticket_priority_{name}",
        tags=[TAG],
        parameters=[*parameters, retry_after],
        responses=dict(sorted(responses.items())),
        **more,
    )


class PriorityName(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """One named type, so that the host needs no ENUM_NAME_OVERRIDES."""

    target_class = "ticket_priority.api.serializers.PriorityNameField"

    def get_name(self) -> str:
        return "TicketPriority"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        return {"type": "string", "enum": list(CLASS_NAMES)}


class SourceLabel(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """A string with an example."""

    target_class = "ticket_priority.api.serializers.SourceLabelField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        return {"type": "string", "example": "helpdesk.Ticket"}


class PluginSchemaGenerator(SchemaGenerator):
    """Describe this API only, under its own title."""

    def get_schema(self, request: Any = None, public: bool = False) -> Any:
        schema = super().get_schema(request=request, public=public)  # type: ignore[no-untyped-call]
        schema["info"] = {
            "title": "Ticket priority",
            "version": __version__,
            "description": "Predict, list and override the priority of tickets.",
        }
        return schema
