"""The one Ray of this process: started here, and gone without a trace; or a cluster it joins."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, final
from uuid import uuid4

from simulations.engines.marked import kill, marked, stop_marked
from simulations.source import copy_code

INLINE = 1 << 22  # bytes
NO_SHARE_NO_GPU = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"  # see `simulations.engines`
MARK = "FEDPACT_RAY"  # in the environment of every process of a Ray that was started here


@final
@dataclass(frozen=True)
class _Own:
    """A Ray that this process started: the mark of its processes, the folder of its files."""

    mark: bytes
    folder: Path


_up: list[_Own | None] = []  # one at most; None: a cluster that this process joined
_cut_off: list[bool] = []


def start(num_cpus: int, num_gpus: int) -> None:
    """Start Ray on this machine."""
    # Inherited by the workers: the same code as here, one thread each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    value = uuid4().hex
    # Ray's sockets lie in its folder, and their paths may not be long.
    folder = tempfile.mkdtemp(prefix="fp-", dir=os.environ.get("RAY_TMPDIR"))
    _up.append(_Own(f"{MARK}={value}".encode(), Path(folder)))
    os.environ[MARK] = value
    try:
        with _without_helpers():
            _init(
                address="local",
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                include_dashboard=False,
                _temp_dir=folder,
                _system_config={
                    # Nobody reads its history of calls, which would grow with every round.
                    "task_events_report_interval_ms": 0,
                    # Answers of this size come with the call that asks for them: to store and fetch
                    # them takes more of small firms' time than to copy them.
                    "max_direct_call_object_size": INLINE,
                    # What is larger goes at once when nobody wants it any more; else a second's
                    # rounds would lie in memory.
                    "free_objects_batch_size": 1,
                },
            )
    finally:
        del os.environ[MARK]  # of Ray's processes only, not of others that are started later


@contextmanager
def _without_helpers() -> Iterator[None]:
    """Start Ray without its autoscaler and its reader of logs, and end its API server: nobody asks
    them anything, and they take memory and CPU all the time.

    `ray.init` has no option for it; a Ray that has not what is used here keeps them.
    """
    parameter: Any = import_module("ray._private.parameter")
    worker: Any = import_module("ray._private.worker")
    usual = parameter.RayParams
    spared = {"no_monitor": True, "include_log_monitor": False}
    known = signature(usual).parameters
    parameter.RayParams = partial(usual, **{k: v for k, v in spared.items() if k in known})
    try:
        yield
    finally:
        parameter.RayParams = usual
    with suppress(AttributeError):
        worker._global_node.kill_dashboard(check_alive=False)


def join(address: str) -> None:
    """Join a cluster; the code of this process travels to its machines."""
    _up.append(None)
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        copy_code(Path(folder))
        # One thread a worker; and without a share of a GPU none, whatever the cluster was told.
        told = {"OMP_NUM_THREADS": "1", NO_SHARE_NO_GPU: os.environ[NO_SHARE_NO_GPU]}
        # A folder to work in comes before all else that a machine could import.
        _init(address=address, runtime_env={"working_dir": folder, "env_vars": told})


def up() -> bool:
    """Whether there is a Ray to stop, be it half started."""
    return bool(_up)


def cut_off() -> bool:
    """Whether Ray was interrupted while it started: what it began crashes when Python ends."""
    return bool(_cut_off)


def stop() -> None:
    """Leave a cluster; of a Ray that was started here, end every process and remove the files."""
    import ray

    own = _up[-1] if _up else None
    # Ray ends its processes in turn. Those that wrote their own environment are found now, while
    # it is known whose children they are.
    family = marked(own.mark) if own else set()
    try:
        ray.shutdown()
    finally:
        while _up:
            with suppress(KeyboardInterrupt):  # of an impatient user
                if own:
                    kill(family)
                    stop_marked(own.mark)
                    shutil.rmtree(own.folder, ignore_errors=True)
                _up.clear()


def _init(**options: Any) -> None:
    import ray

    told_to_end = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings():
            # Of NO_SHARE_NO_GPU, which is set as it must be.
            warnings.filterwarnings("ignore", "Tip: In future", FutureWarning)
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (SystemExit, KeyboardInterrupt) as told:
        # While Ray starts it has its own answers to SIGTERM: to end Python, or to sound an alarm
        # that ends the process with a core dump when three seconds are over.
        signal.alarm(0)
        _cut_off.append(True)
        raise KeyboardInterrupt from told
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, told_to_end)  # Ray puts its own in its place
