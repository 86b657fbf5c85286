"""Serve a transformer artifact with torch: on a GPU, or as the reference for the ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    import torch
    from safetensors.torch import load_file
    from torch import nn

    from ticket_priority.ml.artifacts.tokenizer import TextTokenizer
except ImportError as error:
    raise ImportError(
        f"A transformer cannot be run on torch: {error}. Install what that needs with: "
        'pip install "django-ticket-priority[ml]"'
    ) from error

from ticket_priority.exceptions import ArtifactError, TrainingError
from ticket_priority.ml.artifacts.reading import require_file, unreadable
from ticket_priority.ml.artifacts.transformer import TransformerConfig
from ticket_priority.ml.batching import length_sorted_batches, padded
from ticket_priority.ml.trainers.encoders.build import build_model_from_config
from ticket_priority.ml.types import CLASS_NAMES, ArtifactFile, Classification


class TorchClassifier:
    """A transformer artifact's model.safetensors on torch, in bfloat16 on a CUDA device.

    `device` is a torch device or "auto" (CUDA where there is one, else the CPU); `threads` sets
    torch's threads for the whole process; `batch_tokens` caps a forward pass in padded tokens.
    Safe to share between threads. Raises ArtifactError when the artifact cannot be loaded.
    """

    def __init__(
        self,
        directory: Path,
        *,
        threads: int | None = None,
        batch_tokens: int = 4096,
        device: str = "auto",
    ) -> None:
        directory = Path(directory)
        self.config = TransformerConfig.read(directory)
        self.batch_tokens = batch_tokens
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        if threads:
            torch.set_num_threads(threads)
        self._tokenizer = TextTokenizer(directory, self.config)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self._model = _load_model(directory, self.config).to(self.device, dtype).eval()

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        """Classify normalised texts, in their order. An empty list gives an empty list."""
        rows = self._tokenizer.encode(texts)
        answers = torch.empty((len(rows), len(CLASS_NAMES)), dtype=torch.float64)
        for batch in length_sorted_batches([len(row) for row in rows], self.batch_tokens):
            answers[batch] = self._probabilities([rows[index] for index in batch])
        return [Classification(tuple(row)) for row in answers.tolist()]

    def _probabilities(self, rows: list[list[int]]) -> torch.Tensor:
        """Return [rows, classes] in float64 on the CPU for rows of token ids."""
        ids, mask = map(torch.from_numpy, padded(rows, self.config.pad_token_id))
        with torch.inference_mode():
            output: Any = self._model(ids.to(self.device), mask.to(self.device))
        logits = output.logits.double().cpu() / self.config.temperature
        if not logits.isfinite().all():
            raise ArtifactError(
                "The model answers with numbers that are not finite. Activate another version."
            )
        return torch.softmax(logits, dim=-1)


def _load_model(directory: Path, config: TransformerConfig) -> nn.Module:
    """Build the model from config.json and load its weights, which must match exactly."""
    path = require_file(directory, ArtifactFile.WEIGHTS)
    try:
        weights = load_file(path)
        model = build_model_from_config(config.encoder, config.pooling, len(CLASS_NAMES))
        model.load_state_dict(weights, strict=True)
    except TrainingError as error:
        raise unreadable(directory / ArtifactFile.CONFIG, error) from error
    except Exception as error:
        raise unreadable(path, error) from error
    return model
