"""The joint table that a study measured, and the exact game on it (`game.json`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, final

import numpy as np

from parties.exchange import Array, truthful
from server.game.sight import CONTRACTS
from server.market import Contest
from server.outcome import Outcome
from server.play import Equilibrium
from server.verdict import BASELINE
from simulations.prices import price_words
from simulations.study import Study

KNOWN = "The joint table of the validation clients; everyone knows how the firms err together."
PRIOR = (
    "Everyone knows how often each firm errs; only shared models tell how they err together. "
    "Payoffs are averages over the prior's couplings (the run was paid in the measured one)."
)
BEFORE_PRICES = "Payoffs, verdicts and payments here are before prices"
TOLD_WITH_NOISE = "Predictions are told with noise under {}: in a row of its own."
TOLD = (
    "{} with predictions told with noise of epsilon {:g}, beside no_sharing: who sees both z knows "
    "what both told{}. Payoffs are averages over the prior's couplings. Misreports of what is told "
    "are not worked out here."
)
OTHERWISE = "These are equilibria; the firms of this study played otherwise (play)."


@final
@dataclass(frozen=True)
class Measured:
    """P(t, s1, s2) on validation clients, over all seeds.

    Args:
        counts: clients of each class and pair of signals, summed over seeds, (2, k1, k2).
        clients: how many different ones there are; each may be counted under several seeds.
    """

    counts: Array
    clients: int

    @property
    def table(self) -> Array:
        """Relative frequencies (2, k1, k2)."""
        table: Array = self.counts / self.counts.sum()
        return table


def measure(study: Study, outcomes: Sequence[Outcome]) -> Measured | None:
    """The measured table; None where firms contest no clients, or signals differ between seeds."""
    if not study.market.contested:
        return None
    held = [o for o in outcomes if o.contract == BASELINE]
    tables = [o.table for o in held if o.table is not None]
    ids = [o.clients for o in held if o.clients is not None]
    if not tables or len(tables) != len(ids) or len({t.shape for t in tables}) > 1:
        return None
    counts = [np.rint(t * len(i)) for t, i in zip(tables, ids, strict=True)]
    return Measured(np.sum(counts, axis=0), len(np.unique(np.concatenate(ids))))


def game_rows(study: Study, measured: Measured) -> list[dict[str, Any]]:
    """The study as rows of `python -m simulations.game`.

    `coupling_known`: everyone knows how the firms err together. `coupling_prior`: until models are
    shared, firms know the prior of `play.prior` only. Both are before the contracts' prices, and
    say so. Contracts under which predictions are told with noise have rows of their own.
    """
    market, prior = study.market, study.play.prior
    assert isinstance(market, Contest)
    otherwise = "" if isinstance(study.play, Equilibrium) else f" {OTHERWISE}"
    priced = [
        f"under {name} {price_words(study.names, contract.price)}"
        for name, contract in study.contracts.items()
        if contract.price
    ]
    before = f" {BEFORE_PRICES}: {', '.join(priced)}." if priced else ""
    noised = {n: c for n, c in study.contracts.items() if c.prediction_epsilon}
    without = f" {TOLD_WITH_NOISE.format(', '.join(noised))}" if noised else ""
    played = [name for name in CONTRACTS if name not in noised]
    params = {
        "table": measured.counts.astype(int).tolist(),
        "R": [str(market.R0), str(market.R1)],
        "C": [str(market.C0), str(market.C1)],
        "gamma": str(market.gamma),
    }
    share = Fraction(str(prior.independent))
    believed = {"independent": str(share), "strongest": str(1 - share)}
    rows = (("coupling_known", {"measured": "1"}, KNOWN), ("coupling_prior", believed, PRIOR))
    plain = [
        {
            "id": name,
            "firms": list(study.names),
            "setting": "table",
            "note": f"{note}{otherwise}{before}{without}",
            "params": params | {"prior": weights},
            **({"contracts": played} if noised else {}),
        }
        for name, weights, note in rows
    ]
    told = [
        {
            "id": f"{name}_told",
            "firms": list(study.names),
            "setting": "told",
            "note": TOLD.format(
                name,
                contract.prediction_epsilon,
                " and how they err together" if contract.models else "",
            )
            + f"{otherwise}{before}",
            "params": params
            | {
                "prior": believed,
                "keeps": [
                    f"{truthful(contract.prediction_epsilon, k):.12f}"
                    for k in measured.counts.shape[1:]
                ],
                "models": contract.models,
            },
            "contracts": {BASELINE: {}, f"{name}_told": {"firm1": ["z2"], "firm2": ["z1"]}},
        }
        for name, contract in noised.items()
    ]
    return [*plain, *told]
