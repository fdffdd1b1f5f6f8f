"""Contracts: what firms may let each other have. One file each; `Contract` is the interface."""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass, replace
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
        return Terms(self.name, self.models, self.predictions, crossings, secure=self.secure)

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

    @property
    def prediction_epsilon(self) -> float:
        """Of the noise on what firms tell of clients (`parties.privacy`); 0: none."""
        return 0.0

    @property
    def update_epsilon(self) -> float:
        """Of the noise on models that leave a firm (`parties.privacy`); 0: none."""
        return 0.0


@dataclass(frozen=True)
class Sharing(Contract, ABC):
    """A contract under which something is shared, and may be paid for.

    Args:
        price: what the second firm (by name) pays the first when the contract is held, in the
            market's unit a client; below zero the first pays the second.
        prediction_epsilon: of the randomised response that a firm tells each prediction by, one
            client's one prediction each; 0: it tells them as they are.
        update_epsilon, update_delta: what all models that a firm hands over in all rounds of one
            seed tell of whether it had any data at all, by the Gaussian mechanism; an epsilon of
            0: it hands them over as they are.
        update_clip: largest L2 norm of what a firm's model may differ by from the one it began
            with, before noise; in units of its weights.
    """

    price: float = 0.0
    prediction_epsilon: float = 0.0
    update_epsilon: float = 0.0
    update_delta: float = 1e-5
    update_clip: float = 1.0

    def terms(self, rounds: int) -> Terms:
        noised = self.update_epsilon > 0
        return replace(
            super().terms(rounds),
            price=float(self.price),
            prediction_epsilon=float(self.prediction_epsilon),
            update_epsilon=float(self.update_epsilon),
            update_delta=float(self.update_delta) if noised else 0.0,
            update_clip=float(self.update_clip) if noised else 0.0,
        )

    def __post_init__(self) -> None:
        number = isinstance(self.price, int | float) and not isinstance(self.price, bool)
        if not number or not math.isfinite(self.price):
            raise FedpactError(
                f"contract.{self.name}.price is {self.price!r}; legal is a finite number: what "
                "the second firm by name pays the first a client, below zero the other way. Set "
                f"it with contract.{self.name}.price=..."
            )
        for kind, name in (("predictions", "prediction_epsilon"), ("models", "update_epsilon")):
            epsilon, crosses = getattr(self, name), getattr(self, kind)
            if not _amount(epsilon) or (epsilon and not crosses):
                legal = "0 (no noise) and finite numbers > 0" if crosses else f"0: no {kind} cross"
                raise FedpactError(
                    f"contract.{self.name}.{name} is {epsilon!r}; legal are {legal}. The smaller, "
                    "the more private."
                )
        if not _amount(self.update_delta) or not 0 < self.update_delta < 1:
            raise FedpactError(
                f"contract.{self.name}.update_delta is {self.update_delta!r}; legal is a number "
                "between 0 and 1, a small one such as 1e-5."
            )
        if not _amount(self.update_clip) or not self.update_clip:
            raise FedpactError(
                f"contract.{self.name}.update_clip is {self.update_clip!r}; legal is a finite "
                "number > 0, about the norm of what a firm learns in a round."
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


def _amount(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0  # type: ignore[arg-type,operator]
