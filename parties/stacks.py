"""Models side by side: their weights as one tensor a layer, a step of descent for all at once.

Every operation here treats a model as if it were alone, to the bit: sums run within one model, and
where a processor does the end of a tensor by itself, and may round otherwise, there is no such end.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import final

import torch
from torch import Tensor, nn

from parties.exchange import Array
from parties.products import LARGE, one_dnn
from parties.resident import fetched, on_host, sent

threshold_backward = torch.ops.aten.threshold_backward
Shapes = dict[str, tuple[int, ...]]
# With sides that are multiples of 4, every matrix begins at a multiple of 64 bytes: libraries that
# choose their code by alignment choose the same for each.
GRAIN = 4
SEGMENT = 16  # numbers: a model's part of a tensor is a multiple of the 64 bytes of a vector


def padded(count: int) -> int:
    """The next multiple of `GRAIN`."""
    return -(-count // GRAIN) * GRAIN


def _segment(shape: tuple[int, ...]) -> int:
    """Numbers that a layer of this shape takes."""
    return -(-math.prod(shape) // SEGMENT) * SEGMENT


@final
@dataclass(frozen=True, order=True)
class Rates:
    """How a model descends; see `Training`.

    Args:
        steps: of an epoch, where the rate falls to zero over all steps; 0: it stays.
        epochs: of all.
    """

    rate: float
    momentum: float
    decay: float
    pull: float
    steps: int = 0
    epochs: int = 1

    def at(self, epoch: int, step: int) -> float:
        """The rate of a step of an epoch, both from 0."""
        if not self.steps:
            return self.rate
        return self.rate * (1 - (epoch * self.steps + step) / (self.epochs * self.steps))


@final
@dataclass(frozen=True)
class _Run:
    """Models side by side that descend alike: their parts of the stack's tensors."""

    rates: Rates
    values: list[Tensor]
    gradients: list[Tensor]
    speeds: list[Tensor]
    anchors: list[Tensor]


