"""What a finite number of clients lets us say of the joint table, and so of the contracts.

The joint table P(t, s1, s2) is estimated from predictions and outcomes. A Dirichlet posterior says
how sure that is; the game is played on every table drawn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError
from server.contracts import Contract
from server.market import Contest, after_price
from server.play import Play
from server.verdict import BASELINE

DRAWS = 2000
JEFFREYS = 0.5


def posterior(
    counts: Array, rng: np.random.Generator, draws: int = DRAWS, concentration: float = JEFFREYS
) -> Array:
    """Tables (draws, 2, k1, k2) from the Dirichlet posterior of counts (2, k1, k2).

    Args:
        counts: clients of each class and pair of signals; need not be whole.
        concentration: of the prior, a cell; 1/2 is Jeffreys' prior.

    Raises:
        FedpactError: a count is negative or not finite.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if not np.all(np.isfinite(counts)) or counts.min() < 0 or concentration <= 0 or draws < 1:
        raise FedpactError(
            f"counts start at {counts.min():g}, concentration is {concentration:g}, draws {draws}; "
            "legal are counts >= 0, a concentration > 0 and at least one draw."
        )
    drawn = rng.standard_gamma(counts + concentration, (draws, *counts.shape))
    # Of many tiny concentrations all may underflow; that table is nobody's belief.
    tables: Array = drawn / drawn.sum((1, 2, 3), keepdims=True)
    return tables


@final
@dataclass(frozen=True)
class Estimate:
    """What the posterior says of one contract.

    Args:
        payoffs: posterior means (2,).
        intervals: 95 % credible intervals (2, 2) of the gain over no-sharing, a firm each.
        signs: P(a firm's gain is >= 0), (2,).
        individually_rational: P(both gains are >= 0).
        irpo: P(that, and no other contract is better for one and no worse for the other).
    """

    payoffs: Array
    intervals: Array
    signs: Array
    individually_rational: float
    irpo: float


def estimate(
    tables: Array, contracts: Mapping[str, Contract], play: Play, market: Contest
) -> dict[str, Estimate]:
    """Every contract on every table drawn.

    Where models are shared, firms believe in the table itself; else in the prior's mean table
    given its margins (`play.prior`). Either way they are paid on the table itself, and each
    contract's price counts.

    Args:
        tables: (draws, 2, k1, k2).
        contracts: by name; no-sharing among them.
    """
    believed = play.prior.mean(tables)
    earned = {
        name: after_price(
            play.payoffs(
                tables if contract.models else believed,
                tables,
                market,
                contract.predictions,
                contract.prediction_epsilon,
            ),
            contract.price,
        )
        for name, contract in contracts.items()
    }
    prices = [abs(contract.price) for contract in contracts.values()]
    near = 1e-12 * max(float(np.abs(market.payoff).max()), *prices)
    gains = {name: paid - earned[BASELINE] for name, paid in earned.items()}
    rational = {name: np.all(gain >= -near, axis=0) for name, gain in gains.items()}
    found = {}
    for name, paid in earned.items():
        beaten = np.zeros(tables.shape[0], bool)
        for other, theirs in earned.items():
            difference = theirs - paid
            better = np.all(difference >= -near, axis=0) & np.any(difference > near, axis=0)
            beaten |= better & (other != name)
        found[name] = Estimate(
            payoffs=paid.mean(1),
            intervals=np.quantile(gains[name], [0.025, 0.975], axis=1).T,
            signs=np.mean(gains[name] >= -near, axis=1),
            individually_rational=float(np.mean(rational[name])),
            irpo=float(np.mean(rational[name] & ~beaten)),
        )
    return found
