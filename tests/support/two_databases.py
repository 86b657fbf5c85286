"""Run a project whose tickets live in a database of their own; print what became of each step.

Run: python -m tests.support.two_databases FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DESK = "desk"


class DeskRouter:
    """Keeps the test host's tables apart from everything else."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return DESK if model._meta.app_label == "uuid_host" else "default"

    db_for_write = db_for_read

    def allow_relation(self, *rows: Any, **hints: Any) -> bool:
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return (db == DESK) == (app_label == "uuid_host")


def configure(folder: Path) -> None:
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(
        SECRET_KEY="two databases",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.admin",
            "ticket_priority",
            "tests.uuid_host",
        ],
        DATABASES={
            name: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / name)}
            for name in ("default", DESK)
        },
        DATABASE_ROUTERS=["tests.support.two_databases.DeskRouter"],
        TICKET_PRIORITY={
            "ARTIFACT_ROOT": str(folder / "models"),
            "OUTPUT_DIR": str(folder / "outputs"),
            "DECISIONS": {"OVERRIDE_RATE": "1/day"},
            "SOURCES": {
                "uuid_host.Case": {
                    "adapter": "tests.uuid_host.adapters.FormSource",
                    "priority_field": "urgency",
                    "to_host": {"low": 4, "medium": 3, "high": 2},
                    "unset": (None, 3),
                    "record_changes": True,
                },
            },
        },
    )
    django.setup()
    for name in ("default", DESK):
        call_command("migrate", database=name, run_syncdb=True, verbosity=0)


def save_list(cases: list[Any], urgency: int) -> None:
    """Give each case the urgency in the admin's list, as one person."""
    from django.contrib import admin
    from django.contrib.auth import get_user_model
    from django.contrib.messages.storage.cookie import CookieStorage
    from django.test import RequestFactory

    from tests.uuid_host.models import Case
    from ticket_priority.admin import OverrideAdminMixin

    class CaseAdmin(OverrideAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
        list_display = ("body", "urgency")
        list_editable = ("urgency",)

    form: dict[str, Any] = {"_save": "Save", "form-INITIAL_FORMS": len(cases)}
    form["form-TOTAL_FORMS"] = len(cases)
    for row, case in enumerate(cases):
        form |= {f"form-{row}-key": str(case.pk), f"form-{row}-urgency": str(urgency)}
        form[f"initial-form-{row}-urgency"] = str(case.urgency)
    request: Any = RequestFactory().post("/", form)
    request.user = get_user_model().objects.create_superuser("ana")
    request._dont_enforce_csrf_checks = True
    request._messages = CookieStorage(request)
    CaseAdmin(Case, admin.site).changelist_view(request)


def found_among_many(number: int) -> dict[str, int]:
    """Count what each list finds of more decided cases than a query may have parameters."""
    import sqlite3
    from dataclasses import replace

    from django.contrib.auth import get_user_model
    from django.db import connections

    from tests.uuid_host.models import Case, own_cases
    from ticket_priority.admin.listing import (
        ConfidenceFilter,
        PredictionStateFilter,
        PriorityFilter,
    )
    from ticket_priority.api.scoping import visible
    from ticket_priority.models import Override, Prediction
    from ticket_priority.models.rows import content_type_of
    from ticket_priority.sources import get_source, registry
    from ticket_priority.sources.keys import key_text
    from ticket_priority.training.labels import labelled_texts

    for name in ("default", DESK):
        connections[name].connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 2200)
    user = get_user_model().objects.create_user("owner")
    cases = Case.objects.bulk_create(
        Case(body=f"case {one}", urgency=3, owner_id=user.pk) for one in range(number)
    )
    about = [
        {"content_type": content_type_of(Case), "object_id": key_text(Case, case.pk)}
        for case in cases
    ]
    Override.objects.bulk_create(Override(**row, to_priority=1) for row in about)
    Prediction.objects.bulk_create(
        Prediction(**row, state="failed", confidence=0.1, priority=1) for row in about
    )
    admin = type("Admin", (), {"low_confidence": 0.6})

    def shown(by: Any, name: str, value: str) -> int:
        rows = by(None, {name: [value]}, Case, admin).queryset(None, Case.objects.all())
        return int(rows.filter(owner_id=user.pk).count())

    before = registry._sources[Case]
    registry._sources[Case] = replace(before, visible_to=own_cases)
    found = {
        "visible predictions": visible(Prediction.objects.all(), user).count(),
        "visible overrides": visible(Override.objects.all(), user).count(),
        "medium": shown(PriorityFilter, "ticket_priority", "medium"),
        "unset": shown(PriorityFilter, "ticket_priority", "unset"),
        "failed": shown(PredictionStateFilter, "ticket_priority_state", "failed"),
        "none": shown(PredictionStateFilter, "ticket_priority_state", "none"),
        "low": shown(ConfidenceFilter, "ticket_priority_confidence", "low"),
        "labels": sum(one.text.startswith("case ") for one in labelled_texts(get_source(Case))),
    }
    registry._sources[Case] = before
    return found


