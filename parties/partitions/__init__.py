"""Partitions: who gets which examples of a pool. One file each; `Partition` is the interface.

A partition is a matrix: how many examples of each class each firm gets. Which ones is then dealt
from the shuffled class, so every example is given exactly once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from zlib import crc32

import numpy as np

from parties.exchange import Array, FedpactError

DRAWS = 1000


class Partition(ABC):
    """A rule that divides labelled examples among firms; `least` is the fewest one may get."""

    least: int

    def _check_least(self) -> None:
        whole = isinstance(self.least, int) and not isinstance(self.least, bool)
        if not whole or self.least < 1:
            raise FedpactError(
                f"partition.least is {self.least!r}; legal is a whole number >= 1 (the fewest "
                "examples of a firm). Set partition.least=10."
            )

    @abstractmethod
    def counts(self, available: Array, clients: int, rng: np.random.Generator) -> Array:
        """One draw: how many examples of each class each firm gets.

        Args:
            available: (classes,) examples of each class.
            clients: firms.
            rng: the source of chance.

        Returns:
            (clients, classes) whole numbers; its columns sum to `available`.
        """

    def divide(self, labels: Array, clients: int, seed: int) -> tuple[Array, ...]:
        """The indices of `labels` that each firm gets: each index exactly once, `least` or more.

        A draw that leaves a firm with fewer than `least` is drawn again, so very skewed draws are
        a little rarer than the rule alone would have them.

        Args:
            labels: (n,) classes 0, 1, ... of the pool.
            clients: firms.
            seed: decides everything.

        Returns:
            A sorted index array a firm.

        Raises:
            FedpactError: no division gives every firm `least` examples.
        """
        if clients * self.least > len(labels):
            raise FedpactError(
                f"partition.least is {self.least}, but {len(labels)} examples cannot give "
                f"{clients} firms {self.least} each; legal is at most {len(labels) // clients}. "
                "Lower partition.least or dataset.clients."
            )
        available = np.bincount(labels)
        rng = np.random.default_rng([seed, crc32(b"partition")])
        for _ in range(DRAWS):
            counts = self.counts(available, clients, rng)
            if counts.sum(axis=1).min() >= self.least:
                return deal(labels, counts, rng)
        raise FedpactError(
            f"partition is {self}, and none of {DRAWS:,} draws gave each of {clients} firms "
            f"{self.least} of the {len(labels)} examples; legal is a skew under which one may. "
            "Choose a milder skew, or lower partition.least or dataset.clients."
        )


def deal(labels: Array, counts: Array, rng: np.random.Generator) -> tuple[Array, ...]:
    """Deal out the shuffled examples of every class: counts (clients, classes) -> indices a firm.

    >>> labels = np.array([0, 1, 0, 1])
    >>> deal(labels, np.array([[2, 0], [0, 2]]), np.random.default_rng(0))
    (array([0, 2]), array([1, 3]))
    """
    hands: list[list[Array]] = [[] for _ in counts]
    for label in range(counts.shape[1]):
        shuffled = rng.permutation(np.flatnonzero(labels == label))
        for hand, part in zip(
            hands, np.split(shuffled, np.cumsum(counts[:-1, label])), strict=True
        ):
            hand.append(part)
    return tuple(np.sort(np.concatenate(hand)).astype(np.int64) for hand in hands)


def divide_alike(
    labels: Array, parts: Sequence[Array], others: Array, seed: int
) -> tuple[Array, ...]:
    """Divide other examples in the proportions of a division: each firm keeps its mix of classes.

    Of the examples of a class in `others` a firm gets the share that it has of the class in
    `labels`. Whole numbers cannot be exact: what rounding withholds from a firm in one class is
    owed to it in the next, so its total is right to about one.

    Args:
        labels: (n,) classes of the divided pool.
        parts: indices of `labels` a firm, as `Partition.divide` returns them.
        others: (m,) classes of the other examples.
        seed: decides which examples a firm gets.

    Returns:
        A sorted array of indices of `others` a firm; each index exactly once.
    """
    classes = int(max(labels.max(), others.max())) + 1
    held = np.stack([np.bincount(labels[part], minlength=classes) for part in parts])
    available = np.bincount(others, minlength=classes)
    counts = np.zeros_like(held)
    owed = np.zeros(len(parts))
    for label, total in enumerate(available):
        # A class that nobody has is for all alike.
        having = held[:, label] if held[:, label].any() else np.ones(len(parts))
        quota = total * having / having.sum()
        whole = np.floor(quota)
        owed += quota - whole
        order = np.argsort(np.where(having > 0, -owed, np.inf), kind="stable")
        more = order[: int(total - whole.sum())]
        whole[more] += 1
        owed[more] -= 1
        counts[:, label] = whole
    return deal(others, counts, np.random.default_rng([seed, crc32(b"alike")]))


def cut(shares: Array, available: Array) -> Array:
    """Shares (clients, classes), columns summing to one -> whole numbers summing to `available`.

    >>> cut(np.array([[0.5, 0.0], [0.5, 1.0]]), np.array([5, 2])).tolist()
    [[2, 0], [3, 2]]
    """
    edges = np.rint(np.cumsum(shares, axis=0) * available)
    counts: Array = np.diff(edges, axis=0, prepend=0).astype(np.int64)
    return counts


def mixed(available: Array, sizes: Array, rng: np.random.Generator) -> Array:
    """Counts (clients, classes) when firms of these sizes (clients,) draw blindly from the pool."""
    shuffled = rng.permutation(np.repeat(np.arange(len(available)), available))
    hands = np.split(shuffled, np.cumsum(sizes)[:-1])
    return np.stack([np.bincount(hand, minlength=len(available)) for hand in hands])
