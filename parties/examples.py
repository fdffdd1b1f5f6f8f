"""The examples of a batch of trainings, side by side, in another order every epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from parties.exchange import Array, FedpactError
from parties.fitting import Fit
from parties.kinds import Kind
from parties.resident import on_device, sent
from parties.stacks import padded

WIDE = 2**14  # bytes of a step of a fit: from here on a call costs less than another copy


@final
class Examples:
    """The examples of a batch of fits, in another order every epoch.

    Args:
        kind: what the fits share; lanes: how many there are room for. `begin` fills it.
    """

    def __init__(self, kind: Kind, lanes: int) -> None:
        self._kind, self._rows, self._lanes = kind, kind.edges[-1][1], lanes
        self._widths = [end - start for start, end in kind.edges]
        wide = kind.device.type == "cpu" and 4 * kind.size * kind.inputs >= WIDE
        self._features: Features = (Apart if wide else Pooled)(kind, lanes)
        self._known = dict[int, tuple[Array, Array]]()  # what `_laid` said of a number of examples

    def _laid(self, count: int) -> tuple[Array, Array]:
        """Where so many examples lie (count,), and the share of each row (rows,) in its loss."""
        if count not in self._known:
            kind, places = self._kind, self._kind.rows(count)
            shares, full = np.zeros(self._rows, np.float32), (kind.steps - 1) * kind.size
            shares[places[:full]], shares[places[full:]] = 1 / kind.size, 1 / (count - full)
            self._known[count] = places, shares
        return self._known[count]

    def begin(self, fits: Sequence[Fit]) -> None:
        """Let the examples be those of these fits, one a lane."""
        kind = self._kind
        self._counts = [len(fit.targets) for fit in fits]
        self._shuffles = [torch.Generator().manual_seed(fit.shuffle) for fit in fits]
        # One row more than there can be, which stays empty.
        self._labels = np.zeros((self._lanes, self._rows + 1), np.int64)
        for lane, fit in enumerate(fits):
            self._labels[lane, : len(fit.targets)] = fit.targets
        low, high = self._labels.min(), self._labels.max()
        if low < 0 or high >= kind.classes:
            raise FedpactError(
                f"targets go from {low} to {high}; legal are classes from 0 to "
                f"{kind.classes - 1}. Mend the data set, or its number of classes."
            )
        self._features.begin(fits)
        shares = np.stack([self._laid(count)[1] for count in self._counts])
        self._shares = sent(torch.from_numpy(shares), kind.device).unsqueeze(2)
        self._filled = shares > 0

    def shuffled(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """An epoch's steps: features, labels, labels one-hot and shares; see `Stack.step`."""
        kind, order = self._kind, np.full((self._lanes, self._rows), self._rows)
        for lane, (count, shuffle) in enumerate(zip(self._counts, self._shuffles, strict=True)):
            order[lane, self._laid(count)[0]] = torch.randperm(count, generator=shuffle).numpy()
        labels = torch.from_numpy(self._labels).gather(1, torch.from_numpy(order))
        labels = sent(labels, kind.device).unsqueeze(2)
        hot = torch.zeros(self._lanes, self._rows, padded(kind.classes), device=kind.device)
        hot.scatter_(2, labels, 1.0)
        others = (torch.split(one, self._widths, 1) for one in (labels, hot, self._shares))
        yield from zip(self._features.steps(order), *others, strict=True)

    def losses(self, of_labels: Array) -> list[tuple[float, ...]]:
        """Mean loss of each epoch, from log probabilities (epochs, lanes, rows)."""
        sums = np.where(self._filled, of_labels, 0.0).sum(2, dtype=np.float64)
        means = 0.0 - sums.T / np.array(self._counts)[:, None]
        return [tuple(epochs) for epochs in means.tolist()]


class Features(ABC):
    """Room for the features of so many fits of a kind."""

    def __init__(self, kind: Kind, lanes: int) -> None:
        self._kind, self._lanes = kind, lanes
        # In a batch with those that are only padding.
        self._columns = padded(kind.inputs) if kind.way == "bmm" else kind.inputs

    @abstractmethod
    def begin(self, fits: Sequence[Fit]) -> None:
        """Let them be those of these fits, one a lane."""

    @abstractmethod
    def steps(self, order: Array) -> Iterator[Tensor]:
        """Of each step (lanes, rows, columns), from an order (lanes, rows) in which empty rows have
        the number after the last."""


@final
class Pooled(Features):
    """Features of all fits in one tensor: a step takes its own by one call."""

    def __init__(self, kind: Kind, lanes: int) -> None:
        super().__init__(kind, lanes)
        # The last row stays empty. What longer fits of before leave behind no order names.
        self._stride = kind.edges[-1][1] + 1
        self._pool = torch.zeros(lanes, self._stride, self._columns, device=kind.device)

    def begin(self, fits: Sequence[Fit]) -> None:
        # On a GPU from copies that are there; on a CPU numpy's calls are the cheaper ones.
        here = self._kind.device.type == "cpu"
        pool: Any = self._pool.numpy() if here else self._pool
        for lane, fit in enumerate(fits):
            own = fit.features if here else on_device(fit.features, self._kind.device)
            pool[lane, : len(own), : self._kind.inputs] = own

    def steps(self, order: Array) -> Iterator[Tensor]:
        order = order + np.arange(self._lanes)[:, None] * self._stride
        taken, pool = sent(torch.from_numpy(order), self._kind.device), self._pool.flatten(0, 1)
        for start, end in self._kind.edges:
            rows = taken[:, start:end].reshape(-1)
            yield pool.index_select(0, rows).view(self._lanes, end - start, -1)


@final
class Apart(Features):
    """Features of each fit where they are: where a step has many, to copy them twice costs more
    than a call a fit. Each step is given in the place of one before it."""

    def __init__(self, kind: Kind, lanes: int) -> None:
        super().__init__(kind, lanes)
        self._widths = [end - start for start, end in kind.edges]
        self._rooms = {w: torch.zeros(lanes, w, self._columns) for w in set(self._widths)}
        self._places = dict[tuple[int, int, int], tuple[Tensor, Tensor]]()

    def _place(self, lane: int, width: int, count: int) -> tuple[Tensor, Tensor]:
        """Where so many examples of a step go, and the empty rows after them."""
        key = lane, width, count
        if key not in self._places:
            room = self._rooms[width][lane]
            self._places[key] = room[:count, : self._kind.inputs], room[count:]
        return self._places[key]

    def begin(self, fits: Sequence[Fit]) -> None:
        self._own = [on_device(fit.features, self._kind.device) for fit in fits]
        self._counts = [len(fit.features) for fit in fits]

    def steps(self, order: Array) -> Iterator[Tensor]:
        size, parts = self._kind.size, torch.split(torch.from_numpy(order), self._widths, 1)
        for step, (width, rows) in enumerate(zip(self._widths, parts, strict=True)):
            for lane, (own, taken) in enumerate(zip(self._own, rows.unbind(), strict=True)):
                count = min(self._counts[lane] - step * size, size)
                place, rest = self._place(lane, width, count)
                if count < width:
                    taken = taken[:count]
                    rest.zero_()  # what is not a number would not be, times a share of zero
                if place.is_contiguous():
                    torch.index_select(own, 0, taken, out=place)
                else:
                    place.copy_(own.index_select(0, taken))
            yield self._rooms[width]
