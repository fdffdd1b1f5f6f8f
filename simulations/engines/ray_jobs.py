"""A sweep's workers as Ray actors: whole studies, many at a time, in processes that stay warm."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from parties.exchange import FedpactError
from simulations.engines import EngineError
from simulations.engines.ray_actors import RayActors, check_same, import_ray
from simulations.source import code_digest
from simulations.sweeps.configs import Job
from simulations.sweeps.launch import Pool
from simulations.sweeps.limits import OUT_OF_TIME, JobLimits
from simulations.sweeps.rows import failed_row

log = logging.getLogger("fedpact")

DIED = "WorkerDied"
PATIENCE, GRACE_S = 3.0, 30.0  # beyond its jobs' own limits: compiled code does not hear of them
MOST_STARTS = 3

Row = Mapping[str, Any]


@final
class JobWorker:
    """What one Ray actor does: holds jobs, and keeps data and models for the next ones."""

    def __init__(self) -> None:
        from simulations.sweeps.held import hold_jobs

        self._hold_jobs = hold_jobs

    def code(self) -> str:
        """The sha256 of the code that it runs; answers when everything is imported."""
        return code_digest()

    def hold(self, texts: list[str], limits: JobLimits) -> list[dict[str, Any]]:
        """Rows of jobs, in order."""
        return self._hold_jobs(texts, limits)


@final
@dataclass
class _Task:
    """What a worker is at. (No jobs: it starts.)"""

    worker: int
    jobs: Sequence[Job]
    until: float


@final
class RayJobs(Pool):
    """Jobs dealt out among Ray actors. A worker that dies is started again.

    Jobs that were held together when a worker died are held again one by one, so that only the one
    that kills its worker fails.

    Args:
        workers: actors; num_cpus, num_gpus: shares of one; address: see `RayActors`.
        limits: what a job may take.
    """

    def __init__(
        self,
        workers: int,
        num_cpus: float,
        num_gpus: float,
        address: str | None,
        limits: JobLimits,
    ) -> None:
        with _own_names():
            self._ray = RayActors(workers, num_cpus, num_gpus, address)
            self._ray.check(workers)
        self._limits = limits
        self._actors: list[Any] = []
        self._open: dict[Any, _Task] = {}
        self._starts: Counter[int] = Counter()
        self._tried: set[str] = set()

    def hold(self, chunks: Sequence[Sequence[Job]]) -> Iterator[list[tuple[Job, Row]]]:
        if not chunks:
            return
        self._start()
        ray = import_ray()
        waiting = deque(chunks)
        busy = {task.worker for task in self._open.values()}
        idle = [place for place in range(len(self._actors)) if place not in busy]
        while waiting or any(task.jobs for task in self._open.values()):
            while idle and waiting:
                self._give(idle.pop(), waiting.popleft())
            done, _ = ray.wait(list(self._open), num_returns=1, timeout=0.5)
            for future in done:
                task = self._open.pop(future)
                try:
                    rows = ray.get(future)
                except ray.exceptions.RayError as fault:
                    yield from self._died(task, waiting, DIED, _cause(fault))
                    self._warm(task.worker)
                    continue
                self._starts[task.worker] = 0
                idle.append(task.worker)
                if task.jobs:
                    yield list(zip(task.jobs, rows, strict=True))
                elif self._ray.address:
                    check_same(rows)
            for future, task in list(self._open.items()):
                if time.monotonic() > task.until:
                    del self._open[future]
                    ray.kill(self._actors[task.worker], no_restart=False)
                    text = f"it did not end within launch.timeout_s={self._limits.timeout_s:g}"
                    yield from self._died(task, waiting, OUT_OF_TIME, f"{text}. Raise that.")
                    self._warm(task.worker)

    def close(self) -> None:
        """Stop the actors at once; stop Ray too, unless it is somebody else's cluster."""
        self._actors.clear()
        self._open.clear()
        self._ray.close()

    def _start(self) -> None:
        if self._actors:
            return
        ray = import_ray()
        RayActors().close()  # an engine's own actors hold the CPUs
        with _own_names():
            self._ray.start_ray(self._ray.workers)
            self._ray.check_cluster(self._ray.workers)
        kind = ray.remote(
            num_cpus=self._ray.num_cpus, num_gpus=self._ray.num_gpus, max_restarts=-1
        )(JobWorker)
        self._actors = [kind.remote() for _ in range(self._ray.workers)]
        for place in range(len(self._actors)):
            self._warm(place)

    def _warm(self, worker: int) -> None:
        """Wait until a worker is there before it gets jobs: its start is not their time."""
        future = self._actors[worker].code.remote()
        self._open[future] = _Task(worker, (), float("inf"))

    def _give(self, worker: int, jobs: Sequence[Job]) -> None:
        limit = self._limits.timeout_s
        most = PATIENCE * limit * len(jobs) + GRACE_S
        until = time.monotonic() + most if limit else float("inf")
        future = self._actors[worker].hold.remote([job.text for job in jobs], self._limits)
        self._open[future] = _Task(worker, jobs, until)

    def _died(
        self, task: _Task, waiting: deque[Sequence[Job]], error: str, message: str
    ) -> Iterator[list[tuple[Job, Row]]]:
        if not task.jobs:
            self._starts[task.worker] += 1
            if self._starts[task.worker] > MOST_STARTS:
                raise EngineError(
                    f"A worker could not be started {MOST_STARTS} times in a row: {message}. On a "
                    "cluster, install the dependencies on every machine; else make room, or lower "
                    "launch.workers. What is finished is kept: run the same command again."
                )
        elif len(task.jobs) > 1:
            log.warning("a worker with %d jobs died (%s): one by one", len(task.jobs), message)
            waiting.extendleft([job] for job in reversed(task.jobs))
        elif error == DIED and task.jobs[0].key not in self._tried:
            # It may have died before it came to the job, or for somebody else's sake.
            self._tried.add(task.jobs[0].key)
            waiting.append(task.jobs)
        else:
            yield [(task.jobs[0], failed_row(error, message))]


@contextmanager
def _own_names() -> Iterator[None]:
    """What is refused speaks of the engine's settings; ours have names of their own."""
    try:
        yield
    except FedpactError as fault:
        raise type(fault)(str(fault).replace("engine.", "launch.")) from fault


def _cause(fault: Exception) -> str:
    """Why Ray lost a worker, in one line."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    told = [line for line in lines if "exit" in line.lower() or "memory" in line.lower()]
    return "its worker process died: " + (told or lines or ["no reason is known"])[0]
