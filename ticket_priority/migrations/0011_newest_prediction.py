from __future__ import annotations

from typing import Any

from django.db import migrations, models

from ticket_priority.models.newest import mark_newest


def mark_all(apps: Any, schema_editor: Any) -> None:
    """Mark the newest prediction of each ticket."""
    prediction = apps.get_model("ticket_priority", "Prediction")
    mark_newest(prediction.objects.using(schema_editor.connection.alias))


class Migration(migrations.Migration):
    dependencies = [
        ("contenttypes", "0002_remove_content_type_name"),
        ("ticket_priority", "0010_longer_case_sensitive_keys"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="prediction",
            index=models.Index(
                fields=["content_type", "object_id", "id"], name="tp_prediction_of_ticket"
            ),
        ),
        migrations.RemoveIndex(model_name="prediction", name="tp_prediction_ticket"),
        migrations.AddField(
            model_name="prediction",
            name="is_newest",
            field=models.BooleanField(default=None, editable=False, null=True),
        ),
        migrations.RunPython(mark_all, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name="prediction",
            index=models.Index(fields=["reason"], name="tp_prediction_reason"),
        ),
        migrations.AddIndex(
            model_name="prediction",
            index=models.Index(
                fields=["is_newest", "content_type", "state", "reason", "confidence", "object_id"],
                name="tp_prediction_newest",
            ),
        ),
    ]
