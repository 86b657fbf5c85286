from __future__ import annotations

from django.db import migrations

import ticket_priority.models.rows


class Migration(migrations.Migration):
    dependencies = [("ticket_priority", "0009_label_evidence")]

    operations = [
        migrations.AlterField(
            model_name=name,
            name="object_id",
            field=ticket_priority.models.rows.KeyField(max_length=255, verbose_name="ticket"),
        )
        for name in ("erasedticket", "override", "prediction", "shadowprediction")
    ]
