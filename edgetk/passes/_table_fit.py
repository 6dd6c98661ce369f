"""Tables that stand for a layer: fitted to what it gave for inputs it read, in closed form and then by gradient.

With the rows and weights of the inputs known, a memory layer is linear in its tables: the least-squares problem has K non-zeros
for each input and is solved by conjugate gradients (Hestenes & Stiefel 1952), all output columns at once, with its diagonal as
preconditioner. Steps of Adam after that also move the shift and gain in front of the hash.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgetk.models.layers.memory_layer import MemoryLayer
from edgetk.models.layers.memory_lookup import lookup

#: what stands for nothing in a denominator
TINY = 1e-12


def centre_on(layer: MemoryLayer, x: Tensor) -> None:
    """Give the hash coordinates of mean 0 and deviation 1, so that rows are used evenly. x (N, in)."""
    assert layer.shift is not None
    assert layer.gain is not None
    with torch.no_grad():
        layer.shift.copy_(x.mean(0))
        layer.gain.copy_(1 / x.std(0).clamp_min(1e-3 * float(x.std()) + TINY))


@torch.no_grad()
def least_squares(layer: MemoryLayer, x: Tensor, y: Tensor, ridge: float, iterations: int) -> None:
    """Set tables and bias to those that give y (N, out) for x (N, in) best; `ridge` is a share of the mean of the diagonal."""
    index, weight = layer.rows(x.double())
    count, height, outputs = layer.shape
    flat = index + height * torch.arange(count)
    diagonal = torch.zeros(count * height, 1, dtype=torch.float64)
    diagonal.index_add_(0, flat.flatten(), weight.square().reshape(-1, 1))
    keep = ridge * float(diagonal.mean())

    def forward(tables: Tensor) -> Tensor:
        return lookup(index, weight, tables.view(count, height, outputs))

    def backward(error: Tensor) -> Tensor:
        """Of the columns without their mean, which the bias takes up."""
        error = error - error.mean(0)
        total = torch.zeros(count * height, outputs, dtype=torch.float64)
        for k in range(count):
            total.index_add_(0, flat[:, k], weight[:, k, None] * error)
        return total

    solution = torch.zeros(count * height, outputs, dtype=torch.float64)
    residual = backward(y.double())
    scaled = residual / (diagonal + keep)
    direction, size = scaled.clone(), (residual * scaled).sum(0)
    for _ in range(iterations):
        image = backward(forward(direction)) + keep * direction
        step = size / (direction * image).sum(0).clamp_min(TINY)
        solution += step * direction
        residual -= step * image
        scaled = residual / (diagonal + keep)
        fresh = (residual * scaled).sum(0)
        direction = scaled + fresh / size.clamp_min(TINY) * direction
        size = fresh
    layer.tables.copy_(solution.view(layer.shape))
    layer.bias.copy_((y.double() - forward(solution)).mean(0))


def distil(layer: MemoryLayer, x: Tensor, y: Tensor, epochs: int, lr: float, batch: int = 256) -> None:
    """Steps of Adam on the mean squared error, in a random order drawn from torch's generator; the rate falls to zero."""
    optimizer = torch.optim.Adam(layer.parameters(), lr=lr)
    scale = y.var().clamp_min(TINY)
    steps = epochs * -(-len(x) // batch)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, max(steps, 1))
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x)), batch):
            optimizer.zero_grad()
            loss = (layer(x[rows]) - y[rows]).square().mean() / scale
            loss.backward()
            optimizer.step()
            falling.step()
    layer.requires_grad_(True)


@torch.no_grad()
def relative_error(layer: MemoryLayer, x: Tensor, y: Tensor) -> float:
    """Share of the variance of y (N, out) that the layer misses: 0 is perfect, 1 as bad as the mean."""
    return float((layer(x) - y).square().sum() / (y - y.mean(0)).square().sum().clamp_min(TINY))


__all__ = ["centre_on", "distil", "least_squares", "relative_error"]
