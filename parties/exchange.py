"""The wall: every type that may leave a firm or reach one, and how it is packed.

What is not a type of this module cannot cross. The operator sends a *request*
(:class:`Enrol`, :class:`Offer`, :class:`Query`, :class:`Play`, :class:`Measure`), a firm sends an
*answer* (:class:`Declaration`, :class:`Trained`, :class:`Predictions`, :class:`Actions`,
:class:`Scores`, :class:`Refusal` or :class:`Fault`). There is deliberately no type for features
or labels. Of a firm's own held-out cases only means and a variance can be told, of its own data a
few measures (:class:`ReuseReport`) and, by a donor, sums and quantiles of what its model makes of
them (the profile card in :class:`Weights`).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class FedpactError(Exception):
    """An error its reader can act on: what is wrong, what is legal, what to do."""


@final
class ExchangeError(FedpactError):
    """A message that is not a well-formed value of this module."""


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ExchangeError(problem)


def _count(value: object, name: str, least: int = 0) -> None:
    _require(
        isinstance(value, int) and not isinstance(value, bool) and value >= least,
        f"{name} is {value!r}; a count is a whole number >= {least}.",
    )


def _amount(value: object, name: str) -> None:
    legal = isinstance(value, float) and math.isfinite(value) and value >= 0
    _require(legal, f"{name} is {value!r}; legal is a finite number >= 0.")


def _flag(value: object, name: str) -> None:
    _require(isinstance(value, bool), f"{name} is {value!r}; legal are true and false.")


def _text(value: object, name: str) -> None:
    _require(isinstance(value, str) and bool(value), f"{name} is {value!r}; a name is not empty.")


def _kind(value: object, name: str, kind: type, optional: bool = False) -> None:
    _require(
        isinstance(value, kind) or (optional and value is None),
        f"{name} is {type(value).__name__}, not {kind.__name__}.",
    )


def _numeric(value: object, name: str, ndim: int | None = None, kinds: str = "iuf") -> None:
    _require(isinstance(value, np.ndarray), f"{name} is {type(value).__name__}, not an array.")
    assert isinstance(value, np.ndarray)
    _require(
        value.dtype.kind in kinds,
        f"{name} has dtype {value.dtype}; legal are kinds {kinds!r} (i, u: integers, f: floats).",
    )
    _require(
        ndim is None or value.ndim == ndim, f"{name} has {value.ndim} dimensions, expected {ndim}."
    )


def _ids(value: object, rows: int, name: str) -> None:
    _numeric(value, name, 1, "iu")
    assert isinstance(value, np.ndarray)
    _require(len(value) == rows, f"{name} names {len(value)} clients for {rows} rows.")
    _require(len(np.unique(value)) == rows, f"{name} names a client twice.")


# --------------------------------------------------------------------------- shared values


# A known name cannot be used for other switches, so a firm need not trust the operator's word.
KNOWN_CONTRACTS = {  # name -> (models, predictions)
    "no_sharing": (False, False),
    "train_sharing": (True, False),
    "infer_sharing": (False, True),
    "full_sharing": (True, True),
}


@final
@dataclass(frozen=True)
class Terms:
    """What one contract lets pass between the firms.

    Args:
        contract: the contract's name.
        models: trained models cross, before the market opens.
        predictions: a firm's prediction for a contested client reaches its rival before it acts.
        rounds: how often models cross (0 where they do not: each firm trains once, alone).
    """

    contract: str
    models: bool
    predictions: bool
    rounds: int = 0

    def __post_init__(self) -> None:
        _text(self.contract, "terms.contract")
        for name in ("models", "predictions"):
            value = getattr(self, name)
            _require(isinstance(value, bool), f"terms.{name} is {value!r}; legal are true, false.")
        _count(self.rounds, "terms.rounds", 1 if self.models else 0)
        _require(self.models or self.rounds == 0, "terms.rounds must be 0 where no model crosses.")
        switches = (self.models, self.predictions)
        _require(
            KNOWN_CONTRACTS.get(self.contract, switches) == switches,
            f"terms of {self.contract} with models={self.models}, predictions={self.predictions} "
            "are not what that name stands for.",
        )

    def operator_sees(self, contested: bool) -> tuple[str, ...]:
        """What the neutral operator receives from a firm under these terms, in words.

        Args:
            contested: the firms compete for the same clients, or each serves its own cases.
        """
        seen = [
            "the firm's declaration: name, number of training examples, tensor names and shapes, "
            "whether it trains for the others",
            "training losses, one number an epoch, and the seconds and energy that training took",
        ]
        if contested:
            seen.append("predictions on the validation part, for the joint table")
            seen.append("actions on contested clients, to settle the market")
        else:
            seen.append(
                "how its own and the published model score on its held-out cases: mean log losses, "
                "variance of their difference, accuracy, AUC, which it would use and what training "
                "took; with study.watch how many of each class it gets right after each round"
            )
        if self.models:
            seen.append(
                "trained weights, to combine or forward them (with strategy=donor also the "
                "donor's profile card: quantiles, means and covariances of its layers' outputs; "
                "with strategy.precision=diagonal the diagonal of their Fisher information)"
            )
        if self.predictions:
            seen.append("predictions on contested clients, to forward them to the rival")
        return tuple(seen)


@final
@dataclass(frozen=True)
class Weights:
    """A trained model.

    Args:
        arrays: tensor name -> array.
        examples: how many it was trained on.
        precision: tensor name -> diagonal of the Fisher information of one example at these
            weights, same shape, >= 0; only where the operator asked for it.
        card: name -> array, the profile card of its training data (`parties.reuse.profile`): sums
            over cases, nothing of one; only where the operator asked for it.
    """

    arrays: Mapping[str, Array]
    examples: int
    precision: Mapping[str, Array] | None = None
    card: Mapping[str, Array] | None = None

    def __post_init__(self) -> None:
        _require(isinstance(self.arrays, Mapping) and bool(self.arrays), "weights hold no tensor.")
        for name, array in self.arrays.items():
            _numeric(array, f"weights[{name!r}]")
        _count(self.examples, "weights.examples", 1)
        _kind(self.precision, "weights.precision", Mapping, optional=True)
        for name, array in (self.precision or {}).items():
            _numeric(array, f"weights.precision[{name!r}]", kinds="f")
            _require(
                name in self.arrays and array.shape == self.arrays[name].shape,
                f"weights.precision[{name!r}] has no tensor of its name and shape.",
            )
            _require(bool(np.all(array >= 0)), f"weights.precision[{name!r}] has values below 0.")
        _kind(self.card, "weights.card", Mapping, optional=True)
        for name, array in (self.card or {}).items():
            _numeric(array, f"weights.card[{name!r}]")
            _require(array.ndim <= 2, f"weights.card[{name!r}] has {array.ndim} dimensions.")

    @property
    def norm(self) -> float:
        """L2 norm over all tensors but counters."""
        floats = [a for a in self.arrays.values() if a.dtype.kind == "f"]
        with np.errstate(over="ignore"):
            squares = [float(np.sum(np.square(a, dtype=np.float64))) for a in floats]
        return math.sqrt(math.fsum(squares)) if all(map(math.isfinite, squares)) else math.inf


@final
@dataclass(frozen=True)
class Predictions:
    """A firm's class probabilities for named clients: ids (n,), probs (n, classes)."""

    ids: Array
    probs: Array

    def __post_init__(self) -> None:
        _numeric(self.probs, "predictions.probs", 2, "f")
        _require(self.probs.shape[1] >= 2, "predictions.probs needs a column a class.")
        _ids(self.ids, len(self.probs), "predictions.ids")


