"""Many trainings as one: the models of all firms side by side, one product for all of them.

What a small model costs is the call of every operation, not its arithmetic; firms, seeds and points
of a sweep that share an architecture can share the calls. Each comes to the same bits whatever it
is batched with: what is batched, and how it is padded, is decided by a fit alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from parties.exchange import Array, FedpactError
from parties.fitting import Fit, Fitted, fit_one
from parties.kinds import Designs, Kind, kind_of
from parties.resident import forget_all, on_device, sent
from parties.stacks import Dense, Mapped, Rates, Stack, padded

log = logging.getLogger("fedpact.firm")

WAYS = ("bmm", "vmap")
WIDE = 2**14  # bytes of a step of a fit: from here on a call costs less than another copy


def fit_together(
    fits: Sequence[Fit], room_mb: float | None = None, way: str | None = None
) -> list[Fitted]:
    """Train all of them, those of a kind as one batch, the others one by one.

    A fit's outcome does not depend on the others, to the bit; it is that of `fit_one` to rounding.

    Args:
        room_mb: what a batch's models and the activations of a step may take; None: what a CPU
            caches, or a share of a GPU's memory. Where a GPU has less left, batches are halved, to
            the same results but for rounding (see `Kind.fixed`).
        way: "bmm" (linear layers and ReLU, written out), "vmap" (other layers too) or None: bmm
            where it can be, vmap on a GPU.

    Raises:
        FedpactError: there is no such way.
    """
    if way is not None and way not in WAYS:
        raise FedpactError(f"way is {way!r}; legal are {', '.join(WAYS)}, or None. Leave it out.")
    found: dict[int, Fitted] = {}
    kinds: dict[Kind, list[int]] = {}
    designs = Designs()
    for place, fit in enumerate(fits):
        kind = kind_of(fit, designs.of(fit), room_mb, way)
        if kind is None:
            found[place] = fit_one(fit)
        else:
            kinds.setdefault(kind, []).append(place)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more would divide sums by how many models there are
    try:
        for kind, places in kinds.items():
            places.sort(key=lambda place: _rates(fits[place]))  # see `Stack`
            ended = _fit_in_turn(kind, [fits[place] for place in places], designs)
            found.update(zip(places, ended, strict=True))
    finally:
        torch.set_num_threads(threads)
    return [found[place] for place in range(len(fits))]


def _rates(fit: Fit) -> Rates:
    training = fit.training
    return Rates(
        training.learning_rate, training.momentum, training.weight_decay, float(fit.proximal)
    )


def _fit_in_turn(kind: Kind, fits: Sequence[Fit], designs: Designs) -> list[Fitted]:
    """Train fits of a kind, as many at a time as there is room for."""
    found = list[Fitted]()
    while len(found) < len(fits):
        some = fits[len(found) : len(found) + kind.lanes]
        lanes = kind.lanes if kind.fixed else len(some)
        try:
            found += _fit_some(kind, some, designs)
            continue
        except torch.OutOfMemoryError:
            if lanes == 1:
                raise
        # Here and not above: the error holds on to all that the batch had taken.
        forget_all()
        kind = replace(kind, lanes=lanes // 2)
        log.warning(
            "%s has no room for %d models at a time: half of them are tried (with a lower room_mb "
            "they need not be)",
            kind.device,
            lanes,
        )
    return found


def _fit_some(kind: Kind, fits: Sequence[Fit], designs: Designs) -> list[Fitted]:
    """Train fits of a kind, side by side."""
    asked = len(fits)
    if kind.fixed:
        fits = [*fits, *[fits[-1]] * (kind.lanes - asked)]
    rates = list(map(_rates, fits))

    module, starts = designs.of(fits[0]).module, [designs.start(fit) for fit in fits]
    with torch.no_grad():
        stack: Stack
        if kind.way == "bmm":
            assert isinstance(module, nn.Sequential)
            stack = Dense(module, starts, rates, kind.device)
        else:
            stack = Mapped(module, starts, rates, kind.device)
        examples = _Examples(kind, fits)
        steps, told = kind.epochs * kind.steps, list[Tensor]()
        for epoch in range(kind.epochs):
            of_labels = []
            for step, looked in enumerate(examples.shuffled(), epoch * kind.steps):
                of_labels.append(stack.look(*looked))
                stack.descend(1 - step / steps if kind.schedule == "linear" else 1.0)
            told.append(torch.cat(of_labels, 1)[:, :, 0])
        losses = examples.losses(torch.stack(told).cpu().numpy())
    return list(zip(stack.ended(), losses, strict=True))[:asked]


@final
class _Examples:
    """The examples of a batch of fits, in another order every epoch."""

    def __init__(self, kind: Kind, fits: Sequence[Fit]) -> None:
        self._kind, self._rows, lanes = kind, kind.edges[-1][1], len(fits)
        self._counts = [len(fit.targets) for fit in fits]
        self._shuffles = [torch.Generator().manual_seed(fit.shuffle) for fit in fits]
        # One row more than there can be, which stays empty.
        self._labels = np.zeros((lanes, self._rows + 1), np.int64)
        shares = np.zeros((lanes, self._rows), np.float32)
        places = {count: kind.rows(count) for count in set(self._counts)}
        self._places = [places[count] for count in self._counts]
        full = (kind.steps - 1) * kind.size
        for lane, (fit, count) in enumerate(zip(fits, self._counts, strict=True)):
            self._labels[lane, :count] = fit.targets
            shares[lane, self._places[lane][:full]] = 1 / kind.size
            shares[lane, self._places[lane][full:]] = 1 / (count - full)
        low, high = self._labels.min(), self._labels.max()
        if low < 0 or high >= kind.classes:
            raise FedpactError(
                f"targets go from {low} to {high}; legal are classes from 0 to "
                f"{kind.classes - 1}. Mend the data set, or its number of classes."
            )
        wide = kind.device.type == "cpu" and 4 * kind.size * kind.inputs >= WIDE
        self._features = (_Apart if wide else _Pooled)(kind, fits)
        self._shares = sent(torch.from_numpy(shares[:, :, None]), kind.device)
        self._filled = shares > 0

    def shuffled(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """An epoch's steps: features, labels, labels one-hot and shares; see `Stack.look`."""
        kind, lanes = self._kind, len(self._counts)
        order = np.full((lanes, self._rows), self._rows)
        for lane, (count, shuffle) in enumerate(zip(self._counts, self._shuffles, strict=True)):
            order[lane, self._places[lane]] = torch.randperm(count, generator=shuffle).numpy()
        labels = sent(torch.from_numpy(np.take_along_axis(self._labels, order, 1)), kind.device)
        labels = labels.unsqueeze(2)
        hot = torch.zeros(lanes, self._rows, padded(kind.classes), device=kind.device)
        hot.scatter_(2, labels, 1.0)
        for (start, end), features in zip(kind.edges, self._features.steps(order), strict=True):
            step = slice(None), slice(start, end)
            yield features, labels[step], hot[step], self._shares[step]

    def losses(self, of_labels: Array) -> list[tuple[float, ...]]:
        """Mean loss of each epoch, from log probabilities (epochs, lanes, rows)."""
        sums = np.where(self._filled, of_labels, 0.0).sum(2, dtype=np.float64)
        means = 0.0 - sums.T / np.array(self._counts)[:, None]
        return [tuple(epochs) for epochs in means.tolist()]


