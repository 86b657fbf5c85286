"""What the OpenAPI schema adds to the serializers: errors, examples, the priority's type."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from ticket_priority import __version__
from ticket_priority.api import serializers
from ticket_priority.ml.types import CLASS_NAMES

TAG: Final = "ticket priority"

_ANSWER: Final = {
    "priority": "high",
    "priority_id": 2,
    "confidence": 0.87,
    "probabilities": {"low": 0.04, "medium": 0.09, "high": 0.87},
}
PREDICT_EXAMPLES: Final = [
    OpenApiExample("One text", {"text": "All tills are down."}, request_only=True),
    OpenApiExample(
        "Several texts",
        {"texts": ["All tills are down.", "A typo in the newsletter."]},
        request_only=True,
    ),
    OpenApiExample(
        "One answer",
        {**_ANSWER, "model_version": "20260301-120000"},
        response_only=True,
        status_codes=["200"],
    ),
    OpenApiExample(
        "Several answers",
        {"results": [_ANSWER], "model_version": "20260301-120000"},
        response_only=True,
        status_codes=["200"],
    ),
]
OVERRIDE_EXAMPLES: Final = [
    OpenApiExample(
        "Raise the priority",
        {"priority": "high", "reason": "The whole shop is affected."},
        request_only=True,
    ),
]
HEALTH_EXAMPLES: Final = [
    OpenApiExample(
        "A model serves",
        {
            "status": "ok",
            "model_loaded": True,
            "active_model": "20260301-120000",
            "breaker": "closed",
        },
        response_only=True,
        status_codes=["200"],
    ),
    OpenApiExample(
        "No model was ever activated",
        {"status": "unavailable", "model_loaded": False, "active_model": None, "breaker": "closed"},
        response_only=True,
        status_codes=["503"],
    ),
]
PREDICTION_ID: Final = OpenApiParameter(
    "id", {"type": "integer", "minimum": 0}, OpenApiParameter.PATH
)
TICKET_PARAMETERS: Final = [
    OpenApiParameter(
        "source",
        OpenApiTypes.STR,
        OpenApiParameter.PATH,
        description="The ticket's model, such as helpdesk.Ticket, in any case.",
    ),
    OpenApiParameter(
        "object_id",
        OpenApiTypes.STR,
        OpenApiParameter.PATH,
        description="The ticket's primary key, written as in the lists.",
    ),
]

_INVALID: Final = {
    "type": "object",
    "description": "Messages by field; `detail` where the body or the page is invalid.",
    "additionalProperties": {},
    "example": {"text": ["This field may not be blank."]},
}
_DESCRIPTIONS: Final = {
    401: "No valid credentials were given.",
    403: "This user may not do it, or the CSRF token is missing.",
    404: "It does not exist, or this user may not see it.",
    413: "The body is larger than DATA_UPLOAD_MAX_MEMORY_SIZE.",
    415: "The body is not application/json.",
    429: "Too many requests; Retry-After is the number of seconds to wait.",
    503: "No model can answer; Retry-After is the number of seconds to wait.",
}


def answers(success: dict[int, Any], *failures: int) -> dict[int, Any]:
    """Return the responses of an operation: `success`, and the usual body for each failure."""
    responses = dict(success)
    for code in (*failures, 401, 403, 429):
        responses[code] = (
            OpenApiResponse(_INVALID, description="The request is not valid.")
            if code == 400
            else OpenApiResponse(serializers.ErrorSerializer, description=_DESCRIPTIONS[code])
        )
    return dict(sorted(responses.items()))


def too_many_decisions() -> dict[int, Any]:
    """Return the 429 response of an override."""
    description = f"{_DESCRIPTIONS[429]} Also: more decisions than OVERRIDE_RATE allows."
    return {429: OpenApiResponse(serializers.ErrorSerializer, description=description)}


def retry_after(*codes: int) -> OpenApiParameter:
    """Describe the Retry-After header of the responses with these status codes."""
    return OpenApiParameter(
        "Retry-After",
        OpenApiTypes.INT,
        OpenApiParameter.HEADER,
        description="Seconds.",
        response=list(codes),
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
