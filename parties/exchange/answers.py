"""Answers: what a firm tells the operator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from parties.exchange.checks import (
    Array,
    ExchangeError,
    amount,
    count,
    flag,
    ids,
    instance,
    numeric,
    require,
    text,
)
from parties.exchange.masks import Masked
from parties.exchange.values import Weights

ADOPTABLE = ("own", "published", "last", "canonical", "tuned")
"""Models a firm may use: its own, the published one, the last aggregate, the published one behind a
canonicalizer of the firm's, the published one tuned."""
DECISIONS = ("as_is", "canonicalize", "fine_tune", "scratch")
"""What a firm that judges may end with: use the model, bring its images into the pose that the
model knows, train on from it, train its own."""


@final
@dataclass(frozen=True)
class Declaration:
    """A firm's declared facts: they bound what the operator later accepts from it.

    Args:
        firm: its name.
        examples: training examples it holds.
        validation, contested, common, held_out: how many clients or cases of each part it can
            answer for.
        tensors: tensor name -> shape of its model.
        parameters: those of them that are trained (the others are buffers).
        contributes: false: a free rider, who trains on nothing for the others.
    """

    firm: str
    examples: int
    validation: int
    contested: int
    held_out: int
    tensors: Mapping[str, tuple[int, ...]]
    parameters: tuple[str, ...] = ()
    contributes: bool = True
    common: int = 0

    def __post_init__(self) -> None:
        text(self.firm, "declaration.firm")
        count(self.examples, "declaration.examples", 1)
        for name in ("validation", "contested", "common", "held_out"):
            count(getattr(self, name), f"declaration.{name}")
        require(
            isinstance(self.tensors, Mapping) and bool(self.tensors), "declaration names no tensor."
        )
        flag(self.contributes, "declaration.contributes")
        known = isinstance(self.parameters, tuple) and set(self.parameters) <= set(self.tensors)
        require(known, "declaration.parameters are not among its tensors.")
        for name, shape in self.tensors.items():
            require(isinstance(shape, tuple), f"declaration.tensors[{name!r}] is not a shape.")
            for size in shape:
                count(size, f"declaration.tensors[{name!r}]")


@final
@dataclass(frozen=True)
class Trained:
    """The firm trained: its losses an epoch, and its weights only where the terms share models.

    A firm that trains on nothing (a free rider) says so: no examples, no losses, no weights.

    Args:
        spent: CPU seconds, GPU seconds, joules and kg CO2e that the training took it, (4,); an
            array, so that a message's size does not depend on them.
        known: whether the energy was "measured" or "estimated".
        masked: in the place of weights, where the terms are secure.
    """

    examples: int
    losses: tuple[float, ...]
    weights: Weights | None = None
    spent: Array = field(default_factory=lambda: np.zeros(4))
    known: str = "estimated"
    masked: Masked | None = None

    def __post_init__(self) -> None:
        count(self.examples, "trained.examples")
        numeric(self.spent, "trained.spent", 1, "f")
        spent = self.spent.tolist()
        require(
            len(spent) == 4 and all(0 <= value < math.inf for value in spent),
            "trained.spent must be four finite numbers >= 0: CPU and GPU seconds, joules, kg CO2e.",
        )
        if self.known not in ("measured", "estimated"):
            raise ExchangeError(
                f"trained.known is {self.known!r}; legal are measured and estimated."
            )
        require(
            self.examples > 0 or (self.weights is None and self.masked is None and not self.losses),
            "trained.examples is 0; a firm that trained on nothing sends no losses and no weights.",
        )
        instance(self.weights, "trained.weights", Weights, optional=True)
        instance(self.masked, "trained.masked", Masked, optional=True)
        require(
            self.weights is None or self.masked is None,
            "trained.weights are sent masked, or as they are, not both.",
        )
        require(
            isinstance(self.losses, tuple) and all(isinstance(v, float) for v in self.losses),
            "trained.losses must be floats, one an epoch.",
        )


