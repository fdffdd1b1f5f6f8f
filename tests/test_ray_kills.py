"""Workers that answer in any order, and workers killed in the middle of a round."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from parties.files import digest
from simulations.conclude import conclude
from simulations.engines import Job, apps
from simulations.engines.lockstep import all_together
from simulations.engines.ray_actors import RayActors
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import SMALL_HEART, plain
from tests.test_engines import models, sessions

# Ray opens sockets and files that it leaves to the end of the process.
pytestmark = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ROUNDS, EPOCHS = 40, 40
STUDY = (
    *SMALL_HEART,
    "study.seeds=1",
    f"strategy.rounds={ROUNDS}",
    f"strategy.local_epochs={EPOCHS}",
)
STUDY_ROWS = 4 * ROUNDS * EPOCHS  # of four firms, besides the header and what no_sharing trains


def told(folder: Path) -> dict[str, Any]:
    """Everything that a run comes to, as bytes or as their sha256."""
    conclude(study_of(plain(*STUDY)), RunFolder(folder))
    return {
        "sessions": sessions(folder),
        "models": models(folder),
        "rounds.csv": (folder / "rounds.csv").read_text(),
        "verdict.json": digest((folder / "verdict.json").read_bytes()),
    }


def job_in(folder: Path) -> Job:
    config = plain(*STUDY)
    return Job(json.dumps(config), folder, tuple(sorted(config["parties"])))


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("inline")
    apps.hold_here(job_in(folder))
    return told(folder)


@pytest.fixture(scope="module")
def actors() -> Iterator[list[Any]]:
    """Two workers that stay warm, but for being killed."""
    yield RayActors(workers=2, num_cpus=0.5).start(2)
    RayActors().close()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("together")
    apps.hold_here(job_in(folder), all_together)
    return told(folder)


def hold_on_ray(
    folder: Path, actors: list[Any], maker: str, batched: bool = False
) -> dict[str, Any]:
    from simulations.engines.ray_crew import RayCrew

    job = job_in(folder)
    apps.hold_direct(
        job, lambda _, arguments: RayCrew(actors, maker, arguments, job.firms, batched)
    )
    return told(folder)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_that_answer_in_any_order_come_to_the_same_bytes(
    workers: int,
    inline: dict[str, Any],
    together: dict[str, Any],
    actors: list[Any],
    tmp_path: Path,
) -> None:
    import ray

    from simulations.engines.ray_crew import start_workers

    crowd = start_workers(workers, 0, 0)
    try:
        late = "tests.late_firm:late_firm"
        assert hold_on_ray(tmp_path / "one by one", crowd, late) == inline
        assert hold_on_ray(tmp_path / "batched", crowd, late, batched=True) == together
        assert together["models"] != inline["models"]
    finally:
        for worker in crowd:
            ray.kill(worker)
        while len(workers_now()) > 2:  # they end a moment later
            time.sleep(0.05)


# ------------------------------------------------------------------------------------------- kills


def workers_now() -> dict[int, psutil.Process]:
    """The processes of Ray's actors below this one."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith("ray::Worker"):
                found[process.pid] = process
        except psutil.Error:
            continue
    return found


def another_than(old: set[int], limit_s: float = 120) -> int:
    """The worker that was started in the place of one that was killed."""
    deadline = time.monotonic() + limit_s
    while not (new := set(workers_now()) - old):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return new.pop()


def one(rng: random.Random) -> list[int]:
    pid = rng.choice(sorted(workers_now()))
    os.kill(pid, signal.SIGKILL)
    return [pid]


def two_at_once(rng: random.Random) -> list[int]:
    pids = sorted(workers_now())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return pids


def twice_in_a_row(rng: random.Random) -> list[int]:
    old = set(workers_now())
    first = one(rng)
    second = another_than(old)
    os.kill(second, signal.SIGKILL)
    return [*first, second]


KILLS = [one, two_at_once, twice_in_a_row, *[one] * 15, two_at_once, twice_in_a_row]
CASES = [*((kill, False) for kill in KILLS), *((kill, True) for kill in KILLS[:4])]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_worker_killed_in_a_round_is_replaced_and_no_byte_differs(
    case: int,
    inline: dict[str, Any],
    together: dict[str, Any],
    actors: list[Any],
    tmp_path: Path,
) -> None:
    import ray

    ray.get([actor.__ray_ready__.remote() for actor in actors])
    assert len(workers_now()) == 2
    kill, batched = CASES[case]
    rng = random.Random(case)
    killed: list[int] = []
    at = threading.Thread(target=kill_in_a_round, args=(tmp_path, kill, rng, killed))
    at.start()
    found = hold_on_ray(tmp_path, actors, "simulations.engines.apps:firm", batched)
    at.join()
    assert killed
    assert found == (together if batched else inline)
    ray.get([actor.__ray_ready__.remote() for actor in actors])
    assert len(workers_now()) == 2
    assert not set(workers_now()) & set(killed)


def kill_in_a_round(
    folder: Path, kill: Callable[[random.Random], list[int]], rng: random.Random, killed: list[int]
) -> None:
    """Wait for some round of the run, and for some moment of that round."""
    rows, wanted = 0, rng.randrange(STUDY_ROWS * 9 // 10)
    while rows < wanted:
        table = folder / "rounds.csv"
        rows = table.read_text().count(",train_sharing,") if table.exists() else 0
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.02))
    before = (folder / "rounds.csv").read_text().count(",train_sharing,")
    if before < STUDY_ROWS:
        killed.extend(kill(rng))
