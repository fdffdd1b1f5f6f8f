"""engine=batched: everything in this process; firms that are asked together train as one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeGuard, TypeVar, final

from parties.exchange import FedpactError
from simulations.engines import Engine, Job, devices_here

if TYPE_CHECKING:
    from simulations.engines.lockstep import Remembered

T = TypeVar("T")
SIDE_BY_SIDE = "side by side where that can be"


@final
@dataclass(frozen=True)
class Batched(Engine):
    """All firms in this process, one thread; small models of a kind train side by side.

    What cannot be batched (convolutions on a CPU, stopping rules, objectives of a backbone's own,
    bfloat16) or gains nothing (models whose products already fill a CPU) trains as with
    engine=inline, to the same bits; the rest to rounding.

    Args:
        room_mb: what the models of a batch may take; None: what a CPU caches, or an eighth of a
            GPU's memory.
        remember_mb: what finished trainings may take that are kept for the next study of this
            process: jobs of a sweep that differ in the market only train once.
    """

    room_mb: float | None = None
    remember_mb: float = 256.0

    # One memory a process and size, shared by all jobs of a sweep.
    _memories: ClassVar[dict[tuple[float, float | None], Remembered]] = {}

    def __post_init__(self) -> None:
        check_room(self.room_mb)
        if not (_number(self.remember_mb) and self.remember_mb >= 0):
            raise FedpactError(
                f"engine.remember_mb is {self.remember_mb!r}; legal is a number >= 0. Set "
                "engine.remember_mb=0 to remember nothing."
            )

    def plan(self, job: Job) -> list[str]:
        job.check_meters("engine=inline")
        return [
            f"batched: {len(job.firms)} firms in this process, 1 thread; they train on "
            f"{devices_here(job.devices)}, {SIDE_BY_SIDE}"
        ]

    def hold(self, job: Job) -> None:
        self.plan(job)
        from simulations.engines.apps import hold_here

        hold_here(job, self.together)

    def together(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """What the tasks return; their trainings are done together."""
        from parties.batched import fit_together
        from simulations.engines.lockstep import Remembered, all_together

        memory = None
        if self.remember_mb:
            memory = self._memories.setdefault(
                (self.remember_mb, self.room_mb), Remembered(self.remember_mb)
            )
        return all_together(tasks, partial(fit_together, room_mb=self.room_mb), memory)

    def close(self) -> None:
        """Forget the trainings."""
        self._memories.clear()


def check_room(room_mb: object) -> None:
    """Whether `engine.room_mb` is legal.

    Raises:
        FedpactError: it is not.
    """
    if room_mb is not None and not (_number(room_mb) and room_mb > 0):
        raise FedpactError(
            f"engine.room_mb is {room_mb!r}; legal is a number > 0, and null for what suits the "
            "device. Set engine.room_mb=null."
        )


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