@final
class _Pooled:
    """Features of all fits in one tensor: a step takes its own by one call."""

    def __init__(self, kind: Kind, fits: Sequence[Fit]) -> None:
        self._kind, self._lanes, self._rows = kind, len(fits), kind.edges[-1][1] + 1
        shape, here = (self._lanes, self._rows, _columns(kind)), kind.device.type == "cpu"
        # On a GPU from copies that are there; on a CPU numpy's calls are the cheaper ones.
        features: Any = (
            np.zeros(shape, np.float32) if here else torch.zeros(shape, device=kind.device)
        )
        for lane, fit in enumerate(fits):
            own = fit.features if here else on_device(fit.features, kind.device)
            features[lane, : len(own), : kind.inputs] = own
        self._features = (torch.from_numpy(features) if here else features).flatten(0, 1)

    def steps(self, order: Array) -> Iterator[Tensor]:
        """Of each step (lanes, rows, columns)."""
        order = order + np.arange(self._lanes)[:, None] * self._rows
        taken = sent(torch.from_numpy(order), self._kind.device)
        for start, end in self._kind.edges:
            rows = taken[:, start:end].reshape(-1)
            yield self._features.index_select(0, rows).view(self._lanes, end - start, -1)


@final
class _Apart:
    """Features of each fit where they are: where a step has many, to copy them twice costs more
    than a call a fit. Each step is given in the place of one before it."""

    def __init__(self, kind: Kind, fits: Sequence[Fit]) -> None:
        self._kind, columns = kind, _columns(kind)
        self._own = [on_device(fit.features, kind.device) for fit in fits]
        self._room = {
            width: torch.zeros(len(fits), width, columns)
            for width in {end - start for start, end in kind.edges}
        }

    def steps(self, order: Array) -> Iterator[Tensor]:
        """Of each step (lanes, rows, columns). What empty rows hold weighs nothing."""
        kind, rows = self._kind, torch.from_numpy(order)
        for step, (start, end) in enumerate(kind.edges):
            room = self._room[end - start]
            for lane, own in enumerate(self._own):
                count = min(len(own) - step * kind.size, kind.size)
                taken, place = rows[lane, start : start + count], room[lane, :count, : kind.inputs]
                if place.is_contiguous():
                    torch.index_select(own, 0, taken, out=place)
                else:
                    place.copy_(own.index_select(0, taken))
            yield room


def _columns(kind: Kind) -> int:
    """How many features have a place in a batch, with those that are only padding."""
    return padded(kind.inputs) if kind.way == "bmm" else kind.inputs
