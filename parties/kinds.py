"""Which trainings may be one batch: a fit alone says it, and never its company."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import final

import numpy as np
import torch
from torch import nn

from parties.backbones import Backbone
from parties.descent import is_dense
from parties.exchange import Array
from parties.fitting import Fit
from parties.layers import Image
from parties.stacks import GRAIN, padded
from parties.stopping.never import Never
from parties.training import weights_of

CACHE_MB = 8.0  # of a CPU: a step that touches more waits for memory
GPU_SHARE = 0.125  # of a GPU's memory, for models and as much for examples
DATA_MB = 128.0  # of a CPU: examples that are copied at a time
MOST_WORK = 10_000_000  # parameters times examples of a step; with more, calls cost a CPU little
LANES = 64  # models a batch, where the code may depend on their number
PLAIN = (
    nn.Sequential,
    nn.Linear,
    nn.ReLU,
    nn.Conv2d,
    nn.MaxPool2d,
    nn.Flatten,
    nn.Unflatten,
    Image,
)
"""Layers that keep nothing, draw nothing, and see each example by itself."""


@final
@dataclass(frozen=True)
class Design:
    """A backbone's module, as far as batching must know it.

    Args:
        module: any draw of it; of its weights the shapes may be all; shapes: by name.
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
    def of(cls, module: nn.Module) -> Design:
        """Read a module."""
        tensors = module.state_dict()
        plain = (
            all(type(part) in PLAIN for part in module.modules())
            and set(tensors) == {name for name, _ in module.named_parameters()}
            and all(p.requires_grad and p.dtype == torch.float32 for p in module.parameters())
        )
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        size = sum(tensor.numel() for tensor in tensors.values())
        told = sum(len(tensor) for name, tensor in tensors.items() if name.endswith("bias"))
        return cls(module, shapes, size, told, is_dense(module), plain)


@lru_cache(maxsize=16)
def _design(backbone: Backbone, inputs: int, classes: int) -> Design:
    """Once a process: a round asks for the same as the one before. Without the weights."""
    return Design.of(backbone.build(inputs, classes, 0).to("meta"))


@final
@dataclass(frozen=True)
class Designs:
    """The untrained models of one call; firms start from a common draw, which is made once."""

    drawn: dict[tuple[Backbone, int, int, int], dict[str, Array]] = field(default_factory=dict)

    def of(self, fit: Fit) -> Design:
        """Of a fit."""
        return _design(fit.backbone, fit.features.shape[1], fit.classes)

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
class Layout:
    """How a fit's examples are dealt to the steps of an epoch: by their number alone.

    Args:
        size: examples a step; where there is one step only, its rows, so that fits of less than a
            batch share one where they have about as many examples.
        steps: an epoch; last: rows of its last step.
    """

    size: int
    steps: int
    last: int

    @classmethod
    @lru_cache(maxsize=4096)
    def of(cls, count: int, batch_size: int) -> Layout:
        """Of so many examples."""
        steps = -(-count // batch_size)
        last = _rounded(count - (steps - 1) * batch_size)
        size = last if steps == 1 else batch_size
        return cls(size, steps, min(last, padded(size)))

    @property
    def wide(self) -> int:
        """Rows of a step that is not the last."""
        return padded(self.size)

    @property
    def rows(self) -> int:
        """Of all steps."""
        return (self.steps - 1) * self.wide + self.last

    def width(self, step: int) -> int:
        """Rows of a step; 0: there is none."""
        if step < self.steps - 1:
            return self.wide
        return self.last if step < self.steps else 0

    def places(self, count: int) -> Array:
        """Where so many examples lie (count,); the rows between are empty."""
        step, place = np.divmod(np.arange(count), self.size)
        rows: Array = step * self.wide + place
        return rows


def layout_of(fit: Fit) -> Layout:
    """How a fit's examples are dealt to steps."""
    return Layout.of(len(fit.targets), fit.training.batch_size)


@final
@dataclass(frozen=True)
class Kind:
    """What fits share that are one batch.

    Args:
        way: see `fit_together`; backbone, inputs, classes: of the module.
        size: examples a step; layout: of their steps, where it must be the same for all, since a
            batch never has fewer models (see `fixed`); None: each has its own.
        pulled: whether the start pulls; lanes: fits a batch, at most; data: bytes of their
            examples, at most.
        fixed: whether a batch is filled up to its lanes: a library may choose its code by their
            number (a CPU's, for products, does not).
    """

    way: str
    device: torch.device
    backbone: Backbone
    inputs: int
    classes: int
    size: int
    layout: Layout | None
    epochs: int
    pulled: bool
    fixed: bool
    lanes: int
    data: int

    def room_for(self, layout: Layout) -> int:
        """How many fits of this layout may be one batch. (By examples, not by rows, of which there
        are up to a half more: who is batched at all follows from it.)"""
        rows = (layout.steps - 1) * layout.size + layout.last
        return min(self.lanes, self.data // (8 * rows * self.inputs))


def _rounded(rows: int) -> int:
    """Up to 4, 8, 12, 16, 24, 32, 48, ...: firms of about one size share a batch."""
    grain = max(GRAIN, 1 << rows.bit_length() - 2) if rows > 1 else GRAIN
    return -(-rows // grain) * grain


def _room(device: torch.device, room_mb: float | None) -> tuple[int, int]:
    """Bytes that the models of a batch may take there, and its examples."""
    if device.type == "cpu":
        return int((CACHE_MB if room_mb is None else room_mb) * 2**20), int(DATA_MB * 2**20)
    # Of all its memory, not of what is free now: how many models are a batch may decide the last
    # bits of each there. Where there is less, `fit_together` halves the batch.
    whole = torch.cuda.get_device_properties(device).total_memory
    room = int(GPU_SHARE * whole) if room_mb is None else int(room_mb * 2**20)
    return room, room


def kind_of(fit: Fit, design: Design, room_mb: float | None, way: str | None) -> Kind | None:
    """What a fit may be batched with; None: it is to be trained by itself."""
    training, device = fit.training, fit.training.torch_device
    count, inputs = len(fit.features), fit.features.shape[1]
    batchable = (
        type(training.stopping) is Never
        and training.mixed_precision == "none"
        and type(fit.backbone).objective is Backbone.objective
        and count == len(fit.targets) > 0
        and fit.features.ndim == 2
        and fit.features.dtype == np.float32
        and fit.targets.dtype == np.int64
        and (fit.start is None or {k: v.shape for k, v in fit.start.items()} == design.shapes)
    )
    chosen = way is not None
    if way is None:
        way = "bmm" if design.stacked or device.type == "cpu" else "vmap"
    if not batchable or not (design.stacked if way == "bmm" else design.plain):
        return None
    layout = layout_of(fit)
    size = layout.size
    room, data = _room(device, room_mb)
    # Weights, gradients and momentum; where the start pulls, it and how far it is; activations and
    # their gradients.
    held = 20 if fit.proximal else 12
    lanes = room // (held * design.size + 8 * size * (inputs + design.told))
    fixed = way == "vmap" or device.type != "cpu"
    kind = Kind(
        way,
        device,
        fit.backbone,
        inputs,
        fit.classes,
        size,
        layout if fixed else None,
        fit.passes,
        bool(fit.proximal),
        fixed,
        min(lanes, LANES) if fixed else lanes,
        data,
    )
    by_itself = device.type == "cpu" and design.stacked and design.size * size > MOST_WORK
    if kind.room_for(layout) < 2 or (by_itself and not chosen):  # too large to gain from company
        return None
    return kind
