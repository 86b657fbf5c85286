"""The tiny encoder that the tests train: "outage" is high, "invoice" medium, "typo" low."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ticket_priority.ml.types import LabelledText, TrainingResult


def train_toy(
    folder: Path, *, more: Sequence[LabelledText] = (), max_epochs: int = 10
) -> TrainingResult:
    """Train it in `folder`, on more rows too, until it tells an outage from a typo."""
    from tests.ml.conftest import toy_rows, write_tiny_encoder
    from ticket_priority.ml.trainers.pipeline import fit
    from ticket_priority.ml.types import TrainingConfig

    encoder = folder / "encoder"
    encoder.mkdir()
    config = TrainingConfig(
        model_name=str(write_tiny_encoder(encoder)),
        output_dir=str(folder / "outputs"),
        max_epochs=max_epochs,
        batch_size=16,
        max_length=48,
        learning_rate=2e-3,
        precision="32-true",
        accelerator="cpu",
        threads=1,
    )
    train = [*toy_rows(240, 1), *more]
    return fit(train, toy_rows(60, 2), toy_rows(60, 3), config, show_progress_bar=False)
