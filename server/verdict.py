"""The verdict: would every firm sign? Three values, with the interval behind each.

Gains are paired: the same clients and the same seeds under the contract and under no-sharing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy import stats

from parties.exchange import Array
from server.session import Outcome

BASELINE = "no_sharing"
METHOD = (
    "95 % interval of the mean paired gain a client. Paired over clients and seeds: variance is "
    "clustered by client (one client's gains under several seeds count once), plus the variance "
    "between seeds beyond what sampling clients explains; Student t with Satterthwaite's degrees "
    "of freedom."
)


@final
@dataclass(frozen=True)
class Interval:
    """Mean paired gain with its 95 % interval, and the number of clients that would decide.

    `needed` supposes that clients are added in the same way as now, seeds with them: the half-width
    then falls with the square root of the number. It is a guide, not a promise.
    """

    mean: float
    low: float
    high: float
    clients: int
    needed: int | None

    @property
    def decision(self) -> str:
        """signs: surely no worse off; refuses: surely worse off; undecided otherwise."""
        return "signs" if self.low >= 0 else "refuses" if self.high < 0 else "undecided"


def paired_interval(ids: Sequence[Array], gains: Sequence[Array]) -> Interval:
    """The interval of the mean gain, from one array of ids (n,) and of gains (n,) a seed.

    Var = sum_i (sum_s (d_is - mean))^2 / N^2 over clients i (N = all pairs), plus
    max(0, Var_s(mean_s) - mean_s(Var_i(d_is) / n_s)) / S over the S seeds.

    >>> paired_interval([np.arange(4)], [np.array([1.0, 1.0, 1.0, 1.0])]).decision
    'signs'
    """
    everyone, pooled = np.concatenate(ids), np.concatenate(gains)
    count, mean = len(pooled), float(np.mean(pooled))
    names, place = np.unique(everyone, return_inverse=True)
    residuals = np.bincount(place, weights=pooled - mean, minlength=len(names))
    clients = len(names)
    by_client = float(np.sum(residuals**2)) / count**2 * clients / max(clients - 1, 1)
    by_seed = _between(gains)
    error = math.sqrt(by_client + by_seed)
    if error == 0:
        return Interval(mean, mean, mean, clients, None if mean == 0 else 1)
    freedom = (by_client + by_seed) ** 2 * (len(gains) - 1) / by_seed**2 if by_seed else math.inf
    half = float(stats.t.ppf(0.975, freedom)) * error
    needed = math.ceil(clients * (half / mean) ** 2) if mean else None
    return Interval(mean, mean - half, mean + half, clients, needed)


def _between(gains: Sequence[Array]) -> float:
    """Variance of the mean that seeds add to what sampling clients explains (method of moments)."""
    if len(gains) < 2:
        return 0.0
    spread = float(np.var([np.mean(g) for g in gains], ddof=1))
    within = float(np.mean([np.var(g, ddof=1) / len(g) if len(g) > 1 else 0.0 for g in gains]))
    # Differences of equal numbers leave a rounding residue that is not a variance.
    excess = spread - within
    return excess / len(gains) if excess > 1e-9 * (spread + within) else 0.0


@final
@dataclass(frozen=True)
class FirmVerdict:
    """What one firm would do about one contract."""

    payoff: float
    predicted: float | None
    gain: float
    interval: tuple[float, float]
    decision: str
    needed: int | None
    clients: int
    reason: str


@final
@dataclass(frozen=True)
class ContractVerdict:
    """What all firms would do about one contract. None means: cannot be told yet.

    `declined`: firms that refused to take part; `excluded`: firms whose update was left out of some
    round; each with its reason in the first seed in which it happened.
    """

    firms: Mapping[str, FirmVerdict]
    declined: Mapping[str, str]
    excluded: Mapping[str, str]
    individually_rational: bool | None
    pareto_optimal: bool | None
    irpo: bool | None


def judge(outcomes: Sequence[Outcome], firms: Sequence[str]) -> dict[str, ContractVerdict]:
    """The verdict of every firm on every contract.

    Args:
        outcomes: every session; the same seeds under every contract, no-sharing among them.
        firms: in the order of the report.
    """
    by_contract: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: o.seed):
        by_contract.setdefault(outcome.contract, []).append(outcome)
    gains = {
        (one, two, firm): _compare(by_contract[one], by_contract[two], firm)
        for one in by_contract
        for two in by_contract
        for firm in firms
    }
    verdicts = {}
    for name, held in by_contract.items():
        verdict = {f: _firm_verdict(held, f, gains[name, BASELINE, f]) for f in firms}
        rational = _all(_truth(v.decision) for v in verdict.values())
        optimal = _all(
            _negate(_dominates([gains[other, name, f] for f in firms]))
            for other in by_contract
            if other != name
        )
        verdicts[name] = ContractVerdict(
            firms=verdict,
            declined={f: why for o in reversed(held) for f, why in o.declined.items()},
            excluded={f: why for o in reversed(held) for f, why in o.excluded.items()},
            individually_rational=rational,
            pareto_optimal=optimal,
            irpo=_all((rational, optimal)),
        )
    return verdicts


def _compare(one: Sequence[Outcome], two: Sequence[Outcome], firm: str) -> Interval | None:
    """Firm's gain of the first contract over the second; None where it could not be measured."""
    pairs = [
        (a.ids[firm], a.payoffs[firm] - b.payoffs[firm])
        for a, b in zip(one, two, strict=True)
        if firm in a.payoffs and firm in b.payoffs
    ]
    return paired_interval([i for i, _ in pairs], [g for _, g in pairs]) if pairs else None