class Stack(ABC):
    """Room for the weights of some models, with their momentum.

    Args:
        shapes: of one model's tensors; larger: what they are padded to, by the same names.
        lanes: how many models; pulled: whether their starts pull at them.
        device: where.
        alone: of these tensors every model's gradient is found and descended along by itself,
            while the cache has it; they come first in `larger`, and others come after them.
    """

    def __init__(
        self,
        shapes: Shapes,
        larger: Shapes,
        lanes: int,
        pulled: bool,
        device: torch.device,
        alone: Sequence[str] = (),
    ) -> None:
        self._shapes, self._larger, self.lanes = shapes, larger, lanes
        # One tensor holds all layers, so that a call serves them all.
        self._values = torch.empty(self._size * lanes, device=device)
        self._gradients, self._speeds = (torch.empty_like(self._values) for _ in range(2))
        self._anchors = torch.empty_like(self._values) if pulled else None
        # The weights that all started from: their arrays' numbers, the arrays, their copy here.
        self._common: tuple[tuple[int, ...], dict[str, Array], dict[str, Tensor]] | None = None
        self._layers = self._segments(self._values)
        self.weights, self.gradients = map(self._views, (self._values, self._gradients))
        self._shared = lanes * sum(_segment(larger[name]) for name in alone)  # where these begin
        flats = [self._values, self._speeds, *([] if self._anchors is None else [self._anchors])]
        parts = [self._views(flat) for flat in flats]
        # Of each of them the layers whose gradients are found for all models at once.
        self._pieces = [
            [part for name, part in self._segments(flat).items() if name not in alone]
            for flat in (*flats, self._gradients)
        ]
        # Of each model its values, its momentum and, where there is one, its anchor.
        self._alone = {n: list(zip(*(p[n].unbind() for p in parts), strict=True)) for n in alone}
        # The gradient of what is only padding is never found.
        for name, shape in larger.items():
            if math.prod(shape) % SEGMENT:
                self._segments(self._gradients)[name].zero_()

    def begin(self, starts: Sequence[dict[str, Array]], rates: Sequence[Rates]) -> None:
        """Models anew, in the place of those that were here: memory that is new is slow.

        Args:
            starts: the weights of each; the padding is zero.
            rates: how each goes on; where neighbours go on alike, a call serves them all.
        """
        self._place(starts)
        if self._anchors is not None:
            self._anchors.copy_(self._values)
        self._rates, self._runs = list(rates), dict[tuple[int, int], _Run]()
        self._alike, end = list[tuple[int, int]](), 0
        for _, same in groupby(rates):
            first, end = end, end + len(list(same))
            self._alike.append((first, end))

    def _runs_of(self, lanes: slice) -> Iterator[_Run]:
        """Neighbours that descend alike, of these."""
        for first, end in self._alike:
            key = max(first, lanes.start), min(end, lanes.stop)
            if key[0] < key[1]:
                if key not in self._runs:
                    self._runs[key] = self._run(*key)
                yield self._runs[key]

    def _run(self, first: int, end: int) -> _Run:
        """These models, which descend alike."""
        if end - first == self.lanes:
            flats = [self._values, self._speeds, self._anchors, self._gradients]
            parts = [[flat[self._shared :]] for flat in flats if flat is not None]
        else:
            parts = [[piece[first:end] for piece in pieces] for pieces in self._pieces]
        values, speeds, *anchors, gradients = parts
        return _Run(self._rates[first], values, gradients, speeds, anchors[0] if anchors else [])

    def _place(self, starts: Sequence[dict[str, Array]]) -> None:
        """Let the weights be these; those that several start from are read and sent once."""
        keys = [tuple(id(start[name]) for name in self._shapes) for start in starts]
        firsts, device = dict(zip(keys, starts, strict=True)), self._values.device
        if len(firsts) == self.lanes and device.type == "cpu":
            self._read(self._values.zero_(), starts)
        elif len(firsts) == self.lanes:
            host = self._room(self.lanes)
            self._read(host, starts)
            self._values.copy_(host, non_blocking=True)
        elif len(firsts) > 1:
            places = {key: place for place, key in enumerate(firsts)}
            order = torch.tensor([places[key] for key in keys]).to(device)
            few = self._sent(list(firsts.values()))
            for name, segments in self._layers.items():
                torch.index_select(few[name], 0, order, out=segments)
        else:
            if self._common is None or keys[0] != self._common[0]:
                self._common = keys[0], starts[0], self._sent(starts[:1])
            for name, segments in self._layers.items():
                segments.copy_(self._common[2][name])

    def _room(self, lanes: int) -> Tensor:
        """On the CPU, for so many models on their way here; zeros."""
        return on_host(self._size * lanes, self._values.device).zero_()

    def _sent(self, starts: Sequence[dict[str, Array]]) -> dict[str, Tensor]:
        """Weights on the device, as the layers of so many models."""
        host = self._room(len(starts))
        self._read(host, starts)
        return self._segments(sent(host, self._values.device), len(starts))

    def _read(self, flat: Tensor, starts: Sequence[dict[str, Array]]) -> None:
        """Copy weights to their places in a tensor of the CPU."""
        for name, stacked in self._views(flat, len(starts)).items():
            inner, rows = tuple(slice(size) for size in self._shapes[name]), stacked.numpy()
            for row, start in zip(rows, starts, strict=True):
                row[inner] = start[name]

    @property
    def _size(self) -> int:
        """Numbers of a model."""
        return sum(map(_segment, self._larger.values()))

    def _segments(self, flat: Tensor, lanes: int = 0) -> dict[str, Tensor]:
        """The layers (lanes, numbers) in it, by name; of so many models, else of the stack's."""
        lanes = lanes or self.lanes
        sizes = [lanes * _segment(shape) for shape in self._larger.values()]
        parts = torch.split(flat, sizes)
        return {name: part.view(lanes, -1) for name, part in zip(self._larger, parts, strict=True)}

    def _views(self, flat: Tensor, lanes: int = 0) -> dict[str, Tensor]:
        """The same in the layers' shapes (lanes, ...)."""
        return {
            name: part[:, : math.prod(shape)].view(len(part), *shape)
            for (name, part), shape in zip(
                self._segments(flat, lanes).items(), self._larger.values(), strict=True
            )
        }

    def step(
        self,
        lanes: slice,
        features: Tensor,
        labels: Tensor,
        hot: Tensor,
        shares: Tensor,
        epoch: int,
        step: int,
    ) -> Tensor:
        """A step along the gradients on examples; log probabilities (models, n, 1) of their labels.

        Args:
            lanes: the models that take it, from which to which.
            features: (models, n, d); labels: (models, n, 1); hot: (models, n, classes), padded,
                one at the label.
            shares: (models, n, 1), of each example in its model's loss.
            epoch, step: which it is of theirs, from 0; all of them take the first, and have no
                momentum before it.
        """
        self._at = epoch, step
        told = self._look(lanes, features, labels, hot, shares)
        for run in self._runs_of(lanes):
            self._descend(run)
        return told

    @abstractmethod
    def _look(
        self, lanes: slice, features: Tensor, labels: Tensor, hot: Tensor, shares: Tensor
    ) -> Tensor:
        """Find the gradients, and descend along those of `alone`; what `step` tells."""

    def _descend_alone(self, name: str, lane: int, gradient: Tensor) -> None:
        """Of one model, along its gradient of one tensor, which nobody needs any more."""
        value, speed, *anchor = self._alone[name][lane]
        self._descend(_Run(self._rates[lane], [value], [gradient], [speed], anchor))

    def _descend(self, run: _Run) -> None:
        rates = run.rates
        if rates.pull:
            for value, gradient, anchor in zip(run.values, run.gradients, run.anchors, strict=True):
                gradient.add_(torch.sub(value, anchor).mul_(rates.pull))
        # What torch.optim.SGD(fused=True) calls: all of a step in one passage over the weights.
        torch._fused_sgd_(
            run.values,
            run.gradients,
            run.speeds if rates.momentum else [],
            lr=rates.at(*self._at),
            momentum=rates.momentum,
            weight_decay=rates.decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=self._at == (0, 0) and rates.momentum > 0,  # its gradient is its speed
        )

    def ended(self) -> list[dict[str, Array]]:
        """The weights of each model, arrays of its own."""
        values = fetched(self._values)
        host = {name: tensor.numpy() for name, tensor in self._views(values).items()}
        inner = {name: tuple(slice(size) for size in shape) for name, shape in self._shapes.items()}
        return [
            {name: host[name][lane][cut].copy() for name, cut in inner.items()}
            for lane in range(self.lanes)
        ]


