"""Models side by side: their weights as one tensor a layer, a step of descent for all at once.

Every operation here treats a model as if it were alone, to the bit: sums run within one model, and
nothing is fused that a processor might round otherwise at the end of a tensor than inside it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from parties.exchange import Array
from parties.resident import sent

threshold_backward = torch.ops.aten.threshold_backward
Shapes = dict[str, tuple[int, ...]]
# With sides that are multiples of 4, every matrix begins at a multiple of 64 bytes: libraries that
# choose their code by alignment choose the same for each.
GRAIN = 4


def padded(count: int) -> int:
    """The next multiple of `GRAIN`."""
    return -(-count // GRAIN) * GRAIN


@final
@dataclass(frozen=True)
class Rates:
    """How each of some models descends: (lanes,) float64 each; see `Training`."""

    rate: Array
    momentum: Array
    decay: Array
    pull: Array

    @property
    def alike(self) -> bool:
        """Whether all models have the same."""
        told = (self.rate, self.momentum, self.decay, self.pull)
        return all(bool(np.all(values == values[0])) for values in told)


class Stack(ABC):
    """The weights of some models, with their momentum.

    Args:
        shapes: of one model's tensors; larger: what they are padded to, by the same names.
        starts: the weights of each model; the padding is zero.
        descent: how they go on.
    """

    def __init__(
        self,
        shapes: Shapes,
        larger: Shapes,
        starts: Sequence[dict[str, Array]],
        descent: Rates,
        device: torch.device,
    ) -> None:
        self._shapes, self._larger, self._lanes = shapes, larger, len(starts)
        self._descent = descent
        # One tensor holds all layers, so that where all descend alike, a call serves them all.
        values = torch.zeros(sum(self._lanes * math.prod(shape) for shape in larger.values()))
        for name, stacked in self._views(values).items():
            inner, host = tuple(slice(size) for size in shapes[name]), stacked.numpy()
            for lane, start in enumerate(starts):
                host[lane][inner] = start[name]
        values = sent(values, device)
        # Weights, gradients, momentum, a place to work in; and where they came from, if that pulls.
        empty = torch.empty_like(values), torch.zeros_like(values), torch.empty_like(values)
        self._flat = [values, *empty]
        self._flat += [values.clone()] if np.any(descent.pull) else []
        self._layers = [self._views(flat) for flat in self._flat]
        self.weights, self.gradients = self._layers[:2]

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        """The layers (lanes, ...) in it, by name."""
        sizes = [self._lanes * math.prod(shape) for shape in self._larger.values()]
        return {
            name: part.view(self._lanes, *shape)
            for part, (name, shape) in zip(
                torch.split(flat, sizes), self._larger.items(), strict=True
            )
        }

    @abstractmethod
    def look(self, features: Tensor, labels: Tensor, hot: Tensor, shares: Tensor) -> Tensor:
        """Find the gradients on examples; log probabilities (lanes, n, 1) of their labels.

        Args:
            features: (lanes, n, d); labels: (lanes, n, 1); hot: (lanes, n, classes), padded, one
                at the label.
            shares: (lanes, n, 1), of each example in its model's loss.
        """

    def descend(self, fall: float) -> None:
        """A step along the gradients, at `fall` times the first step's rate."""
        given = self._descent
        told = (given.rate * fall, given.momentum, given.decay, given.pull)
        if given.alike:
            _step(*self._flat, told=[float(v[0]) for v in told])
            return
        each = [torch.from_numpy(v.astype(np.float32)).to(self._flat[0].device) for v in told]
        for parts in zip(*(layers.values() for layers in self._layers), strict=True):
            wide = (self._lanes, *[1] * (parts[0].dim() - 1))
            _step(*parts, told=[v.view(wide) for v in each])

    def ended(self) -> list[dict[str, Array]]:
        """The weights of each model, arrays of its own."""
        host = {name: tensor.cpu().numpy() for name, tensor in self.weights.items()}
        inner = {name: tuple(slice(size) for size in shape) for name, shape in self._shapes.items()}
        return [
            {name: host[name][lane][cut].copy() for name, cut in inner.items()}
            for lane in range(self._lanes)
        ]


