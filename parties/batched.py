"""Many trainings as one: the models of all firms side by side, one product for all of them.

What a small model costs is the call of every operation, not its arithmetic; firms, seeds and points
of a sweep that share an architecture can share the calls. Each comes to the same bits whatever it
is batched with: what is batched, and how it is padded, is decided by a fit alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
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


def fit_together(
    fits: Sequence[Fit], room_mb: float | None = None, way: str | None = None
) -> list[Fitted]:
    """Train all of them, those of a kind as one batch, the others one by one.

    A fit's outcome does not depend on the others, to the bit; it is that of `fit_one` to rounding.

    Args:
        room_mb: what a batch's models and the activations of a step may take; None: what a CPU
            caches, or a share of a GPU's memory. Where a device has less left, batches are halved:
            to the same bits on a CPU, and to rounding on a GPU (see `Kind.fixed`).
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
            ended = _fit_in_turn(kind, [fits[place] for place in places], designs)
            found.update(zip(places, ended, strict=True))
    finally:
        torch.set_num_threads(threads)
    return [found[place] for place in range(len(fits))]


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
        fits = [*fits, *[fits[0]] * (kind.lanes - asked)]

    def each(values: Iterable[float]) -> Array:
        return np.array(list(values), np.float64)

    descent = Rates(
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

    def __init__(self, kind: Kind, fits: Sequence[Fit]) -> None:
        self._kind, self._rows, lanes = kind, kind.edges[-1][1], len(fits)
        columns = padded(kind.inputs) if kind.way == "bmm" else kind.inputs
        self._counts = [len(fit.targets) for fit in fits]
        self._shuffles = [torch.Generator().manual_seed(fit.shuffle) for fit in fits]
        # One row more than there can be, which stays empty.
        shape = lanes, self._rows + 1, columns
        here = kind.device.type == "cpu"
        # On a GPU from copies that are there; on a CPU numpy's calls are the cheaper ones.
        features: Any = (
            np.zeros(shape, np.float32) if here else torch.zeros(shape, device=kind.device)
        )
        labels = np.zeros((lanes, self._rows + 1), np.int64)
        shares = np.zeros((lanes, self._rows), np.float32)
        places = {count: kind.rows(count) for count in set(self._counts)}
        self._places = [places[count] for count in self._counts]
        full = (kind.steps - 1) * kind.size
        for lane, (fit, count) in enumerate(zip(fits, self._counts, strict=True)):
            own = fit.features if here else on_device(fit.features, kind.device)
            features[lane, :count, : kind.inputs] = own
            labels[lane, :count] = fit.targets
            shares[lane, self._places[lane][:full]] = 1 / kind.size
            shares[lane, self._places[lane][full:]] = 1 / (count - full)
        if labels.min() < 0 or labels.max() >= kind.classes:
            raise FedpactError(
                f"targets go from {labels.min()} to {labels.max()}; legal are classes from 0 to "
                f"{kind.classes - 1}. Mend the data set, or its number of classes."
            )
        self._features = (torch.from_numpy(features) if here else features).view(-1, columns)
        self._labels = sent(torch.from_numpy(labels), kind.device).view(-1)
        self._shares = sent(torch.from_numpy(shares[:, :, None]), kind.device)
        self._filled = shares > 0

    def shuffled(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, labels, labels one-hot and shares (lanes, rows, ...); see `Stack.look`."""
        lanes = len(self._counts)
        order = np.full((lanes, self._rows), self._rows)
        for lane, (count, shuffle) in enumerate(zip(self._counts, self._shuffles, strict=True)):
            order[lane, self._places[lane]] = torch.randperm(count, generator=shuffle).numpy()
        order += np.arange(lanes)[:, None] * (self._rows + 1)
        taken = sent(torch.from_numpy(order.reshape(-1)), self._features.device)
        features = self._features[taken].view(lanes, self._rows, -1)
        labels = self._labels[taken].view(lanes, self._rows, 1)
        hot = features.new_zeros(lanes, self._rows, padded(self._kind.classes))
        return features, labels, hot.scatter_(2, labels, 1.0), self._shares

    def losses(self, of_labels: Array) -> list[tuple[float, ...]]:
        """Mean loss of each epoch, from log probabilities (epochs, lanes, rows)."""
        sums = np.where(self._filled, of_labels, 0.0).sum(2, dtype=np.float64)
        means = 0.0 - sums.T / np.array(self._counts)[:, None]
        return [tuple(epochs) for epochs in means.tolist()]
