from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ticket_priority.exceptions import ArtifactError
from ticket_priority.ml.artifacts.reading import require_file, unreadable
from ticket_priority.ml.artifacts.transformer import TransformerConfig
from ticket_priority.ml.batching import length_sorted_batches, padded
from ticket_priority.ml.softmax import softmax
from ticket_priority.ml.types import CLASS_NAMES, ArtifactFile, Classification

try:
    import onnxruntime

    from ticket_priority.ml.artifacts.tokenizer import TextTokenizer
except ImportError as error:
    raise ImportError(
        f"A transformer cannot be served: {error}. Install what serving needs with: "
        'pip install "django-ticket-priority[serving]"'
    ) from error

_INPUTS: Final = ["input_ids", "attention_mask"]
_LOG_ERRORS_ONLY: Final = 3

# Measured: above this a CPU is no faster, but activations take hundreds of megabytes.
_MOST_CPU_BATCH_TOKENS: Final = 1024


class OnnxClassifier:
    """A transformer artifact on onnxruntime, without torch.

    `threads` is the number of cores one answer may use (None: the usable ones); `batch_tokens`
    caps a forward pass in padded tokens. Safe to share between threads; not across a fork.
    Raises ArtifactError when the artifact is missing, corrupt, newer, or has other classes.
    """

    def __init__(
        self, directory: Path, *, threads: int | None = None, batch_tokens: int = 4096
    ) -> None:
        directory = Path(directory)
        self.config = TransformerConfig.read(directory)
        self.batch_tokens = min(batch_tokens, _MOST_CPU_BATCH_TOKENS)
        self._tokenizer = TextTokenizer(directory, self.config)
        self._session = _load_session(directory, threads or _usable_cores())
        # Without this, the memory of one long batch is kept for ever.
        self._run_options = onnxruntime.RunOptions()
        self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        # glibc keeps what parsing the model has freed: 38 MB a process.
        if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        """Classify normalised texts, in their order. An empty list gives an empty list."""
        rows = self._tokenizer.encode(texts)
        answers = np.empty((len(rows), len(CLASS_NAMES)), np.float64)
        for batch in length_sorted_batches([len(row) for row in rows], self.batch_tokens):
            answers[batch] = self._probabilities([rows[index] for index in batch])
        return [Classification(tuple(row)) for row in answers.tolist()]

    def _probabilities(self, rows: list[list[int]]) -> npt.NDArray[np.float64]:
        """Return [rows, classes] for rows of token ids."""
        feed = dict(zip(_INPUTS, padded(rows, self.config.pad_token_id), strict=True))
        logits = self._session.run(None, feed, self._run_options)[0]
        if not np.isfinite(logits).all():
            raise ArtifactError(
                "The model answers with numbers that are not finite. Activate another version."
            )
        return softmax(logits.astype(np.float64), self.config.temperature)


def _load_session(directory: Path, threads: int) -> Any:
    path = require_file(directory, ArtifactFile.ONNX)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_ERRORS_ONLY
    # Spinning saves microseconds but keeps busy the cores that a web process shares.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise unreadable(path, error) from error
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.shape[-1:] for value in session.get_outputs()]
    if sorted(inputs) != sorted(_INPUTS) or outputs != [[len(CLASS_NAMES)]]:
        raise ArtifactError(
            f"{path} takes {inputs} and gives {outputs}, not one row of {len(CLASS_NAMES)} scores"
            " a text. Train the model again, or activate another version."
        )
    return session


def _usable_cores() -> int:
    # Affinity honours taskset and containers; macOS and Windows have none.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
