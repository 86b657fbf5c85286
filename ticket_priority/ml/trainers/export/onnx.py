"""Export a trained torch model as an artifact that is served without torch."""

from __future__ import annotations

import gc
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts.transformer import TransformerConfig
from ticket_priority.ml.trainers.export import int8
from ticket_priority.ml.trainers.export.comparison import (
    INPUTS,
    ExportComparison,
    ExportSource,
    HeldOutTexts,
)
from ticket_priority.ml.types import ArtifactFile, ProgressCallback, TrainingConfig, silent

_OPSET: Final = 20
_MOST_TEXTS: Final = 500
"""Enough to tell the precisions apart."""

_MOST_COMPARED: Final = 200
_MOST_DIFFERENCE: Final = 1e-3
_MOST_PROTOBUF_BYTES: Final = 2_000_000_000
_EXPORTER_LOGGERS: Final = {
    "onnx_ir": logging.WARNING,
    "onnxscript": logging.WARNING,
    "torch.onnx._internal.exporter._registration": logging.ERROR,
}


class Quantization(StrEnum):
    """When model.onnx is int8."""

    NEVER = "never"
    IF_LOSSLESS = "if lossless"
    ALWAYS = "always"

    @classmethod
    def of(cls, config: TrainingConfig) -> Quantization:
        """Return what a training configuration asks for."""
        return cls.IF_LOSSLESS if config.quantize else cls.NEVER


def write_artifact(
    source: ExportSource,
    directory: Path,
    held_out: HeldOutTexts = HeldOutTexts(),  # noqa: B008  # frozen
    quantization: Quantization = Quantization.IF_LOSSLESS,
    *,
    progress: ProgressCallback = silent,
) -> dict[str, Any]:
    """Write the weights, model.onnx, the tokenizer and config.json into `directory`.

    With `IF_LOSSLESS`, model.onnx is int8 where, on the held-out texts, neither its accuracy nor
    its macro-F1 is below the torch model's; otherwise, and without texts, it is float32. The model
    is left on the CPU, in float32 and eval mode.

    Returns the `serving` metrics: precision, reason, size_mb, texts, and for each precision tried
    its accuracy, macro_f1, agreement (share of labels that equal torch's) and
    max_probability_difference; the latter two of float32 come from 200 of the texts. Raises
    TrainingError when the model cannot be exported or when the float32 export does not answer as
    the torch model does.
    """
    directory.mkdir(parents=True, exist_ok=True)
    source.model.float().cpu().eval()
    held_out = held_out.sampled(_MOST_TEXTS)
    _save_weights(source.model, directory / ArtifactFile.WEIGHTS)
    _save_tokenizer(source.tokenizer, directory / ArtifactFile.TOKENIZER)
    with tempfile.TemporaryDirectory(prefix=".onnx-", dir=directory) as staging:
        exported, reason, figures = _export_all(
            source, Path(staging), held_out, quantization, progress
        )
        precision, size = exported.name, 0
        for path in list(exported.iterdir()):
            size += path.stat().st_size
            os.replace(path, directory / path.name)
    progress(f"Serving in {precision}: {reason}")
    _write_config(source, precision, directory)
    return {
        "precision": precision,
        "reason": reason,
        "size_mb": round(size / 1e6, 1),
        "texts": len(held_out.texts),
        **figures,
    }


def _export_all(
    source: ExportSource,
    staging: Path,
    held_out: HeldOutTexts,
    quantization: Quantization,
    progress: ProgressCallback,
) -> tuple[Path, str, dict[str, dict[str, float]]]:
    """Export in float32 and, where `quantization` may want it, in int8; choose one.

    Returns its folder, named by its precision, why it was chosen, and the figures of each.
    """
    comparison = ExportComparison.of(source, held_out)
    fp32, int8_folder = staging / "fp32", staging / "int8"
    path, quantized = fp32 / ArtifactFile.ONNX, int8_folder / ArtifactFile.ONNX
    progress("Exporting the model to ONNX")
    _export(source.model, path, source.max_length)
    progress("Comparing the export with the torch model")
    # Some texts show that the answers are the same, so the quality on all of them is torch's.
    figures = {"fp32": comparison.figures(path, _MOST_COMPARED) | comparison.reference}
    difference = figures["fp32"]["max_probability_difference"]
    if not difference <= _MOST_DIFFERENCE:
        raise TrainingError(
            f"The ONNX export does not answer as the torch model does: probabilities differ by up"
            f" to {difference:.4f}, more than {_MOST_DIFFERENCE}. Nothing was published."
            " Choose another base model, or report this one."
        )
    if quantization is Quantization.NEVER:
        return fp32, "quantisation is switched off", figures
    if quantization is Quantization.IF_LOSSLESS and not held_out.texts:
        return fp32, "there are no test texts to judge int8 by", figures
    progress("Quantising the export to int8")
    try:
        int8.quantize(path, quantized)
    except int8.QuantizationError as error:
        return fp32, f"int8 failed: {error}", figures
    figures["int8"] = comparison.figures(quantized)
    if quantization is Quantization.ALWAYS:
        return int8_folder, "int8 was asked for whatever it costs", figures
    for name, label in (("accuracy", "accuracy"), ("macro_f1", "macro-F1")):
        before, after = comparison.reference[name], figures["int8"][name]
        if not after >= before:
            return fp32, f"int8 lowers {label} from {before:.4f} to {after:.4f}", figures
    reason = "int8 loses neither accuracy nor macro-F1 on the test texts"
    return int8_folder, reason, figures


def _write_config(source: ExportSource, precision: str, directory: Path) -> None:
    config: Any = source.model.config
    TransformerConfig(
        max_length=source.max_length,
        prefix=source.encoder.prefix,
        pad_token_id=source.tokenizer.pad_token_id or 0,
        pooling=source.encoder.pooling,
        base_model=source.base_model,
        encoder=config.to_dict(),
        onnx={"precision": precision, "inputs": list(INPUTS)},
    ).write(directory)


class _LogitsOnly(nn.Module):
    """A model with plain tensors in and out, which the exporter needs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def _save_weights(model: nn.Module, path: Path) -> None:
    """Save the whole state dict, tied weights under each of their names."""
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


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide the exporter's messages about itself; those about the model stay."""
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
