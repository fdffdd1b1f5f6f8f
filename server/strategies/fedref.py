"""FedRef: a reference model, the mean of the last few, steadies what is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError, Weights
from server.strategies import State, Strategy, as_type, average
from server.strategies.fedavg import FedAvg

Model = Mapping[str, Array]
MODES = ("publish", "pull", "printed", "off")
PRECISIONS = ("scalar", "diagonal")


@final
@dataclass(frozen=True)
class FedRef(Strategy):
    """Reference-model Bayesian fine-tuning, as re-derived from the printed method.

    In every mode agg_t is the FedAvg average of round t and p the window. It is no promise of a
    better model: measure it against strategy=fedavg.

    * ``publish``: firms train on from agg_t, untouched; they may adopt the plain mean of the last
      p aggregates, agg_t among them.
    * ``pull``: theta_t = (agg_t + lam ref_t) / (1 + lam) is what firms train on from and what they
      may adopt; ref_t is the mean of the last p models theta. It is the maximum a posteriori
      model under an isotropic quadratic around agg_t and a Laplace (Gaussian) prior at ref_t.
      lam = 0 is FedAvg; p = 1 is FedAvgM without momentum, server learning rate 1 / (1 + lam).
      With ``precision=diagonal`` coordinate i follows
      theta_i = (h_i agg_i + 2 lam ref_i) / (h_i + 2 lam), h the examples-weighted mean of the
      firms' diagonal Fisher information, rescaled to mean 2 over all coordinates, so that h = 2
      everywhere is the scalar rule. Tensors without a Fisher (BatchNorm statistics), and a Fisher
      that is zero everywhere, take the scalar rule.
    * ``printed``: one gradient step, of size ``step``, on the objective as the paper prints it,
      sum_k F_k + lam ||theta1 - theta1_0||^2 + lam ||theta2 - theta2_0||^2, where theta1 = agg_t,
      theta2 = ref_t, and _0 are their tuned values of the round before. The losses are constants
      to the operator, so this computes exactly
      theta1 = agg_t - 2 step lam (agg_t - theta1_0) and
      theta2 = ref_t - 2 step lam (ref_t - theta2_0). Firms get theta1. **Aggregate and reference
      are not coupled**: theta2 is only remembered as the next theta2_0, and neither it nor the
      window ever reaches a model. theta1 is FedAvgM with server learning rate 1 - 2 step lam.
    * ``off``: FedAvg.

    lam = 0 or window = 0 is FedAvg, bit for bit, in every mode. Before the first aggregate the
    reference is the model that firms started from, where the operator knows it; in round 0 it
    does not (firms draw it in common), and then it is the first aggregate, theta_0 = agg_0.
    Whole-number tensors (counters) are those of the aggregate; BatchNorm statistics are weights.

    Args:
        mode: one of the above.
        window: p, how many models the reference is the mean of (as many as there are, at first).
        lam: lambda >= 0, the weight of the reference (publish: only whether it is 0).
        start_round: pull only: first round, from 0, in which the model is pulled.
        precision: pull only: scalar, or diagonal (firms then send their Fisher information).
        step: printed only: the size of its gradient step.

    >>> from server.strategies import State
    >>> rule = FedRef(mode="pull", window=2, lam=1.0)
    >>> state = State()
    >>> for sent in (0.0, 4.0, 6.0):
    ...     state = rule.combine({"a": Weights({"w": np.array([sent])}, 1)}, state)
    ...     print(float(state.start.arrays["w"][0]))  # (sent + mean of the last two) / 2
    0.0
    2.0
    3.5

    References:
        arXiv 2506.23210.
    """

    rounds: int = 20
    local_epochs: int = 1
    mode: str = "publish"
    window: int = 5
    lam: float = 0.1
    start_round: int = 0
    precision: str = "scalar"
    step: float = 0.1

    combines = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._legal("mode", self.mode in MODES, f"one of {', '.join(MODES)}")
        self._legal("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self._whole("window", 0)
        self._whole("start_round", 0)
        self._number("lam", 0.0, closed=True)
        self._number("step", 0.0)
        if self.mode == "pull" and self.start_round >= self.rounds:
            raise FedpactError(
                f"strategy.start_round is {self.start_round}, and there are {self.rounds} rounds, "
                "counted from 0: the model would never be pulled. Lower it, or raise "
                "strategy.rounds."
            )
        if self.precision == "diagonal" and self.mode in ("publish", "printed", "off"):
            raise FedpactError(
                f"strategy.precision is diagonal, which mode={self.mode} does not use. "
                "Use strategy.mode=pull or strategy.precision=scalar."
            )

    @property
    def wants_precision(self) -> bool:
        return self._refers and self.mode == "pull" and self.precision == "diagonal"

    @property
    def linear(self) -> bool:
        return not self.wants_precision

    @property
    def _refers(self) -> bool:
        return self.mode != "off" and self.lam > 0 and self.window > 0

    def combine(self, updates: Mapping[str, Weights], state: State) -> State:
        if not self._refers:
            return FedAvg().combine(updates, state)
        if not updates:
            return replace(state, turn=state.turn + 1)
        agg = average(updates)
        past = _window(state)
        known = None if state.start is None else state.start.arrays
        theta: Model = agg.arrays
        reference = mean(past) if past else known
        memory: dict[str, Model] = {}
        if self.mode == "pull" and reference is not None and state.turn >= self.start_round:
            h = fisher(updates) if self.wants_precision else {}
            theta = toward(reference, theta, self.lam, h)
        elif self.mode == "printed":
            rate = 2.0 * self.step * self.lam
            theta = stepped(theta, known, rate)
            tuned = stepped(mean(past) if past else theta, state.memory.get("reference"), rate)
            memory["reference"] = _typed(tuned, theta)
        window = [*past, theta][-self.window :]
        memory |= {f"window/{place}": model for place, model in enumerate(window)}
        start = Weights(theta, agg.examples)
        shown = _typed(mean(window), theta) if self.mode == "publish" else theta
        published = Weights(shown, agg.examples)
        return replace(state, turn=state.turn + 1, start=start, published=published, memory=memory)


def _window(state: State) -> list[Model]:
    """The remembered models, oldest first."""
    count = sum(name.startswith("window/") for name in state.memory)
    return [state.memory[f"window/{place}"] for place in range(count)]


def mean(models: Sequence[Model]) -> Model:
    """The plain mean of the tensors, in float64; of whole numbers the last model's."""
    return {
        key: np.asarray(sum(m[key].astype(np.float64) for m in models) / len(models))
        if last.dtype.kind == "f"
        else last
        for key, last in models[-1].items()
    }


def toward(reference: Model, model: Model, lam: float, h: Model) -> Model:
    """(h_i model_i + 2 lam ref_i) / (h_i + 2 lam), h_i = 2 where it is not given."""
    pulled = {
        key: (h.get(key, 2.0) * value.astype(np.float64) + 2.0 * lam * reference[key])
        / (h.get(key, 2.0) + 2.0 * lam)
        for key, value in model.items()
        if value.dtype.kind == "f"
    }
    return _typed(pulled, model)


def stepped(model: Model, before: Model | None, rate: float) -> Model:
    """One gradient step on lam ||model - before||^2: model - rate (model - before)."""
    if before is None:
        return model
    moved = {
        key: value.astype(np.float64) - rate * (value.astype(np.float64) - before[key])
        for key, value in model.items()
        if value.dtype.kind == "f"
    }
    return _typed(moved, model)


def fisher(updates: Mapping[str, Weights]) -> Model:
    """The examples-weighted mean of the firms' Fisher information, rescaled to mean 2."""
    names = sorted(updates)
    total = sum(updates[name].examples for name in names)
    shares = [(updates[name].precision or {}, updates[name].examples / total) for name in names]
    keys = list(shares[0][0])
    for name, (precision, _) in zip(names, shares, strict=True):
        if not precision or set(precision) != set(keys):
            raise FedpactError(
                f"{name} sent {'another' if precision else 'no'} precision; "
                "strategy.precision=diagonal needs the diagonal Fisher information of the same "
                "tensors from every firm. Let it send them or use strategy.precision=scalar."
            )
    h = {k: np.asarray(sum(p[k].astype(np.float64) * part for p, part in shares)) for k in keys}
    size = sum(value.size for value in h.values())
    average_h = sum(float(value.sum()) for value in h.values()) / size
    return {key: value * (2.0 / average_h) for key, value in h.items()} if average_h > 0 else {}


def _typed(model: Model, like: Model) -> Model:
    """The model in the types of another; tensors that it lacks are the other's."""
    return {k: as_type(model[k], v) if k in model else v for k, v in like.items()}
