from __future__ import annotations

import pytest

from ticket_priority.ml.batching import length_sorted_batches, padded


def test_a_batch_of_no_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        length_sorted_batches([1], 0)


def test_rows_are_padded_to_the_longest() -> None:
    ids, mask = padded([[5, 6, 7], [8]], 9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_row_without_a_token_attends_to_one_padding_token() -> None:
    ids, mask = padded([[], [5, 6]], 9)
    assert ids.tolist() == [[9, 9], [5, 6]]
    assert mask.tolist() == [[1, 0], [1, 1]]
    assert padded([[]], 9)[1].tolist() == [[1]]