def _step(
    weights: Tensor,
    gradients: Tensor,
    speeds: Tensor,
    scratch: Tensor,
    anchors: Tensor | None = None,
    *,
    told: Sequence[Any],
) -> None:
    """As `Training.fit` has it, in place."""
    rate, momentum, decay, pull = told
    torch.mul(weights, decay, out=scratch)
    if anchors is not None:
        scratch.add_((weights - anchors).mul_(pull))
    speeds.mul_(momentum).add_(gradients.add_(scratch))
    weights.sub_(torch.mul(speeds, rate, out=scratch))


@final
class Dense(Stack):
    """Linear layers with or without a ReLU between them, their gradients written out."""

    def __init__(
        self,
        module: nn.Sequential,
        starts: Sequence[dict[str, Array]],
        descent: Rates,
        device: torch.device,
    ) -> None:
        children = [*module.named_children()]
        linear = [place for place, (_, layer) in enumerate(children) if type(layer) is nn.Linear]
        names = [children[place][0] for place in linear]
        # Whether a ReLU comes before a layer.
        self._bent = [place > 0 and type(children[place - 1][1]) is nn.ReLU for place in linear]
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        # Matrices first: a row in front of them would move them off their 64 bytes.
        weights, biases = ([f"{n}.{part}" for n in names] for part in ("weight", "bias"))
        larger = {name: tuple(map(padded, shapes[name])) for name in (*weights, *biases)}
        super().__init__(shapes, larger, starts, descent, device)
        self._matrices = [(self.weights[name], self.gradients[name]) for name in weights]
        self._rows = [(self.weights[name][:, None], self.gradients[name]) for name in biases]
        classes = shapes[biases[-1]][0]
        self._never = torch.zeros(padded(classes), device=device)
        self._never[classes:] = -torch.inf  # classes that are only padding

    def look(self, features: Tensor, labels: Tensor, hot: Tensor, shares: Tensor) -> Tensor:
        seen, out = list[Tensor](), features
        for bent, (matrix, _), (row, _) in zip(self._bent, self._matrices, self._rows, strict=True):
            seen.append(out.relu_() if bent else out)
            bias = row + self._never if matrix is self._matrices[-1][0] else row
            out = torch.baddbmm(bias, seen[-1], matrix.transpose(1, 2))
        told = torch.log_softmax(out, 2)
        of_label = told.gather(2, labels)
        slope = told.exp_().sub_(hot).mul_(shares)
        for place in range(len(seen) - 1, -1, -1):
            (matrix, gradient), inputs = self._matrices[place], seen[place]
            torch.bmm(slope.transpose(1, 2), inputs, out=gradient)
            torch.sum(slope, 1, out=self._rows[place][1])
            if place:
                slope = torch.bmm(slope, matrix)
                if self._bent[place]:
                    slope = threshold_backward(slope, inputs, 0)
        return of_label


@final
class Mapped(Stack):
    """Any module without a memory, by torch.func."""

    def __init__(
        self,
        module: nn.Module,
        starts: Sequence[dict[str, Array]],
        descent: Rates,
        device: torch.device,
    ) -> None:
        # Loads the compiler, seconds of CPU that nobody else should pay.
        from torch.func import functional_call, grad, vmap

        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        super().__init__(shapes, shapes, starts, descent, device)

        def loss(
            weights: dict[str, Tensor], features: Tensor, labels: Tensor, shares: Tensor
        ) -> tuple[Tensor, Tensor]:
            told = torch.log_softmax(functional_call(module, weights, (features,)), 1)
            of_label = told.gather(1, labels)
            return -(of_label * shares).sum(), of_label

        self._slopes = vmap(grad(loss, has_aux=True))
        module.to(device).train()

    def look(self, features: Tensor, labels: Tensor, hot: Tensor, shares: Tensor) -> Tensor:
        found, of_label = self._slopes(self.weights, features, labels, shares)
        for name, gradient in found.items():
            self.gradients[name].copy_(gradient)
        told: Tensor = of_label.detach()
        return told
