"""Markets: what an action earns when a rival may take the same client."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from parties.exchange import Array, FedpactError

PAYERS = ("firm", "consortium")


class Market(ABC):
    """Rules under which firms earn.

    Attributes:
        clients: "contested": two firms compete for the same ones (a game); "common": all serve the
            same ones, each for itself; "own": each serves its own cases.
        unit: what one payoff is measured in.
    """

    clients: ClassVar[str]
    unit: ClassVar[str]

    @property
    def contested(self) -> bool:
        """Firms compete for the same clients."""
        return self.clients == "contested"


@final
@dataclass(frozen=True)
class Contest(Market):
    """Two firms act on the same clients (arXiv 2403.17515, Section 2).

    A firm that takes action a on a client of class t earns R_a if a = t, else -C_a; both keep only
    the share gamma of it when they act alike. R0 = C0 = 0 is the significant action (give the loan
    or not), R0 = R1 = 1 with C0 = C1 = 0 is matching.

    Args:
        R0, R1: reward of action 0 or 1 when right, in money a client.
        C0, C1: cost of action 0 or 1 when wrong.
        gamma: share kept when both act alike; 1/2 splits the client, 1 means no rivalry.
    """

    R0: float
    R1: float
    C0: float
    C1: float
    gamma: float = 0.5

    clients = "contested"
    unit = "money a client"

    def __post_init__(self) -> None:
        for name in ("R0", "R1", "C0", "C1", "gamma"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            legal = number and np.isfinite(value) and value >= 0
            if not legal or (name == "gamma" and value > 1):
                top = "from 0 to 1" if name == "gamma" else ">= 0"
                raise FedpactError(
                    f"market.{name} is {value!r}; legal is a number {top}. "
                    f"Set it with market.{name}=..."
                )
        if self.R0 + self.C1 + self.R1 + self.C0 == 0:
            raise FedpactError(
                "market.R0, R1, C0 and C1 are all 0, so nothing is at stake. Set market.R1=1."
            )

    @property
    def payoff(self) -> Array:
        """e(action, class), shape (2, 2)."""
        return np.array([[self.R0, -self.C0], [-self.C1, self.R1]], dtype=np.float64)

    @property
    def threshold(self) -> float:
        """Action 1 is worth more than action 0 above this probability of class 1.

        It is C/(R+C) for the significant action.

        >>> Contest(R0=0, R1=1, C0=0, C1=3).threshold
        0.75
        """
        return (self.R0 + self.C1) / (self.R0 + self.R1 + self.C0 + self.C1)

    def settle(self, actions: tuple[Array, Array], labels: Array) -> tuple[Array, Array]:
        """Both firms' payoffs (n,), for their actions (n,) on clients of true class (n,)."""
        one, two = actions
        share = self.shares(actions)
        return share * self.payoff[one, labels], share * self.payoff[two, labels]

    def shares(self, actions: tuple[Array, Array]) -> Array:
        """How much of each client's worth comes to a firm, (n,), for both firms' actions (n,)."""
        one, two = actions
        share: Array = np.where(one == two, self.gamma, 1.0)
        return share


def after_price(earned: Array, price: float) -> Array:
    """Payoffs (2, ...) after the second firm has paid the first a price, on each of them.

    >>> after_price(np.array([[1.0, 0.0], [1.0, 2.0]]), 0.25)
    array([[1.25, 0.25],
           [0.75, 1.75]])
    """
    if price == 0:
        return earned  # to the bit: adding zero would turn -0.0 into 0.0
    paid: Array = np.stack([earned[0] + price, earned[1] - price])
    return paid


@dataclass(frozen=True)
class Unrivalled(Market, ABC):
    """No firm takes anything from another; what training takes is paid.

    Args:
        compute_price: what a thousand passes over one training example cost, a case, in the
            payoff's unit (the cost of training, spread over all cases that the model will serve).
        paid_by: "firm": each pays for what it trains; "consortium": what the contract makes firms
            train is shared equally by all that get the model, also by those who trained nothing.
        excludes_riders: firms that train on nothing get no model.
    """

    compute_price: float = 0.0
    paid_by: str = "firm"
    excludes_riders: bool = False

    def __post_init__(self) -> None:
        price = self.compute_price
        number = isinstance(price, int | float) and not isinstance(price, bool)
        if not number or not np.isfinite(price) or price < 0:
            raise FedpactError(
                f"market.compute_price is {price!r}; legal is a number >= 0, in {self.unit}, for a "
                "thousand passes over one example."
            )
        if self.paid_by not in PAYERS:
            raise FedpactError(
                f"market.paid_by is {self.paid_by!r}; legal are {', '.join(PAYERS)}."
            )
        if not isinstance(self.excludes_riders, bool):
            raise FedpactError(
                f"market.excludes_riders is {self.excludes_riders!r}; legal are true and false."
            )

    def price(self, passes: int) -> float:
        """What so many passes over one example cost, a case, in the payoff's unit."""
        return self.compute_price * passes / 1000

    def costs(self, passes: Mapping[str, int], sharing: Sequence[str]) -> dict[str, float]:
        """Firm -> what training under a contract costs it.

        Args:
            passes: firm -> passes over one example that it trained.
            sharing: firms that get the common model; nobody where none is shared.
        """
        if self.paid_by == "consortium" and sharing:
            share = self.price(sum(passes.get(name, 0) for name in sharing)) / len(sharing)
            return dict.fromkeys(sharing, share)
        return {name: self.price(count) for name, count in passes.items()} if sharing else {}


@final
@dataclass(frozen=True)
class OwnCases(Unrivalled):
    """Every firm serves its own cases, and earns minus the log loss on them (nats)."""

    clients = "own"
    unit = "nats a case (minus log loss)"


@final
@dataclass(frozen=True)
class CommonClients(Unrivalled):
    """All firms serve the same clients, each for itself: a right answer earns 1, a wrong one 0.

    What firms can share here are models, predictions for the clients, or both.
    """

    clients = "common"
    unit = "right answers a client"
