"""How long a job may take and how much memory, in a process that holds several by turns."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import final

from parties.energy import own_seconds

OUT_OF_TIME, OUT_OF_MEMORY = "OutOfTime", "OutOfMemory"
GB = 1 << 30
AGAIN_S = 1.0  # between one signal that a time is over and the next


@final
@dataclass(frozen=True)
class JobLimits:
    """What one job may take, and whether it has company.

    Args:
        timeout_s: seconds; 0: no limit.
        memory_gb: beyond what its process has already; 0: no limit.
        together: it may share its process and batches with others.
    """

    timeout_s: float = 0.0
    memory_gb: float = 0.0
    together: bool = True


@final
class OutOfTimeError(Exception):
    """A job is over its time."""


@final
@dataclass
class Clock:
    """The time of one job, or of one batch; it runs only while that has its turn.

    When the time is over it raises an `OutOfTimeError` in the middle of whatever runs, and says so
    in `over`: what runs may make another error of it. It can do so in a process's main thread only,
    and not within compiled code: that is for whoever watches the process.

    Args:
        limit: seconds; 0: no limit.
        spent: of them; over: its time is over.
    """

    limit: float
    spent: float = 0.0
    over: bool = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """A turn of the job."""
        self._start()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within a turn: others have theirs. Only its own part of what they do together counts."""
        self._stop()
        before = own_seconds()[1]
        try:
            yield
        finally:
            self.spent += own_seconds()[1] - before
            self._start()

    def _start(self) -> None:
        self._since = own_seconds()[1]
        if self.limit and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGALRM, self._over)
            left = max(self.limit - self.spent, 1e-3)
            # Again and again: Python drops what is raised while it collects garbage.
            put_off, _ = signal.setitimer(signal.ITIMER_REAL, left, AGAIN_S)
            self._timer, self._set = put_off, monotonic()

    def _stop(self) -> None:
        self.spent += own_seconds()[1] - self._since
        if self.limit and threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._handler)
            if self._timer:  # the process's own alarm, which was put off meanwhile
                left = self._timer - (monotonic() - self._set)
                signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))

    def _over(self, number: int, frame: FrameType | None) -> None:
        self.over = True
        raise OutOfTimeError(self.words)

    @property
    def words(self) -> str:
        """What a job that is over its time is told."""
        return (
            f"it took longer than launch.timeout_s={self.limit:g} seconds. Raise that, or make the "
            "study smaller."
        )


@contextmanager
def memory_limit(gigabytes: float) -> Iterator[None]:
    """No allocation beyond so many GB over what the process has now; 0: no limit."""
    if not gigabytes:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data_bytes() + int(gigabytes * GB)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Private writable memory that the process has mapped, as RLIMIT_DATA counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def over_memory(fault: BaseException) -> bool:
    """Whether an error says that there is no memory left (torch and pandas have errors of theirs
    for it)."""
    told: BaseException | None = fault
    seen = list[BaseException]()
    while told is not None and told not in seen:  # causes may go round in a circle
        seen.append(told)
        text = str(told).lower()
        words = ("can't allocate memory", "not enough memory", "out of memory")
        if isinstance(told, MemoryError) or any(word in text for word in words):
            return True
        told = told.__cause__ or told.__context__
    return False


def memory_words(limit: float) -> str:
    """What a job that has no memory left is told."""
    allowed = f"launch.memory_gb={limit:g}" if limit else "this machine's memory"
    return f"it asked for more than {allowed} holds. Raise that, or make the study smaller."
