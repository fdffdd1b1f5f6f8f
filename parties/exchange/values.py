"""Values that requests and answers are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange.checks import (
    Array,
    ExchangeError,
    amount,
    count,
    ids,
    instance,
    numeric,
    require,
    signed,
    text,
)

# A known name cannot be used for other switches, so a firm need not trust the operator's word.
KNOWN_CONTRACTS = {  # name -> (models, predictions)
    "no_sharing": (False, False),
    "train_sharing": (True, False),
    "infer_sharing": (False, True),
    "full_sharing": (True, True),
}


SETTLED = {
    "clients": "what each of the {} clients earned the firm, which tells most outcomes",
    "sums": "mean and variance of what {} clients earned the firm, and how many there are",
    "either": "what {} clients earned the firm: each, or of a firm that tells no more the sums",
}


@final
@dataclass(frozen=True)
class Terms:
    """What one contract lets pass between the firms.

    Args:
        contract: the contract's name.
        models: trained models cross, before the market opens.
        predictions: a firm's prediction for a client reaches the others before they act.
        rounds: how often models cross (0 where they do not: each firm trains once, alone).
        price: what the second firm (by name) pays the first, in the market's unit a client; below
            zero the first pays the second.
        secure: models cross as a sum only (`parties.masking`), of three firms or more.
        prediction_epsilon: of the noise that a firm puts on each prediction that reaches the
            others (local differential privacy); 0: none.
        update_epsilon, update_delta: what all models that a firm hands over in all rounds of one
            seed cost it, by the noise that it puts on each; 0: none.
        update_clip: largest L2 norm of a firm's update before that noise.
    """

    contract: str
    models: bool
    predictions: bool
    rounds: int = 0
    price: float = 0.0
    secure: bool = False
    prediction_epsilon: float = 0.0
    update_epsilon: float = 0.0
    update_delta: float = 0.0
    update_clip: float = 0.0

    def __post_init__(self) -> None:
        text(self.contract, "terms.contract")
        for name in ("models", "predictions", "secure"):
            value = getattr(self, name)
            require(isinstance(value, bool), f"terms.{name} is {value!r}; legal are true, false.")
        count(self.rounds, "terms.rounds", 1 if self.models else 0)
        require(self.models or self.rounds == 0, "terms.rounds must be 0 where no model crosses.")
        price = self.price
        require(
            isinstance(price, float) and math.isfinite(price),
            f"terms.price is {price!r}; legal is a finite number.",
        )
        shared = self.models or self.predictions
        require(shared or price == 0, "terms.price must be 0 where nothing is shared.")
        require(
            self.models or not self.secure, "terms.secure must be false where no model crosses."
        )
        self._check_noise()
        switches = (self.models, self.predictions)
        require(
            KNOWN_CONTRACTS.get(self.contract, switches) == switches,
            f"terms of {self.contract} with models={self.models}, predictions={self.predictions} "
            "are not what that name stands for.",
        )

    def _check_noise(self) -> None:
        for name in ("prediction_epsilon", "update_epsilon", "update_delta", "update_clip"):
            amount(getattr(self, name), f"terms.{name}")
        require(
            self.predictions or self.prediction_epsilon == 0,
            "terms.prediction_epsilon must be 0 where no prediction crosses.",
        )
        noise = (self.update_epsilon, self.update_delta, self.update_clip)
        require(
            (self.models and min(noise) > 0 and self.update_delta < 1) or max(noise) == 0,
            f"terms.update_epsilon, update_delta and update_clip are {noise}; legal are three "
            "numbers > 0, delta < 1, where models cross, or three zeros.",
        )

    def operator_sees(self, clients: str, settled: str = "") -> tuple[str, ...]:
        """What the neutral operator receives from a firm under these terms, in words.

        Args:
            clients: "contested": two firms compete for the same ones; "common": all serve the same
                ones; "own": each serves its own cases.
            settled: what firms that settle at home tell of it ("clients", "sums", "either"); "":
                the market knows what clients turn out to be.
        """
        seen = [
            "the firm's declaration: name, number of training examples, tensor names and shapes, "
            "whether it trains for the others",
            "training losses, one number an epoch, and the seconds and energy that training took",
        ]
        if clients == "contested":
            seen.append("predictions on the validation part, for the joint table")
            seen.append("actions on contested clients, to settle the market")
        elif clients == "common":
            seen.append("the class that it gives each common client, to settle the market")
        else:
            seen.append(
                "how its own and the published model score on its held-out cases: mean log losses, "
                "variance of their difference, accuracy, AUC, which it would use and what training "
                "took; with study.watch how many of each class it gets right after each round"
            )
        if settled and clients == "contested":
            seen.append(
                "true classes of the validation clients, for the joint table (with several seeds "
                "clients take turns: sooner or later of most of them)"
            )
        if settled and clients != "own":
            seen.append(SETTLED[settled].format(clients))
        if self.secure:
            seen.append(
                "the sum of three firms' trained weights or more, each times its number of "
                "examples, and these numbers; of a single firm's weights only masked numbers, "
                "which are as good as random, and shares of its keys that are sealed for others"
            )
        elif self.models:
            seen.append(
                "trained weights, to combine or forward them (with strategy=donor also the "
                "donor's profile card: quantiles, means and covariances of its layers' outputs; "
                "with strategy.precision=diagonal the diagonal of their Fisher information)"
                + self._noise_on_updates
            )
        if self.predictions:
            seen.append(
                f"predictions on {clients} clients, to forward them to the others"
                + self._noise_on_predictions
            )
        return tuple(seen)

    @property
    def _noise_on_updates(self) -> str:
        if not self.update_epsilon:
            return ""
        return (
            f"; the firm clips what it learnt to a norm of {self.update_clip:g} and adds noise: "
            f"epsilon {self.update_epsilon:g}, delta {self.update_delta:g} over all rounds of a "
            "seed"
        )

    @property
    def _noise_on_predictions(self) -> str:
        if not self.prediction_epsilon:
            return ""
        return f"; the firm randomises each of them: epsilon {self.prediction_epsilon:g}"


@final
@dataclass(frozen=True)
class Seal:
    """Who answers for a model: a signature of its tensors (`parties.seals`).

    Args:
        signer: the firm that trained it, or "operator", who combined it.
        round: in which it was sent.
        signature: Ed25519, 64 bytes in hex.
    """

    signer: str
    round: int
    signature: str

    def __post_init__(self) -> None:
        text(self.signer, "seal.signer")
        count(self.round, "seal.round")
        signed(self.signature, "seal.signature")


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
        seal: who answers for it, in a deployment.
    """

    arrays: Mapping[str, Array]
    examples: int
    precision: Mapping[str, Array] | None = None
    card: Mapping[str, Array] | None = None
    seal: Seal | None = None

    def __post_init__(self) -> None:
        require(isinstance(self.arrays, Mapping) and bool(self.arrays), "weights hold no tensor.")
        for name, array in self.arrays.items():
            numeric(array, f"weights[{name!r}]")
        count(self.examples, "weights.examples", 1)
        instance(self.seal, "weights.seal", Seal, optional=True)
        instance(self.precision, "weights.precision", Mapping, optional=True)
        for name, array in (self.precision or {}).items():
            numeric(array, f"weights.precision[{name!r}]", kinds="f")
            require(
                name in self.arrays and array.shape == self.arrays[name].shape,
                f"weights.precision[{name!r}] has no tensor of its name and shape.",
            )
            require(bool(np.all(array >= 0)), f"weights.precision[{name!r}] has values below 0.")
        instance(self.card, "weights.card", Mapping, optional=True)
        for name, array in (self.card or {}).items():
            numeric(array, f"weights.card[{name!r}]")
            require(array.ndim <= 2, f"weights.card[{name!r}] has {array.ndim} dimensions.")

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
        numeric(self.probs, "predictions.probs", 2, "f")
        require(self.probs.shape[1] >= 2, "predictions.probs needs a column a class.")
        ids(self.ids, len(self.probs), "predictions.ids")


