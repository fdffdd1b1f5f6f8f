"""Aggregation rules: what becomes of models that cross, one file each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from parties.exchange import FedpactError, Weights


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

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("local_epochs", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise FedpactError(
                    f"strategy.{name} is {value!r}; legal is a whole number >= {least}."
                )

    @property
    @abstractmethod
    def combines(self) -> bool:
        """One common model is published (the firms' models must have the same shapes)."""

    @abstractmethod
    def combine(self, updates: Mapping[str, Weights], published: Weights | None) -> Weights | None:
        """The model to publish next, from this round's updates and the last published one.

        Args:
            updates: accepted weights by firm name; the order must not matter.
            published: the model the updates started from (None in the first round).
        """