@final
@dataclass(frozen=True)
class DecisionRule:
    """How a firm plays: its signal is the bin of its probability, its action a look-up.

    Args:
        edges: (k-1,) increasing bounds of the firm's own probability of class 1.
        rival_edges: the rival's bounds where its predictions are shared, else empty.
        actions: (k,) action for each own signal, or (k, k_rival) where the rival's is seen too.
    """

    edges: Array
    rival_edges: Array
    actions: Array

    def __post_init__(self) -> None:
        for name in ("edges", "rival_edges"):
            edges = getattr(self, name)
            _numeric(edges, f"rule.{name}", 1, "f")
            _require(bool(np.all(np.diff(edges) > 0)), f"rule.{name} must increase.")
        _numeric(self.actions, "rule.actions", None, "iu")
        own, rival = len(self.edges) + 1, len(self.rival_edges) + 1
        shape = (own,) if self.actions.ndim == 1 else (own, rival)
        _require(
            self.actions.shape == shape, f"rule.actions must have the shape {shape} of signals."
        )
        _require(bool(np.isin(self.actions, (0, 1)).all()), "rule.actions holds 0 and 1 only.")

    @property
    def sees_rival(self) -> bool:
        """Whether the action depends on the rival's prediction."""
        return self.actions.ndim == 2

    def act(self, own: Array, rival: Array | None) -> Array:
        """Actions (n,) for own and, where seen, the rival's probabilities of class 1, (n,) each."""
        signal = np.digitize(own, self.edges)
        if not self.sees_rival:
            return self.actions[signal].astype(np.int8)
        if rival is None:
            raise ExchangeError("this rule needs the rival's predictions; none were sent.")
        return self.actions[signal, np.digitize(rival, self.rival_edges)].astype(np.int8)


