"""A web process never imports torch, not even while it classifies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from ticket_priority.models import ModelVersion

HEAVY = ("torch", "lightning", "transformers", "torchmetrics", "sklearn", "pandas")

SET_UP = """
import os, sys
import django
django.setup()
from django.contrib import admin
from django.urls import get_resolver
from importlib import import_module
admin.autodiscover()
import_module("helpdesk.urls")
get_resolver().url_patterns
import ticket_priority.api.urls, ticket_priority.tasks
"""

CLASSIFY = """
from pathlib import Path
from ticket_priority import classifiers
classifier = classifiers.build("transformer", Path(os.environ["ARTIFACT"]))
assert classifier.classify(["outage fire breach"])[0].label == "high"
"""

REPORT = """
heavy = sorted(name for name in {heavy!r} if name in sys.modules)
print("HEAVY", heavy, "onnxruntime" in sys.modules)
"""


def run(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code + REPORT.format(heavy=HEAVY)],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **environment},
        capture_output=True,
        text=True,
        cwd=settings.BASE_DIR,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.sqlite
def test_setting_up_admin_api_and_urls_imports_neither_torch_nor_onnxruntime() -> None:
    assert run(SET_UP) == "HEAVY [] False"


@pytest.mark.sqlite
@pytest.mark.django_db
def test_classifying_imports_onnxruntime_and_not_torch(
    toy_version: ModelVersion, artifact_root: Path
) -> None:
    artifact = str(artifact_root / toy_version.directory)
    assert run(SET_UP + CLASSIFY, ARTIFACT=artifact) == "HEAVY [] True"


@pytest.mark.sqlite
def test_the_training_room_needs_no_django() -> None:
    code = """
import sys
sys.modules["django"] = None
import ticket_priority.ml.trainer, ticket_priority.ml.classifier, ticket_priority.serving.onnx
import ticket_priority.ml.fit, ticket_priority.ml.linear_trainer, ticket_priority.serving.linear
print("imported")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == "imported", result.stderr
