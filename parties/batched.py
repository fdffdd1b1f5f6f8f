"""Many trainings as one: the models of all firms side by side, one product for all of them.

What a small model costs is the call of every operation, not its arithmetic; firms, seeds and points
of a sweep that share an architecture can share the calls. Each comes to the same bits whatever it
is batched with: what is batched, and how it is padded, is decided by a fit alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from parties.backbones import Backbone
from parties.exchange import Array, FedpactError
from parties.fitting import Fit, Fitted, fit_one
from parties.stacks import GRAIN, Dense, Descent, Mapped, Stack, padded
from parties.stopping.never import Never
from parties.training import weights_of

WAYS = ("bmm", "vmap")
CACHE_MB = 10.0  # of a CPU: a step that touches more waits for memory
GPU_MB = 2048.0
DATA_MB = 128.0  # examples that are copied at a time
LANES = 64  # models a batch, where the code may depend on their number
PLAIN = (
    nn.Sequential,
    nn.Linear,
    nn.ReLU,
    nn.Conv2d,
    nn.MaxPool2d,
    nn.Flatten,
    nn.Unflatten,
)
"""Layers that keep nothing, draw nothing, and see each example by itself."""


def fit_together(
    fits: Sequence[Fit], room_mb: float | None = None, way: str | None = None
) -> list[Fitted]:
    """Train all of them, those of a kind as one batch, the others one by one.

    A fit's outcome does not depend on the others, to the bit; it is that of `fit_one` to rounding.

    Args:
        room_mb: what a batch's models and the activations of a step may take; None: what a CPU
            caches, and more on a GPU.
        way: "bmm" (linear layers and ReLU, written out), "vmap" (other layers too) or None: bmm
            where it can be, vmap on a GPU.

    Raises:
        FedpactError: there is no such way.
    """
    if way is not None and way not in WAYS:
        raise FedpactError(f"way is {way!r}; legal are {', '.join(WAYS)}, or None. Leave it out.")
    found: dict[int, Fitted] = {}
    kinds: dict[_Kind, list[int]] = {}
    designs = _Designs()
    for place, fit in enumerate(fits):
        kind = _kind(fit, designs.of(fit), room_mb, way)
        if kind is None:
            found[place] = fit_one(fit)
        else:
            kinds.setdefault(kind, []).append(place)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would divide sums by how many models there are
    try:
        for kind, places in kinds.items():
            for first in range(0, len(places), kind.lanes):
                some = places[first : first + kind.lanes]
                ended = _fit_some(kind, [fits[place] for place in some], designs)
                found.update(zip(some, ended, strict=True))
    finally:
        torch.set_num_threads(threads)
    return [found[place] for place in range(len(fits))]


# ---------------------------------------------------------------------------------- what is alike


@final
@dataclass(frozen=True)
class _Design:
    """A backbone's module, as far as batching must know it.

    Args:
        module: any draw of it; shapes: of its tensors, by name.
        size: how many parameters; told: how many numbers its layers make of an example, about.
        stacked: it is linear layers with or without a ReLU between them; plain: of `PLAIN` only.
    """

    module: nn.Module
    shapes: dict[str, tuple[int, ...]]
    size: int
    told: int
    stacked: bool
    plain: bool

    @classmethod
    def of(cls, module: nn.Module) -> _Design:
        """Read a module."""
        layers = list(module.children()) if type(module) is nn.Sequential else []
        kinds = [type(layer) for layer in layers]
        tensors = module.state_dict()
        stacked = (
            bool(kinds)
            and set(kinds) <= {nn.Linear, nn.ReLU}
            and kinds[0] is kinds[-1] is nn.Linear
            and len(tensors) == 2 * kinds.count(nn.Linear)
        )
        plain = (
            all(type(part) in PLAIN for part in module.modules())
            and set(tensors) == {name for name, _ in module.named_parameters()}
            and all(p.requires_grad and p.dtype == torch.float32 for p in module.parameters())
        )
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        size = sum(tensor.numel() for tensor in tensors.values())
        told = sum(len(tensor) for name, tensor in tensors.items() if name.endswith("bias"))
        return cls(module, shapes, size, told, stacked and plain, plain)


@final
@dataclass(frozen=True)
class _Designs:
    """The untrained models of one call, built once: firms start from a common draw."""

    built: dict[tuple[Backbone, int, int], _Design] = field(default_factory=dict)
    drawn: dict[tuple[Backbone, int, int, int], dict[str, Array]] = field(default_factory=dict)

    def of(self, fit: Fit) -> _Design:
        what = (fit.backbone, fit.features.shape[1], fit.classes)
        if what not in self.built:
            self.built[what] = _Design.of(fit.backbone.build(*what[1:], fit.draw))
        return self.built[what]

    def start(self, fit: Fit) -> dict[str, Array]:
        """The weights that a fit starts from, by name."""
        if fit.start is not None:
            return fit.start
        what = (fit.backbone, fit.features.shape[1], fit.classes, fit.draw)
        if what not in self.drawn:
            self.drawn[what] = weights_of(fit.backbone.build(*what[1:]))
        return self.drawn[what]


@final
@dataclass(frozen=True)
class _Kind:
    """What fits share that are one batch.

    Args:
        way: see `fit_together`; backbone, inputs, classes: of the module.
        size: examples a step; steps: an epoch; last: rows of its last step.
        pulled: whether the start pulls; lanes: fits a batch.
        fixed: whether a batch is filled up, because code may depend on how many lanes it has (that
            of others than a CPU's products does).
    """

    way: str
    device: torch.device
    backbone: Backbone
    inputs: int
    classes: int
    size: int
    steps: int
    last: int
    epochs: int
    schedule: str
    pulled: bool
    fixed: bool
    lanes: int

    @property
    def edges(self) -> list[tuple[int, int]]:
        """From which row to which a step goes."""
        wide = padded(self.size)
        starts = [step * wide for step in range(self.steps)]
        return list(pairwise([*starts, starts[-1] + self.last]))

    def rows(self, count: int) -> Array:
        """Where so many examples lie (count,); the rows between are empty."""
        step, place = np.divmod(np.arange(count), self.size)
        rows: Array = step * padded(self.size) + place
        return rows


def _rounded(rows: int) -> int:
    """Up to 4, 8, 12, 16, 24, 32, 48, ...: firms of about one size share a batch."""
    grain = max(GRAIN, 1 << rows.bit_length() - 2) if rows > 1 else GRAIN
    return -(-rows // grain) * grain


def _kind(fit: Fit, design: _Design, room_mb: float | None, way: str | None) -> _Kind | None:
    """What a fit may be batched with; None: it is to be trained by itself."""
    training, device = fit.training, fit.training.torch_device
    count, inputs = fit.features.shape
    batchable = (
        type(training.stopping) is Never
        and type(fit.backbone).objective is Backbone.objective
        and count > 0
        and fit.features.dtype == np.float32
        and fit.targets.dtype == np.int64
        and (fit.start is None or {k: v.shape for k, v in fit.start.items()} == design.shapes)
    )
    if way is None:
        way = "bmm" if design.stacked or device.type == "cpu" else "vmap"
    if not batchable or not (design.stacked if way == "bmm" else design.plain):
        return None
    steps = -(-count // training.batch_size)
    last = _rounded(count - (steps - 1) * training.batch_size)
    # Firms with less than a batch share one, whatever its size would have been.
    size = last if steps == 1 else training.batch_size
    last = min(last, padded(size))
    default = CACHE_MB if device.type == "cpu" else GPU_MB
    room = int((default if room_mb is None else room_mb) * 2**20)
    # Weights, gradients, momentum and a copy; activations and their gradients.
    lanes = room // (16 * design.size + 8 * size * (inputs + design.told))
    rows = (steps - 1) * size + last
    lanes = min(lanes, int(DATA_MB * 2**20) // (8 * rows * inputs))
    fixed = way == "vmap" or device.type != "cpu"
    if fixed:
        lanes = min(lanes, LANES)
    if lanes < 2:  # too large to gain from company
        return None
    return _Kind(
        way,
        device,
        fit.backbone,
        inputs,
        fit.classes,
        size,
        steps,
        last,
        fit.passes,
        training.schedule,
        bool(fit.proximal),
        fixed,
        lanes,
    )


# ------------------------------------------------------------------------------------- a batch


def _fit_some(kind: _Kind, fits: Sequence[Fit], designs: _Designs) -> list[Fitted]:
    """Train fits of a kind, side by side."""
    asked = len(fits)
    if kind.fixed:
        fits = [*fits, *[fits[0]] * (kind.lanes - asked)]

    def each(values: Iterable[float]) -> Array:
        return np.array(list(values), np.float64)

    descent = Descent(
        rate=each(fit.training.learning_rate for fit in fits),
        momentum=each(fit.training.momentum for fit in fits),
        decay=each(fit.training.weight_decay for fit in fits),
        pull=each(fit.proximal for fit in fits),
    )
    module, starts = designs.of(fits[0]).module, [designs.start(fit) for fit in fits]
    with torch.no_grad():
        stack: Stack
        if kind.way == "bmm":
            assert isinstance(module, nn.Sequential)
            stack = Dense(module, starts, descent, kind.device)
        else:
            stack = Mapped(module, starts, descent, kind.device)
        examples = _Examples(kind, fits)
        steps, told = kind.epochs * kind.steps, list[Tensor]()
        for epoch in range(kind.epochs):
            shuffled = examples.shuffled()
            of_labels = []
            for step, (start, end) in enumerate(kind.edges, epoch * kind.steps):
                of_labels.append(stack.look(*(part[:, start:end] for part in shuffled)))
                stack.descend(1 - step / steps if kind.schedule == "linear" else 1.0)
            told.append(torch.cat(of_labels, 1)[:, :, 0])
        losses = examples.losses(torch.stack(told).cpu().numpy())
    return list(zip(stack.ended(), losses, strict=True))[:asked]


@final
class _Examples:
    """The examples of a batch of fits, in another order every epoch."""

    def __init__(self, kind: _Kind, fits: Sequence[Fit]) -> None:
        self._kind, self._rows, lanes = kind, kind.edges[-1][1], len(fits)
        columns = padded(kind.inputs) if kind.way == "bmm" else kind.inputs
        self._counts = [len(fit.targets) for fit in fits]
        self._shuffles = [torch.Generator().manual_seed(fit.shuffle) for fit in fits]
        # One row more than there can be, which stays empty.
        features = np.zeros((lanes, self._rows + 1, columns), np.float32)
        labels = np.zeros((lanes, self._rows + 1), np.int64)
        shares = np.zeros((lanes, self._rows), np.float32)
        places = {count: kind.rows(count) for count in set(self._counts)}
        self._places = [places[count] for count in self._counts]
        full = (kind.steps - 1) * kind.size
        for lane, (fit, count) in enumerate(zip(fits, self._counts, strict=True)):
            features[lane, :count, : kind.inputs] = fit.features
            labels[lane, :count] = fit.targets
            shares[lane, self._places[lane][:full]] = 1 / kind.size
            shares[lane, self._places[lane][full:]] = 1 / (count - full)
        if labels.min() < 0 or labels.max() >= kind.classes:
            raise FedpactError(
                f"targets go from {labels.min()} to {labels.max()}; legal are classes from 0 to "
                f"{kind.classes - 1}. Mend the data set, or its number of classes."
            )
        self._features = torch.from_numpy(features).to(kind.device).view(-1, columns)
        self._labels = torch.from_numpy(labels).to(kind.device).view(-1)
        self._shares = torch.from_numpy(shares[:, :, None]).to(kind.device)
        self._filled = shares > 0

    def shuffled(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, labels, labels one-hot and shares (lanes, rows, ...); see `Stack.look`."""
        lanes = len(self._counts)
        order = np.full((lanes, self._rows), self._rows)
        for lane, (count, shuffle) in enumerate(zip(self._counts, self._shuffles, strict=True)):
            order[lane, self._places[lane]] = torch.randperm(count, generator=shuffle).numpy()
        order += np.arange(lanes)[:, None] * (self._rows + 1)
        taken = torch.from_numpy(order.reshape(-1)).to(self._features.device)
        features = self._features[taken].view(lanes, self._rows, -1)
        labels = self._labels[taken].view(lanes, self._rows, 1)
        hot = features.new_zeros(lanes, self._rows, padded(self._kind.classes))
        return features, labels, hot.scatter_(2, labels, 1.0), self._shares

    def losses(self, of_labels: Array) -> list[tuple[float, ...]]:
        """Mean loss of each epoch, from log probabilities (epochs, lanes, rows)."""
        sums = np.where(self._filled, of_labels, 0.0).sum(2, dtype=np.float64)
        means = 0.0 - sums.T / np.array(self._counts)[:, None]
        return [tuple(epochs) for epochs in means.tolist()]
