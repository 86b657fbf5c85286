from __future__ import annotations

from typing import Any, Final

from django.contrib.contenttypes.models import ContentType
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from ticket_priority.conf import get_settings
from ticket_priority.ml.text.normalisation import MAX_CHARACTERS, normalise
from ticket_priority.ml.types import CLASS_NAMES, Classification
from ticket_priority.models import Override, Prediction
from ticket_priority.priorities import Priority

MAX_TEXT_LENGTH: Final = 4 * MAX_CHARACTERS
"""In characters. More than the model reads, since normalisation shortens texts."""

MAX_REASON_LENGTH: Final = 2000


class PriorityNameField(serializers.Field[Priority, str, str, int]):
    """A class id, written as low, medium or high."""

    default_error_messages = {"invalid": _("Give low, medium or high.")}

    def to_internal_value(self, data: Any) -> Priority:
        if not isinstance(data, str) or data not in CLASS_NAMES:
            self.fail("invalid")
        return Priority.from_slug(data)

    def to_representation(self, value: int) -> str:
        return Priority(value).slug


class ProbabilityField(serializers.FloatField):
    """0 to 1, at six digits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=0, max_value=1, **kwargs)

    def to_representation(self, value: Any) -> Any:
        return round(float(value), 6)


class TextField(serializers.CharField):
    """A ticket's text, normalised."""

    default_error_messages = {"unreadable": _("This text holds no readable character.")}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_TEXT_LENGTH, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        text = super().run_validation(data)
        readable = normalise(text)
        if not readable:
            self.fail("unreadable")
        return readable


@extend_schema_serializer(component_name="PriorityPredictRequest")
class PredictRequestSerializer(serializers.Serializer[Any]):
    """Either `text` or `texts`."""

    text = TextField(required=False, help_text=_("One ticket's text."))

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        fields["texts"] = serializers.ListField(
            child=TextField(),
            required=False,
            min_length=1,
            max_length=get_settings().api.max_texts,
            help_text=_("Several tickets' texts; they are answered in this order."),
        )
        return fields

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            message = _("Give either text or texts.")
            raise serializers.ValidationError({"text": [message], "texts": [message]})
        return attrs


@extend_schema_serializer(component_name="PriorityProbabilities")
class ProbabilitiesSerializer(serializers.Serializer[Any]):
    """The probability of each priority, 0 to 1."""

    low = ProbabilityField()
    medium = ProbabilityField()
    high = ProbabilityField()


@extend_schema_serializer(component_name="PriorityClassification")
class ClassificationSerializer(serializers.Serializer[Classification]):
    """The priority that the model chose for a text."""

    priority = PriorityNameField()
    priority_id = serializers.IntegerField(source="priority", min_value=0, max_value=2)
    confidence = ProbabilityField(help_text=_("The probability of the chosen priority."))
    probabilities = serializers.SerializerMethodField()

    @extend_schema_field(ProbabilitiesSerializer)
    def get_probabilities(self, answer: Classification) -> Any:
        named = dict(zip(CLASS_NAMES, answer.probabilities, strict=True))
        return ProbabilitiesSerializer(named).data


@extend_schema_serializer(component_name="PriorityPredictAnswer")
class PredictAnswerSerializer(ClassificationSerializer):
    """The answer about one text."""

    model_version = serializers.CharField()


@extend_schema_serializer(component_name="PriorityPredictAnswers")
class PredictAnswersSerializer(serializers.Serializer[Any]):
    """The answers about several texts, in their order."""

    results = ClassificationSerializer(many=True)
    model_version = serializers.CharField()


