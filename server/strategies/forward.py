"""Forward: nothing is combined; each firm receives the other's model as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

from parties.exchange import FedpactError, Weights
from server.strategies import State, Strategy


@final
@dataclass(frozen=True)
class Forward(Strategy):
    """For firms with different columns (a vertical split), whose models cannot be averaged.

    A rival's weights cannot be run without the rival's columns. What the firms learn from sharing
    models is the coupling, which the operator measures on the validation part.
    """

    combines = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.rounds, self.local_epochs) != (1, 0):
            raise FedpactError(
                f"strategy.rounds is {self.rounds} and strategy.local_epochs {self.local_epochs}; "
                "forward hands finished models over once: rounds=1, local_epochs=0. "
                "To train over rounds use strategy=fedavg."
            )

    def combine(self, updates: Mapping[str, Weights], state: State) -> State:
        return replace(state, turn=state.turn + 1)
