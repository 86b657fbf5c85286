from __future__ import annotations

import shutil
from collections.abc import Sequence

from safetensors import SafetensorError

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts import linear as linear_config
from ticket_priority.ml.artifacts.kinds import kind_to_train
from ticket_priority.ml.types import (
    LabelledText,
    ProgressCallback,
    TrainingConfig,
    TrainingResult,
    silent,
)


def fit(
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    test: Sequence[LabelledText],
    config: TrainingConfig,
    *,
    progress: ProgressCallback = silent,
    show_progress_bar: bool = True,
) -> TrainingResult:
    """Train a model of the kind that `config.model_name` chooses: "linear", else a transformer.

    A linear model needs no torch, and none is imported for it. Raises TrainingError with what to
    do about it; where packages are missing, it names the extra that brings them.
    """
    kind = kind_to_train(config.model_name)
    if missing := kind.training.missing:
        raise TrainingError(
            f"To train {config.model_name}, {', '.join(missing)} must be installed: "
            f"{kind.training.command}. A linear model needs none of it: "
            f'choose the model name "{linear_config.KIND}".'
        )
    fit_model = kind.load_trainer()
    try:
        return fit_model(
            train, validation, test, config, progress=progress, show_progress_bar=show_progress_bar
        )
    except (OSError, SafetensorError) as error:
        # Of a folder that cannot be copied, the first of its files says why.
        reason = error.args[0][0][-1] if isinstance(error, shutil.Error) else error
        raise TrainingError(
            f"The training stopped: {reason}. Check the free space and the permissions of "
            f"{config.output_dir}, or choose another output folder, and train again."
        ) from error
