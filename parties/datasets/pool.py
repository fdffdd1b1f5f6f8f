"""One firm's part of a common pool of images: who holds what, and how it looks to whom."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import final

import numpy as np

from parties.datasets import Cases, Dataset, Examples, Split
from parties.datasets.kept import SPLITS
from parties.exchange import Array, FedpactError
from parties.partitions import Partition, divide_alike
from parties.partitions.iid import Iid
from parties.shifts import Shift
from parties.shifts.none import NoShift


@final
@dataclass(frozen=True)
class Pool:
    """Everybody's images: pixels (n, d) from 0 to `white`, labels (n,) int64. A row is an id.

    Args:
        kept: rows, ascending, whose pixels (len(kept), d) are all that is there; None: all are.
    """

    pixels: Array
    labels: Array
    white: float
    kept: Array | None = None

    def features(self, rows: Array) -> Array:
        """Pixels (len(rows), d) float32, from 0 to 1."""
        places = rows if self.kept is None else np.searchsorted(self.kept, rows)
        values: Array = self.pixels[places].astype(np.float32) / np.float32(self.white)
        return values


@dataclass(frozen=True)
class PoolPart(Dataset):
    """What firm `client` of `clients` holds of a pool.

    The held-out images are divided in the proportions of the training images, class by class: a
    firm is judged on its own mix, and the firms' held-out parts together are the whole test part.
    Firms of one study must agree on everything but `client`.

    Args:
        client: the firm, 0 to clients - 1.
        clients: firms among whom the pool is divided.
        partition: who gets which examples.
        shift: how they look to a firm.
        common: how the whole test part looks to all firms where they all serve it
            (market=common_clients); None: they do not. Held-out parts are of the same images.
    """

    client: int
    clients: int = 10
    partition: Partition = field(default_factory=Iid)
    shift: Shift = field(default_factory=NoShift)
    common: Shift | None = None

    def __post_init__(self) -> None:
        for name in ("client", "clients"):
            value = getattr(self, name)
            most = self.clients - 1 if name == "client" else 1000
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not (name == "clients") <= value <= most:
                raise FedpactError(
                    f"dataset.{name} is {value!r}; legal is a whole number from "
                    f"{int(name == 'clients')} to {most}. `clients` firms are numbered from 0."
                )

    @abstractmethod
    def pool(self) -> Pool:
        """The whole pool, read once a process."""

    @abstractmethod
    def rows(self, seed: int) -> tuple[Array, Array]:
        """Rows of the pool for training and for testing, before they are divided."""

    def split(self, seed: int) -> Split:
        group = (self._pool_name, seed)
        return SPLITS.get(group, self.client, lambda: self._part(group, seed))

    @cached_property
    def _pool_name(self) -> str:
        """Names what firms of one pool have in common; a text, whose hash is kept."""
        return f"{type(self).__module__} {replace(self, client=0)!r}"

    def _part(self, group: tuple[str, int], seed: int) -> Split:
        anyone = replace(self, client=0)
        dealt = SPLITS.get(group, "dealt", lambda: _dealt(anyone, seed))
        return Split(
            training=self._seen(dealt.training[self.client], seed),
            held_out=self._seen(dealt.held_out[self.client], seed),
            common=dealt.common,
        )

    def outcomes(self, seed: int, part: str) -> tuple[Array, Array]:
        if part != "common":
            return super().outcomes(seed, part)
        if self.common is None:
            raise FedpactError(
                "dataset.common is null: these firms have no client in common. Say how common "
                "clients look, such as +shift@parties.firm_0.dataset.common=turns, or use "
                "market=own_cases."
            )
        rows = self.rows(seed)[1]
        return rows, self.pool().labels[rows]

    def _seen(self, rows: Array, seed: int) -> Examples:
        pool = self.pool()
        features = self.shift.apply(pool.features(rows), rows, self.client, self.clients, seed)
        return Examples(rows, features, pool.labels[rows])


@final
@dataclass(frozen=True)
class _Dealt:
    """A divided pool: rows a firm."""

    training: tuple[Array, ...]
    held_out: tuple[Array, ...]
    common: Cases | None


def _dealt(anyone: PoolPart, seed: int) -> _Dealt:
    labels = anyone.pool().labels
    training, test = anyone.rows(seed)
    parts = anyone.partition.divide(labels[training], anyone.clients, seed)
    judged = divide_alike(labels[training], parts, labels[test], seed)
    for firm, (part, own) in enumerate(zip(parts, judged, strict=True)):
        if len(own) == 0:
            raise FedpactError(
                f"dataset.client={firm} has {len(part)} training examples and no held-out one: "
                f"{len(test)} are divided among {anyone.clients} firms as {len(training)} are for "
                "training, and each firm needs one or more. Raise partition.least, or hold out "
                "more."
            )
    common = None
    if anyone.common is not None:
        # The second of two firms: the first one sees things as they are.
        seen = anyone.common.apply(anyone.pool().features(test), test, 1, 2, seed)
        common = Cases(test, seen)
    return _Dealt(tuple(training[p] for p in parts), tuple(test[p] for p in judged), common)
