"""One process, several sets of model versions: schemas of tenants, or a database that was restored.

Their keys are the same, so the row with a key holds now one version, now another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.utils import timezone

from helpdesk.models import Ticket
from tests.conftest import publish_toy
from tests.predictions.test_on_save import OUTAGE, only_prediction
from ticket_priority import classifiers
from ticket_priority.api.health import check_health
from ticket_priority.classifiers import get_classifier, get_shadow_classifier, slots
from ticket_priority.exceptions import ModelTimeoutError, ModelUnavailableError
from ticket_priority.ml.types import Classification
from ticket_priority.models import ModelVersion
from ticket_priority.priorities import Priority

pytestmark = pytest.mark.django_db


class FolderClassifier:
    """Says "low" where its folder is called acme, else "high"; keeps count of the loads."""

    loads: ClassVar[list[str]] = []

    def __init__(self, directory: Path, **options: object) -> None:
        self.loads.append(directory.name)
        self.is_low = directory.name == "acme"

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        answer = (1.0, 0.0, 0.0) if self.is_low else (0.0, 0.0, 1.0)
        return [Classification(answer) for _ in texts]


@pytest.fixture
def enter(
    configure: Callable[..., None], artifact_root: Path, toy_run: Any, fresh_classifier: None
) -> Callable[..., ModelVersion]:
    """Return a function that makes the only version that of a tenant, under the same key."""
    path = f"{__name__}.FolderClassifier"
    configure(SERVING={"CLASSIFIERS": {"transformer": path}, "DEADLINE_MS": None})
    FolderClassifier.loads = []
    kept: dict[str, dict[str, Any]] = {}
    for name in ("acme", "bakery"):
        version = publish_toy(toy_run, artifact_root, name)
        kept[name] = {"name": name, "directory": name, "digest": version.digest}
        version.delete()
    row = ModelVersion.objects.create(pk=1, kind="transformer", activated_at=timezone.now())

    def enter(name: str, *, role: str = "is_active", **changes: Any) -> ModelVersion:
        ModelVersion.objects.filter(pk=row.pk).update(**{role: True}, **kept[name], **changes)
        return ModelVersion.objects.get(pk=row.pk)

    return enter


@pytest.mark.parametrize("first, second", [("acme", "bakery"), ("bakery", "acme")])
def test_each_tenant_is_answered_by_its_own_model(
    enter: Callable[..., ModelVersion], first: str, second: str
) -> None:
    expected = {"acme": Priority.LOW, "bakery": Priority.HIGH}
    for tenant in (first, second, first, second):
        enter(tenant)
        ticket = Ticket.objects.create(**OUTAGE)
        assert ticket.priority == expected[tenant]
        version = only_prediction(ticket).model_version
        assert version is not None
        assert version.name == tenant
        assert check_health().model_loaded
    assert FolderClassifier.loads == [first, second], "each is loaded once, however they take turns"


def test_a_model_of_another_tenant_does_not_stand_in(
    enter: Callable[..., ModelVersion], artifact_root: Path
) -> None:
    enter("acme")
    get_classifier()
    (artifact_root / "bakery" / "manifest.json").unlink()
    version = enter("bakery")
    with pytest.raises(ModelUnavailableError, match="bakery cannot be loaded"):
        get_classifier()
    with pytest.raises(ModelUnavailableError):
        get_classifier(5)
    assert check_health().status == "unavailable"
    enter("acme", load_error="")
    assert get_classifier().model_version.name == "acme"
    version.refresh_from_db()
    assert version.load_error == "", "an error is of one version, not of a key"


def test_an_error_met_in_the_background_is_not_stored_in_the_row_of_another_tenant(
    enter: Callable[..., ModelVersion], artifact_root: Path
) -> None:
    version = enter("bakery")
    (artifact_root / "bakery" / "manifest.json").unlink()
    with pytest.raises(ModelTimeoutError):
        get_classifier(0)
    load = slots.slot_for(slots.Role.ACTIVE).follow(version)
    assert load is not None
    assert load.ended.wait(30)
    enter("acme")
    get_classifier()
    version.refresh_from_db()
    assert version.load_error == ""


def test_the_shadow_of_another_tenant_does_not_answer(enter: Callable[..., ModelVersion]) -> None:
    for tenant in ("acme", "bakery", "acme"):
        version = enter(tenant, role="is_shadow")
        assert get_shadow_classifier(version).classify(["x"])[0].label == (
            "low" if tenant == "acme" else "high"
        )
    assert FolderClassifier.loads == ["acme", "bakery", "acme"], "one shadow is held at a time"


def test_a_process_holds_few_models(
    enter: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "MOST_MODELS", 1)
    for tenant in ("acme", "bakery", "acme"):
        enter(tenant)
        get_classifier()
    assert FolderClassifier.loads == ["acme", "bakery", "acme"]


def test_a_version_that_was_replaced_is_freed(
    active_model: ModelVersion, toy_run: Any, artifact_root: Path
) -> None:
    get_classifier()
    second = publish_toy(toy_run, artifact_root, "toy-2")
    second.activate()
    get_classifier()
    assert classifiers.loaded_model_version() == second
    assert slots.slot_for(slots.Role.ACTIVE).others(second) == []
