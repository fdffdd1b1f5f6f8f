"""How long a job may take and how much memory, in a process that holds several by turns."""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import final

OUT_OF_TIME, OUT_OF_MEMORY = "OutOfTime", "OutOfMemory"
GB = 1 << 30


@final
@dataclass(frozen=True)
class JobLimits:
    """What one job may take.

    Args:
        timeout_s: seconds; 0: no limit.
        memory_gb: beyond what its process has already; 0: no limit.
    """

    timeout_s: float = 0.0
    memory_gb: float = 0.0


@final
class StoppedError(BaseException):
    """A job is over one of its limits. (No Exception: whoever guards a firm lets it through.)"""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


@final
@dataclass
class Clock:
    """The time of one job; it runs only while the job has its turn.

    Args:
        limit: seconds; 0: no limit.
    """

    limit: float
    spent: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """The job's turn.

        Raises:
            StoppedError: in the middle of whatever runs, when its time is over. Only in a process's
                main thread, and not while compiled code runs: that is for who started the process.
        """
        begun = time.monotonic()
        timed = self.limit > 0 and threading.current_thread() is threading.main_thread()
        if not timed:
            try:
                yield
            finally:
                self.spent += time.monotonic() - begun
            return
        before = signal.signal(signal.SIGALRM, self._over)
        signal.setitimer(signal.ITIMER_REAL, max(self.limit - self.spent, 1e-3))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self.spent += time.monotonic() - begun

    def charge(self, seconds: float) -> None:
        """Add time that was spent for it elsewhere.

        Raises:
            StoppedError: its time is over.
        """
        self.spent += seconds
        if 0 < self.limit < self.spent:
            raise self._fault()

    def _over(self, number: int, frame: FrameType | None) -> None:
        raise self._fault()

    def _fault(self) -> StoppedError:
        return StoppedError(
            OUT_OF_TIME,
            f"it took longer than launch.timeout_s={self.limit:g} seconds. Raise that, or make "
            "the study smaller.",
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
    """Whether an error says that there is no memory left (torch tells by a RuntimeError)."""
    text = str(fault)
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(fault, MemoryError) or (
        isinstance(fault, RuntimeError) and any(word in text for word in words)
    )


def memory_fault(limit: float) -> StoppedError:
    """What a job that has no memory left is told."""
    allowed = f"launch.memory_gb={limit:g}" if limit else "this machine's memory"
    return StoppedError(
        OUT_OF_MEMORY, f"it asked for more than {allowed} holds. Raise that, or make it smaller."
    )
