"""engine=ray: firms as Ray actors. One actor a worker, one call an actor a round."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from parties.exchange import FedpactError
from simulations.engines import Engine, EngineError, Job, one_ray
from simulations.engines.config_keys import PARTY
from simulations.source import code_digest

log = logging.getLogger("fedpact")

CONNECT_S = 10.0
START_S = 300.0  # until a cluster's workers have imported what they need


@final
@dataclass(frozen=True)
class RayActors(Engine):
    """Firms dealt out among Ray actors; data and models stay cached where they are used.

    Args:
        workers: actors (never more than firms).
        num_cpus, num_gpus: shares of one actor.
        address: None starts Ray on this machine, "auto" or "HOST:PORT" joins a cluster.
    """

    workers: int = 2
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    address: str | None = None

    # One Ray and one set of warm actors a process, shared by all jobs of a sweep.
    _pools: ClassVar[dict[tuple[int, float, float, str | None], list[Any]]] = {}

    def __post_init__(self) -> None:
        whole = isinstance(self.workers, int) and not isinstance(self.workers, bool)
        if not whole or self.workers < 1:
            raise FedpactError(f"engine.workers is {self.workers!r}; legal is a whole number >= 1.")
        for name in ("num_cpus", "num_gpus"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
                raise FedpactError(f"engine.{name} is {value!r}; legal is a number >= 0.")

    def plan(self, firms: int) -> list[str]:
        workers = min(self.workers, firms)
        where = f"the cluster at {self.address}" if self.address else "this machine"
        if self.address is None:
            cpus, gpus = len(os.sched_getaffinity(0)), _gpus()
            for name, share, held in (("CPU", self.num_cpus, cpus), ("GPU", self.num_gpus, gpus)):
                if workers * share > held:
                    raise FedpactError(
                        f"{workers} Ray actors x {share:g} {name}s ask for {workers * share:g}, "
                        f"this machine has {held}. Lower engine.workers or "
                        f"engine.num_{name.lower()}s, or join a cluster with engine.address."
                    )
        return [
            f"ray: {workers} actors x {self.num_cpus:g} CPU, {self.num_gpus:g} GPU on {where}; "
            f"{firms} firms, one message an actor a round"
        ]

    def hold(self, job: Job) -> None:
        self.plan(len(job.firms))
        import_ray()
        from simulations.engines import apps
        from simulations.engines.grid import contexts_of, server_context
        from simulations.engines.ray_grid import RayGrid

        actors = self.start(min(self.workers, len(job.firms)))
        run_config = apps.run_config(job.config, job.folder)
        contexts = contexts_of(job.firms, PARTY, run_config)
        grid = RayGrid(actors, "simulations.engines.apps:client", contexts)
        apps.server(grid, server_context(run_config))

    def close(self) -> None:
        """Stop the actors; stop Ray too, unless it is somebody else's cluster."""
        self._pools.clear()
        if one_ray.up():
            one_ray.stop()

    def start(self, workers: int) -> list[Any]:
        """Ray handles of this many workers; kept warm for the next job until `close`."""
        key = (workers, self.num_cpus, self.num_gpus, self.address)
        if key not in self._pools:
            self.close()
            self.start_ray(workers)
            from simulations.engines.ray_grid import start_workers

            actors = start_workers(workers, self.num_cpus, self.num_gpus)
            if self.address:
                check_code([actor.code.remote() for actor in actors])
            self._pools[key] = actors
        return self._pools[key]

    def start_ray(self, workers: int) -> None:
        """Start Ray with room for so many workers, or join the cluster."""
        import_ray()
        check_reachable(self.address)
        for attempt in (1, 2):
            try:
                if self.address:
                    one_ray.join(self.address)
                else:
                    one_ray.start(
                        num_cpus=max(1, int(np.ceil(workers * self.num_cpus))),
                        num_gpus=int(np.ceil(workers * self.num_gpus)),
                    )
                return
            except (OSError, RuntimeError, ValueError, TimeoutError) as fault:
                one_ray.stop()
                if attempt == 2 or self.address:
                    raise EngineError(
                        f"Ray could not be {'joined' if self.address else 'started'}: {fault}. "
                        "On a busy machine try again; for a cluster check engine.address; "
                        "engine=inline needs no Ray."
                    ) from fault
                log.warning("Ray did not start (%s); trying once more", fault)


def check_code(told: list[Any]) -> None:
    """Wait until a cluster's workers are there, with the code of this process.

    Args:
        told: Ray's references to the `code_digest` of each.

    Raises:
        EngineError: they could not start, or run another's.
    """
    ray = import_ray()
    done, waiting = ray.wait(told, num_returns=len(told), timeout=START_S)
    if waiting:
        raise EngineError(
            f"{len(waiting)} of {len(told)} workers did not start on the cluster within "
            f"{START_S:g} s; legal are as many as it has room for. Ask `ray status` what is free, "
            "and lower engine.workers or engine.num_cpus."
        )
    try:
        for digest in ray.get(done):
            check_same(digest)
    except ray.exceptions.RayError as fault:
        told_last = str(fault).strip().splitlines()[-1]
        raise EngineError(
            f"A worker could not start on the cluster: {told_last}. Its machines need Python, Ray "
            "and the other dependencies in the versions that are here: install them there with "
            "pip install -c constraints.txt '.[ray]'."
        ) from fault


def check_same(digest: str) -> None:
    """Whether a worker's `code_digest` is that of this process.

    Raises:
        EngineError: it is another's.
    """
    if digest != code_digest():
        raise EngineError(
            f"A worker of the cluster runs code with the sha256 {digest[:200]}; legal is what "
            f"this process runs, {code_digest()}. If files were changed meanwhile, start again; "
            "else take other copies of Fedpact off the PYTHONPATH of the cluster."
        )


def check_reachable(address: str | None) -> None:
    """Whether somebody listens at HOST:PORT; Ray itself would try for a quarter of an hour.

    Raises:
        EngineError: nobody does.
    """
    host, _, port = str(address or "").rpartition(":")
    if not host or not port.isdigit() or "//" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as fault:
        raise EngineError(
            f"Nobody answers at the address {address} ({fault}); legal is HOST:PORT of a running "
            "Ray cluster's head, or auto. Start it with `ray start --head`, or leave the address "
            "out to start Ray here."
        ) from fault


def import_ray() -> Any:
    try:
        import ray
    except ImportError as fault:
        raise EngineError(
            "engine=ray needs Ray: pip install -c constraints.txt '.[ray]', or use engine=inline."
        ) from fault
    return ray


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
