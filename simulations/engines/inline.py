"""engine=inline: everything in this process. The default; breakpoints work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from simulations.engines import Engine, Job, devices_here


@final
@dataclass(frozen=True)
class Inline(Engine):
    """All firms in this process, one thread."""

    def plan(self, job: Job) -> list[str]:
        where = devices_here(job.devices)
        return [f"inline: {len(job.firms)} firms in this process, 1 thread; they train on {where}"]

    def hold(self, job: Job) -> None:
        from simulations.engines.apps import hold_here

        hold_here(job)
