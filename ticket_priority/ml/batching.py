"""Group texts of unequal length into batches of bounded size. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence


def length_sorted_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Return batches of indices into `lengths`, longest texts first.

    A batch costs its row count times its longest row, in tokens; it stays within `batch_tokens`
    unless a single row is longer. Rows of like length share a batch, so little is padding.
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
