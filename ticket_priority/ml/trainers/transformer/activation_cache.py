"""Cache the output of frozen layers, which is the same in every epoch and for every seed.

The first epoch fills the cache. Later epochs, and other seeds, compute only the layers that train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ticket_priority.ml.trainers.encoders.layers import frozen_layers

MOST_BYTES: Final = 2 << 30
"""The largest size of a cache. Nothing is cached of texts that would need more."""


class ActivationCache:
    """The output of the topmost frozen layer, by row: a tensor [tokens, hidden] of `dtype`.

    A batch is read from the cache where all its rows are in it; otherwise it is computed and
    cached. Frozen layers must be in eval mode, or their dropout would be cached too.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._cached: dict[int, Tensor] = {}
        self._rows: list[int] = []
        self._lengths: list[int] = []

    def fits(self, lengths: Sequence[npt.NDArray[np.int64]], hidden_size: int) -> bool:
        """Tell whether texts of these lengths in tokens, an array for each split, fit."""
        tokens = sum(int(of_split.sum()) for of_split in lengths)
        return tokens * hidden_size * self._dtype.itemsize <= MOST_BYTES

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Skip a classifier's frozen layers for cached batches within the block."""
        frozen = frozen_layers(model)
        with ExitStack() as stack:
            for layer in frozen:
                is_last = layer is frozen[-1]
                stack.enter_context(_forward(layer, self._wrapped(layer.forward, is_last)))
            yield

    @contextmanager
    def rows_of(self, batch: dict[str, Tensor]) -> Iterator[None]:
        """Set the rows of the forward pass within the block: `batch["rows"]` [batch]."""
        self._rows = batch["rows"].tolist()
        self._lengths = batch["attention_mask"].sum(dim=1).tolist()
        try:
            yield
        finally:
            self._rows, self._lengths = [], []

    def _wrapped(self, forward: Callable[..., Any], is_last: bool) -> Callable[..., Any]:
        def skip_or_compute(hidden: Tensor, *args: Any, **options: Any) -> Any:
            if self._rows and self._cached.keys() >= set(self._rows):
                return self._read(hidden) if is_last else hidden
            output = forward(hidden, *args, **options)
            if is_last:
                self._write(output)
            return output

        return skip_or_compute

    def _write(self, output: Tensor) -> None:
        for place, (row, length) in enumerate(zip(self._rows, self._lengths, strict=True)):
            # A copy: a view would keep the padding and the whole batch.
            self._cached[row] = output[place, :length].detach().to(self._dtype, copy=True)

    def _read(self, like: Tensor) -> Tensor:
        output = torch.zeros_like(like)
        for place, row in enumerate(self._rows):
            cached = self._cached[row]
            output[place, : len(cached)] = cached
        return output


@contextmanager
def _forward(layer: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Replace a layer's forward pass within the block; its weights and their names stay."""
    before = vars(layer).get("forward")
    layer.forward = function
    try:
        yield
    finally:
        if before is None:
            del layer.forward
        else:
            layer.forward = before
