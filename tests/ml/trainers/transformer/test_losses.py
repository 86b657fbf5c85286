from __future__ import annotations

import pytest
import torch

from ticket_priority.ml.trainers.transformer.losses import ordinal_loss

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-3.0, 0.0, 4.0]])
LABELS = torch.tensor([0, 2, 1])


def test_by_default_it_is_the_cross_entropy() -> None:
    expected = torch.nn.functional.cross_entropy(LOGITS, LABELS, reduction="none")
    assert torch.allclose(ordinal_loss(LOGITS, LABELS), expected)


def test_smoothing_goes_to_the_neighbours_alone() -> None:
    logs = LOGITS.log_softmax(dim=-1)
    targets = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.1, 0.9], [0.05, 0.9, 0.05]])
    expected = -(targets * logs).sum(dim=-1)
    assert torch.allclose(ordinal_loss(LOGITS, LABELS, smoothing=0.1), expected)


def test_a_far_mistake_costs_four_times_a_near_one() -> None:
    certain = 100.0 * torch.eye(3)
    truth = torch.zeros(3, dtype=torch.int64)
    plain = ordinal_loss(certain, truth)
    extra = ordinal_loss(certain, truth, distance_weight=0.5) - plain
    assert extra.tolist() == pytest.approx([0.0, 0.5, 2.0])


def test_a_class_as_a_probability_costs_the_same() -> None:
    certain = torch.eye(3)[LABELS]
    for options in ({}, {"smoothing": 0.1}, {"distance_weight": 0.5}):
        assert torch.allclose(
            ordinal_loss(LOGITS, certain, **options), ordinal_loss(LOGITS, LABELS, **options)
        )


def test_doubt_in_a_label_is_doubt_in_the_loss() -> None:
    doubt = torch.tensor([[0.7, 0.3, 0.0]])
    low, medium = (ordinal_loss(LOGITS[:1], torch.tensor([k]), distance_weight=1) for k in (0, 1))
    loss = ordinal_loss(LOGITS[:1], doubt, distance_weight=1)
    assert torch.allclose(loss, 0.7 * low + 0.3 * medium)


def test_it_can_be_minimised() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    loss = ordinal_loss(logits, torch.tensor([2]), smoothing=0.2, distance_weight=1.0)
    loss.sum().backward()
    assert logits.grad is not None
    low, medium, high = logits.grad[0].tolist()
    assert low > medium > high
    assert high < 0