class SourceLabelField(serializers.Field[Any, Any, str, Any]):
    """The ticket's model as `app_label.ModelName`, from the cache of content types."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(source="content_type_id", read_only=True, **kwargs)

    def to_representation(self, value: int) -> str:
        found = ContentType.objects.get_for_id(value)
        model = found.model_class()
        return f"{found.app_label}.{found.model}" if model is None else model._meta.label


@extend_schema_serializer(component_name="PriorityPrediction")
class PredictionSerializer(serializers.ModelSerializer[Prediction]):
    """What a model version predicted for a ticket, and what became of it."""

    source = SourceLabelField()  # type: ignore[assignment]
    priority = PriorityNameField(allow_null=True, read_only=True)
    priority_id = serializers.IntegerField(source="priority", allow_null=True, read_only=True)
    confidence = ProbabilityField(allow_null=True, read_only=True)
    probabilities = serializers.SerializerMethodField()
    model_version = serializers.SlugRelatedField[Any](
        slug_field="name", allow_null=True, read_only=True
    )

    class Meta:
        model = Prediction
        fields = (
            "id",
            "source",
            "object_id",
            "state",
            "reason",
            "mode",
            "priority",
            "priority_id",
            "confidence",
            "probabilities",
            "model_version",
            "latency_ms",
            "created_at",
            "decided_at",
        )
        read_only_fields = fields

    @extend_schema_field(ProbabilitiesSerializer(allow_null=True))
    def get_probabilities(self, prediction: Prediction) -> Any:
        if prediction.priority is None:
            return None
        return ProbabilitiesSerializer(prediction.probabilities).data


@extend_schema_serializer(component_name="PriorityOverride")
class OverrideSerializer(serializers.ModelSerializer[Override]):
    """A person's decision about the priority of a ticket."""

    source = SourceLabelField()  # type: ignore[assignment]
    from_priority = PriorityNameField(allow_null=True, read_only=True)
    to_priority = PriorityNameField(read_only=True)
    user = serializers.SerializerMethodField(help_text=_("Who decided, by user name."))

    class Meta:
        model = Override
        fields = (
            "id",
            "source",
            "object_id",
            "prediction",
            "user",
            "from_priority",
            "to_priority",
            "reason",
            "via",
            "created_at",
        )
        read_only_fields = fields

    def get_user(self, override: Override) -> str | None:
        return None if override.user is None else override.user.get_username()


@extend_schema_serializer(component_name="PriorityOverrideRequest")
class OverrideRequestSerializer(serializers.Serializer[Any]):
    """The priority that the user sets."""

    priority = PriorityNameField()
    reason = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=MAX_REASON_LENGTH
    )


@extend_schema_serializer(component_name="PriorityTicket")
class TicketSerializer(serializers.Serializer[Any]):
    """A ticket's priority, its latest prediction and overrides."""

    source = serializers.CharField()  # type: ignore[assignment]
    object_id = serializers.CharField()
    priority = PriorityNameField(allow_null=True)
    priority_id = serializers.IntegerField(source="priority", allow_null=True)
    prediction = PredictionSerializer(allow_null=True, help_text=_("The latest."))
    overrides = OverrideSerializer(many=True, help_text=_("The latest twenty."))


@extend_schema_serializer(component_name="PriorityServiceModel")
class ServiceModelSerializer(serializers.Serializer[Any]):
    """The active model version."""

    name = serializers.CharField()
    kind = serializers.CharField()
    base_model = serializers.CharField()
    created_at = serializers.DateTimeField()
    activated_at = serializers.DateTimeField(allow_null=True)
    metrics = serializers.DictField(
        child=serializers.FloatField(), help_text=_("Headline figures on the test split.")
    )


@extend_schema_serializer(component_name="PriorityServiceSource")
class ServiceSourceSerializer(serializers.Serializer[Any]):
    """A ticket source and its mode."""

    source = serializers.CharField()  # type: ignore[assignment]
    mode = serializers.CharField()


@extend_schema_serializer(component_name="PriorityServiceInfo")
class ServiceInfoSerializer(serializers.Serializer[Any]):
    """The release, its settings, the active model and the ticket sources."""

    version = serializers.CharField(help_text=_("The release of ticket_priority."))
    enabled = serializers.BooleanField()
    mode = serializers.CharField(help_text=_("The mode of sources that name none."))
    queue = serializers.BooleanField(help_text=_("Whether a task queue is installed."))
    max_texts = serializers.IntegerField()
    model_loaded = serializers.BooleanField()
    model = ServiceModelSerializer(allow_null=True)
    sources = ServiceSourceSerializer(many=True)


@extend_schema_serializer(component_name="PriorityServiceHealth")
class HealthSerializer(serializers.Serializer[Any]):
    """Whether the process that answers can classify."""

    status = serializers.CharField(help_text=_("ok, degraded or unavailable."))
    model_loaded = serializers.BooleanField(
        help_text=_("Whether this process holds a model in memory.")
    )
    active_model = serializers.CharField(allow_null=True)
    breaker = serializers.CharField(
        help_text=_("closed; open while this process leaves a failing model alone; half_open.")
    )


@extend_schema_serializer(component_name="PriorityServiceError")
class ErrorSerializer(serializers.Serializer[Any]):
    """Why a request failed."""

    detail = serializers.CharField()
