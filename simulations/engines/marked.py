"""Processes that carry a mark in their environment, and all that they started: found, stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

Process = tuple[int, int]
"""Its number, and when it started: numbers are used again."""


def stop_marked(mark: bytes) -> None:
    """Kill every process that carries the mark, and their descendants, until there are none."""
    while family := marked(mark):
        kill(family)
        time.sleep(0.02)


def kill(processes: Iterable[Process]) -> None:
    """End those of these processes that still live."""
    for number, started in processes:
        with suppress(OSError):
            if _stat(Path("/proc", str(number)))[1] == started:
                os.kill(number, signal.SIGKILL)


def marked(mark: bytes) -> set[Process]:
    """Find the processes whose environment holds the mark, and their descendants, in case one
    rewrote its own."""
    family: set[int] = set()
    parents: dict[int, int] = {}
    since: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            process = int(place.name)
            parents[process], since[process] = _stat(place)
            if mark in (place / "environ").read_bytes().split(b"\0"):
                family.add(process)
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return {(process, since[process]) for process in family}


def _stat(place: Path) -> tuple[int, int]:
    """A process's parent, and when it started."""
    fields = (place / "stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])
