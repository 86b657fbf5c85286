"""Train the toy model and publish it, for hosts whose environments have no torch.

Run: .venv/bin/python tests/hosts/make_model.py FOLDER
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main(folder: Path) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()

    from tests.toy import train_toy
    from ticket_priority import artifacts

    with tempfile.TemporaryDirectory() as scratch:
        artifacts.publish(train_toy(Path(scratch)).artifact_dir, folder.parent, folder.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
