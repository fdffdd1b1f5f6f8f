"""The examples of a batch of trainings, side by side, in another order every epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from parties.exchange import Array, FedpactError
from parties.fitting import Fit
from parties.kinds import Kind, Layout, layout_of
from parties.resident import on_device, sent
from parties.stacks import padded

WIDE = 2**14  # bytes of a step of a fit: from here on a call costs less than another copy


@final
@dataclass(frozen=True)
class Part:
    """A step of an epoch, of some of the fits.

    Args:
        step: which, from 0.
        lanes: of which fits; rows: where its examples lie; both from which to which.
    """

    step: int
    lanes: slice
    rows: slice


@final
class Examples:
    """The examples of a batch of fits, in another order every epoch.

    Args:
        kind: what the fits share; lanes: how many there are room for. `begin` fills it.
    """

    def __init__(self, kind: Kind, lanes: int) -> None:
        self._kind, self._lanes = kind, lanes
        wide = kind.device.type == "cpu" and 4 * kind.size * kind.inputs >= WIDE
        self._features: Features = (Apart if wide else Pooled)(kind, lanes)
        # What `_laid` said of a number of examples: in a kind it has one layout.
        self._known = dict[int, tuple[Array, Array]]()
        self.rows = 0

    def _laid(self, count: int, layout: Layout) -> tuple[Array, Array]:
        """Where so many examples lie (count,), and the share of each row of theirs in its loss."""
        if count not in self._known:
            places, full = layout.places(count), (layout.steps - 1) * layout.size
            shares = np.zeros(layout.rows, np.float32)
            shares[places[:full]], shares[places[full:]] = 1 / layout.size, 1 / (count - full)
            self._known[count] = places, shares
        return self._known[count]

    def begin(self, fits: Sequence[Fit]) -> None:
        """Let the examples be those of these fits, one a lane; those with most steps come first,
        and of them those with most rows in the last."""
        kind = self._kind
        self._counts = [len(fit.targets) for fit in fits]
        self._layouts = [layout_of(fit) for fit in fits]
        self._shuffles = [torch.Generator().manual_seed(fit.shuffle) for fit in fits]
        self.rows = self._layouts[0].rows
        self._parts = list(_parts(self._layouts))
        # One row more than there can be, which stays empty.
        self._labels = np.zeros((self._lanes, self.rows + 1), np.int64)
        for lane, fit in enumerate(fits):
            self._labels[lane, : len(fit.targets)] = fit.targets
        low, high = self._labels.min(), self._labels.max()
        if low < 0 or high >= kind.classes:
            raise FedpactError(
                f"targets go from {low} to {high}; legal are classes from 0 to "
                f"{kind.classes - 1}. Mend the data set, or its number of classes."
            )
        self._features.begin(fits, self.rows)
        shares = np.zeros((self._lanes, self.rows), np.float32)
        for lane, (count, layout) in enumerate(zip(self._counts, self._layouts, strict=True)):
            shares[lane, : layout.rows] = self._laid(count, layout)[1]
        self._shares = sent(torch.from_numpy(shares), kind.device).unsqueeze(2)
        self._filled = shares > 0

    def shuffled(self) -> Iterator[tuple[Part, tuple[Tensor, Tensor, Tensor, Tensor]]]:
        """An epoch's steps: features, labels, labels one-hot and shares; see `Stack.step`."""
        kind, order = self._kind, np.full((self._lanes, self.rows), self.rows)
        for lane, (count, shuffle) in enumerate(zip(self._counts, self._shuffles, strict=True)):
            places, _ = self._laid(count, self._layouts[lane])
            order[lane, places] = torch.randperm(count, generator=shuffle).numpy()
        labels = torch.from_numpy(self._labels).gather(1, torch.from_numpy(order))
        labels = sent(labels, kind.device).unsqueeze(2)
        hot = torch.zeros(self._lanes, self.rows, padded(kind.classes), device=kind.device)
        hot.scatter_(2, labels, 1.0)
        for part, features in zip(
            self._parts, self._features.steps(order, self._parts), strict=True
        ):
            place = part.lanes, part.rows
            yield part, (features, labels[place], hot[place], self._shares[place])

    def losses(self, of_labels: Array) -> list[tuple[float, ...]]:
        """Mean loss of each epoch, from log probabilities (epochs, lanes, rows)."""
        told, found = np.where(self._filled, of_labels, 0.0), list[tuple[float, ...]]()
        # A sum's last bits hang on how many there are: those of a fit's own rows, and no other's.
        for layout, same in groupby(self._layouts):
            begin, rows = len(found), layout.rows
            lanes = slice(begin, begin + len(list(same)))
            sums = told[:, lanes, :rows].sum(2, dtype=np.float64)
            means = 0.0 - sums.T / np.array(self._counts[lanes])[:, None]
            found += [tuple(epochs) for epochs in means.tolist()]
        return found


