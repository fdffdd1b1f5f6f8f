"""engine=inline: everything in this process. The default; breakpoints work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from simulations.engines import Engine, Job
from simulations.engines.config_keys import PARTY


@final
@dataclass(frozen=True)
class Inline(Engine):
    """All firms in this process, one thread."""

    def plan(self, firms: int) -> list[str]:
        return [f"inline: {firms} firms in this process, 1 thread"]

    def hold(self, job: Job) -> None:
        from simulations.engines import apps
        from simulations.engines.grid import InlineGrid, contexts_of, server_context

        run_config = apps.run_config(job.config, job.folder)
        contexts = contexts_of(job.firms, PARTY, run_config)
        apps.server(InlineGrid(apps.client, contexts), server_context(run_config))