def _firm_verdict(held: Sequence[Outcome], firm: str, gain: Interval | None) -> FirmVerdict:
    measured = [o.payoffs[firm] for o in held if firm in o.payoffs]
    payoff = float(np.mean(np.concatenate(measured))) if measured else math.nan
    exact = [o.predicted[firm] for o in held if firm in o.predicted]
    predicted = float(np.mean(exact)) if exact else None
    refusal = next((o.declined[firm] for o in held if firm in o.declined), "")
    if gain is None:
        reason = next((o.excluded[firm] for o in held if firm in o.excluded), "no usable answer")
        nan = (math.nan, math.nan)
        return FirmVerdict(payoff, predicted, math.nan, nan, "undecided", None, 0, reason)
    decision = "refuses" if refusal else gain.decision
    away = sorted({name for o in held for name in o.declined})
    no_deal = f"no deal: {', '.join(away)} declined" if away else ""
    return FirmVerdict(
        payoff=payoff,
        predicted=predicted,
        gain=gain.mean,
        interval=(gain.low, gain.high),
        decision=decision,
        needed=gain.needed,
        clients=gain.clients,
        reason=refusal or no_deal or _reason(gain),
    )


def _reason(gain: Interval) -> str:
    """The decision in one sentence."""
    match gain.decision:
        case "signs" if gain.low == gain.high == 0:
            return "every client earns it exactly what it earns alone"
        case "signs":
            return "it earns more than alone, beyond doubt at 95 %"
        case "refuses":
            return "it earns less than alone, beyond doubt at 95 %"
        case _ if gain.needed is None:
            return "the mean gain is zero; no number of clients would decide"
        case _:
            return f"the interval holds zero; about {gain.needed:,} clients would decide"


def _dominates(gains: Sequence[Interval | None]) -> bool | None:
    """Whether a contract strictly Pareto-dominates another, from its gains over it by firm."""
    if any(g is not None and g.high < 0 for g in gains):
        return False
    if all(g is not None and g.low == g.high == 0 for g in gains):
        return False
    known = [g for g in gains if g is not None]
    if len(known) == len(gains) and all(g.low >= 0 for g in known):
        return any(g.low > 0 for g in known) or None
    return None


def _truth(decision: str) -> bool | None:
    return {"signs": True, "refuses": False}.get(decision)


def _negate(value: bool | None) -> bool | None:
    return None if value is None else not value


def _all(values: Iterable[bool | None]) -> bool | None:
    """Three-valued "and": false if any is false, else unknown if any is unknown."""
    known = list(values)
    return False if False in known else None if None in known else True
