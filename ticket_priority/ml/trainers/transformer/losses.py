"""The training loss: cross-entropy that can take the order of the classes into account."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def ordinal_loss(
    logits: Tensor, labels: Tensor, *, smoothing: float = 0.0, distance_weight: float = 0.0
) -> Tensor:
    """Return the loss of each row [batch], differentiable.

    `logits` are float [batch, classes], `labels` int64 [batch] class ids or float [batch, classes]
    probabilities. A share `smoothing` of each label goes to the neighbouring classes, in equal
    parts. `distance_weight` times the expected squared distance between the predicted and the true
    class is added; with both 0 it is the cross-entropy.
    """
    classes = logits.shape[-1]
    order = torch.arange(classes, device=logits.device)
    distances = order.unsqueeze(-1) - order
    if not labels.is_floating_point():
        labels = nn.functional.one_hot(labels, classes).float()
    targets = labels
    if smoothing:
        is_neighbour = (distances.abs() == 1).float()
        shares = is_neighbour / is_neighbour.sum(dim=-1, keepdim=True)
        targets = (1.0 - smoothing) * labels + smoothing * (labels @ shares)
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    if distance_weight:
        expected = labels @ distances.square().float()
        losses = losses + distance_weight * (logits.softmax(dim=-1) * expected).sum(dim=-1)
    return losses
