"""How a sweep's jobs are held: how many at once, where, and what one may take."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from parties.exchange import FedpactError
from simulations.sweeps.configs import Job
from simulations.sweeps.limits import JobLimits

ON_FAILURE = ("continue", "stop")
WAVES = 4  # chunks a worker gets at least, where there are jobs enough

Row = Mapping[str, Any]


class Pool(ABC):
    """Workers that hold jobs; kept warm from one wave of a design to the next."""

    @abstractmethod
    def hold(self, chunks: Sequence[Sequence[Job]]) -> Iterator[list[tuple[Job, Row]]]:
        """Hold all jobs; yields finished ones with their rows, as they end."""

    def close(self) -> None:
        """Stop the workers, whatever they are at."""
        return


@final
@dataclass(frozen=True)
class Launch:
    """How a sweep's jobs are held.

    Args:
        workers: Ray actors, each with one thread; null: one a CPU; 0: in this process, without Ray.
        address: null starts Ray on this machine, "auto" or "HOST:PORT" joins a cluster.
        num_cpus, num_gpus: shares of one worker.
        batch: jobs that a worker takes at a time.
        together: the trainings of these jobs, of all their seeds and firms, are done as batches.
        timeout_s: seconds a job may take; 0: no limit.
        memory_gb: GB a job may ask for beyond what its worker has; 0: no limit.
        on_failure: "continue" with the other jobs, or "stop".
        retry_failed: jobs that failed before are held again.
    """

    workers: int | None = None
    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    batch: int = 16
    together: bool = True
    timeout_s: float = 600.0
    memory_gb: float = 0.0
    on_failure: str = "continue"
    retry_failed: bool = False

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("batch", 1)):
            value = getattr(self, name)
            free = name == "workers" and value is None
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not free and not whole:
                raise FedpactError(
                    f"launch.{name} is {value!r}; legal is a whole number >= {least}"
                    f"{', or null for one a CPU' if name == 'workers' else ''}."
                )
        for name in ("num_cpus", "num_gpus", "timeout_s", "memory_gb"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
                raise FedpactError(f"launch.{name} is {value!r}; legal is a number >= 0.")
        if self.on_failure not in ON_FAILURE:
            raise FedpactError(
                f"launch.on_failure is {self.on_failure!r}; legal are {', '.join(ON_FAILURE)}."
            )
        for name in ("together", "retry_failed"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise FedpactError(f"launch.{name} is {value!r}; legal are true and false.")
        if self.address and self.workers is None:
            raise FedpactError(
                "launch.workers is null, one a CPU of this machine, and launch.address joins a "
                "cluster. Say how many: launch.workers=64."
            )

    @property
    def limits(self) -> JobLimits:
        return JobLimits(self.timeout_s, self.memory_gb, self.together)

    @property
    def count(self) -> int:
        """Workers; 0: this process."""
        return len(os.sched_getaffinity(0)) if self.workers is None else self.workers

    @property
    def words(self) -> str:
        """In words, for the plan."""
        if not self.count:
            return "in this process, one after the other"
        where = f"the cluster at {self.address}" if self.address else "this machine"
        shares = f"{self.num_cpus:g} CPU, {self.num_gpus:g} GPU"
        return f"{self.count} Ray workers x {shares} on {where}"

    def chunks(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """Jobs as they are dealt out: few enough at a time that no worker waits for another."""
        size = max(1, min(self.batch, -(-len(jobs) // (max(self.count, 1) * WAVES))))
        return [jobs[low : low + size] for low in range(0, len(jobs), size)]

    def pool(self) -> Pool:
        """Its workers; they start with the first jobs."""
        if not self.count:
            return InProcess(self.limits)
        from simulations.engines.ray_jobs import RayJobs

        return RayJobs(self.count, self.num_cpus, self.num_gpus, self.address, self.limits)


@final
@dataclass(frozen=True)
class InProcess(Pool):
    """Jobs in this process."""

    limits: JobLimits

    def hold(self, chunks: Sequence[Sequence[Job]]) -> Iterator[list[tuple[Job, Row]]]:
        from simulations.sweeps.held import hold_jobs

        for chunk in chunks:
            rows = hold_jobs([job.text for job in chunk], self.limits)
            yield list(zip(chunk, rows, strict=True))
