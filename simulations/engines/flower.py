"""engine=flower: Flower's own simulation runtime on Ray, kept as the reference path."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import final

from parties.exchange import FedpactError
from simulations.engines import Engine, Job
from simulations.engines.config_keys import CONFIG
from simulations.engines.placement import room_for
from simulations.engines.ray_actors import check_share, gpus_here, import_ray


@final
@dataclass(frozen=True)
class FlowerSimulation(Engine):
    """`flwr run` in Flower's simulation runtime, one supernode a firm.

    Args:
        num_cpus: CPUs of a firm (Flower takes whole ones).
        num_gpus: GPU share of a firm.
        timeout_s: longest time for the whole run, seconds.
    """

    num_cpus: int = 1
    num_gpus: float = 0.0
    timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        whole = isinstance(self.num_cpus, int) and not isinstance(self.num_cpus, bool)
        if not whole or self.num_cpus < 1:
            raise FedpactError(
                f"engine.num_cpus is {self.num_cpus!r}; Flower takes whole CPUs >= 1. "
                "For shares of a CPU use engine=ray."
            )
        for name in ("num_gpus", "timeout_s"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
                raise FedpactError(f"engine.{name} is {value!r}; legal is a number >= 0.")

    def plan(self, job: Job) -> list[str]:
        firms, cpus, gpus = len(job.firms), len(os.sched_getaffinity(0)), gpus_here()
        where = check_share(job.devices, self.num_gpus)
        room = room_for(firms, self.num_cpus, self.num_gpus, [(cpus, gpus)])
        if not room:
            absent = self.num_gpus and not gpus
            raise FedpactError(
                f"engine.num_cpus is {self.num_cpus} and engine.num_gpus {self.num_gpus:g}, and "
                f"this machine has {cpus} CPUs and {gpus} GPUs, so that no firm could run; legal "
                f"are at most these. {'Set engine.num_gpus=0.' if absent else 'Lower them.'}"
            )
        return [
            f"flower: {firms} supernodes x {self.num_cpus} CPU, {self.num_gpus:g} GPU; "
            f"at most {room} at a time; they train on {where}"
        ]

    def hold(self, job: Job) -> None:
        import_ray()
        self.plan(job)
        from simulations.engines import apps
        from simulations.engines.firms import squeezed
        from simulations.engines.flower_run import flower_run

        home = job.folder / "flower"
        told = apps.run_config(job.config, job.folder.resolve())
        told[CONFIG] = squeezed(job.config)
        flower_run(
            serverapp="simulations.engines.apps:server",
            clientapp="simulations.engines.apps:client",
            run_config=told,
            supernodes=len(job.firms),
            client_cpus=self.num_cpus,
            client_gpus=self.num_gpus,
            timeout_s=self.timeout_s,
            home=home,
        )
        # After a failure the folder stays: the error names the log in it.
        shutil.rmtree(home, ignore_errors=True)
