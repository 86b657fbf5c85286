"""The default trainer: trains a linear model or a transformer, by the model name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from safetensors import SafetensorError

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts import linear as linear_config
from ticket_priority.ml.types import (
    LabelledText,
    ProgressCallback,
    TrainingConfig,
    TrainingResult,
    silent,
)

_REQUIRED: Final = ("torch", "lightning", "transformers", "torchmetrics", "onnx", "onnxruntime")


def fit(
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    test: Sequence[LabelledText],
    config: TrainingConfig,
    *,
    progress: ProgressCallback = silent,
    show_progress_bar: bool = True,
) -> TrainingResult:
    """Train a linear model where `config.model_name` is "linear", else a transformer.

    A linear model needs no torch, and none is imported for it. Raises TrainingError with what to
    do about it; where packages are missing, it names the extra that brings them.
    """
    # Imported here: the transformer's trainer takes seconds and torch to import.
    if config.model_name == linear_config.KIND:
        from ticket_priority.ml.trainers.linear.train import fit as fit_model
    else:
        _require_packages(config.model_name)
        from ticket_priority.ml.trainers.pipeline import fit as fit_model
    try:
        return fit_model(
            train, validation, test, config, progress=progress, show_progress_bar=show_progress_bar
        )
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"The training stopped: {_reason(error)}. Check the free space and the permissions of "
            f"{config.output_dir}, or choose another output folder, and train again."
        ) from error


def _reason(error: Exception) -> str:
    """Return what an error says; of a folder that was to be copied, for the first of its files."""
    return str(error.args[0][0][-1] if isinstance(error, shutil.Error) else error)


def _require_packages(model_name: str) -> None:
    if missing := [name for name in _REQUIRED if find_spec(name) is None]:
        raise TrainingError(
            f"To train {model_name}, {', '.join(missing)} must be installed: "
            'pip install "django-ticket-priority[ml]". A linear model needs none of it: '
            f'choose the model name "{linear_config.KIND}".'
        )
