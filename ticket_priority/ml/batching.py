"""Group texts of unequal length into batches of bounded size, and pad them. Needs numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int64]


def length_sorted_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return batches of indices into `lengths`, longest texts first.

    A batch costs its row count times its longest row, in tokens; it stays within `batch_tokens`
    unless a single row is longer. Rows of similar length share a batch, so little is padding.
    Raises ValueError when `batch_tokens` is below 1.
    """
    if batch_tokens < 1:
        raise ValueError("batch_tokens must be at least 1")
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // max(1, lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def padded(rows: Sequence[Any], pad_token_id: int) -> tuple[TokenIds, TokenIds]:
    """Return the token ids and the attention mask [rows, longest row] of rows of token ids.

    A row without a token attends to one padding token, or there would be nothing to attend to.
    """
    shape = (len(rows), max([1, *map(len, rows)]))
    ids = np.full(shape, pad_token_id, np.int64)
    mask = np.zeros(shape, np.int64)
    mask[:, 0] = 1
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask
