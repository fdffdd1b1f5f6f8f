"""The verdict: would every firm sign? Three values, with the interval behind each.

Gains are paired: the same clients and the same seeds under the contract and under no-sharing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import scipy

from parties.exchange import Array, FedpactError
from server.game.dominance import BASELINE as BASELINE
from server.outcome import Outcome, Summary

CONFIDENCE = 0.95
METHOD = (
    "{level} % interval of the mean paired gain a client. Paired over clients and seeds: the "
    "variance of sampling clients (one client's gains under several seeds count once), plus the "
    "variance between seeds beyond that; Student t with one degree of freedom less than there are "
    "seeds."
)
ONE_SEED = (
    "{level} % interval of the mean paired gain a client, over clients only: with one seed, what "
    "another split or training would change is not in it."
)


def method(seeds: int, confidence: float = CONFIDENCE) -> str:
    """How the intervals of a study with this many seeds are made, in words."""
    return (METHOD if seeds > 1 else ONE_SEED).format(level=f"{100 * confidence:.6g}")


def interval_name(told: str) -> str:
    """What to call the intervals over a column, from what `method` says of them.

    >>> interval_name(method(10)), interval_name(method(1, 0.9875))
    ('95 % interval', '98.75 % interval')
    """
    return told.partition(" of ")[0]


@final
@dataclass(frozen=True)
class Interval:
    """Mean paired gain with its interval, and the number of clients that would decide.

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


def paired_interval(
    ids: Sequence[Array], gains: Sequence[Array], confidence: float = CONFIDENCE
) -> Interval:
    """The interval of the mean gain, from one array of ids (n,) and of gains (n,) a seed.

    Var = sum_i (sum_s (d_is - mean))^2 / N^2 over clients i (N = all pairs), plus
    max(0, Var_s(mean_s) - mean_s(Var_i(d_is) / n_s)) / S over the S seeds; Student t with S - 1
    degrees of freedom (the normal for one seed, whose variance between seeds is unknown).

    >>> paired_interval([np.arange(4)], [np.array([1.0, 1.0, 1.0, 1.0])]).decision
    'signs'
    """
    everyone, pooled = np.concatenate(ids), np.concatenate(gains)
    count, mean = len(pooled), float(np.mean(pooled))
    names, place = np.unique(everyone, return_inverse=True)
    residuals = np.bincount(place, weights=pooled - mean, minlength=len(names))
    clients = len(names)
    by_client = float(np.sum(residuals**2)) / count**2 * clients / max(clients - 1, 1)
    within = [float(np.var(g, ddof=1)) / len(g) if len(g) > 1 else 0.0 for g in gains]
    means = [float(np.mean(g)) for g in gains]
    return _interval(mean, clients, by_client, _between(means, within), len(gains), confidence)


def summary_interval(held: Sequence[Summary], confidence: float = CONFIDENCE) -> Interval:
    """The interval of the mean gain from one summary a seed, where a firm keeps its cases' losses.

    As :func:`paired_interval`, but a case's gains under several seeds are not averaged: their
    common variance over the distinct cases is used, which is no smaller.
    """
    sizes = np.array([s.cases for s in held], dtype=float)
    means = [s.gain for s in held]
    mean = float(np.sum(sizes * means) / sizes.sum())
    clients = int(min(sizes.sum(), max(s.population for s in held)))
    variance = float(np.sum(sizes * [s.variance for s in held]) / sizes.sum())
    within = [s.variance / s.cases for s in held]
    between = _between(means, within)
    return _interval(mean, clients, variance / clients, between, len(held), confidence)


def _interval(
    mean: float, clients: int, by_client: float, by_seed: float, seeds: int, confidence: float
) -> Interval:
    error = math.sqrt(by_client + by_seed)
    if error == 0:
        return Interval(mean, mean, mean, clients, None if mean == 0 else 1)
    # With few seeds their variance is hardly known: t is wide then, whatever it comes out as.
    freedom = seeds - 1 if seeds > 1 else math.inf
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, freedom)) * error
    needed = math.ceil(clients * (half / mean) ** 2) if mean else None
    return Interval(mean, mean - half, mean + half, clients, needed)


def _between(means: Sequence[float], within: Sequence[float]) -> float:
    """Variance of the mean that seeds add to what sampling clients explains (method of moments)."""
    if len(means) < 2:
        return 0.0
    spread, explained = float(np.var(means, ddof=1)), float(np.mean(within))
    # Differences of equal numbers leave a rounding residue that is not a variance.
    excess = spread - explained
    return excess / len(means) if excess > 1e-9 * (spread + explained) else 0.0


