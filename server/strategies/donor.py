"""Donor: one firm's model, as it is, is offered to all the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

from parties.exchange import FedpactError, Weights
from server.strategies import State, Strategy


@final
@dataclass(frozen=True)
class Donor(Strategy):
    """Published is the donor's own model, with the profile card of the data it was trained on.

    Only the donor trains for the others. Each of them judges what it is offered: it may use it as
    it is, tune it, or train its own (`parties.NAME.adopts`).

    Args:
        donor: a firm's name; None: the first by name.
    """

    donor: str | None = None

    combines = True
    fewest: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.rounds, self.local_epochs) != (1, 0):
            raise FedpactError(
                f"strategy.rounds is {self.rounds} and strategy.local_epochs {self.local_epochs}; "
                "a donor hands its finished model over once: rounds=1, local_epochs=0. To train "
                "together over rounds use strategy=fedavg."
            )

    @property
    def least_epochs(self) -> int:
        return 0

    @property
    def wants_card(self) -> bool:
        return True

    def trainers(self, firms: Sequence[str]) -> tuple[str, ...]:
        names = sorted(firms)
        if self.donor is None:
            return tuple(names[:1])
        return tuple(name for name in names if name == self.donor)

    def check_names(self, firms: Sequence[str]) -> None:
        if self.donor is not None and self.donor not in firms:
            raise FedpactError(
                f"strategy.donor is {self.donor!r}; the firms are {', '.join(sorted(firms))}."
            )

    def combine(self, updates: Mapping[str, Weights], state: State) -> State:
        if not updates:
            return replace(state, turn=state.turn + 1)
        model = updates[self.trainers(list(updates))[0]]
        return replace(state, turn=state.turn + 1, start=model, published=model)
