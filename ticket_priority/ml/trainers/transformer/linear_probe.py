"""A linear probe: logistic regression on the mean token vectors of a frozen encoder.

For a few hundred labels, which are too few to fine-tune on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import PreTrainedTokenizerFast

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.softmax import softmax
from ticket_priority.ml.trainers.encoders import build
from ticket_priority.ml.trainers.encoders.resolve import MEAN, Encoder
from ticket_priority.ml.trainers.export.comparison import ExportSource
from ticket_priority.ml.trainers.transformer.datamodule import LengthBucketSampler, TokenisedTexts
from ticket_priority.ml.types import CLASS_NAMES, LabelledText

Features = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float64] | None

C_VALUES: Final = (0.001, 0.003, 0.01, 0.03, 0.1)
"""The inverse regularisation strengths to try, for features with a standard deviation of 1."""

_NEVER: Final = -30.0
"""The score of a class without a label: its probability is close to 0."""

_AT_ONCE: Final = 16


@dataclass(frozen=True)
class FeatureExtractor:
    """A base model, its tokenizer, and the mean over the tokens of a text."""

    encoder: Encoder
    tokenizer: PreTrainedTokenizerFast
    model: build.MeanPoolingClassifier
    max_length: int

    @classmethod
    def load(cls, encoder: Encoder, max_length: int) -> FeatureExtractor:
        """Load a base model with mean pooling, whatever its own head is."""
        pooled = replace(encoder, pooling=MEAN)
        tokenizer = build.load_tokenizer(encoder)
        model = build.build_model(pooled, len(CLASS_NAMES))
        if not isinstance(model, build.MeanPoolingClassifier):
            raise TrainingError(f"{encoder.location} cannot be pooled.")
        length = min(max_length, int(tokenizer.model_max_length))
        return cls(pooled, tokenizer, model.eval(), length)

    def features(self, rows: Sequence[LabelledText]) -> Features:
        """Return the mean of each text's tokens [rows, hidden]."""
        tokens = TokenisedTexts(rows, self.tokenizer, self.encoder.prefix, self.max_length)
        found = np.zeros((len(rows), self.model.config.hidden_size), np.float32)
        with torch.inference_mode():
            for places in LengthBucketSampler(tokens, _AT_ONCE):
                batch = tokens[places]
                pooled = self.model.pool(batch["input_ids"], batch["attention_mask"])
                found[places] = pooled.float().numpy()
        return found

    def to_export(self, weight: Features, bias: Features, base_model: str) -> ExportSource:
        """Return the classifier with a head's weights [classes, hidden] and biases [classes]."""
        with torch.no_grad():
            self.model.head.weight.copy_(torch.from_numpy(weight))
            self.model.head.bias.copy_(torch.from_numpy(bias))
        return ExportSource(self.model, self.tokenizer, self.encoder, self.max_length, base_model)


def fit_head(
    features: Features, labels: Sequence[int], weights: Weights = None, *, C: float
) -> Pipeline:
    """Fit a regression with balanced classes to features [rows, hidden].

    Raises TrainingError where there is a single class.
    """
    if len(set(labels)) < 2:
        raise TrainingError("All texts to train on are of one class: there is nothing to learn.")
    regression = LogisticRegression(C=C, class_weight="balanced", max_iter=1000)
    pipeline = make_pipeline(StandardScaler(), regression)
    return pipeline.fit(features, labels, logisticregression__sample_weight=weights)


def probabilities(regression: Pipeline, features: Features) -> npt.NDArray[np.float64]:
    """Return probabilities [rows, classes] for features [rows, hidden]."""
    weight, bias = head_of(regression)
    return softmax(features @ weight.T + bias)


def head_of(pipeline: Pipeline) -> tuple[Features, Features]:
    """Return weights [classes, hidden] and biases [classes] for features that are not scaled."""
    scaler, regression = (step for _, step in pipeline.steps)
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(intercepts) == 1:
        # Of two classes scikit-learn scores only the second.
        coefficients = np.vstack((np.zeros_like(coefficients), coefficients))
        intercepts = np.append(0.0, intercepts)
    scaled = coefficients / scaler.scale_
    weight = np.zeros((len(CLASS_NAMES), scaled.shape[1]), np.float32)
    bias = np.full(len(CLASS_NAMES), _NEVER, np.float32)
    weight[regression.classes_] = scaled
    bias[regression.classes_] = intercepts - scaled @ scaler.mean_
    return weight, bias
