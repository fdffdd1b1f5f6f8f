"""A run on a Ray cluster that is already there, and that knows another version of the code."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from parties.exchange import FedpactError
from simulations.engines import EngineError, ray_actors
from simulations.engines.ray_actors import RayActors
from simulations.source import copy_code
from tests.checks import SMALL_HEART, SMALL_LOANS
from tests.test_engines import hold, models, sessions

# Ray opens sockets and files that it leaves to the end of the process.
pytestmark = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@contextmanager
def cluster(home: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A cluster's head, started elsewhere by somebody with a version that cannot answer."""
    RayActors().close()
    copy_code(home)
    (home / "parties" / "app.py").write_text("raise RuntimeError('another version')\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Ray's sockets lie below its folder, and their paths may not be long.
    folder = tempfile.mkdtemp(prefix="fp-")
    head = subprocess.Popen(
        [
            *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"),
            *(f"--port={port}", "--num-cpus=2", "--include-dashboard=false"),
            *("--node-ip-address=127.0.0.1", f"--temp-dir={folder}"),
        ],
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(home)},
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert head.poll() is None
            assert time.monotonic() < deadline
            try:
                ray_actors.check_reachable(f"127.0.0.1:{port}")
                break
            except FedpactError:
                time.sleep(0.5)
        yield f"127.0.0.1:{port}", head
    finally:
        RayActors().close()
        family = psutil.Process(head.pid).children(recursive=True)
        head.terminate()
        try:
            head.wait(timeout=60)
        finally:
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_clusters_workers_run_the_drivers_code_though_the_cluster_knows_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # or else Ray would find the code where the driver works
    here = hold(tmp_path / "inline", *SMALL_LOANS)
    with cluster(tmp_path / "elsewhere") as (address, head):
        words = (*SMALL_LOANS, "engine=ray", f"engine.address='{address}'")
        there = hold(tmp_path / "ray", *words)
        assert sessions(there) == sessions(here)
        assert models(there) == models(here)
        RayActors().close()
        with monkeypatch.context() as patch:
            patch.setattr(ray_actors, "code_digest", lambda: "0" * 64)
            with pytest.raises(EngineError, match=r"runs code with the sha256 \w{64}; legal is"):
                hold(tmp_path / "other", *words)
        # It left the cluster as it was, and can join it again.
        again = hold(tmp_path / "again", *words)
        assert sessions(again) == sessions(here)
        RayActors().close()
        assert head.poll() is None


def test_firms_of_a_machine_that_is_lost_in_a_round_go_on_at_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    words = (*SMALL_HEART, "study.seeds=1", "strategy.rounds=60", "strategy.local_epochs=1")
    here = hold(tmp_path / "inline", *words)
    RayActors().close()
    room = tempfile.mkdtemp(prefix="fp-")
    monkeypatch.setenv("RAY_TMPDIR", room)
    machines = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False}
    )
    lost: list[str] = []

    def lose(machine: psutil.Process) -> None:
        """Wait for a round, then kill all that runs on a machine."""
        table = tmp_path / "ray" / "rounds.csv"
        while not table.exists() or table.read_text().count(",train_sharing,") < 4 * 20:
            time.sleep(0.005)
        family = [*machine.children(recursive=True), machine]
        lost.extend(" ".join(process.cmdline()) for process in family)
        for process in family:
            process.kill()

    try:
        second = machines.add_node(num_cpus=4)
        machine = psutil.Process(second.all_processes["raylet"][0].process.pid)
        machines.wait_for_nodes()
        losing = threading.Thread(target=lose, args=(machine,), daemon=True)
        losing.start()
        there = hold(
            tmp_path / "ray",
            *(*words, "engine=ray", "engine.workers=4", f"engine.address='{machines.address}'"),
        )
        losing.join()
        assert any("ray::Worker" in name for name in lost), lost
        assert sessions(there) == sessions(here)
        assert models(there) == models(here)
    finally:
        RayActors().close()
        machines.shutdown()
        shutil.rmtree(room, ignore_errors=True)