# -------------------------------------------------------------- requests: operator -> firm


@final
@dataclass(frozen=True)
class Enrol:
    """Who are you, how much data do you declare, what shape is your model?"""

    seed: int

    def __post_init__(self) -> None:
        _count(self.seed, "enrol.seed")


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
    """

    terms: Terms
    seed: int
    round: int
    epochs: int = 0
    model: Weights | None = None
    proximal: float = 0.0
    precision: bool = False
    card: bool = False

    def __post_init__(self) -> None:
        _kind(self.terms, "offer.terms", Terms)
        _kind(self.model, "offer.model", Weights, optional=True)
        _count(self.seed, "offer.seed")
        _count(self.round, "offer.round")
        _count(self.epochs, "offer.epochs")
        _amount(self.proximal, "offer.proximal")
        _flag(self.precision, "offer.precision")
        _flag(self.card, "offer.card")
        extras = self.precision or self.card
        _require(
            self.terms.models or (self.model is None and self.epochs == 0 and not extras),
            f"{self.terms.contract} shares no models, yet one was offered to train.",
        )


@final
@dataclass(frozen=True)
class Query:
    """Predict for one part of the clients: "validation" (for the operator's joint table) or
    "contested" (for the rival; only under terms that share predictions)."""

    terms: Terms
    seed: int
    part: str

    def __post_init__(self) -> None:
        _kind(self.terms, "query.terms", Terms)
        _count(self.seed, "query.seed")
        _require(
            self.part in ("validation", "contested"),
            f"query.part is {self.part!r}; legal are 'validation' and 'contested'.",
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
        _kind(self.terms, "play.terms", Terms)
        _kind(self.rule, "play.rule", DecisionRule)
        _kind(self.rival, "play.rival", Predictions, optional=True)
        _kind(self.rival_model, "play.rival_model", Weights, optional=True)
        _count(self.seed, "play.seed")
        _numeric(self.belief, "play.belief", 3, "f")
        _require(
            self.terms.predictions or self.rival is None,
            f"{self.terms.contract} shares no predictions, yet the rival's were sent.",
        )
        _require(
            self.terms.models or self.rival_model is None,
            f"{self.terms.contract} shares no models, yet the rival's was sent.",
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
        _kind(self.terms, "measure.terms", Terms)
        _kind(self.model, "measure.model", Weights, optional=True)
        _kind(self.last, "measure.last", Weights, optional=True)
        _count(self.seed, "measure.seed")
        _flag(self.adopt, "measure.adopt")
        _flag(self.by_class, "measure.by_class")
        _flag(self.compare, "measure.compare")
        _require(
            self.compare or (self.model is not None and not self.adopt),
            "measure.compare is false; it may be where a model is sent and none is to be chosen.",
        )
        _require(
            self.terms.models or (self.model is None and self.last is None),
            f"{self.terms.contract} shares no models, yet one was sent to be scored.",
        )


# --------------------------------------------------------------- answers: firm -> operator

ADOPTABLE = ("own", "published", "last", "tuned")
"""Models a firm may use: its own, the published one, the last aggregate, the first one tuned."""
DECISIONS = ("as_is", "fine_tune", "scratch")
"""What a firm that judges may end with: use the model, train on from it, train its own."""


@final
@dataclass(frozen=True)
class Declaration:
    """A firm's declared facts: they bound what the operator later accepts from it.

    Args:
        firm: its name.
        examples: training examples it holds.
        validation, contested, held_out: how many clients or cases of each part it can answer for.
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

    def __post_init__(self) -> None:
        _text(self.firm, "declaration.firm")
        _count(self.examples, "declaration.examples", 1)
        for name in ("validation", "contested", "held_out"):
            _count(getattr(self, name), f"declaration.{name}")
        _require(
            isinstance(self.tensors, Mapping) and bool(self.tensors), "declaration names no tensor."
        )
        _flag(self.contributes, "declaration.contributes")
        known = isinstance(self.parameters, tuple) and set(self.parameters) <= set(self.tensors)
        _require(known, "declaration.parameters are not among its tensors.")
        for name, shape in self.tensors.items():
            _require(isinstance(shape, tuple), f"declaration.tensors[{name!r}] is not a shape.")
            for size in shape:
                _count(size, f"declaration.tensors[{name!r}]")


@final
@dataclass(frozen=True)
class Trained:
    """The firm trained: its losses an epoch, and its weights only where the terms share models.

    A firm that trains on nothing (a free rider) says so: no examples, no losses, no weights.

    Args:
        spent: CPU seconds, GPU seconds, joules and kg CO2e that the training took it, (4,); an
            array, so that a message's size does not depend on them.
        known: whether the energy was "measured" or "estimated".
    """

    examples: int
    losses: tuple[float, ...]
    weights: Weights | None = None
    spent: Array = field(default_factory=lambda: np.zeros(4))
    known: str = "estimated"

    def __post_init__(self) -> None:
        _count(self.examples, "trained.examples")
        _numeric(self.spent, "trained.spent", 1, "f")
        _require(
            self.spent.shape == (4,) and bool(np.all(np.isfinite(self.spent) & (self.spent >= 0))),
            "trained.spent must be four finite numbers >= 0: CPU and GPU seconds, joules, kg CO2e.",
        )
        _require(
            self.known in ("measured", "estimated"),
            f"trained.known is {self.known!r}; legal are measured and estimated.",
        )
        _require(
            self.examples > 0 or (self.weights is None and not self.losses),
            "trained.examples is 0; a firm that trained on nothing sends no losses and no weights.",
        )
        _kind(self.weights, "trained.weights", Weights, optional=True)
        _require(
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
        _numeric(self.actions, "actions.actions", 1, "iu")
        _require(bool(np.isin(self.actions, (0, 1)).all()), "actions holds 0 and 1 only.")
        _ids(self.ids, len(self.actions), "actions.ids")


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
        _count(self.check, "problem.check", 1)
        _text(self.name, "problem.name")
        _text(self.theme, "problem.theme")
        _count(self.opened, "problem.opened")
        if self.closed is not None:
            _count(self.closed, "problem.closed", self.opened)


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
        _flag(self.refused, "report.refused")
        _kind(self.problems, "report.problems", tuple)
        for problem in self.problems:
            _kind(problem, "report.problems", Problem)
        _require(
            self.decision in DECISIONS,
            f"report.decision is {self.decision!r}; legal are {', '.join(DECISIONS)}.",
        )
        _kind(self.measures, "report.measures", Mapping)
        for name, value in self.measures.items():
            _text(name, "report.measures")
            _require(
                isinstance(value, float) and math.isfinite(value),
                f"report.measures[{name!r}] is {value!r}; legal is a finite number.",
            )
        if self.forecast is not None:
            _require(
                isinstance(self.forecast, tuple) and len(self.forecast) == 3,
                "report.forecast holds a middle, a low and a high number of epochs.",
            )
            for value in self.forecast:
                _amount(value, "report.forecast")
        _count(self.history, "report.history")
        _flag(self.probed, "report.probed")
        _count(self.passes, "report.passes")


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
        _count(self.own_passes, "scores.own_passes")
        _kind(self.report, "scores.report", ReuseReport, optional=True)
        _count(self.cases, "scores.cases", 1)
        for name in ("log_loss", "own_log_loss", "variance"):
            value = getattr(self, name)
            if value is not None or name != "own_log_loss":
                _amount(value, f"scores.{name}")
        _require(
            self.adopted in ADOPTABLE,
            f"scores.adopted is {self.adopted!r}; legal are {', '.join(ADOPTABLE)}.",
        )
        if self.by_class is not None:
            _by_class(self.by_class, self.cases)
        for name in ("accuracy", "auc"):
            value = getattr(self, name)
            missing = value is None and name == "auc"
            legal = isinstance(value, float) and 0 <= value <= 1
            _require(missing or legal, f"scores.{name} is {value!r}; legal is [0, 1].")


def _by_class(value: object, cases: int) -> None:
    _kind(value, "scores.by_class", tuple)
    assert isinstance(value, tuple)
    for pair in value:
        _require(
            isinstance(pair, tuple) and len(pair) == 2, "scores.by_class holds (cases, right)."
        )
        for number in pair:
            _count(number, "scores.by_class")
        _require(pair[1] <= pair[0], "scores.by_class has more right cases than cases.")
    _require(sum(n for n, _ in value) == cases, f"scores.by_class does not add up to {cases}.")


@final
@dataclass(frozen=True)
class Refusal:
    """The firm will not do what it was asked. A valid answer, not a fault."""

    reason: str

    def __post_init__(self) -> None:
        _text(self.reason, "refusal.reason")


@final
@dataclass(frozen=True)
class Fault:
    """The firm failed. Only the kind of its error crosses: its text could quote private data."""

    kind: str

    def __post_init__(self) -> None:
        _text(self.kind, "fault.kind")
        _require(self.kind.isidentifier(), "fault.kind is the name of an error, nothing else.")


Request = Enrol | Offer | Query | Play | Measure
Answer = Declaration | Trained | Predictions | Actions | Scores | Refusal | Fault
Message = Request | Answer

TYPES: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Terms, Weights, DecisionRule, ReuseReport, Problem),
        *(Enrol, Offer, Query, Play, Measure),
        *(Declaration, Trained, Predictions, Actions, Scores, Refusal, Fault),
    )
}
_MESSAGES = (*Request.__args__, *Answer.__args__)