def _parts(layouts: Sequence[Layout]) -> Iterator[Part]:
    """The steps of an epoch: neighbours that have as many rows take it together."""
    for step in range(layouts[0].steps):
        begin, first = step * layouts[0].wide, 0
        for width, same in groupby([layout.width(step) for layout in layouts]):
            end = first + len(list(same))
            if width:
                yield Part(step, slice(first, end), slice(begin, begin + width))
            first = end


class Features(ABC):
    """Room for the features of so many fits of a kind."""

    def __init__(self, kind: Kind, lanes: int) -> None:
        self._kind, self._lanes = kind, lanes
        # In a batch with those that are only padding.
        self._columns = padded(kind.inputs) if kind.way == "bmm" else kind.inputs

    @abstractmethod
    def begin(self, fits: Sequence[Fit], rows: int) -> None:
        """Let them be those of these fits, one a lane, of at most so many rows."""

    @abstractmethod
    def steps(self, order: Array, parts: Sequence[Part]) -> Iterator[Tensor]:
        """Of each part (its lanes, its rows, columns), from an order (lanes, rows) in which empty
        rows have the number after the last."""


@final
class Pooled(Features):
    """Features of all fits in one tensor: a step takes its own by one call."""

    def __init__(self, kind: Kind, lanes: int) -> None:
        super().__init__(kind, lanes)
        self._pool = torch.zeros(lanes, 1, self._columns, device=kind.device)

    def begin(self, fits: Sequence[Fit], rows: int) -> None:
        # The row after the last stays empty. What longer fits left behind no order names.
        if self._pool.shape[1] <= rows:
            size = (self._lanes, rows + 1, self._columns)
            self._pool = torch.zeros(size, device=self._kind.device)
        else:
            self._pool[:, rows].zero_()
        # On a GPU from copies that are there; on a CPU numpy's calls are the cheaper ones.
        here = self._kind.device.type == "cpu"
        pool: Any = self._pool.numpy() if here else self._pool
        for lane, fit in enumerate(fits):
            own = fit.features if here else on_device(fit.features, self._kind.device)
            pool[lane, : len(own), : self._kind.inputs] = own

    def steps(self, order: Array, parts: Sequence[Part]) -> Iterator[Tensor]:
        order = order + np.arange(self._lanes)[:, None] * self._pool.shape[1]
        taken, pool = sent(torch.from_numpy(order), self._kind.device), self._pool.flatten(0, 1)
        for part in parts:
            rows = taken[part.lanes, part.rows]
            yield pool.index_select(0, rows.reshape(-1)).view(*rows.shape, -1)


@final
class Apart(Features):
    """Features of each fit where they are: where a step has many, to copy them twice costs more
    than a call a fit. Each step is given in the place of one before it."""

    def __init__(self, kind: Kind, lanes: int) -> None:
        super().__init__(kind, lanes)
        self._room = torch.zeros(lanes * padded(kind.size), self._columns)
        self._places = dict[tuple[int, int, int], tuple[Tensor, Tensor]]()

    def _place(self, begin: int, width: int, count: int) -> tuple[Tensor, Tensor]:
        """Where so many examples of a step go, and the empty rows after them."""
        key = begin, width, count
        if key not in self._places:
            room = self._room[begin : begin + width]
            self._places[key] = room[:count, : self._kind.inputs], room[count:]
        return self._places[key]

    def begin(self, fits: Sequence[Fit], rows: int) -> None:
        self._own = [on_device(fit.features, self._kind.device) for fit in fits]
        self._counts = [len(fit.features) for fit in fits]

    def steps(self, order: Array, parts: Sequence[Part]) -> Iterator[Tensor]:
        size, ordered = self._kind.size, torch.from_numpy(order)
        for part in parts:
            rows = ordered[part.lanes, part.rows]
            lanes, width = rows.shape
            owners = zip(self._own[part.lanes], self._counts[part.lanes], strict=True)
            for lane, ((own, whole), taken) in enumerate(zip(owners, rows.unbind(), strict=True)):
                count = min(whole - part.step * size, size)
                place, rest = self._place(lane * width, width, count)
                if count < width:
                    taken = taken[:count]
                    rest.zero_()  # what is not a number would not be, times a share of zero
                if place.is_contiguous():
                    torch.index_select(own, 0, taken, out=place)
                else:
                    place.copy_(own.index_select(0, taken))
            yield self._room[: lanes * width].view(lanes, width, -1)
