"""Hold a sweep: ask the design, hold what is missing, tell it, until it asks for nothing."""

from __future__ import annotations

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
        keys: of their jobs.
        stopped: it ended because a job failed (launch.on_failure=stop).
    """

    held: list[Held] = field(default_factory=list)
    keys: dict[str, None] = field(default_factory=dict)
    stopped: bool = False

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
            watch.asked(len(told) + len(jobs), len(told) + len(jobs) - len(new))
            try:
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
                told += _told(points, jobs, journal, progress)
    log.info("%d jobs, %d failed", len(progress.held), progress.failed)


def _failed(journal: Journal) -> set[str]:
    return {key for key, row in journal.rows.items() if row["status"] == "failed"}


def _told(
    points: Sequence[Point], jobs: Sequence[Job], journal: Journal, progress: Progress
) -> list[Held]:
    """The points whose jobs are done; each job is put into the progress once."""
    told = []
    for point, job in zip(points, jobs, strict=True):
        if job.key not in journal.rows:
            continue
        one = Held(point, journal.rows[job.key])
        told.append(one)
        if job.key not in progress.keys:
            progress.held.append(one)
            progress.keys[job.key] = None
    return told
