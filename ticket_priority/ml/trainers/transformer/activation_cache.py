"""What frozen layers make of a text never changes, so it is computed once and kept.

The first epoch fills the memory; later epochs, and other seeds, begin at the first layer that
trains.
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
"""What the memory may take; with more text than that, nothing is kept."""


class ActivationCache:
    """The output of the topmost frozen layer, by row: a tensor [tokens, hidden] of `dtype`.

    A batch is recalled where all its rows are known; else it is computed, and kept. Frozen layers
    must be in eval mode: dropout in them would be frozen too.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._kept: dict[int, Tensor] = {}
        self._rows: list[int] = []
        self._lengths: list[int] = []

    def fits(self, lengths: Sequence[npt.NDArray[np.int64]], hidden_size: int) -> bool:
        """Say whether texts of so many tokens, a list for each split, may be kept."""
        tokens = sum(int(of_split.sum()) for of_split in lengths)
        return tokens * hidden_size * self._dtype.itemsize <= MOST_BYTES

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Let a classifier's frozen layers be passed over for a batch that is known."""
        frozen = frozen_layers(model)
        with ExitStack() as stack:
            for layer in frozen:
                is_last = layer is frozen[-1]
                stack.enter_context(_forward(layer, self._wrapped(layer.forward, is_last)))
            yield

    @contextmanager
    def about(self, batch: dict[str, Tensor]) -> Iterator[None]:
        """Say which rows the next forward pass is about: `batch["rows"]` [batch]."""
        self._rows = batch["rows"].tolist()
        self._lengths = batch["attention_mask"].sum(dim=1).tolist()
        try:
            yield
        finally:
            self._rows, self._lengths = [], []

    def _wrapped(self, forward: Callable[..., Any], is_last: bool) -> Callable[..., Any]:
        def pass_over_or_compute(hidden: Tensor, *args: Any, **options: Any) -> Any:
            if self._is_known():
                return self._recall(hidden) if is_last else hidden
            output = forward(hidden, *args, **options)
            if is_last:
                self._keep(output)
            return output

        return pass_over_or_compute

    def _is_known(self) -> bool:
        return bool(self._rows) and all(row in self._kept for row in self._rows)

    def _keep(self, output: Tensor) -> None:
        for place, (row, length) in enumerate(zip(self._rows, self._lengths, strict=True)):
            # A copy: a view would keep the padding and the whole batch.
            self._kept[row] = output[place, :length].detach().to(self._dtype, copy=True)

    def _recall(self, like: Tensor) -> Tensor:
        recalled = torch.zeros_like(like)
        for place, row in enumerate(self._rows):
            kept = self._kept[row]
            recalled[place, : len(kept)] = kept
        return recalled


@contextmanager
def _forward(layer: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Replace what a layer computes for a while; its weights and their names stay."""
    before = vars(layer).get("forward")
    layer.forward = function
    try:
        yield
    finally:
        if before is None:
            del layer.forward
        else:
            layer.forward = before
