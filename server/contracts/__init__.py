"""Contracts: what firms may let each other have. One file each; `Contract` is the interface."""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

from parties.exchange import FedpactError, Terms
from parties.exchange.masks import FEWEST_MASKED


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
        price = float(self.price)
        return Terms(self.name, self.models, self.predictions, crossings, price, self.secure)

    @property
    def price(self) -> float:
        """What the second firm (by name) pays the first; nothing where nothing is shared."""
        return 0.0

    @property
    def secure(self) -> bool:
        """Models are added up under masks, so that nobody sees a single one."""
        return False

    @property
    def fewest(self) -> int:
        """Firms without which there is no deal."""
        return FEWEST_MASKED if self.secure else 2


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


@dataclass(frozen=True)
class SharingModels(Sharing, ABC):
    """A contract under which models are shared.

    Args:
        secure: the operator gets the sum of the models only (`parties.masking`); it takes three
            firms, and a strategy that needs no more than their mean.
    """

    secure: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.secure, bool):
            raise FedpactError(
                f"contract.{self.name}.secure is {self.secure!r}; legal are true and false."
            )
