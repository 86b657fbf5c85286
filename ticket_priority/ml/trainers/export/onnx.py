"""From a trained torch model to an artifact that serves without torch."""

from __future__ import annotations

import gc
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts.transformer import TransformerConfig
from ticket_priority.ml.batching import length_sorted_batches
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.trainers.encoders.resolve import Encoder
from ticket_priority.ml.trainers.export import int8 as quantization
from ticket_priority.ml.types import ArtifactFile, ProgressCallback

INPUTS: Final = ("input_ids", "attention_mask")

_OPSET: Final = 20
_BATCH_TOKENS: Final = 1024
_MOST_TEXTS: Final = 500
"""They tell the precisions apart; more would only take longer."""

_MOST_COMPARED: Final = 200
_MOST_DIFFERENCE: Final = 1e-3
_MOST_PROTOBUF_BYTES: Final = 2_000_000_000
_PROBES: Final = (
    "The warehouse scanners have been offline since seven and no order leaves the building.",
    "Bitte bei Gelegenheit die Farbe des Knopfs ändern.",
    "Merci !",
)

Probabilities = npt.NDArray[np.float64]


def write_artifact(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    encoder: Encoder,
    directory: Path,
    *,
    max_length: int,
    base_model: str,
    test_texts: Sequence[str],
    test_labels: Sequence[int],
    test_probabilities: npt.NDArray[Any] | None = None,
    quantize: bool | Literal["always"] = True,
    progress: ProgressCallback = lambda line: None,
) -> dict[str, Any]:
    """Write the weights, model.onnx, the tokenizer and config.json into `directory`.

    model.onnx is int8 where, on the test texts, that is no less accurate than the torch model in
    accuracy and macro-F1; otherwise, and without test texts, it is float32. `quantize` False
    skips int8, "always" keeps it whatever it costs. The model is left on the CPU, in eval mode.
    `test_probabilities` [rows, classes] are the model's own answers in float32, where they are
    known already.

    Returns the `serving` metrics: precision, reason, size_mb, texts, and for each precision tried
    its accuracy, macro_f1, agreement (share of labels that equal torch's) and
    max_probability_difference; the latter two of float32 come from 200 of the texts. Raises
    TrainingError when the model cannot be exported or when the float32 export does not answer as
    the torch model does.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model = model.float().cpu().eval()
    _save_weights(model, directory / ArtifactFile.WEIGHTS)
    _save_tokenizer(tokenizer, directory / ArtifactFile.TOKENIZER)

    step = _sampling_step(len(test_texts), _MOST_TEXTS)
    texts, labels = list(test_texts[::step]), list(test_labels[::step])
    known = None if test_probabilities is None else np.asarray(test_probabilities[::step])
    padding = tokenizer.pad_token_id or 0
    encoded = tokenizer(
        [encoder.prefix + text for text in texts or _PROBES],
        truncation=True,
        max_length=max_length,
    )
    judge = _Judge(model, encoded["input_ids"], labels, padding, known if texts else None)
    with tempfile.TemporaryDirectory(prefix=".onnx-", dir=directory) as staging:
        fp32 = Path(staging) / "fp32" / ArtifactFile.ONNX
        int8 = Path(staging) / "int8" / ArtifactFile.ONNX
        progress("Exporting the model to ONNX")
        _export(model, fp32, max_length)
        progress("Comparing the export with the torch model")
        # It answers alike, as is shown on some, so all its figures but these are torch's.
        figures = {"fp32": judge.figures(fp32, _MOST_COMPARED) | judge.reference}
        _require_same_answers(figures["fp32"])
        precision, reason = "fp32", "quantisation is switched off"
        if quantize == "always" or (quantize and texts):
            progress("Quantising the export to int8")
            try:
                quantization.quantize(fp32, int8)
            except quantization.QuantizationError as error:
                reason = f"int8 failed: {error}"
            else:
                figures["int8"] = judge.figures(int8)
                precision, reason = _choose(figures["int8"], judge.reference, quantize)
        elif quantize:
            reason = "there are no test texts to judge int8 by"
        chosen = int8 if precision == "int8" else fp32
        size = sum(path.stat().st_size for path in chosen.parent.iterdir())
        for path in chosen.parent.iterdir():
            os.replace(path, directory / path.name)
    progress(f"Serving in {precision}: {reason}")

    config: Any = model.config
    TransformerConfig(
        max_length=max_length,
        prefix=encoder.prefix,
        pad_token_id=padding,
        pooling=encoder.pooling,
        base_model=base_model,
        encoder=config.to_dict(),
        onnx={"precision": precision, "inputs": list(INPUTS)},
    ).write(directory)
    return {
        "precision": precision,
        "reason": reason,
        "size_mb": round(size / 1e6, 1),
        "texts": len(texts),
        **figures,
    }


class _Judge:
    """Compares an ONNX file with the torch model on the same token ids."""

    def __init__(
        self,
        model: nn.Module,
        rows: list[list[int]],
        labels: list[int],
        padding: int,
        known: npt.NDArray[Any] | None = None,
    ) -> None:
        self.rows = rows
        self.labels = labels
        self.padding = padding

        def run_torch(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Any:
            with torch.inference_mode():
                return model(torch.from_numpy(ids), torch.from_numpy(mask)).logits.numpy()

        self.probabilities = self._probabilities(run_torch, rows) if known is None else known
        self.reference = self._quality(self.probabilities, labels)

    def figures(self, path: Path, most: int = _MOST_TEXTS) -> dict[str, float]:
        """Return quality, agreement with torch, and the largest difference of a probability.

        They are measured on `most` of the rows, evenly spaced.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

        def run_onnx(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Any:
            return session.run(None, dict(zip(INPUTS, (ids, mask), strict=True)))[0]

        every = slice(None, None, _sampling_step(len(self.rows), most))
        answers, expected = (
            self._probabilities(run_onnx, self.rows[every]),
            self.probabilities[every],
        )
        same = answers.argmax(axis=1) == expected.argmax(axis=1)
        return {
            **self._quality(answers, self.labels[every]),
            "agreement": float(same.mean()),
            "max_probability_difference": float(np.abs(answers - expected).max()),
        }

    def _quality(self, probabilities: Probabilities, labels: list[int]) -> dict[str, float]:
        if not labels:
            return {}
        report = metrics.report(labels, probabilities=probabilities)
        return {name: float(report[name]) for name in ("accuracy", "macro_f1")}

    def _probabilities(self, run: Any, rows: list[list[int]]) -> Probabilities:
        """Run rows through `run(ids, mask)`, both [batch, seq], in length-sorted batches."""
        answers: list[Any] = [None] * len(rows)
        for batch in length_sorted_batches([len(row) for row in rows], _BATCH_TOKENS):
            longest = max(1, len(rows[batch[0]]))
            ids = np.full((len(batch), longest), self.padding, np.int64)
            mask = np.zeros_like(ids)
            for line, index in enumerate(batch):
                row = rows[index]
                ids[line, : len(row)] = row
                mask[line, : len(row)] = 1
            logits = torch.from_numpy(np.asarray(run(ids, mask), np.float64))
            for index, row in zip(batch, torch.softmax(logits, dim=-1).numpy(), strict=True):
                answers[index] = row
        return np.stack(answers)


class _LogitsOnly(nn.Module):
    """The exporter wants plain tensors in and out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def _save_weights(model: nn.Module, path: Path) -> None:
    """Save the whole state dict. Tied weights are written once each, so that loading is strict."""
    seen: set[int] = set()
    state = {}
    for name, value in model.state_dict().items():
        tensor = value.detach().contiguous()
        state[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    save_file(state, path, metadata={"format": "pt"})


def _save_tokenizer(tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Save tokenizer.json without the truncation and padding that training may have set."""
    values = json.loads(tokenizer.backend_tokenizer.to_str())
    values["truncation"] = values["padding"] = None
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def _sampling_step(rows: int, most: int) -> int:
    """Return how many rows to go on by, so that no more than `most` are taken."""
    return max(1, -(-rows // most))


def _export(model: nn.Module, path: Path, max_length: int) -> None:
    """Write the model as float32 ONNX with dynamic batch and sequence axes."""
    path.parent.mkdir()
    ids = torch.ones(2, min(16, max_length), dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    try:
        with _quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                _LogitsOnly(model).eval(),
                (ids, torch.ones_like(ids)),
                dynamo=True,
                input_names=list(INPUTS),
                output_names=["logits"],
                dynamic_shapes=dict.fromkeys(INPUTS, axes),
                opset_version=_OPSET,
                verbose=False,
            )
            if program is None:
                raise TrainingError("The ONNX exporter gave no program.")
            program.save(path, external_data=size > _MOST_PROTOBUF_BYTES)
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, onnx.checker.ValidationError) as e:
        raise TrainingError(
            f"The model cannot be exported to ONNX: {e}. Choose another base model."
        ) from e
    finally:
        gc.collect()


def _require_same_answers(figures: dict[str, float]) -> None:
    difference = figures["max_probability_difference"]
    if not difference <= _MOST_DIFFERENCE:
        raise TrainingError(
            f"The ONNX export does not answer as the torch model does: probabilities differ by up"
            f" to {difference:.4f}, more than {_MOST_DIFFERENCE}. Nothing was published."
            " Choose another base model, or report this one."
        )


def _choose(
    figures: dict[str, float], reference: dict[str, float], quantize: bool | str
) -> tuple[str, str]:
    if quantize == "always":
        return "int8", "int8 was asked for whatever it costs"
    for name, label in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
        if not figures[name] >= reference[name]:
            return "fp32", f"int8 lowers {label} from {reference[name]:.4f} to {figures[name]:.4f}"
    return "int8", "int8 loses neither accuracy nor macro-F1 on the test texts"


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide what the exporter says about itself; what it says about the model stays."""
    levels = {name: logging.getLogger(name).level for name in _EXPORTER_LOGGERS}
    for name, level in _EXPORTER_LOGGERS.items():
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


_EXPORTER_LOGGERS: Final = {
    "onnx_ir": logging.WARNING,
    "onnxscript": logging.WARNING,
    "torch.onnx._internal.exporter._registration": logging.ERROR,
}
