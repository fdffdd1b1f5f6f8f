"""The joint table that a study measured, and the exact game on it (`game.json`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from parties.exchange import Array
from server.market import Contest
from server.outcome import Outcome
from server.verdict import BASELINE
from simulations.study import Study


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
    held = [o for o in outcomes if o.contract == BASELINE and o.table is not None]
    tables = [o.table for o in held if o.table is not None]
    if not tables or len({t.shape for t in tables}) > 1:
        return None
    ids = [study.nature(o.seed, "validation")[0] for o in held]
    counts = [np.rint(t * len(i)) for t, i in zip(tables, ids, strict=True)]
    return Measured(np.sum(counts, axis=0), len(np.unique(np.concatenate(ids))))


def game_rows(study: Study, measured: Measured) -> list[dict[str, Any]]:
    """The study as rows of `python -m simulations.game`.

    `coupling_known`: everyone knows how the firms err together. `coupling_prior`: until models are
    shared, firms know the prior of `play.prior` only.
    """
    market, prior = study.market, study.play.prior
    assert isinstance(market, Contest)
    params = {
        "table": measured.counts.astype(int).tolist(),
        "R": [str(market.R0), str(market.R1)],
        "C": [str(market.C0), str(market.C1)],
        "gamma": str(market.gamma),
    }
    believed = {"independent": str(prior.independent), "strongest": str(prior.strongest)}
    return [
        {
            "id": name,
            "firms": list(study.names),
            "setting": "table",
            "params": params | {"prior": weights},
        }
        for name, weights in (("coupling_known", {"measured": "1"}), ("coupling_prior", believed))
    ]
