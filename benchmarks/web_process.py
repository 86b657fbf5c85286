"""Measure the memory of a web process: Django, admin, API, and an int8 DistilBERT-multilingual.

Run: .venv/bin/python benchmarks/web_process.py

The model has the shape of distilbert-base-multilingual-cased and random weights. The process
serves the demo's pages through Django's test client and opens tickets, which are classified while
they are saved; its resident memory is read from /proc at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET_MB = 400

WEB_PROCESS = """
import json, os, sys
import django
django.setup()
from pathlib import Path
from django.conf import settings
from django.core.management import call_command
from django.test import Client
settings.ALLOWED_HOSTS = ["*"]
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from helpdesk.models import Ticket
from ticket_priority.ml.artifacts.store import publish
from ticket_priority.models import ModelVersion, Prediction
root = Path(os.environ["HELPDESK_ARTIFACT_ROOT"])
published = publish(Path(os.environ["STAGED"]), root, "m")
version = ModelVersion(name="m", kind=published.kind, directory="m", digest=published.digest)
version.save()
version.activate()
User.objects.create_superuser("lead", "lead@desk.example", "x")
client = Client()
client.force_login(User.objects.get())
for number in range(20):
    text = "the line is down again " * 4 * number
    Ticket.objects.create(subject=f"Ticket {number}", description=text)
for path in ("/", "/tickets/", "/admin/", "/admin/helpdesk/ticket/", "/api/info/", "/api/schema/"):
    assert client.get(path).status_code == 200, path
assert Prediction.objects.filter(state="applied").count() == 20
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({
    "resident_mb": int(status["VmRSS"].split()[0]) / 1024,
    "peak_mb": int(status["VmHWM"].split()[0]) / 1024,
    "torch_imported": "torch" in sys.modules,
}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifact", type=Path, help="an artifact folder instead of a new one")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        staged = arguments.artifact or _build_artifact(Path(folder) / "staged")
        figures = _measure(staged, Path(folder))
    passed = figures["resident_mb"] < TARGET_MB and not figures["torch_imported"]
    if arguments.json:
        print(json.dumps({**figures, "passed": passed}))
        return int(not passed)
    print(f"resident {figures['resident_mb']:.0f} MB, peak {figures['peak_mb']:.0f} MB")
    print(f"torch imported: {'yes' if figures['torch_imported'] else 'no'}")
    print(f"{'PASS' if passed else 'FAIL'}: a web process needs less than {TARGET_MB} MB, no torch")
    return int(not passed)


def _build_artifact(directory: Path) -> Path:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from inference import build_artifact

    build_artifact(directory)
    return directory


def _measure(staged: Path, folder: Path) -> dict[str, float]:
    metrics = staged / "metrics.json"
    if not metrics.exists():
        metrics.write_text("{}")
    result = subprocess.run(
        [sys.executable, "-c", WEB_PROCESS],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "helpdesk.settings",
            "HELPDESK_DATABASE": "sqlite",
            "HELPDESK_DATABASE_NAME": str(folder / "web.sqlite3"),
            "HELPDESK_ARTIFACT_ROOT": str(folder / "models"),
            "HELPDESK_LOG_LEVEL": "WARNING",
            # No worker runs, so every ticket must be classified in this process.
            "HELPDESK_DEADLINE_MS": "60000",
            "STAGED": str(staged),
        },
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    sys.exit(main())
