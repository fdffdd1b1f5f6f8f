"""Requests: what the operator asks of a firm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from parties.exchange.checks import Array, amount, count, flag, instance, numeric, require, text
from parties.exchange.masks import Masking
from parties.exchange.values import DecisionRule, Predictions, Terms, Weights


@final
@dataclass(frozen=True)
class Enrol:
    """Who are you, how much data do you declare, what shape is your model?

    Args:
        seed: which paired repetition.
        study: sha256 of the study that is held; "" in a simulation, which has but one.
    """

    seed: int
    study: str = ""

    def __post_init__(self) -> None:
        count(self.seed, "enrol.seed")
        require(isinstance(self.study, str), "enrol.study is no text; legal is a sha256 in hex.")


@final
@dataclass(frozen=True)
class Offer:
    """Train under these terms, from the published model if there is one.

    Args:
        terms: what the contract lets pass.
        seed: which paired repetition (it fixes the split and every random draw).
        round: from 0 to terms.rounds - 1.
        epochs: passes over the firm's training data in this round (0: the firm's own number).
        model: the model to train from, or None (round 0, or no model crosses).
        proximal: mu of the penalty (mu/2) ||w - w_model||^2 that the firm adds to its loss.
        precision: send the diagonal Fisher information with the weights.
        card: send the profile card of the training data with the weights.
        masking: mask the weights so; where the terms are secure, and only there.
    """

    terms: Terms
    seed: int
    round: int
    epochs: int = 0
    model: Weights | None = None
    proximal: float = 0.0
    precision: bool = False
    card: bool = False
    masking: Masking | None = None

    def __post_init__(self) -> None:
        instance(self.terms, "offer.terms", Terms)
        instance(self.model, "offer.model", Weights, optional=True)
        count(self.seed, "offer.seed")
        count(self.round, "offer.round")
        count(self.epochs, "offer.epochs")
        amount(self.proximal, "offer.proximal")
        flag(self.precision, "offer.precision")
        flag(self.card, "offer.card")
        extras = self.precision or self.card
        require(
            self.terms.models or (self.model is None and self.epochs == 0 and not extras),
            f"{self.terms.contract} shares no models, yet one was offered to train.",
        )
        instance(self.masking, "offer.masking", Masking, optional=True)
        require(
            (self.masking is not None) == self.terms.secure,
            f"{self.terms.contract} has secure={self.terms.secure}; weights are masked where it is "
            "true, and only there.",
        )
        require(
            not (self.terms.secure and extras),
            f"{self.terms.contract} is secure; a precision or a profile card would tell of one "
            "firm's model.",
        )


@final
@dataclass(frozen=True)
class Query:
    """Predict for one part of the clients: "validation" (for the operator's joint table),
    "contested" or "common" (for the others; only under terms that share predictions).

    edges: bounds (k-1,) of the signals that contested predictions are told as, within (0, 1]; only
        where the terms put noise on them.
    """

    terms: Terms
    seed: int
    part: str
    edges: Array | None = None

    def __post_init__(self) -> None:
        instance(self.terms, "query.terms", Terms)
        noised = self.part == "contested" and self.terms.prediction_epsilon > 0
        require(
            noised == (self.edges is not None),
            "query.edges are due where contested predictions are told with noise, and only there.",
        )
        if self.edges is not None:
            numeric(self.edges, "query.edges", 1, "f")
            ends = np.concatenate([[0.0], self.edges, [np.nextafter(1.0, 2.0)]])
            require(bool(np.all(np.diff(ends) > 0)), "query.edges must increase within (0, 1].")
        count(self.seed, "query.seed")
        require(
            self.part in ("validation", "contested", "common"),
            f"query.part is {self.part!r}; legal are 'validation', 'contested' and 'common'.",
        )


@final
@dataclass(frozen=True)
class Play:
    """Act on the contested clients.

    Args:
        terms: what the contract lets pass.
        seed: which paired repetition.
        rule: the firm's part of the equilibrium, computed on what these terms let it know.
        belief: joint table P(t, s_own, s_rival), (2, k, k): measured where models are shared,
            the prior's mean elsewhere.
        rival: the rival's predictions for the same clients (only where predictions are shared).
        rival_model: the rival's weights (only where models are shared).
    """

    terms: Terms
    seed: int
    rule: DecisionRule
    belief: Array
    rival: Predictions | None = None
    rival_model: Weights | None = None

    def __post_init__(self) -> None:
        instance(self.terms, "play.terms", Terms)
        instance(self.rule, "play.rule", DecisionRule)
        instance(self.rival, "play.rival", Predictions, optional=True)
        instance(self.rival_model, "play.rival_model", Weights, optional=True)
        count(self.seed, "play.seed")
        numeric(self.belief, "play.belief", 3, "f")
        require(
            self.terms.predictions or self.rival is None,
            f"{self.terms.contract} shares no predictions, yet the rival's were sent.",
        )
        require(
            self.terms.models or self.rival_model is None,
            f"{self.terms.contract} shares no models, yet the rival's was sent.",
        )
        require(
            not self.terms.secure or self.rival_model is None,
            f"{self.terms.contract} is secure, yet the rival's model was sent.",
        )


@final
@dataclass(frozen=True)
class Serve:
    """Give every common client a class.

    Args:
        terms: what the contract lets pass.
        seed: which paired repetition.
        model: the published one (only where models are shared).
        others: what the other firms predict for the same clients, by firm (only where predictions
            are shared).
    """

    terms: Terms
    seed: int
    model: Weights | None = None
    others: Mapping[str, Predictions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        instance(self.terms, "serve.terms", Terms)
        instance(self.model, "serve.model", Weights, optional=True)
        instance(self.others, "serve.others", Mapping)
        for name, told in self.others.items():
            text(name, "serve.others")
            instance(told, f"serve.others[{name!r}]", Predictions)
        count(self.seed, "serve.seed")
        require(
            self.terms.models or self.model is None,
            f"{self.terms.contract} shares no models, yet one was sent to serve with.",
        )
        require(
            self.terms.predictions or not self.others,
            f"{self.terms.contract} shares no predictions, yet the others' were sent.",
        )


@final
@dataclass(frozen=True)
class Measure:
    """Score a model on your own held-out cases.

    Args:
        model: the published one; None: your own.
        last: the last aggregate, where it is not the published one.
        adopt: score the one of these, or your own, that you would use; else `model`.
        by_class: tell how many cases of each class there are, and how many it gets right.
        compare: tell how your own model does on the same cases.
    """

    terms: Terms
    seed: int
    model: Weights | None = None
    last: Weights | None = None
    adopt: bool = False
    by_class: bool = False
    compare: bool = True

    def __post_init__(self) -> None:
        instance(self.terms, "measure.terms", Terms)
        instance(self.model, "measure.model", Weights, optional=True)
        instance(self.last, "measure.last", Weights, optional=True)
        count(self.seed, "measure.seed")
        flag(self.adopt, "measure.adopt")
        flag(self.by_class, "measure.by_class")
        flag(self.compare, "measure.compare")
        require(
            self.compare or (self.model is not None and not self.adopt),
            "measure.compare is false; it may be where a model is sent and none is to be chosen.",
        )
        require(
            self.terms.models or (self.model is None and self.last is None),
            f"{self.terms.contract} shares no models, yet one was sent to be scored.",
        )


@final
@dataclass(frozen=True)
class Reveal:
    """Tell the operator the true classes of the validation clients, for the joint table.

    Asked where nobody but the firms knows what clients turned out to be.
    """

    terms: Terms
    seed: int

    def __post_init__(self) -> None:
        instance(self.terms, "reveal.terms", Terms)
        count(self.seed, "reveal.seed")


@final
@dataclass(frozen=True)
class Settle:
    """Settle at home what clients earned you, and tell what you tell of that.

    Args:
        terms: what the contract lets pass.
        seed: which paired repetition.
        part: "contested" or "common".
        actions: what the firm did with each client, (n,): its action, or the class that it gave.
        shares: how much of the client's worth comes to the firm, (n,): all, or the market's gamma
            where the rival did the same.
        worth: what an action earns with a client of a class, (actions, classes); None: the right
            class earns 1, another 0.
        scored: name -> scores (n,) of class 1, whose AUC is to be told; only where predictions are
            shared, of predictions that were.
    """

    terms: Terms
    seed: int
    part: str
    actions: Array
    shares: Array
    worth: Array | None = None
    scored: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        instance(self.terms, "settle.terms", Terms)
        count(self.seed, "settle.seed")
        require(
            self.part in ("contested", "common"),
            f"settle.part is {self.part!r}; legal are 'contested' and 'common'.",
        )
        numeric(self.actions, "settle.actions", 1, "iu")
        numeric(self.shares, "settle.shares", 1, "f")
        require(bool(np.all(self.actions >= 0)), "settle.actions holds numbers below 0.")
        if self.worth is not None:
            numeric(self.worth, "settle.worth", 2, "f")
            require(bool(np.all(np.isfinite(self.worth))), "settle.worth must be finite.")
            require(
                bool(np.all(self.actions < len(self.worth))),
                f"settle.actions are not among 0 to {len(self.worth) - 1}, the rows of its worth.",
            )
        require(
            len(self.shares) == len(self.actions) and bool(np.all(np.isfinite(self.shares))),
            "settle.shares must be one finite number an action.",
        )
        instance(self.scored, "settle.scored", Mapping)
        require(
            self.terms.predictions or not self.scored,
            f"{self.terms.contract} shares no predictions, yet some were sent to be scored.",
        )
        for name, scores in self.scored.items():
            text(name, "settle.scored")
            numeric(scores, f"settle.scored[{name!r}]", 1, "f")
            require(
                len(scores) == len(self.actions) and bool(np.all(np.isfinite(scores))),
                f"settle.scored[{name!r}] must be one finite number an action.",
            )

    def earned(self, classes: Array) -> Array:
        """Payoffs (n,) with clients of these true classes (n,)."""
        right = self.actions == classes
        worth = right if self.worth is None else self.worth[self.actions, classes]
        paid: Array = self.shares * worth
        return paid
