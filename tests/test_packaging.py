"""The wheel holds the plugin and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.sqlite


def test_the_wheel_holds_the_plugin_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"ticket_priority"}
    for expected in (
        "ticket_priority/py.typed",
        "ticket_priority/static/ticket_priority/badge.css",
        *(
            f"ticket_priority/locale/{language}/LC_MESSAGES/django.{kind}"
            for language in ("de", "fr", "es", "pt")
            for kind in ("po", "mo")
        ),
        *(
            f"ticket_priority/starter/model/{name}"
            for name in (
                "CARD.md",
                "config.json",
                "manifest.json",
                "metrics.json",
                "model.safetensors",
            )
        ),
        *(
            f"ticket_priority/starter/head/{name}"
            for name in (
                "CARD.md",
                "config.json",
                "head.safetensors",
                "manifest.json",
                "metrics.json",
            )
        ),
        "ticket_priority/migrations/0001_initial.py",
        "ticket_priority/ml/serving/onnx.py",
        "ticket_priority/ml/trainers/transformer/module.py",
    ):
        assert expected in names
    metadata = next(name for name in names if name.endswith("/METADATA"))
    required = [
        line
        for line in zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert required == ["Requires-Dist: django>=5.2"]
