"""One session: what it is about, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import final

from parties.exchange import Array, Weights
from server.contracts import Contract
from server.market import Market
from server.play import Play
from server.strategies import Strategy

Nature = Callable[[int, str], tuple[Array, Array]]
"""(seed, "validation" | "contested") -> ids (n,), true classes (n,). Only the market calls it."""


@final
@dataclass(frozen=True)
class Case:
    """What one session is about: a market, a contract, and the rules of training and of play.

    `populations`: firm -> how many cases of its own it declared, where it has any.
    """

    seed: int
    firms: tuple[str, ...]
    market: Market
    contract: Contract
    strategy: Strategy
    play: Play
    populations: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.contract.name}-seed{self.seed}"


@final
@dataclass(frozen=True)
class Step:
    """One point of a learning curve: a firm's mean training loss in an epoch of a round."""

    seed: int
    contract: str
    round: int
    epoch: int
    firm: str
    examples: int
    loss: float
    status: str = "ok"


@final
@dataclass(frozen=True)
class Summary:
    """A firm's session on its own held-out cases, as far as it tells the operator.

    Args:
        cases: held-out cases of this seed; population: all cases the firm has.
        payoff: minus the mean log loss of the model it would use, nats.
        gain: payoff minus that of its own model, on the same cases.
        variance: of the gain over the cases.
    """

    cases: int
    population: int
    payoff: float
    gain: float
    variance: float


@final
@dataclass(frozen=True)
class Outcome:
    """What came of one session.

    Args:
        ids, payoffs: firm -> contested clients (n,) and what each earned it (n,).
        summaries: firm -> its own cases, where firms contest no clients.
        predicted: firm -> exact payoff of the strategies played, in the measured joint table.
        declined: firms that refused the contract; then payoffs are those of no deal.
        excluded: firms whose update was not used in some round, with the reason.
        models: name -> weights that crossed, as they were last published.
        table: measured P(t, s1, s2) on the validation part, where firms contest clients.
        belief: the table the firms acted on.
        maps: both firms' action maps on pairs of signals.
        scores: name of a score -> value.
    """

    seed: int
    contract: str
    ids: Mapping[str, Array] = field(default_factory=dict)
    payoffs: Mapping[str, Array] = field(default_factory=dict)
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    predicted: Mapping[str, float] = field(default_factory=dict)
    declined: Mapping[str, str] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, Weights] = field(default_factory=dict)
    table: Array | None = None
    belief: Array | None = None
    maps: tuple[Array, Array] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