@final
@dataclass(frozen=True)
class FirmVerdict:
    """What one firm would do about one contract.

    adopted: model ("own", "published", "last") -> under how many seeds the firm used it.
    """

    payoff: float
    predicted: float | None
    gain: float
    interval: tuple[float, float]
    decision: str
    needed: int | None
    clients: int
    reason: str
    adopted: Mapping[str, int] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class ContractVerdict:
    """What all firms would do about one contract. None means: cannot be told yet.

    `declined`: firms that refused to take part; `excluded`: firms whose update was left out of some
    round; each with its reason in the first seed in which it happened. `riders`: firms that trained
    on nothing for the others.
    """

    firms: Mapping[str, FirmVerdict]
    declined: Mapping[str, str]
    excluded: Mapping[str, str]
    riders: tuple[str, ...]
    individually_rational: bool | None
    pareto_optimal: bool | None
    irpo: bool | None


def judge(
    outcomes: Sequence[Outcome], firms: Sequence[str], confidence: float = CONFIDENCE
) -> dict[str, ContractVerdict]:
    """The verdict of every firm on every contract.

    Args:
        outcomes: every session; the same seeds under every contract, no-sharing among them.
        firms: in the order of the report.
        confidence: level of the intervals.
    """
    by_contract: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: o.seed):
        by_contract.setdefault(outcome.contract, []).append(outcome)
    gains = {
        (one, two, firm): _compare(by_contract[one], by_contract[two], firm, confidence)
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
            riders=tuple(sorted({name for o in held for name in o.riders})),
            individually_rational=rational,
            pareto_optimal=optimal,
            irpo=_all((rational, optimal)),
        )
    return verdicts


def _compare(
    one: Sequence[Outcome], two: Sequence[Outcome], firm: str, confidence: float
) -> Interval | None:
    """Firm's gain of the first contract over the second; None where it could not be measured."""
    pairs = list(zip(one, two, strict=True))
    if any(firm in o.summaries for o in (*one, *two)):
        held = [
            _difference(a.summaries[firm], b.summaries[firm])
            for a, b in pairs
            if firm in a.summaries and firm in b.summaries
        ]
        return summary_interval(held, confidence) if held else None
    both = [(a, b) for a, b in pairs if firm in a.payoffs and firm in b.payoffs]
    for a, b in both:
        if not np.array_equal(a.ids[firm], b.ids[firm]):
            raise FedpactError(
                f"{firm} served other clients under {a.contract} than under {b.contract} (seed "
                f"{a.seed}), so they cannot be paired. Hold the study again in a new folder."
            )
    ids = [a.ids[firm] for a, _ in both]
    gains = [a.payoffs[firm] - b.payoffs[firm] for a, b in both]
    return paired_interval(ids, gains, confidence) if both else None


def _difference(one: Summary, two: Summary) -> Summary:
    """The first over the second, net of training; each is told against the firm's own model.

    Against no-sharing, whose gain is zero on every case, this is exact. Between two contracts that
    publish models the covariance is not told, and the sum of both variances stands in.
    """
    return Summary(
        cases=one.cases,
        population=one.population,
        payoff=one.payoff,
        gain=one.gain - two.gain - (one.cost - two.cost),
        variance=one.variance + two.variance,
    )


def _firm_verdict(held: Sequence[Outcome], firm: str, gain: Interval | None) -> FirmVerdict:
    payoff = mean_payoff(held, firm)
    exact = [o.predicted[firm] for o in held if firm in o.predicted]
    predicted = float(np.mean(exact)) if exact else None
    refusal = next((o.declined[firm] for o in held if firm in o.declined), "")
    if gain is None:
        reason = next((o.excluded[firm] for o in held if firm in o.excluded), "no usable answer")
        nan = (math.nan, math.nan)
        return FirmVerdict(payoff, predicted, math.nan, nan, "undecided", None, 0, reason)
    decision = "refuses" if refusal else gain.decision
    away = sorted({name for o in held for name in o.declined})
    summaries = [o.summaries[firm] for o in held if firm in o.summaries]
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
        adopted=Counter(told.adopted for told in summaries if told.adopted),
    )


def mean_payoff(held: Sequence[Outcome], firm: str) -> float:
    """A firm's mean payoff a client over some sessions; nan if it has none."""
    sums = [
        (len(o.payoffs[firm]), float(np.mean(o.payoffs[firm]))) for o in held if firm in o.payoffs
    ]
    sums += [
        (o.summaries[firm].cases, o.summaries[firm].payoff - o.summaries[firm].cost)
        for o in held
        if firm in o.summaries
    ]
    total = sum(n for n, _ in sums)
    return sum(n * mean for n, mean in sums) / total if total else math.nan


def _reason(gain: Interval) -> str:
    """The decision in one sentence."""
    match gain.decision:
        case "signs" if gain.low == gain.high == 0:
            return "every client earns it exactly what it earns alone"
        case "signs":
            return "it earns more than alone: the whole interval is above zero"
        case "refuses":
            return "it earns less than alone: the whole interval is below zero"
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
