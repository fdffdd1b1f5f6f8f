"""Where all firms serve the same clients, each for itself: who is right how often?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from parties.exchange import Array, FedpactError, Predictions, Query, Serve, Served, Terms
from server.market import CommonClients
from server.outcome import Case, Outcome, Progress
from server.rounds import barred
from server.settling import Settling
from server.transport import Ask


def serve(case: Case, terms: Terms, ask: Ask, settling: Settling, progress: Progress) -> Outcome:
    """Every firm gives every common client a class, with what the contract lets it have.

    Where predictions are shared, firms first predict with their own models; each then gets what all
    the others said. Where models are shared, the published one serves; where both are, each firm
    serves with its own model, the published one and the others' predictions together.
    """
    market = case.market
    assert isinstance(market, CommonClients)
    without = barred(case, progress)
    sharing = [name for name in case.firms if name not in without]
    told: dict[str, Predictions] = {}
    if terms.predictions:
        query = Query(terms, case.seed, "common")
        answers = ask(dict.fromkeys(sharing, query))
        told = {n: a for n, a in sorted(answers.usable.items()) if isinstance(a, Predictions)}
        ids = settling.expected(case, "common", {name: p.ids for name, p in told.items()})
        for name, predictions in told.items():
            same_clients(predictions.ids, ids, name)
    alone = Terms("no_sharing", models=False, predictions=False)
    answers = ask(
        {
            name: Serve(
                terms,
                case.seed,
                progress.state.published,
                {other: p for other, p in told.items() if other != name},
            )
            if name in sharing
            else Serve(alone, case.seed)
            for name in case.firms
        }
    )
    served = {n: a for n, a in sorted(answers.usable.items()) if isinstance(a, Served)}
    passes = dict(progress.passes) if terms.models else {}
    costs = market.costs(passes, sharing if terms.models else ())
    ids = settling.expected(case, "common", {name: a.ids for name, a in served.items()})
    for name, answer in served.items():
        same_clients(answer.ids, ids, name)
    given = {name: answer.classes for name, answer in served.items()}
    bill = settling.bill(case, terms, ask, given, {})
    for name, answer in served.items():
        costs[name] = costs.get(name, 0.0) + market.price(answer.own_passes)
    right = {name: float(np.mean(paid)) for name, paid in bill.payoffs.items()}
    right |= {name: told.payoff for name, told in bill.summaries.items()}
    return Outcome(
        seed=case.seed,
        contract=terms.contract,
        ids=dict.fromkeys(bill.payoffs, ids),
        payoffs={name: paid - costs[name] for name, paid in bill.payoffs.items()},
        summaries={n: replace(told, cost=costs[n]) for n, told in bill.summaries.items()},
        scores={f"accuracy.{name}": share for name, share in sorted(right.items())},
    )


def same_clients(found: Array, expected: Array, name: str) -> None:
    """Raises a FedpactError where a firm answered for other clients than it was asked about."""
    if not np.array_equal(found, expected):
        raise FedpactError(
            f"{name} answered for other clients than the market asked about. Firms must hold the "
            "same clients in the same order; check the data sets."
        )
