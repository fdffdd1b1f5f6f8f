"""Hold a sweep: ask the design, hold what is missing, tell it, until it asks for nothing."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from simulations.sweeps import Design, Held, Point
from simulations.sweeps.configs import Configs, Job
from simulations.sweeps.journal import Journal
from simulations.sweeps.launch import Launch

log = logging.getLogger("fedpact")

Row = Mapping[str, Any]


class Watch(Protocol):
    """Who is told how far a sweep is."""

    def asked(self, jobs: int, done: int) -> None:
        """So many jobs are asked for by now, of which so many are done."""
        ...

    def held(self, row: Row) -> None:
        """A job has ended."""
        ...


@final
class Unwatched:
    """Tells nobody."""

    def asked(self, jobs: int, done: int) -> None:
        return

    def held(self, row: Row) -> None:
        return


@final
@dataclass
class Progress:
    """What a sweep has come to.

    Args:
        held: every point of the design with its row, so far.
        asked: how many points the design has asked for; told: of how many it was told the row.
        jobs: how many different studies those were that are held.
        stopped: it ended because a job failed (launch.on_failure=stop).
        interrupted: somebody stopped it.
    """

    held: list[Held] = field(default_factory=list)
    asked: int = 0
    told: int = 0
    jobs: int = 0
    stopped: bool = False
    interrupted: bool = False

    @property
    def failed(self) -> int:
        return sum(one.row["status"] == "failed" for one in self.held)

    @property
    def errors(self) -> dict[str, int]:
        """Type of error -> jobs."""
        found = [one.row["error"] for one in self.held if one.row["status"] == "failed"]
        return dict(sorted(Counter(found).items()))


def hold_sweep(
    design: Design,
    launch: Launch,
    configs: Configs,
    journal: Journal,
    progress: Progress,
    watch: Watch,
) -> None:
    """Hold every job of a sweep that the journal lacks.

    Args:
        journal: rows of jobs that are done; each new one is added as it ends.
        progress: filled; after an interruption it holds what is done.
    """
    retried = _failed(journal) if launch.retry_failed else set()
    told: list[Held] = []
    with closing(launch.pool()) as pool:
        while points := design.ask(told):
            jobs = [configs.job(point) for point in points]
            first = {job.key: job for job in jobs}  # equal studies are one job
            new = [j for k, j in first.items() if k not in journal.rows or k in retried]
            known = len(jobs) - len(new)
            watch.asked(len(told) + len(jobs), len(told) + known)
            progress.asked += len(jobs)
            try:
                if launch.on_failure == "stop" and _failed(journal) & (first.keys() - retried):
                    progress.stopped = True
                    return
                for done in pool.hold(launch.chunks(new)):
                    journal.add((job.key, row) for job, row in done)
                    for job, row in done:
                        retried.discard(job.key)
                        watch.held(row)
                    failed = any(row["status"] == "failed" for _, row in done)
                    if failed and launch.on_failure == "stop":
                        progress.stopped = True
                        return
            finally:
                told += _told(points, jobs, journal)
                progress.held, progress.told = _once(told), len(told)
                progress.jobs += len(first)
    log.info("%d jobs, %d failed", len(progress.held), progress.failed)


def _failed(journal: Journal) -> set[str]:
    return {key for key, row in journal.rows.items() if row["status"] == "failed"}


def _told(points: Sequence[Point], jobs: Sequence[Job], journal: Journal) -> list[Held]:
    """The points whose jobs are done."""
    return [
        Held(point, journal.rows[job.key])
        for point, job in zip(points, jobs, strict=True)
        if job.key in journal.rows
    ]


def _once(told: Sequence[Held]) -> list[Held]:
    """Each point once; a design may ask for one again."""
    first = dict[str, Held]()
    for one in told:
        first.setdefault(json.dumps(one.point, sort_keys=True, default=str), one)
    return list(first.values())
