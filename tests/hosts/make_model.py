"""Train the toy model and publish it, for hosts whose environments have no torch.

What it knows too little of is medium to it, whether or not the odd word rings a bell: a host's own
tests fill their tickets with chance words, and count on the default that they have.

Run: .venv/bin/python tests/hosts/make_model.py FOLDER
"""

from __future__ import annotations

import os
import random
import string
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ticket_priority.ml.types import LabelledText

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main(folder: Path) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()

    from tests.support.toy import train_toy
    from ticket_priority.ml.artifacts import store as artifacts

    with tempfile.TemporaryDirectory() as scratch:
        run = train_toy(Path(scratch), more=chance_rows(400, seed=4), max_epochs=20)
        artifacts.publish(run.artifact_dir, folder.parent, folder.name)


def chance_rows(count: int, seed: int) -> list[LabelledText]:
    """Return texts of words that nobody knows, with at most two that somebody might: medium."""
    from tests.ml.conftest import CUES, FILLERS
    from ticket_priority.ml.types import LabelledText
    from ticket_priority.priorities import Priority

    chance = random.Random(seed)  # noqa: S311
    known = [*FILLERS, *(cue for cues in CUES for cue in cues)]
    rows = []
    for _ in range(count):
        lengths = [chance.randint(1, 9) for _ in range(chance.randint(2, 12))]
        words = ["".join(chance.choices(string.ascii_lowercase, k=length)) for length in lengths]
        words += chance.sample(known, k=chance.randint(0, 2))
        chance.shuffle(words)
        rows.append(LabelledText(text=" ".join(words), label=int(Priority.MEDIUM)))
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
