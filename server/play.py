"""Play: how a firm acts on what a contract lets it know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError
from server.game.fast import play_tables
from server.game.solve import myopic, payoffs, solve
from server.game.table import CouplingPrior
from server.game.told import myopic_told, play_told, solve_told, told_table
from server.market import Contest

MOST_BINS = 8


@dataclass(frozen=True)
class Play(ABC):
    """A way to choose actions for signals.

    Args:
        signal_bins: 0 makes a signal the firm's own decision (its probability against the market's
            threshold, as in the paper); k >= 2 makes it one of k equally filled bins.
        prior: what firms believe of the coupling until models are shared.
    """

    signal_bins: int = 0
    prior: CouplingPrior = field(default_factory=CouplingPrior)

    def __post_init__(self) -> None:
        bins = self.signal_bins
        whole = isinstance(bins, int) and not isinstance(bins, bool)
        if not whole or not (bins == 0 or 2 <= bins <= MOST_BINS):
            raise FedpactError(
                f"play.signal_bins is {bins!r}; legal are 0 (the firm's own decision) and 2 to "
                f"{MOST_BINS}. More bins need more validation clients than a table can hold."
            )

    def edges(self, probs: Array, market: Contest) -> Array:
        """Bounds (k-1,) of the signals of a firm with probabilities (n,) of class 1."""
        if self.signal_bins == 0:
            return np.array([market.threshold])
        inner = np.arange(1, self.signal_bins) / self.signal_bins
        edges = np.unique(np.quantile(probs, inner))
        # A tie at the lowest value would leave the first bin empty.
        return edges[edges > probs.min()] if len(edges) > 1 else edges

    @abstractmethod
    def maps(
        self, table: Array, market: Contest, shared: bool, epsilon: float = 0.0
    ) -> tuple[Array, Array]:
        """Both firms' action maps (k1, k2) when they believe in `table` (2, k1, k2).

        Args:
            shared: each firm sees both signals, else its own only.
            epsilon: of the noise that shared signals are told with (0: none). Then a map is
                (k1, k2, k1, k2), over true and told signals (`server.game.told`).
        """

    def payoffs(
        self, belief: Array, true: Array, market: Contest, shared: bool, epsilon: float = 0.0
    ) -> Array:
        """Both firms' payoffs (2, n) where they believe in tables `belief` and are paid on `true`.

        Both are (n, 2, k1, k2).
        """
        played = (self.maps(table, market, shared, epsilon) for table in belief)
        true = told_table(true, epsilon) if epsilon else true
        paid = (
            payoffs(table, maps, market.payoff, market.gamma)
            for table, maps in zip(true, played, strict=True)
        )
        return np.stack(list(paid), axis=1)


@final
@dataclass(frozen=True)
class Equilibrium(Play):
    """The selected Bayes-Nash equilibrium (pure, largest potential)."""

    def payoffs(
        self, belief: Array, true: Array, market: Contest, shared: bool, epsilon: float = 0.0
    ) -> Array:
        if epsilon:
            return play_told(belief, true, market.payoff, market.gamma, epsilon)
        return play_tables(belief, true, market.payoff, market.gamma, shared)[0]

    def maps(
        self, table: Array, market: Contest, shared: bool, epsilon: float = 0.0
    ) -> tuple[Array, Array]:
        if epsilon:
            return solve_told(table, market.payoff, market.gamma, epsilon)
        return solve(table, market.payoff, market.gamma, shared)[0]


@final
@dataclass(frozen=True)
class Myopic(Play):
    """Each firm does what is best for what it sees, as if it had no rival.

    Alone it follows its own decision, its probability against C/(R+C) (`market.threshold`); with
    coarser or shared signals it holds the posterior of what it sees against the same threshold.
    """

    def maps(
        self, table: Array, market: Contest, shared: bool, epsilon: float = 0.0
    ) -> tuple[Array, Array]:
        if epsilon:
            return myopic_told(table, market.payoff, epsilon)
        if self.signal_bins == 0 and not shared:
            own = np.arange(2)
            return np.repeat(own[:, None], 2, 1), np.repeat(own[None, :], 2, 0)
        return myopic(table, market.payoff, shared)