@final
@dataclass(frozen=True)
class Actions:
    """What the firm does with each contested client: ids (n,), actions (n,) of 0 and 1."""

    ids: Array
    actions: Array

    def __post_init__(self) -> None:
        numeric(self.actions, "actions.actions", 1, "iu")
        require(bool(np.isin(self.actions, (0, 1)).all()), "actions holds 0 and 1 only.")
        ids(self.ids, len(self.actions), "actions.ids")


@final
@dataclass(frozen=True)
class Served:
    """The class that a firm gives each common client: ids (n,), classes (n,).

    Args:
        own_passes: passes over one example that the firm's own model took, where it used it.
    """

    ids: Array
    classes: Array
    own_passes: int = 0

    def __post_init__(self) -> None:
        numeric(self.classes, "served.classes", 1, "iu")
        require(bool(np.all(self.classes >= 0)), "served.classes holds numbers below 0.")
        ids(self.ids, len(self.classes), "served.ids")
        count(self.own_passes, "served.own_passes")


@final
@dataclass(frozen=True)
class Revealed:
    """True classes of the validation clients: ids (n,), classes (n,).

    With the payoffs of `Settled` the only outcomes of single clients that can leave a firm. They go
    to the operator alone.
    """

    ids: Array
    classes: Array

    def __post_init__(self) -> None:
        numeric(self.classes, "revealed.classes", 1, "iu")
        require(bool(np.all(self.classes >= 0)), "revealed.classes holds numbers below 0.")
        ids(self.ids, len(self.classes), "revealed.ids")


@final
@dataclass(frozen=True)
class Settled:
    """What clients earned the firm, as far as it tells: each of them, or sums only.

    Args:
        cases: how many clients; population: how many different ones it knows in all.
        payoff: mean a client, before any price or cost.
        gain: payoff minus that under no_sharing, of the same clients and seed.
        variance: of the gain over the clients.
        ids, payoffs: each client's, (n,); None: sums only.
        scores: name -> AUC, of the scores that were sent.
    """

    cases: int
    population: int
    payoff: float
    gain: float
    variance: float
    ids: Array | None = None
    payoffs: Array | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count(self.cases, "settled.cases", 1)
        count(self.population, "settled.population", self.cases)
        for name in ("payoff", "gain"):
            value = getattr(self, name)
            require(
                isinstance(value, float) and math.isfinite(value),
                f"settled.{name} is {value!r}; legal is a finite number.",
            )
        amount(self.variance, "settled.variance")
        require(
            (self.ids is None) == (self.payoffs is None),
            "settled.ids and settled.payoffs come together, or neither does.",
        )
        if self.payoffs is not None:
            numeric(self.payoffs, "settled.payoffs", 1, "f")
            require(len(self.payoffs) == self.cases, "settled.payoffs are not one a case.")
            require(bool(np.all(np.isfinite(self.payoffs))), "settled.payoffs must be finite.")
            ids(self.ids, self.cases, "settled.ids")
        instance(self.scores, "settled.scores", Mapping)
        for name, value in self.scores.items():
            text(name, "settled.scores")
            legal = isinstance(value, float) and 0 <= value <= 1
            require(legal, f"settled.scores[{name!r}] is {value!r}; legal is [0, 1].")


@final
@dataclass(frozen=True)
class Problem:
    """A check of a firm's adoption gate that objected to a published model.

    Args:
        check: its number, with name and theme.
        opened: the round in which it first objected; closed: in which it passed again, or None.
    """

    check: int
    name: str
    theme: str
    opened: int
    closed: int | None = None

    def __post_init__(self) -> None:
        count(self.check, "problem.check", 1)
        text(self.name, "problem.name")
        text(self.theme, "problem.theme")
        count(self.opened, "problem.opened")
        if self.closed is not None:
            count(self.closed, "problem.closed", self.opened)


