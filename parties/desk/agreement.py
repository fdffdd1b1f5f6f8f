"""What was agreed: the study, its contracts' terms, its seeds, and what a request may ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from parties.exchange import Enrol, FedpactError, Offer, Request, Settle, Terms

EXTRAS = ("precision", "card", "by_class")


@final
@dataclass(frozen=True)
class Agreement:
    """What the firm agreed to be asked.

    Args:
        study: sha256 of the study; "": a study that has no digest.
        terms: contract -> the terms that the study gives it.
        seeds: the paired repetitions.
        most_epochs: most that an offer may ask for in a round; 0: the firm's own number only.
        proximal: of the penalty that an offer asks for where models are shared; None: any.
        asks: what the study's market asks, by kind and part ("Offer", "Query validation"); None:
            anything.
        worth, shares: what an action earns with a client of a class, and the shares of it that the
            market knows, where firms settle; None: any.
        extras: what else may be asked for: "precision" (Fisher information) or "card" (profile
            card) with trained weights, "by_class" with scores.
    """

    study: str
    terms: Mapping[str, Terms]
    seeds: tuple[int, ...]
    most_epochs: int = 0
    proximal: float | None = None
    asks: tuple[str, ...] | None = None
    worth: tuple[tuple[float, ...], ...] | None = None
    shares: tuple[float, ...] | None = None
    extras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, terms in self.terms.items():
            if terms.contract != name:
                raise FedpactError(
                    f"agreement.terms[{name!r}] are those of {terms.contract!r}; legal are terms "
                    "under the name of their contract. Correct the name."
                )
        unknown = sorted(set(self.extras) - set(EXTRAS))
        if unknown:
            raise FedpactError(
                f"agreement.extras holds {unknown}; legal are {', '.join(EXTRAS)}. Leave them out."
            )

    def objection(self, request: Request) -> str:
        """Why this was not agreed, or ""."""
        if request.seed not in self.seeds:
            return "the seed is none of the study's"
        if isinstance(request, Enrol):
            return "" if request.study == self.study else "the study is not the one that was agreed"
        terms = request.terms
        if terms.contract not in self.terms:
            return f"the study holds no contract {terms.contract!r:.60}"
        if terms != self.terms[terms.contract]:
            return f"the terms of {terms.contract} are not those that were agreed"
        for extra in EXTRAS:
            if getattr(request, extra, False) and extra not in self.extras:
                return f"{extra} was not agreed"
        if getattr(request, "round", 0) >= max(terms.rounds, 1):
            return f"{terms.contract} has fewer rounds than that"
        kind = f"{type(request).__name__} {getattr(request, 'part', '')}".strip()
        if self.asks is not None and kind not in self.asks:
            return f"a study of this market asks no {kind}"
        if isinstance(request, Offer):
            if request.epochs > self.most_epochs:
                return "the offer asks for more epochs than were agreed"
            if terms.models and self.proximal not in (None, request.proximal):
                return "the offer's proximal penalty is not the one that was agreed"
        if isinstance(request, Settle):
            worth = None if request.worth is None else tuple(map(tuple, request.worth.tolist()))
            if self.shares is not None and worth != self.worth:
                return "an action's worth is not the one that was agreed"
            if self.shares is not None and not set(request.shares.tolist()) <= set(self.shares):
                return "the shares are none of the market's"
        return ""
