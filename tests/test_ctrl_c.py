"""Ctrl-C and SIGTERM at any moment of a run on Ray: nothing is left, and it is gone on with."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from parties.files import digest
from simulations.engines.marked import kill, marked
from tests.checks import SMALL_HEART, Told

pytestmark = [pytest.mark.long, pytest.mark.ray]

ROOT = Path(__file__).parents[1]
LIMIT_S = 5.0  # from the signal until nothing is left
STUDY = (*SMALL_HEART, "study.seeds=1", "strategy.rounds=60", "strategy.local_epochs=1")
SESSIONS = 2  # of the two contracts
ROWS = 4 * 60  # of the four hospitals


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sha256 of the verdict of a run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    fedpact(*STUDY, f"run_dir={folder}")
    return digest((folder / "verdict.json").read_bytes())


@pytest.fixture
def room() -> Iterator[Path]:
    """Where Ray puts its files: sockets lie there, and their paths may not be long."""
    folder = Path(tempfile.mkdtemp(prefix="fp-"))
    yield folder
    shutil.rmtree(folder)


def fedpact(*words: str) -> Told:
    done = subprocess.run(
        [sys.executable, "-m", "simulations", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return Told(done.returncode, done.stdout, done.stderr)


# ----------------------------------------------------------------------------------------- moments


def wait_until(reached: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def while_ray_starts(run: Path, running: subprocess.Popen[str], rng: random.Random) -> None:
    wait_until((run / "run.log").exists, running)
    time.sleep(rng.uniform(0, 6))


def in_a_round(run: Path, running: subprocess.Popen[str], rng: random.Random) -> None:
    table, wanted = run / "rounds.csv", rng.randrange(1, ROWS * 9 // 10)
    wait_until(
        lambda: table.exists() and table.read_text().count(",train_sharing,") >= wanted, running
    )
    time.sleep(rng.uniform(0, 0.03))


def at_writing(run: Path, running: subprocess.Popen[str], rng: random.Random) -> None:
    wait_until(lambda: len(list(run.glob("sessions/*.sha256"))) == SESSIONS, running)
    time.sleep(rng.uniform(0, 0.3))


def ctrl_c(running: subprocess.Popen[str]) -> None:
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does


def told_to_end(running: subprocess.Popen[str]) -> None:
    running.send_signal(signal.SIGTERM)


def impatience(running: subprocess.Popen[str]) -> None:
    """Ctrl-C again and again."""
    for _ in range(4):
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGINT)
        time.sleep(0.2)


MOMENTS = (while_ray_starts, in_a_round, at_writing)
WAYS = (ctrl_c, told_to_end, impatience, ctrl_c)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("way", range(len(WAYS)))
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_run_on_ray_leaves_nothing_and_is_gone_on_with_to_the_same_verdict(
    moment: Callable[..., None], way: int, whole: str, room: Path, tmp_path: Path
) -> None:
    run, rng = tmp_path / "run", random.Random(f"{moment.__name__} {way}")
    shared, name = set(os.listdir("/dev/shm")), os.urandom(8).hex()
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "simulations", *STUDY, "engine=ray", "engine.num_cpus=0.5"),
            f"run_dir={run}",
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(room), "FEDPACT_TEST": name},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background may have told everybody to ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    family = set()
    try:
        moment(run, running, rng)
        family = marked(f"FEDPACT_TEST={name}".encode())
        sent = time.monotonic()
        WAYS[way](running)
        _, errors = running.communicate(timeout=60)
        while left := {pid for pid, since in family if lives(pid, since)}:
            assert time.monotonic() - sent < LIMIT_S, left
        took = time.monotonic() - sent
        assert not marked(f"FEDPACT_TEST={name}".encode())
        assert list(room.iterdir()) == []
        assert set(os.listdir("/dev/shm")) <= shared
        sys.stdout.write(f"{moment.__name__}, {WAYS[way].__name__}: gone after {took:.2f} s\n")
        assert took < LIMIT_S
        assert "Traceback" not in errors
        if running.returncode:  # else it came to its end just before it was told
            assert running.returncode == 130, errors
            assert f"fedpact resume={run}" in errors
    finally:
        kill(family)
    fedpact(f"resume={run}")
    assert digest((run / "verdict.json").read_bytes()) == whole


def lives(number: int, since: int) -> bool:
    """Whether a process runs that was there before, and not another by its number."""
    try:
        process = psutil.Process(number)
        same = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19] == str(since)
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False