@final
@dataclass(frozen=True)
class ReuseReport:
    """What a firm made of a model that it was offered: nothing of its cases but a few measures.

    Args:
        decision: one of `DECISIONS`.
        measures: name of a measure of reuse -> value.
        forecast: epochs that tuning was forecast to take: middle, low and high end; None without.
        history: past cases that the forecast rested on.
        probed: it was first trained for a quarter of an epoch.
        passes: passes over one example that judging and tuning took.
        refused: its adoption gate let the model not in.
        problems: checks of the gate that objected, in this round or before.
    """

    decision: str
    measures: Mapping[str, float] = field(default_factory=dict)
    forecast: tuple[float, float, float] | None = None
    history: int = 0
    probed: bool = False
    passes: int = 0
    refused: bool = False
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        flag(self.refused, "report.refused")
        instance(self.problems, "report.problems", tuple)
        for problem in self.problems:
            instance(problem, "report.problems", Problem)
        require(
            self.decision in DECISIONS,
            f"report.decision is {self.decision!r}; legal are {', '.join(DECISIONS)}.",
        )
        instance(self.measures, "report.measures", Mapping)
        for name, value in self.measures.items():
            text(name, "report.measures")
            require(
                isinstance(value, float) and math.isfinite(value),
                f"report.measures[{name!r}] is {value!r}; legal is a finite number.",
            )
        if self.forecast is not None:
            require(
                isinstance(self.forecast, tuple) and len(self.forecast) == 3,
                "report.forecast holds a middle, a low and a high number of epochs.",
            )
            for value in self.forecast:
                amount(value, "report.forecast")
        count(self.history, "report.history")
        flag(self.probed, "report.probed")
        count(self.passes, "report.passes")


@final
@dataclass(frozen=True)
class Scores:
    """A model against the firm's own, on the firm's held-out cases: sums only, nothing of a case.

    Args:
        cases: how many.
        log_loss: mean log loss of the scored model, nats.
        own_log_loss: mean log loss of the firm's own model; None where no comparison was asked for.
        variance: sample variance of the difference (own minus scored) over the cases.
        accuracy, auc: of the scored model; AUC is None where not exactly two classes are held out.
        adopted: which model was scored, one of `ADOPTABLE`.
        by_class: (cases, right ones) of each class, only where it was asked for.
        report: how it was judged, where it was to be chosen and the firm judges.
        own_passes: passes over one example that the firm's own model took; 0 where no comparison
            was asked for.
    """

    cases: int
    log_loss: float
    own_log_loss: float | None
    variance: float
    accuracy: float
    auc: float | None = None
    adopted: str = "own"
    by_class: tuple[tuple[int, int], ...] | None = None
    report: ReuseReport | None = None
    own_passes: int = 0

    def __post_init__(self) -> None:
        count(self.own_passes, "scores.own_passes")
        instance(self.report, "scores.report", ReuseReport, optional=True)
        count(self.cases, "scores.cases", 1)
        for name in ("log_loss", "own_log_loss", "variance"):
            value = getattr(self, name)
            if value is not None or name != "own_log_loss":
                amount(value, f"scores.{name}")
        require(
            self.adopted in ADOPTABLE,
            f"scores.adopted is {self.adopted!r}; legal are {', '.join(ADOPTABLE)}.",
        )
        if self.by_class is not None:
            _by_class(self.by_class, self.cases)
        for name in ("accuracy", "auc"):
            value = getattr(self, name)
            missing = value is None and name == "auc"
            legal = isinstance(value, float) and 0 <= value <= 1
            require(missing or legal, f"scores.{name} is {value!r}; legal is [0, 1].")


def _by_class(value: object, cases: int) -> None:
    instance(value, "scores.by_class", tuple)
    assert isinstance(value, tuple)
    for pair in value:
        require(isinstance(pair, tuple) and len(pair) == 2, "scores.by_class holds (cases, right).")
        for number in pair:
            count(number, "scores.by_class")
        require(pair[1] <= pair[0], "scores.by_class has more right cases than cases.")
    require(sum(n for n, _ in value) == cases, f"scores.by_class does not add up to {cases}.")


@final
@dataclass(frozen=True)
class Refusal:
    """The firm will not do what it was asked. A valid answer, not a fault."""

    reason: str

    def __post_init__(self) -> None:
        text(self.reason, "refusal.reason")


@final
@dataclass(frozen=True)
class Fault:
    """The firm failed. Only the kind of its error crosses: its text could quote private data."""

    kind: str

    def __post_init__(self) -> None:
        text(self.kind, "fault.kind")
        require(self.kind.isidentifier(), "fault.kind is the name of an error, nothing else.")
