from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from ticket_priority.ml.batching import length_sorted_batches, padded
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.softmax import softmax
from ticket_priority.ml.trainers.encoders.resolve import Encoder
from ticket_priority.ml.types import CLASS_NAMES, LabelledText

INPUTS: Final = ("input_ids", "attention_mask")

_BATCH_TOKENS: Final = 1024
_PROBES: Final = (
    "The warehouse scanners have been offline since seven and no order leaves the building.",
    "Bitte bei Gelegenheit die Farbe des Knopfs ändern.",
    "Merci !",
)

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A trained model, what makes tokens of its texts, and the base model it was trained from.

    A text is cut at `max_length` tokens.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast
    encoder: Encoder
    max_length: int
    base_model: str

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        prefixed = [self.encoder.prefix + text for text in texts]
        encoded = self.tokenizer(prefixed, truncation=True, max_length=self.max_length)
        return list(encoded["input_ids"])


@dataclass(frozen=True, slots=True)
class HeldOutTexts:
    """Texts that the model was not trained on, to judge the export by.

    `probabilities` [texts, classes] are the model's own answers in float32, where known already.
    """

    texts: Sequence[str] = ()
    labels: Sequence[int] = ()
    probabilities: npt.NDArray[Any] | None = None

    @classmethod
    def of(
        cls, rows: Sequence[LabelledText], probabilities: npt.NDArray[Any] | None = None
    ) -> HeldOutTexts:
        """Take the texts and the labels of rows."""
        return cls([row.text for row in rows], [row.label for row in rows], probabilities)

    def sampled(self, most: int) -> HeldOutTexts:
        """Return at most `most` of the texts, evenly spaced."""
        every = slice(None, None, _sampling_step(len(self.texts), most))
        known = None if self.probabilities is None else self.probabilities[every]
        return HeldOutTexts(self.texts[every], self.labels[every], known)


class ExportComparison:
    """Compares an ONNX file with the torch model it was exported from, on the same token ids."""

    def __init__(
        self,
        model: nn.Module,
        rows: list[list[int]],
        labels: Sequence[int],
        padding: int,
        known: npt.NDArray[Any] | None = None,
    ) -> None:
        """Take the texts' token ids and labels; `known` are the model's answers, if known."""
        self.rows = rows
        self.labels = labels
        self.padding = padding

        def run_torch(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Any:
            with torch.inference_mode():
                return model(torch.from_numpy(ids), torch.from_numpy(mask)).logits.numpy()

        self.probabilities = self._probabilities(run_torch, rows) if known is None else known
        self.reference = self._quality(self.probabilities, labels)

    @classmethod
    def of(cls, source: ExportSource, held_out: HeldOutTexts) -> ExportComparison:
        """Compare on the held-out texts; without any, on three fixed ones."""
        rows, padding = source.tokens(held_out.texts or _PROBES), source.tokenizer.pad_token_id or 0
        return cls(source.model, rows, held_out.labels, padding, held_out.probabilities)

    def figures(self, path: Path, most: int | None = None) -> dict[str, float]:
        """Return quality, agreement with torch, and the largest difference of a probability.

        They are measured on all texts, or on `most` of them, evenly spaced.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

        def run_onnx(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Any:
            return session.run(None, dict(zip(INPUTS, (ids, mask), strict=True)))[0]

        every = slice(None, None, _sampling_step(len(self.rows), most or len(self.rows)))
        answers = self._probabilities(run_onnx, self.rows[every])
        expected = self.probabilities[every]
        return {
            **self._quality(answers, self.labels[every]),
            "agreement": float((answers.argmax(axis=1) == expected.argmax(axis=1)).mean()),
            "max_probability_difference": float(np.abs(answers - expected).max()),
        }

    def _quality(self, probabilities: Probabilities, labels: Sequence[int]) -> dict[str, float]:
        if not labels:
            return {}
        report = metrics.report(labels, probabilities=probabilities)
        return {name: float(report[name]) for name in ("accuracy", "macro_f1")}

    def _probabilities(self, run: Any, rows: list[list[int]]) -> Probabilities:
        """Run rows through `run(ids, mask)`, both [batch, seq], in length-sorted batches."""
        answers = np.empty((len(rows), len(CLASS_NAMES)))
        for batch in length_sorted_batches([len(row) for row in rows], _BATCH_TOKENS):
            ids, mask = padded([rows[index] for index in batch], self.padding)
            answers[batch] = softmax(np.asarray(run(ids, mask), np.float64))
        return answers


def _sampling_step(rows: int, most: int) -> int:
    """Return the step that takes at most `most` of the rows."""
    return max(1, -(-rows // most))