@final
@dataclass(frozen=True)
class _Layers:
    """Views of some models' linear layers: the first of these models, then (value, gradient) of
    each matrix and of each bias, this one's value as a row."""

    first: int
    matrices: list[tuple[Tensor, Tensor]]
    rows: list[tuple[Tensor, Tensor]]


@final
class Dense(Stack):
    """Linear layers with or without a ReLU between them, their gradients written out.

    Args:
        rows: examples of a step, at most.
    """

    def __init__(
        self, module: nn.Sequential, lanes: int, pulled: bool, device: torch.device, rows: int
    ) -> None:
        children = [*module.named_children()]
        linear = [place for place, (_, layer) in enumerate(children) if type(layer) is nn.Linear]
        names = [children[place][0] for place in linear]
        # Whether a ReLU comes before a layer.
        self._bent = [place > 0 and type(children[place - 1][1]) is nn.ReLU for place in linear]
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        weights, biases = ([f"{n}.{part}" for n in names] for part in ("weight", "bias"))
        larger = {name: tuple(map(padded, shape)) for name, shape in shapes.items()}
        self._product = one_dnn() if device.type == "cpu" else None
        work = {} if self._product is None else {n: rows * math.prod(larger[n]) for n in weights}
        alone = [name for name, multiplications in work.items() if multiplications >= LARGE]
        larger = {name: larger[name] for name in sorted(larger, key=lambda name: name not in alone)}
        super().__init__(shapes, larger, lanes, pulled, device, alone)
        self._names, self._biases = weights, biases
        self._seen = dict[tuple[int, int], _Layers]()
        classes = shapes[biases[-1]][0]
        self._never = torch.zeros(padded(classes), device=device)
        self._never[classes:] = -torch.inf  # classes that are only padding

    def _layers_of(self, lanes: slice) -> _Layers:
        """Of these models."""
        key = lanes.start, lanes.stop
        if key not in self._seen:
            parts = [
                [(self.weights[name][lanes], self.gradients[name][lanes]) for name in names]
                for names in (self._names, self._biases)
            ]
            self._seen[key] = _Layers(lanes.start, parts[0], [(b[:, None], g) for b, g in parts[1]])
        return self._seen[key]

    def _look(
        self, lanes: slice, features: Tensor, labels: Tensor, hot: Tensor, shares: Tensor
    ) -> Tensor:
        layers = self._layers_of(lanes)
        seen, out = list[Tensor](), features
        for place, bent in enumerate(self._bent):
            seen.append(out.relu_() if bent else out)
            matrix, bias = layers.matrices[place][0], layers.rows[place][0]
            if place == len(self._bent) - 1:
                bias = bias + self._never
            if self._names[place] in self._alone:
                out = self._products(seen[-1], matrix, bias.squeeze(1))
            else:
                out = torch.baddbmm(bias, seen[-1], matrix.transpose(1, 2))
        told = torch.log_softmax(out, 2)
        of_label = told.gather(2, labels)
        slope = told.exp_().sub_(hot).mul_(shares)
        for place in range(len(seen) - 1, -1, -1):
            torch.sum(slope, 1, out=layers.rows[place][1])
            find = self._find_alone if self._names[place] in self._alone else self._find
            slope = find(layers, place, slope, seen[place])
            if self._bent[place]:
                slope = threshold_backward(slope, seen[place], 0)
        return of_label

    def _find(self, layers: _Layers, place: int, slope: Tensor, inputs: Tensor) -> Tensor:
        """The gradient of a matrix; the slope of what came into it, but of the first layer."""
        matrix, gradient = layers.matrices[place]
        torch.bmm(slope.transpose(1, 2), inputs, out=gradient)
        return torch.bmm(slope, matrix) if place else slope

    def _find_alone(self, layers: _Layers, place: int, slope: Tensor, inputs: Tensor) -> Tensor:
        """The same model by model, with the step."""
        assert self._product is not None
        matrix, turned = layers.matrices[place][0], slope.transpose(1, 2).contiguous()
        # By the weights as they are before the step.
        below = self._products(slope, matrix.transpose(1, 2)) if place else slope
        each = zip(turned.unbind(), inputs.unbind(), strict=True)
        for lane, (one, seen) in enumerate(each, layers.first):
            self._descend_alone(self._names[place], lane, self._product(one, seen.t(), None))
        return below

    def _products(self, left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
        """left @ right^T + bias of each model: (lanes, n, m), (lanes, o, m), (lanes, o)."""
        assert self._product is not None
        rows = [None] * len(left) if bias is None else bias.unbind()
        each = zip(left.unbind(), right.unbind(), rows, strict=True)
        return torch.stack([self._product(*one) for one in each])


@final
class Mapped(Stack):
    """Any module without a memory, by torch.func."""

    def __init__(
        self,
        module: nn.Module,
        lanes: int,
        pulled: bool,
        device: torch.device,
    ) -> None:
        # Loads the compiler, seconds of CPU that nobody else should pay.
        from torch.func import functional_call, grad, vmap

        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        super().__init__(shapes, shapes, lanes, pulled, device)
        own = copy.deepcopy(module)  # a call puts its weights into it for a moment

        def loss(
            weights: dict[str, Tensor], features: Tensor, labels: Tensor, shares: Tensor
        ) -> tuple[Tensor, Tensor]:
            told = torch.log_softmax(functional_call(own, weights, (features,)), 1)
            of_label = told.gather(1, labels)
            return -(of_label * shares).sum(), of_label

        self._slopes = vmap(grad(loss, has_aux=True))

    def _look(
        self, lanes: slice, features: Tensor, labels: Tensor, hot: Tensor, shares: Tensor
    ) -> Tensor:
        weights = {name: stacked[lanes] for name, stacked in self.weights.items()}
        found, of_label = self._slopes(weights, features, labels, shares)
        for name, gradient in found.items():
            self.gradients[name][lanes].copy_(gradient)
        told: Tensor = of_label.detach()
        return told
