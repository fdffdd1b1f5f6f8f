"""The row of a finished study: what its verdict says, by column.

`status` is ok or failed, with `error` (its type) and `message`. `best` is the contract with the
largest mean joint surplus among those that every firm signs (no_sharing, whose surplus is 0, is
always one); it is null while an undecided contract could have a larger one, that is, while the high
ends of its firms' intervals add up to more. A contract C then has: `C.signed`,
`C.pareto_optimal`, `C.irpo` (true, false or null: undecided), `C.predicted_signed` (what the game
on the measured joint table says; null where a firm declines what nobody has played), `C.surplus`
(sum of the firms' mean gains) and, for a firm F, `C.F.gain`, `C.F.low`, `C.F.high` (its interval,
at study.confidence), `C.F.predicted` and `C.F.decision`; `no_sharing.F.payoff` is what F earns
alone. Columns of a contract that a study did not hold are empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from server.market import Contest
from server.outcome import Outcome
from server.verdict import BASELINE, ContractVerdict, judge
from simulations.study import Study

NEAR = 1e-12  # gains nearer to zero are zero, in units of the largest payoff


def row_of(study: Study, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The row of a study whose sessions have all been held."""
    market = study.market
    near = NEAR * float(np.abs(market.payoff).max()) if isinstance(market, Contest) else NEAR
    verdicts = judge(outcomes, study.names, study.confidence)
    alone = verdicts[BASELINE].firms
    row: dict[str, Any] = {
        "seeds": len(study.seeds),
        "status": "ok",
        "error": None,
        "message": None,
        "best": _best(verdicts),
    }
    for firm, v in alone.items():
        row[f"{BASELINE}.{firm}.payoff"] = _finite(v.payoff)
    for name, contract in verdicts.items():
        if name == BASELINE:
            continue
        predicted = {
            firm: None
            if v.predicted is None or alone[firm].predicted is None or contract.declined
            else v.predicted - (alone[firm].predicted or 0.0)
            for firm, v in contract.firms.items()
        }
        known = [gain for gain in predicted.values() if gain is not None]
        row[f"{name}.signed"] = contract.individually_rational
        row[f"{name}.predicted_signed"] = (
            all(gain >= -near for gain in known) if len(known) == len(predicted) else None
        )
        row[f"{name}.pareto_optimal"] = contract.pareto_optimal
        row[f"{name}.irpo"] = contract.irpo
        row[f"{name}.surplus"] = _finite(_surplus(contract))
        for firm, v in contract.firms.items():
            row[f"{name}.{firm}.gain"] = _finite(v.gain)
            row[f"{name}.{firm}.low"] = _finite(v.interval[0])
            row[f"{name}.{firm}.high"] = _finite(v.interval[1])
            row[f"{name}.{firm}.predicted"] = predicted[firm]
            row[f"{name}.{firm}.decision"] = v.decision
    return row


def failed_row(error: str, message: str) -> dict[str, Any]:
    """The row of a study that could not be held."""
    return {
        "seeds": None,
        "status": "failed",
        "error": error,
        "message": " ".join(message.split())[:1000],
        "best": None,
    }


def _best(verdicts: Mapping[str, ContractVerdict]) -> str | None:
    signed, most, hoped = BASELINE, 0.0, 0.0
    for name, contract in verdicts.items():
        if name == BASELINE:
            continue
        surplus = _surplus(contract)
        if contract.individually_rational and surplus > most:
            signed, most = name, surplus
        elif contract.individually_rational is None:
            high = math.fsum(v.interval[1] for v in contract.firms.values())
            hoped = max(hoped, high if math.isfinite(high) else math.inf)
    return signed if hoped <= most else None


def _surplus(contract: ContractVerdict) -> float:
    """Sum over firms of mean gains, in the payoff's unit."""
    return math.fsum(v.gain for v in contract.firms.values())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
