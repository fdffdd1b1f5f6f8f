"""engine=inline: everything in this process. The default; breakpoints work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from simulations.engines import Engine, Job, devices_here


@final
@dataclass(frozen=True)
class Inline(Engine):
    """All firms in this process, one thread."""

    def plan(self, devices: Mapping[str, str]) -> list[str]:
        where = devices_here(devices)
        return [f"inline: {len(devices)} firms in this process, 1 thread; they train on {where}"]

    def hold(self, job: Job) -> None:
        from simulations.engines.apps import hold_here

        hold_here(job)
