"""Settling: what clients turned out to be, and what they earned the firms.

In a simulation nature tells the market. Between real firms only they know: each settles at home,
and tells every client's payoff, or sums.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from parties.exchange import (
    Array,
    FedpactError,
    Reveal,
    Revealed,
    Settle,
    Settled,
    Terms,
)
from server.market import CommonClients, Contest, Market
from server.outcome import Case, Nature, Summary
from server.scores import auc
from server.transport import GO_ON, Ask

log = logging.getLogger("fedpact")


@final
@dataclass(frozen=True)
class Bill:
    """What clients earned the firms, before prices and costs.

    Args:
        payoffs: firm -> (n,), of those that tell each client's.
        summaries: firm -> sums, of those that tell no more.
        scores: name -> AUC of scores on these clients.
    """

    payoffs: Mapping[str, Array]
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


class Settling(ABC):
    """A way to learn what clients turned out to be."""

    @abstractmethod
    def expected(self, case: Case, part: str, told: Mapping[str, Array]) -> Array:
        """Clients (n,) of a part, in the order in which every firm must answer for them.

        Args:
            told: firm -> clients that it answered for.
        """

    @abstractmethod
    def classes(self, case: Case, terms: Terms, ask: Ask, ids: Array) -> Array:
        """True classes (n,) of the validation clients `ids`."""

    @abstractmethod
    def bill(
        self,
        case: Case,
        terms: Terms,
        ask: Ask,
        actions: Mapping[str, Array],
        scored: Mapping[str, Array],
    ) -> Bill:
        """What the firms earned.

        Args:
            actions: firm -> what it did with each client, (n,), or the class that it gave.
            scored: name -> scores (n,) of class 1, whose AUC is wanted.
        """


@final
@dataclass(frozen=True)
class ByMarket(Settling):
    """The market knows every client's true class (a simulation)."""

    nature: Nature

    def expected(self, case: Case, part: str, told: Mapping[str, Array]) -> Array:
        return self.nature(case.seed, part)[0]

    def classes(self, case: Case, terms: Terms, ask: Ask, ids: Array) -> Array:
        return self.nature(case.seed, "validation")[1]

    def bill(
        self,
        case: Case,
        terms: Terms,
        ask: Ask,
        actions: Mapping[str, Array],
        scored: Mapping[str, Array],
    ) -> Bill:
        market = case.market
        truth = self.nature(case.seed, market.clients)[1]
        if isinstance(market, Contest):
            one, two = (actions[name] for name in case.firms)
            earned = dict(zip(case.firms, market.settle((one, two), truth), strict=True))
        else:
            earned = {name: (given == truth) * 1.0 for name, given in actions.items()}
        return Bill(earned, scores={name: auc(truth, s) for name, s in scored.items()})


@final
@dataclass(frozen=True)
class AtHome(Settling):
    """Every firm knows its clients' true classes, and nobody else does."""

    def expected(self, case: Case, part: str, told: Mapping[str, Array]) -> Array:
        first = next(iter(told), None)
        if first is None:
            return np.empty(0, np.int64)
        for name, ids in told.items():
            if not np.array_equal(ids, told[first]):
                raise FedpactError(
                    f"{first} and {name} answered for different {part} clients. Firms must hold "
                    "the same clients: compare how they are divided (`parts`), and the lists of "
                    "ids."
                )
        return told[first]

    def classes(self, case: Case, terms: Terms, ask: Ask, ids: Array) -> Array:
        answers = ask(dict.fromkeys(case.firms, Reveal(terms, case.seed)), len(case.firms))
        told: dict[str, Revealed] = {}
        for name in case.firms:
            answer = answers.usable.get(name)
            if not isinstance(answer, Revealed):
                raise FedpactError(
                    f"{name} does not tell what validation clients turned out to be "
                    f"({answers.refused.get(name, 'no answer')}), and without that there is no "
                    "joint table. Let it (policy.validation_outcomes: true), or hold no contest."
                )
            told[name] = answer
        first = case.firms[0]
        for name, answer in told.items():
            if not np.array_equal(answer.ids, ids):
                raise FedpactError(f"{name} told the classes of other clients than it predicted.")
            apart = int(np.sum(answer.classes != told[first].classes))
            if apart:
                raise FedpactError(
                    f"{first} and {name} disagree about what {apart} of {len(ids)} validation "
                    "clients turned out to be. Compare how both define the label."
                )
        return told[first].classes

    def bill(
        self,
        case: Case,
        terms: Terms,
        ask: Ask,
        actions: Mapping[str, Array],
        scored: Mapping[str, Array],
    ) -> Bill:
        if not actions:
            return Bill({})
        shares, worth = _rules(case.market, actions)
        asked = {
            name: Settle(
                terms, case.seed, case.market.clients, acted.astype(np.int64), shares, worth, scored
            )
            for name, acted in actions.items()
        }
        least = len(case.firms) if case.market.contested else None
        answers = ask(asked, least)
        told = {n: a for n, a in sorted(answers.usable.items()) if isinstance(a, Settled)}
        missing = sorted(set(actions) - set(told)) if case.market.contested else []
        if missing:
            why = {**answers.refused, **answers.faulty, **answers.silent}
            raise FedpactError(
                f"{missing[0]} did not settle ({why.get(missing[0], 'no answer')}), and a contest "
                f"needs both firms. {GO_ON}"
            )
        _compare(asked, told)
        scores: dict[str, float] = {}
        for name, answer in told.items():
            for key, value in answer.scores.items():
                if scores.setdefault(key, value) != value:
                    log.warning("%s tells %s as %g, not %g", name, key, value, scores[key])
        return Bill(
            payoffs={n: a.payoffs for n, a in told.items() if a.payoffs is not None},
            summaries={
                n: Summary(a.cases, a.population, a.payoff, a.gain, a.variance, adopted="")
                for n, a in told.items()
                if a.payoffs is None
            },
            scores={key: scores[key] for key in scored if key in scores},
        )


def _rules(market: Market, actions: Mapping[str, Array]) -> tuple[Array, Array | None]:
    """Every client's share (n,) and what an action is worth (None: the right class, 1)."""
    if isinstance(market, Contest):
        one, two = (actions[name] for name in sorted(actions))
        return market.shares((one, two)), market.payoff
    assert isinstance(market, CommonClients)
    return np.ones(len(next(iter(actions.values())))), None


def _compare(asked: Mapping[str, Settle], told: Mapping[str, Settled]) -> None:
    """Note in the log where firms' payoffs cannot be of the same clients' outcomes."""
    known: Array | None = None  # of each client the classes that everybody's payoff allows
    for name, answer in told.items():
        settle = asked[name]
        if answer.payoffs is None or settle.worth is None:
            continue
        possible = settle.shares[:, None] * settle.worth[settle.actions] == answer.payoffs[:, None]
        if known is not None:
            apart = int(np.sum(~(known & possible).any(1)))
            if apart:
                log.warning("%s earned of %d clients what they cannot have been", name, apart)
        known = possible if known is None else known & possible
