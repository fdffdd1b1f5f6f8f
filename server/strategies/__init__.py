"""Aggregation rules: what becomes of models that cross, one file each."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np

from parties.exchange import Array, FedpactError, Weights


@final
@dataclass(frozen=True)
class State:
    """What the operator keeps from one round to the next. It is all that a resumed run needs.

    Args:
        turn: rounds combined so far.
        start: the model that firms train from in the next round (None: their common first draw).
        published: the model that firms may adopt (None before the first round).
        memory: what a rule remembers: name -> tensor name -> array.
    """

    turn: int = 0
    start: Weights | None = None
    published: Weights | None = None
    memory: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy(ABC):
    """How the operator treats the models that a contract lets cross.

    Args:
        rounds: how often models cross.
        local_epochs: passes over its data a firm makes in a round, from the published model
            (0: its own model, trained alone for its own number of epochs).
    """

    rounds: int = 1
    local_epochs: int = 0

    fewest: ClassVar[int] = 2
    """Firms without which a round comes to nothing."""

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("local_epochs", self.least_epochs)):
            self._whole(name, least)

    @property
    @abstractmethod
    def combines(self) -> bool:
        """One common model is published (the firms' models must have the same shapes)."""

    @property
    def least_epochs(self) -> int:
        """Fewest local epochs that make sense."""
        return 1 if self.combines else 0

    def trainers(self, firms: Sequence[str]) -> tuple[str, ...]:
        """The firms, of those that can be reached, that train for the others."""
        return tuple(firms)

    @property
    def linear(self) -> bool:
        """Their mean, weighted by examples, is all that it uses of the firms' models."""
        return False

    @property
    def wants_card(self) -> bool:
        """Firms send the profile card of their training data with their weights."""
        return False

    @property
    def proximal(self) -> float:
        """mu of the penalty (mu/2) ||w - w_start||^2 that firms add to their loss (FedProx)."""
        return 0.0

    @property
    def wants_precision(self) -> bool:
        """Firms send the diagonal Fisher information of their model with its weights."""
        return False

    def check(self, firms: int) -> None:
        """Raises a FedpactError where this rule cannot work with so few firms."""
        return

    def check_names(self, firms: Sequence[str]) -> None:
        """Raises a FedpactError where a firm that this rule names is not one of the cast."""
        return

    @abstractmethod
    def combine(self, updates: Mapping[str, Weights], state: State) -> State:
        """What is known after a round. Without any update nothing changes but the turn.

        Args:
            updates: accepted weights by firm name; the order must not matter.
            state: what was known before it.
        """

    def _whole(self, name: str, least: int) -> None:
        """Raises a FedpactError where a field is no whole number >= least."""
        value = getattr(self, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        self._legal(name, whole and value >= least, f"a whole number >= {least}")

    def _number(self, name: str, low: float, high: float = math.inf, closed: bool = False) -> None:
        """Raises a FedpactError where a field is not in (low, high), or in [low, high)."""
        value = getattr(self, name)
        holds = isinstance(value, int | float) and not isinstance(value, bool)
        if holds:
            above = value >= low if closed else value > low
            holds = math.isfinite(value) and above and value < high
        words = f"a number {'>=' if closed else '>'} {low:g}"
        self._legal(name, holds, words + (f" and < {high:g}" if high < math.inf else ""))

    def _legal(self, name: str, holds: bool, legal: str) -> None:
        if not holds:
            value = getattr(self, name)
            raise FedpactError(f"strategy.{name} is {value!r}; legal is {legal}.")


def average(updates: Mapping[str, Weights]) -> Weights:
    """w = sum_k n_k w_k / sum_k n_k, of at least one update (arXiv 1602.05629, Algorithm 1).

    Sums run in float64 in the order of the firms' names, so the result does not depend on which
    reply came first. Buffers (BatchNorm statistics) are averaged too; whole numbers stay whole.
    """
    names = sorted(updates)
    total = sum(updates[name].examples for name in names)
    averaged = {}
    for key, first in updates[names[0]].arrays.items():
        # Numbers with fractions are not cut off because some firm sent whole ones.
        sent = [updates[name].arrays[key] for name in names]
        like = next((array for array in sent if array.dtype.kind == "f"), first)
        mean, term = np.zeros(first.shape), np.empty(first.shape)
        for name, array in zip(names, sent, strict=True):
            np.multiply(array, updates[name].examples / total, out=term, dtype=np.float64)
            mean += term
        averaged[key] = as_type(mean, like)
    return Weights(averaged, total)


def as_type(value: Array, like: Array) -> Array:
    """A float64 result in the type of the tensor that it replaces."""
    rounded = np.rint(value) if like.dtype.kind in "iu" else value
    return np.asarray(rounded).astype(like.dtype)  # rint makes a scalar of a 0-d array
