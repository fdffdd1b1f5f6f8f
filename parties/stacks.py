"""Models side by side: their weights as one tensor a layer, a step of descent for all at once.

Every operation here treats a model as if it were alone, to the bit: sums run within one model, and
the end of a tensor, which a processor may round otherwise than the inside, belongs to no model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from parties.exchange import Array
from parties.resident import fetched, on_host, sent

threshold_backward = torch.ops.aten.threshold_backward
Shapes = dict[str, tuple[int, ...]]
# With sides that are multiples of 4, every matrix begins at a multiple of 64 bytes: libraries that
# choose their code by alignment choose the same for each.
GRAIN = 4
SPARE = 64  # numbers at the end of a tensor: more than a processor takes at a time


def padded(count: int) -> int:
    """The next multiple of `GRAIN`."""
    return -(-count // GRAIN) * GRAIN


@final
@dataclass(frozen=True)
class Rates:
    """How models descend; see `Training`."""

    rate: float
    momentum: float
    decay: float
    pull: float


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
        # One tensor holds all layers, so that a call serves them all.
        self._values = self._started(starts, device)
        self._gradients, self._speeds = (torch.empty_like(self._values) for _ in range(2))
        self._gradients[-SPARE:] = 0.0
        self._stands = True  # as yet
        self._anchors = self._values.clone() if descent.pull else None
        self.weights, self.gradients = map(self._views, (self._values, self._gradients))

    def _started(self, starts: Sequence[dict[str, Array]], device: torch.device) -> Tensor:
        """The weights as they start; those that several start from are read and sent once."""
        firsts = dict[tuple[int, ...], dict[str, Array]]()
        keys = [tuple(map(id, start.values())) for start in starts]
        for key, start in zip(keys, starts, strict=True):
            firsts.setdefault(key, start)
        size = sum(map(math.prod, self._larger.values()))
        host = on_host(size * len(firsts) + SPARE, device).zero_()
        for name, stacked in self._views(host, len(firsts)).items():
            inner, rows = tuple(slice(size) for size in self._shapes[name]), stacked.numpy()
            for row, start in zip(rows, firsts.values(), strict=True):
                row[inner] = start[name]
        there = sent(host, device)
        if len(firsts) == self._lanes:
            return there
        places = {key: place for place, key in enumerate(firsts)}
        order = torch.tensor([places[key] for key in keys]).to(device)
        few, values = self._views(there, len(firsts)), there.new_empty(size * self._lanes + SPARE)
        values[-SPARE:] = 0.0
        for name, stacked in self._views(values).items():
            torch.index_select(few[name], 0, order, out=stacked)
        return values

    def _views(self, flat: Tensor, lanes: int = 0) -> dict[str, Tensor]:
        """The layers (lanes, ...) in it, by name; of so many models, else of the stack's."""
        lanes = lanes or self._lanes
        sizes = [lanes * math.prod(shape) for shape in self._larger.values()]
        *parts, _ = torch.split(flat, [*sizes, SPARE])
        return {
            name: part.view(lanes, *shape)
            for part, (name, shape) in zip(parts, self._larger.items(), strict=True)
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
        """A step along the gradients, at `fall` times the first step's rate; see `Descent.step`."""
        given = self._descent
        if self._anchors is not None:
            self._gradients.add_(torch.sub(self._values, self._anchors).mul_(given.pull))
        # What torch.optim.SGD(fused=True) calls: all of a step in one passage over the weights.
        torch._fused_sgd_(
            [self._values],
            [self._gradients],
            [self._speeds] if given.momentum else [],
            lr=given.rate * fall,
            momentum=given.momentum,
            weight_decay=given.decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=self._stands,  # its gradient is its speed
        )
        self._stands = False

    def ended(self) -> list[dict[str, Array]]:
        """The weights of each model, arrays of its own."""
        values = fetched(self._values)
        host = {name: tensor.numpy() for name, tensor in self._views(values).items()}
        inner = {name: tuple(slice(size) for size in shape) for name, shape in self._shapes.items()}
        return [
            {name: host[name][lane][cut].copy() for name, cut in inner.items()}
            for lane in range(self._lanes)
        ]


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
