"""The wheel holds the plugin and nothing else."""

from __future__ import annotations

import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from django.conf import settings

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


def test_requirements_install_the_development_group() -> None:
    root = Path(settings.BASE_DIR)
    group = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    lines = (root / "requirements.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert listed[1:] == ["-e .[all]", *group]
    assert listed[0].startswith("torch==")


def test_the_wheel_says_where_to_look_and_publishes_no_development_extra(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    assert "dev" not in metadata.get_all("Provides-Extra", [])
    labels = {line.split(",")[0] for line in metadata.get_all("Project-URL", [])}
    assert labels == {"Homepage", "Documentation", "Changelog", "Issues"}