@final
@dataclass(frozen=True)
class DecisionRule:
    """How a firm plays: its signal is the bin of its probability, its action a look-up.

    Args:
        edges: (k-1,) increasing bounds of the firm's own probability of class 1.
        rival_edges: the rival's bounds where its predictions are shared, else empty.
        actions: (k,) action for each own signal, (k, k_rival) where the rival's is seen too, or
            (k, k, k_rival) for what the firm's own signal is, what it told of it and what the
            rival told, where both tell with noise.
    """

    edges: Array
    rival_edges: Array
    actions: Array

    def __post_init__(self) -> None:
        for name in ("edges", "rival_edges"):
            edges = getattr(self, name)
            numeric(edges, f"rule.{name}", 1, "f")
            require(bool(np.all(np.diff(edges) > 0)), f"rule.{name} must increase.")
        numeric(self.actions, "rule.actions", None, "iu")
        own, rival = len(self.edges) + 1, len(self.rival_edges) + 1
        shape = {1: (own,), 3: (own, own, rival)}.get(self.actions.ndim, (own, rival))
        require(
            self.actions.shape == shape, f"rule.actions must have the shape {shape} of signals."
        )
        require(bool(np.isin(self.actions, (0, 1)).all()), "rule.actions holds 0 and 1 only.")

    @property
    def sees_rival(self) -> bool:
        """Whether the action depends on the rival's prediction."""
        return self.actions.ndim > 1

    def act(self, own: Array, rival: Array | None, told: Array | None = None) -> Array:
        """Actions (n,) for own and, where seen, the rival's probabilities of class 1, (n,) each.

        Args:
            told: the signals (n,) that the firm told, where it tells with noise.
        """
        signal = np.digitize(own, self.edges)
        if not self.sees_rival:
            return self.actions[signal].astype(np.int8)
        if rival is None:
            raise ExchangeError("this rule needs the rival's predictions; none were sent.")
        theirs = np.digitize(rival, self.rival_edges)
        if self.actions.ndim == 2:
            return self.actions[signal, theirs].astype(np.int8)
        if told is None:
            raise ExchangeError("this rule needs what the firm told; it told nothing.")
        return self.actions[signal, told, theirs].astype(np.int8)
