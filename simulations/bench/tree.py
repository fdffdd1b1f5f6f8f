"""CPU seconds of a process with all that it started, the dead and the orphaned too. Linux only.

Nothing but the standard library is imported, so that any interpreter can count alike.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36


def keep_orphans() -> None:
    """From now on a descendant whose parent ends becomes this process's child, and counts on.

    Raises:
        OSError: the system knows no such thing.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        fault = ctypes.get_errno()
        raise OSError(fault, os.strerror(fault))


def tree_cpu_seconds(pid: int) -> float:
    """CPU seconds, user and system, of a process, its descendants and those they waited for.

    A descendant that ended counts once its parent has waited for it, or while nobody has. What
    differs between two calls is what was spent between them.
    """
    return sum(_family(pid).values()) / TICKS


def tree_memory_mb(pid: int) -> float:
    """Memory of a process and its descendants, MB; what several share is shared out among them."""
    total = 0
    for process in _family(pid):
        with suppress(OSError):  # it ended meanwhile
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def end_children() -> None:
    """Tell this process's children to end, and wait until they have.

    Whoever starts a child may be interrupted before knowing of it.
    """
    time.sleep(0.2)  # a child that is not yet its program would not hear it
    for process, parent, _ in _processes():
        if parent == os.getpid():
            with suppress(OSError):  # it ended meanwhile
                os.kill(process, signal.SIGTERM)
    with suppress(ChildProcessError):  # there is none left
        while True:
            os.wait()


def _family(pid: int) -> dict[int, int]:
    """A process and its descendants, each with its ticks."""
    parents: dict[int, int] = {}
    spent: dict[int, int] = {}
    for process, parent, ticks in _processes():
        parents[process], spent[process] = parent, ticks
    family = {pid}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return {process: spent.get(process, 0) for process in family}


def _processes() -> Iterator[tuple[int, int, int]]:
    """Of every process its id, its parent's, and ticks of it and of the children it waited for."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            # The name is in brackets and may hold any character; state is what comes after it.
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            yield int(place.name), int(fields[1]), sum(map(int, fields[11:15]))
