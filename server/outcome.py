"""One session: what it is about, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, final

from parties.exchange import Array, Weights
from server.contracts import Contract
from server.intake import Limits
from server.market import Market
from server.participation import Participation
from server.play import Play
from server.strategies import State, Strategy

Nature = Callable[[int, str], tuple[Array, Array]]
"""(seed, "validation" | "contested" | "common") -> ids (n,), true classes (n,): the market's."""


@final
@dataclass(frozen=True)
class Case:
    """What one session is about: a market, a contract, and the rules of training and of play.

    Args:
        populations: firm -> how many cases of its own it declared, where it has any.
        riders: firms that declared that they train on nothing for the others.
        participation: which firms train in a round.
        watch: every firm scores the published model after each round.
        scored: scores of the models themselves (AUC) are taken where clients are contested.
        limits: what the operator accepts.
    """

    seed: int
    firms: tuple[str, ...]
    market: Market
    contract: Contract
    strategy: Strategy
    play: Play
    populations: Mapping[str, int] = field(default_factory=dict)
    riders: tuple[str, ...] = ()
    participation: Participation = field(default_factory=Participation)
    watch: bool = False
    scored: bool = True
    limits: Limits = field(default_factory=Limits)

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
class Scored:
    """How a firm's held-out cases fare with the model published after a round.

    Args:
        by_class: (cases, right ones) of each class.
    """

    seed: int
    contract: str
    round: int
    firm: str
    cases: int
    log_loss: float
    accuracy: float
    auc: float | None
    by_class: tuple[tuple[int, int], ...]


@final
@dataclass(frozen=True)
class Spent:
    """What training took a firm in a round: seconds, joules, kg CO2e, and how energy is known."""

    seed: int
    contract: str
    round: int
    firm: str
    cpu_seconds: float
    gpu_seconds: float
    joules: float
    kg_co2e: float
    known: str


@final
@dataclass(frozen=True)
class Adoption:
    """How a firm judged the model that it was offered, as far as it tells.

    Args:
        adopted: the model that it would use; the rest as in `parties.exchange.ReuseReport`.
        measures: "name=value" of each measure, separated by blanks.
    """

    seed: int
    contract: str
    firm: str
    adopted: str
    decision: str
    probed: bool
    passes: int
    forecast: float | None
    forecast_low: float | None
    forecast_high: float | None
    history: int
    measures: str
    refused: bool = False


@final
@dataclass(frozen=True)
class Objection:
    """A check of a firm's gate that objected to a published model (`parties.exchange.Problem`)."""

    seed: int
    contract: str
    firm: str
    check: int
    name: str
    theme: str
    opened: int
    closed: int | None


@final
@dataclass(frozen=True)
class Progress:
    """All that a session has come to after some rounds; it can be taken up again from here.

    Args:
        state: what the aggregation rule keeps.
        declined, excluded: as in :class:`Outcome`.
        passes: firm -> passes over one example that it has trained for the others.
        riders: free riders: firms that trained on nothing.
    """

    state: State = field(default_factory=State)
    declined: Mapping[str, str] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
    passes: Mapping[str, int] = field(default_factory=dict)
    riders: tuple[str, ...] = ()


class Record(Protocol):
    """Where a session is noted as it happens."""

    def curve(self, step: Step) -> None:
        """Note one point of a learning curve."""
        ...

    def score(self, scored: Scored) -> None:
        """Note how a firm fares with a round's model."""
        ...

    def spent(self, spent: Spent) -> None:
        """Note what training took a firm."""
        ...

    def adopted(self, adoption: Adoption) -> None:
        """Note how a firm judged a model."""
        ...

    def objected(self, objection: Objection) -> None:
        """Note a check that objected to a model."""
        ...

    def keep(self, case: Case, progress: Progress) -> None:
        """Keep what a session has come to, in the place of what it had come to before."""
        ...


class Unrecorded:
    """Notes nothing."""

    def curve(self, step: Step) -> None:
        return

    def score(self, scored: Scored) -> None:
        return

    def spent(self, spent: Spent) -> None:
        return

    def adopted(self, adoption: Adoption) -> None:
        return

    def objected(self, objection: Objection) -> None:
        return

    def keep(self, case: Case, progress: Progress) -> None:
        return


@final
@dataclass(frozen=True)
class Summary:
    """A firm's session on its own held-out cases, as far as it tells the operator.

    Args:
        cases: held-out cases of this seed; population: all cases the firm has.
        payoff: minus the mean log loss of the model it would use, nats.
        gain: payoff minus that of its own model, on the same cases.
        variance: of the gain over the cases.
        adopted: the model it would use: "own", "published" or "last" (the last aggregate); "" where
            it served clients with what the contract gave it.
        cost: of training, a case, in the payoff's unit; payoff and gain are before it.
    """

    cases: int
    population: int
    payoff: float
    gain: float
    variance: float
    adopted: str = "own"
    cost: float = 0.0


@final
@dataclass(frozen=True)
class Outcome:
    """What came of one session.

    Args:
        ids, payoffs: firm -> contested or common clients (n,) and what each earned it (n,), after
            the contract's price.
        summaries: firm -> its own cases, where firms have no clients in common; or its clients, of
            a firm that tells sums only.
        predicted: firm -> exact payoff of the strategies played, in the measured joint table, after
            the contract's price.
        declined: firms that refused the contract; then payoffs are those of no deal.
        excluded: firms whose update was not used in some round, with the reason.
        riders: free riders: firms that trained on nothing for the others.
        models: name -> weights that crossed, as they were last published.
        table: measured P(t, s1, s2) on the validation part, where firms contest clients; clients:
            those (n,) that it was measured on.
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
    riders: tuple[str, ...] = ()
    models: Mapping[str, Weights] = field(default_factory=dict)
    table: Array | None = None
    clients: Array | None = None
    belief: Array | None = None
    maps: tuple[Array, Array] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