def refusal(database: str) -> str:
    """Return how a training on the tickets of a database is refused: by number, or by the table."""
    from django.core.management import CommandError, call_command
    from django.db import OperationalError

    try:
        call_command("train_priority_model", f"--database={database}", verbosity=0)
    except (CommandError, OperationalError) as error:
        return str(error).partition(";")[0]
    return ""


def outcomes() -> dict[str, Any]:
    from django.db import connection, transaction

    import ticket_priority
    from tests.uuid_host.models import Case
    from ticket_priority.admin.listing import PredictionStateFilter, PriorityFilter
    from ticket_priority.models import Override, Prediction
    from ticket_priority.models.rows import content_type_of
    from ticket_priority.predictions.overrides import override
    from ticket_priority.priorities import Priority

    def change(case: Case, urgency: int) -> int:
        case.urgency = urgency
        case.save()
        return int(Override.objects.for_instance(case).count())

    def shown(by: Any, name: str, value: str) -> list[str]:
        rows = by(None, {name: [value]}, Case, None).queryset(None, Case.objects.all())
        return sorted(row.body for row in rows)

    with ticket_priority.muted():
        case, decided, untouched = (
            Case.objects.create(body=body, urgency=urgency)
            for body, urgency in (("case", 4), ("decided", 3), ("untouched", 3))
        )
    found: dict[str, Any] = {"saved": change(case, 2)}
    with transaction.atomic(using=DESK):
        found["before the commit"] = change(case, 3)
    found["after the commit"] = Override.objects.for_instance(case).count()
    with transaction.atomic(using=DESK):
        change(case, 4)
        transaction.set_rollback(True, using=DESK)
    found["after a rollback"] = Override.objects.for_instance(case).count()
    override(decided, Priority.MEDIUM)
    Prediction.objects.create(
        content_type=content_type_of(Case), object_id=str(decided.pk), state="suggested"
    )
    found["medium"] = shown(PriorityFilter, "ticket_priority", "medium")
    found["unset"] = shown(PriorityFilter, "ticket_priority", "unset")
    found["suggested"] = shown(PredictionStateFilter, "ticket_priority_state", "suggested")
    found["without a prediction"] = shown(PredictionStateFilter, "ticket_priority_state", "none")
    decisions = Override.objects.count()
    cases = list(Case.objects.order_by("pk"))
    save_list(cases, 2)
    found["a refused list"] = [
        Override.objects.count() - decisions,
        sorted(case.urgency for case in Case.objects.all()),
    ]
    found["trained on"] = {name: refusal(name) for name in (DESK, "default")}
    found["among many"] = found_among_many(2500)
    with connection.schema_editor() as editor:
        editor.delete_model(Prediction)
    with transaction.atomic(using=DESK):
        Case.objects.create(body="unrecorded")
    found["without the plugin's table"] = Case.objects.filter(body="unrecorded").count()
    return found


if __name__ == "__main__":
    configure(Path(sys.argv[1]))
    print(json.dumps(outcomes()))