# --------------------------------------------------------------------------------- packing


@final
@dataclass(frozen=True)
class Packed:
    """A message as text and arrays: what any transport can carry, with no pickle in it."""

    kind: str
    text: str
    arrays: Mapping[str, Array] = field(default_factory=dict)


def pack(message: Message) -> Packed:
    """Split a message into JSON text and named arrays.

    >>> unpack(pack(Refusal("not for sale")))
    Refusal(reason='not for sale')
    """
    arrays: dict[str, Array] = {}

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, np.ndarray):
            arrays[path] = value
            return {"array": path}
        if dataclasses.is_dataclass(value):
            inner = {
                f.name: plain(getattr(value, f.name), f"{path}.{f.name}")
                for f in dataclasses.fields(value)
            }
            return {"type": type(value).__name__, "fields": inner}
        if isinstance(value, Mapping):
            return {"map": {key: plain(item, f"{path}.{key}") for key, item in value.items()}}
        if isinstance(value, tuple):
            return [plain(item, f"{path}.{i}") for i, item in enumerate(value)]
        return value

    kind = type(message).__name__
    return Packed(kind, json.dumps(plain(message, kind)), arrays)


def unpack(packed: Packed) -> Message:
    """Rebuild a message; anything that is not exactly one of the declared types is refused.

    Raises:
        ExchangeError: unknown type, missing or extra field, value out of its range.
    """

    def rich(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(rich(item) for item in value)
        if not isinstance(value, dict):
            return value
        if set(value) == {"array"}:
            used.add(value["array"])
            return packed.arrays[value["array"]]
        if set(value) == {"map"}:
            return {str(key): rich(item) for key, item in value["map"].items()}
        if set(value) == {"type", "fields"}:
            return TYPES[value["type"]](**{k: rich(v) for k, v in value["fields"].items()})
        raise ExchangeError(f"a packed value has the keys {sorted(value)}")

    used: set[str] = set()
    try:
        message = rich(json.loads(packed.text))
    except ExchangeError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        problem = f"{type(fault).__name__}: {fault}"
        raise ExchangeError(f"a {packed.kind!r} message cannot be read: {problem}") from fault
    if not isinstance(message, _MESSAGES) or type(message).__name__ != packed.kind:
        raise ExchangeError(
            f"a message says it is {packed.kind!r} but holds {type(message).__name__}; "
            f"legal are {', '.join(sorted(t.__name__ for t in _MESSAGES))}."
        )
    if used != set(packed.arrays):
        stray = ", ".join(sorted(set(packed.arrays) - used))
        raise ExchangeError(f"a {packed.kind} carries arrays that belong to no field: {stray}")
    checked: Message = message
    return checked
