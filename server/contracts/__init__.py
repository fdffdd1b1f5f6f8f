"""Contracts: what firms may let each other have. One file each; `Contract` is the interface."""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

from parties.exchange import FedpactError, Terms


class Contract(ABC):
    """A sharing contract of arXiv 2403.17515, Section 2: two switches.

    Attributes:
        name: its name in every file and message.
        models: trained models cross before the market opens; the firms learn the coupling.
        predictions: each firm sees the other's prediction for the client before it acts.
    """

    name: ClassVar[str]
    models: ClassVar[bool]
    predictions: ClassVar[bool]

    def terms(self, rounds: int) -> Terms:
        """What passes, where models (if they cross at all) cross in `rounds` rounds."""
        crossings = rounds if self.models else 0
        return Terms(self.name, self.models, self.predictions, crossings, float(self.price))

    @property
    def price(self) -> float:
        """What the second firm (by name) pays the first; nothing where nothing is shared."""
        return 0.0


@dataclass(frozen=True)
class Sharing(Contract, ABC):
    """A contract under which something is shared, and may be paid for.

    Args:
        price: what the second firm (by name) pays the first when the contract is held, in the
            market's unit a client; below zero the first pays the second.
    """

    price: float = 0.0

    def __post_init__(self) -> None:
        number = isinstance(self.price, int | float) and not isinstance(self.price, bool)
        if not number or not math.isfinite(self.price):
            raise FedpactError(
                f"contract.{self.name}.price is {self.price!r}; legal is a finite number: what "
                "the second firm by name pays the first a client, below zero the other way. Set "
                f"it with contract.{self.name}.price=..."
            )
