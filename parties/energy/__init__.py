"""What computing takes a firm: seconds always, energy and emissions by a meter of its choice.

One file a meter; `Meter` is the interface. Energy is told with how it is known: measured by
hardware counters, or estimated from seconds and watts.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from parties.exchange import FedpactError

MEASURED, ESTIMATED = "measured", "estimated"
JOULES_A_KWH = 3.6e6


@final
@dataclass(frozen=True)
class Spent:
    """What some computing took.

    Args:
        cpu_seconds: of this thread; gpu_seconds: wall seconds, where the work was on a GPU, else 0.
        joules: energy; kg_co2e: emissions.
        known: "measured" (hardware counters) or "estimated".
    """

    cpu_seconds: float
    gpu_seconds: float
    joules: float
    kg_co2e: float
    known: str = ESTIMATED

    @property
    def kwh(self) -> float:
        """Energy in kilowatt hours."""
        return self.joules / JOULES_A_KWH


@dataclass(frozen=True)
class Meter(ABC):
    """Counts what computing takes.

    Args:
        price_kwh: money that a kilowatt hour costs the firm, in its own currency.
        price_cpu_hour, price_gpu_hour: money that an hour of a core and of its GPU share costs.
    """

    price_kwh: float = 0.25
    price_cpu_hour: float = 0.0
    price_gpu_hour: float = 0.0

    def __post_init__(self) -> None:
        for name in ("price_kwh", "price_cpu_hour", "price_gpu_hour"):
            self._amount(name)

    @abstractmethod
    def start(self, device: torch.device) -> Callable[[], Spent]:
        """Start to count work on a device; called, the result tells what was spent since then."""

    def money(self, spent: Spent) -> float:
        """What it cost, energy and hours, in the firm's currency."""
        hours = self.price_cpu_hour * spent.cpu_seconds + self.price_gpu_hour * spent.gpu_seconds
        return self.price_kwh * spent.kwh + hours / 3600

    def _amount(self, name: str) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not np.isfinite(value) or value < 0:
            raise FedpactError(f"energy.{name} is {value!r}; legal is a number >= 0.")


away: ContextVar[tuple[float, float]] = ContextVar("away", default=(0.0, 0.0))
"""CPU and wall seconds of this thread that were not spent on whoever computes here."""


def own_seconds() -> tuple[float, float]:
    """CPU and wall seconds of this thread, from some beginning, without those for others."""
    cpu, wall = away.get()
    return time.thread_time() - cpu, time.perf_counter() - wall


def clock(device: torch.device) -> Callable[[], tuple[float, float]]:
    """Starts a clock; called, it tells the CPU and GPU seconds since then.

    GPU seconds are wall seconds of a process that computes on one, from an idle device to one.
    """
    gpu = device.type == "cuda"
    start = own_seconds()

    def read() -> tuple[float, float]:
        if gpu:
            torch.cuda.synchronize(device)
        cpu, wall = (now - then for now, then in zip(own_seconds(), start, strict=True))
        return cpu, wall if gpu else 0.0

    return read
