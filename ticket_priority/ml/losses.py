"""What training minimises: cross-entropy that knows the order of the classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def ordinal_loss(
    logits: Tensor, labels: Tensor, *, smoothing: float = 0.0, distance_weight: float = 0.0
) -> Tensor:
    """Return the loss of each row [batch], differentiable.

    `logits` are float [batch, classes], `labels` int64 [batch] class ids. A share `smoothing` of
    each label goes to the neighbouring classes, in equal parts. `distance_weight` times the
    expected squared distance between the predicted and the true class is added; with both 0 it is
    the cross-entropy.
    """
    targets = _soft_targets(labels, logits.shape[-1], smoothing) if smoothing else labels
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    if distance_weight:
        classes = torch.arange(logits.shape[-1], device=logits.device)
        distances = (classes - labels.unsqueeze(-1)).square()
        losses = losses + distance_weight * (logits.softmax(dim=-1) * distances).sum(dim=-1)
    return losses


def _soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return probabilities [batch, classes] in float32."""
    order = torch.arange(classes, device=labels.device)
    is_neighbour = (order - labels.unsqueeze(-1)).abs() == 1
    shares = is_neighbour.float() / is_neighbour.sum(dim=-1, keepdim=True)
    exact = nn.functional.one_hot(labels, classes).float()
    return (1.0 - smoothing) * exact + smoothing * shares
