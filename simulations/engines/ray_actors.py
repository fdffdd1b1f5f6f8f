"""engine=ray: firms as Ray actors. One actor a worker, one call an actor a round."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import numpy as np

from parties.exchange import FedpactError
from simulations.engines import Engine, EngineError, Job, one_ray
from simulations.engines.batched import SIDE_BY_SIDE, check_room
from simulations.engines.placement import UNIT, gpus_for, room_for
from simulations.source import code_digest

log = logging.getLogger("fedpact")

CONNECT_S = 10.0
LEAST = 1 / UNIT  # of a CPU or GPU
ADDRESS = re.compile(r"(\[[\da-fA-F:.]+\]|[^\s/:]+):\d{1,5}")
START_S = 300.0  # until a cluster's workers have imported what they need


@final
@dataclass(frozen=True)
class RayActors(Engine):
    """Firms dealt out among Ray actors; data and models stay cached where they are used.

    Args:
        workers: actors (never more than firms).
        num_cpus, num_gpus: shares of one actor.
        address: None starts Ray on this machine, "auto" or "HOST:PORT" joins a cluster.
        batched: the small models of an actor's firms train side by side, to the bits of
            engine=batched (see there) for any number of actors, but where a GPU had no room and a
            batch was halved. False: one by one, to the bits of engine=inline.
        room_mb: what the models of a batch may take, as of engine=batched: of a GPU an eighth of
            all its memory, whatever the actor's share of it.
    """

    workers: int = 2
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    address: str | None = None
    batched: bool = False
    room_mb: float | None = None

    # One Ray and one set of warm actors a process, shared by all jobs of a sweep.
    _pools: ClassVar[dict[tuple[int, float, float, str | None], list[Any]]] = {}

    def __post_init__(self) -> None:
        whole = isinstance(self.workers, int) and not isinstance(self.workers, bool)
        if not whole or self.workers < 1:
            raise FedpactError(
                f"engine.workers is {self.workers!r}; legal is a whole number >= 1. Set "
                "engine.workers=2."
            )
        if self.address not in (None, "auto") and not ADDRESS.fullmatch(str(self.address)):
            raise FedpactError(
                f"engine.address is {self.address!r}; legal are null (Ray is started here), auto "
                "(the cluster of this machine) and HOST:PORT of a cluster's head, such as "
                "10.0.0.1:6379, as `ray start --head` prints it (no ray://)."
            )
        for name in ("num_cpus", "num_gpus"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (value == 0 or LEAST <= value < np.inf):
                raise FedpactError(
                    f"engine.{name} is {value!r}; legal is 0, or a number >= {LEAST:g}. Set "
                    f"engine.{name}=1."
                )
        if self.num_gpus > 1 and not float(self.num_gpus).is_integer():
            raise FedpactError(
                f"engine.num_gpus is {self.num_gpus:g}; legal is a share of one GPU (0 to 1), or "
                "whole GPUs. Set engine.num_gpus=0.5, or 2."
            )
        if not isinstance(self.batched, bool):
            raise FedpactError(
                f"engine.batched is {self.batched!r}; legal are true and false. Set "
                "engine.batched=true."
            )
        check_room(self.room_mb)
        if self.room_mb is not None and not self.batched:
            raise FedpactError(
                f"engine.room_mb is {self.room_mb:g} and engine.batched false: without batches it "
                "would change nothing. Set engine.batched=true, or engine.room_mb=null."
            )

    def plan(self, job: Job) -> list[str]:
        firms = len(job.firms)
        workers = min(self.workers, firms)
        where = f"the cluster at {self.address}" if self.address else "this machine"
        trained = check_share(job.devices, self.num_gpus)
        self.check(workers)
        company = f", {SIDE_BY_SIDE}" if self.batched else ""
        if self.batched:
            job.check_meters("engine.batched=false")
            if workers == firms:
                company = "; with one firm an actor engine.batched gains nothing"
        return [
            f"ray: {workers} actors{self._of(workers)} x {self.num_cpus:g} CPU, "
            f"{self.num_gpus:g} GPU on {where}; {firms} firms, one message an actor a round; "
            f"they train on {trained}{company}"
        ]

    def check(self, workers: int) -> None:
        """Whether so many can ever run on this machine; of a cluster, whether it answers.

        Raises:
            FedpactError: they cannot, or it does not.
        """
        if self.address is None:
            self._check_room(workers, [(len(os.sched_getaffinity(0)), gpus_here())])
        check_reachable(self.address)

    def hold(self, job: Job) -> None:
        self.plan(job)
        import_ray()
        from simulations.engines.apps import hold_direct
        from simulations.engines.ray_crew import RayCrew

        actors = self.start(min(self.workers, len(job.firms)))
        hold_direct(
            job,
            partial(RayCrew, actors, names=job.firms, batched=self.batched, room_mb=self.room_mb),
        )

    def check_cluster(self, workers: int) -> None:
        """Whether the Ray that was joined has room for so many workers; else it is left.

        Raises:
            FedpactError: it has not, so that Ray would wait for ever.
        """
        ray = import_ray()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        try:
            self._check_room(workers, [(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes])
        except FedpactError:
            one_ray.stop()
            raise

    def _check_room(self, workers: int, nodes: Sequence[tuple[float, float]]) -> None:
        """Whether nodes of so many (CPUs, GPUs) can ever run so many workers at once."""
        room = room_for(workers, self.num_cpus, self.num_gpus, nodes)
        if room == workers:
            return
        held = ", ".join(
            f"{f'{times} x ' if times > 1 else ''}{cpus:g} CPUs and {gpus:g} GPUs"
            for (cpus, gpus), times in Counter(nodes).items()
        )
        where = "this machine has" if self.address is None else f"the cluster {self.address} has"
        shares = "engine.num_cpus or engine.num_gpus" if self.num_gpus else "engine.num_cpus"
        legal = f"are {room} such actors or fewer"
        legal += " (a share of a GPU lies on one GPU). " if self.num_gpus else ". "
        legal += f"Set engine.workers={room}, lower {shares}" if room else f"Lower {shares}"
        if self.num_gpus and not any(gpus for _, gpus in nodes):
            legal = "is no share of a GPU where there is none. Set engine.num_gpus=0"
        raise FedpactError(
            f"{workers} Ray actors{self._of(workers)} ask for {self.num_cpus:g} CPUs and "
            f"{self.num_gpus:g} GPUs each, and {where} {held}; legal {legal}, or join a "
            "larger cluster with engine.address."
        )

    def _of(self, workers: int) -> str:
        """What is said where there are fewer than were asked for."""
        return f" (of {self.workers} that are asked for)" if workers < self.workers else ""

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
            self.check_cluster(workers)
            from simulations.engines.ray_crew import start_workers

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
                        num_gpus=gpus_for(workers, self.num_gpus),
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


def check_share(devices: Mapping[str, str], num_gpus: float) -> str:
    """Where firms train in processes that have this share of a GPU each, in words.

    Args:
        devices: firm -> its `training.device`.

    Raises:
        FedpactError: one of them is not among the GPUs that such a process sees, or all are CPUs
            and there is a share.
    """
    seen = math.ceil(num_gpus)
    for name, device in devices.items():
        kind, _, number = device.partition(":")
        if kind == "cuda" and int(number or 0) >= seen:
            raise FedpactError(
                f"parties.{name}.training.device is {device!r}, and a process with "
                f"engine.num_gpus={num_gpus:g} sees {seen} GPUs, numbered from 0; legal are cpu, "
                "auto and one that it sees. Set training.device=auto and engine.num_gpus=0.5, or 1."
            )
    if num_gpus and all(device == "cpu" for device in devices.values()):
        raise FedpactError(
            f"engine.num_gpus is {num_gpus:g}, and all firms train on CPUs; legal is 0 then. Set "
            "training.device=auto, or engine.num_gpus=0."
        )
    gpus = {name for name, device in devices.items() if device != "cpu" and num_gpus}
    if len(gpus) < len(devices) and gpus:
        return "CPUs and GPUs"
    return "GPUs" if gpus else "CPUs"


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


def gpus_here() -> int:
    """How many GPUs this process sees."""
    import torch

    return torch.cuda.device_count()
