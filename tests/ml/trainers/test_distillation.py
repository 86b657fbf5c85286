from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.ml.conftest import toy_rows
from ticket_priority.ml.trainers.distillation import soft_labels
from ticket_priority.ml.trainers.linear import model as linear
from ticket_priority.ml.types import LabelledText

ROWS = toy_rows(90, seed=1)


@pytest.fixture(scope="module")
def teacher() -> linear.Trial:
    return linear.choose(ROWS, toy_rows(30, seed=2), "val_loss")


def test_a_share_goes_to_what_the_others_teach_of_the_text(teacher: linear.Trial) -> None:
    wrong = replace(ROWS[0], label=(ROWS[0].label + 1) % 3)
    labels = soft_labels([wrong, *ROWS[1:]], teacher, 0.4)
    assert labels.shape == (90, 3)
    assert labels.dtype == np.float32
    assert labels.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    assert labels[0, wrong.label] == pytest.approx(0.6, abs=0.1)
    assert labels[0, ROWS[0].label] == pytest.approx(0.4, abs=0.1)
    assert (labels.argmax(axis=1)[1:] == [row.label for row in ROWS[1:]]).all()


def test_no_row_is_judged_by_its_own_copies(teacher: linear.Trial) -> None:
    wrong = [
        replace(ROWS[0], label=(ROWS[0].label + 1) % 3, group="copies", pk=f"copy {number}")
        for number in range(20)
    ]
    labels = soft_labels([*wrong, *ROWS[1:]], teacher, 0.4)
    assert (labels[:20, ROWS[0].label] > 0.3).all()


def test_where_the_others_teach_nothing_labels_stay(teacher: linear.Trial) -> None:
    rows = [
        LabelledText(f"printer {number}", 2 if number % 2 else 0, group="odd" if number % 2 else "")
        for number in range(40)
    ]
    labels = soft_labels(rows, teacher, 0.4)
    # Without the fold of the odd ones all are Low.
    assert (labels[1::2] == [0, 0, 1]).all()
    assert (labels[0::2, 0] < 1).any()
