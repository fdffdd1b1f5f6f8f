"""Engines: where the firms run. One interface, the same operator and firms in all of them."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, final

from parties.exchange import FedpactError

# Nothing may call home or fetch code at run time; both libraries read these when imported.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray hides the GPUs from actors that have no share of one: with training.device=auto they would
# take what others were given. (With 0, as a later Ray will have it, such actors see them all.)
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")


T = TypeVar("T")


def in_turn(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Firms that are asked together, one after the other."""
    return [task() for task in tasks]


@final
class EngineError(FedpactError):
    """The engine, not a firm, failed: processes, network, resources."""


@final
@dataclass(frozen=True)
class Job:
    """One study to hold.

    Args:
        config: the resolved configuration as JSON.
        folder: the run folder.
        firms: their names, in order.
    """

    config: str
    folder: Path
    firms: tuple[str, ...]

    @property
    def devices(self) -> dict[str, str]:
        """Firm -> its `training.device`."""
        return {name: str(self._parties[name]["training"]["device"]) for name in self.firms}

    def check_meters(self, remedy: str) -> None:
        """Whether each firm's meter can tell its own part of a batch.

        Args:
            remedy: how this engine is told to train without batches.

        Raises:
            FedpactError: one of them cannot.
        """
        for name in self.firms:
            meter = str(self._parties[name].get("energy", {}).get("_target_", ""))
            if meter.endswith(".CodeCarbon"):
                raise FedpactError(
                    f"parties.{name}.energy is CodeCarbon, which counts a whole process, and in a "
                    "batch firms of one process train at once; legal is a meter of the firm's own "
                    f"seconds. Set energy=watts, or {remedy}."
                )

    @cached_property
    def _parties(self) -> dict[str, Any]:
        return dict(json.loads(self.config)["parties"])


def devices_here(devices: Mapping[str, str]) -> str:
    """Where firms of this process train, in words.

    Args:
        devices: firm -> its `training.device`.

    Raises:
        FedpactError: this process has no such device.
    """
    import torch

    from parties.training import Training

    found = {Training(device=device).torch_device for device in devices.values()}
    return " and ".join(
        str(d) if d.type == "cpu" else f"{d} ({torch.cuda.get_device_name(d)})"
        for d in sorted(found, key=str)
    )


class Engine(ABC):
    """A place to run the operator and the firms."""

    @abstractmethod
    def plan(self, job: Job) -> list[str]:
        """What it would start, and where firms would train, a line each; refuses what cannot be.

        Raises:
            FedpactError: more CPUs or GPUs are asked for than there are, or others; or firms that
                cannot be held so.
        """

    @abstractmethod
    def hold(self, job: Job) -> None:
        """Hold the sessions of the job that are not yet on file."""

    def close(self) -> None:
        """Stop whatever is kept warm between jobs."""
        return
