"""A thousand rounds, a thousand firms: nothing grows, and the digests are those of inline."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pytest
from omegaconf import DictConfig, open_dict

from parties.files import digest
from simulations.build import as_text, build
from simulations.conclude import conclude
from simulations.engines import Engine, Job
from simulations.engines.ray_actors import RayActors
from simulations.report import write_report
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import SMALL_HEART, SMALL_POOL, config_of
from tests.test_engines import models, sessions

# Ray opens sockets and files that it leaves to the end of the process.
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ROOT = Path(__file__).parents[1]
ROUNDS = 1000
FIRMS = 4  # hospitals
GROWTH = 0.02  # after round 100
SOME = 3  # open files: of connections among Ray's own processes, which come and go
LARGE_MB = 40.0  # what is smaller cannot be told from noise, and is counted in the whole only


# ------------------------------------------------------------------------------------ many rounds


@dataclass
class Watched:
    """What a process had at several moments: (round, MB, open files)."""

    name: str
    seen: list[tuple[int, float, int]] = field(default_factory=list)

    def within(self, first: int, last: int) -> tuple[float, float]:
        """Median MB and most open files from one round to another."""
        found = [(mb, files) for turn, mb, files in self.seen if first <= turn <= last]
        return median(mb for mb, _ in found), max(files for _, files in found)


def watch(running: subprocess.Popen[str], run: Path) -> dict[int, Watched]:
    """Look at all processes of a run until it ends."""
    processes = dict[int, tuple[psutil.Process, Watched]]()
    while running.poll() is None:
        turn = round_of(run)
        for process in family(running.pid):
            kept = processes.setdefault(process.pid, (process, Watched("")))
            try:
                kept[1].name = name_of(process)
                mb = process.memory_info().rss / 2**20
                kept[1].seen.append((turn, mb, process.num_fds()))
            except psutil.Error:
                continue
        time.sleep(0.25)
    return {pid: watched for pid, (_, watched) in processes.items()}


def name_of(process: psutil.Process) -> str:
    """Ray's workers call themselves so; of others the program, and of Python its script."""
    words = process.cmdline() or [process.name()]
    scripts = [Path(word).stem for word in words if word.endswith(".py")]
    return (scripts or [Path(words[0].strip()).name])[0]


def family(pid: int) -> Iterator[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        yield parent
        yield from parent.children(recursive=True)
    except psutil.Error:
        return


def round_of(run: Path) -> int:
    """The round that the run is in."""
    try:
        with (run / "rounds.csv").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 400))
            row = file.read().decode().splitlines()[-1].split(",")
        return int(row[2]) if row[1] == "train_sharing" else 0
    except (OSError, IndexError, ValueError):
        return 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_thousand_rounds_take_no_more_memory_and_files_than_a_hundred(
    engine: str, tmp_path: Path
) -> None:
    run, shared = tmp_path / "run", set(os.listdir("/dev/shm"))
    words = ["engine=ray", "engine.num_cpus=0.5"] if engine == "ray" else []
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "simulations", *SMALL_HEART, "study.seeds=1"),
            *(f"strategy.rounds={ROUNDS}", "strategy.local_epochs=1", *words, f"run_dir={run}"),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = watch(running, run)
    _, errors = running.communicate()
    assert running.returncode == 0, errors
    with (run / "rounds.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["contract"] == "train_sharing"]
    assert len(rows) == ROUNDS * FIRMS
    before, after = 0.0, 0.0
    for watched in seen.values():
        if not any(100 <= turn < 300 for turn, *_ in watched.seen):
            continue
        (early, few), (late, many) = watched.within(100, 250), watched.within(850, 999)
        before, after = before + early, after + late
        sys.stdout.write(
            f"{engine}: {watched.name}: {early:.1f} MB at round 100, {late:.1f} at {ROUNDS} "
            f"({late / early - 1:+.1%}); {few:g} open files, {many:g}\n"
        )
        assert many <= few + SOME, watched.name
        assert early < LARGE_MB or late <= early * (1 + GROWTH), watched.name
    sys.stdout.write(f"{engine}: all {before:.1f} MB, {after:.1f} ({after / before - 1:+.1%})\n")
    assert 0 < after <= before * (1 + GROWTH)
    assert set(os.listdir("/dev/shm")) <= shared


# ------------------------------------------------------------------------------------- many firms


def crowd(config: DictConfig, count: int) -> None:
    """So many firms divide the same digits."""
    with open_dict(config.parties):
        for number in range(10, count):
            config.parties[f"firm_{number}"] = deepcopy(config.parties.firm_9)
            config.parties[f"firm_{number}"].name = f"firm_{number}"
            config.parties[f"firm_{number}"].dataset.client = number


def owners(config: DictConfig, count: int, folder: Path) -> None:
    """So many firms, each with a small table of its own."""
    rng = np.random.default_rng(0)
    with open_dict(config.parties):
        pattern = config.parties.alpha
        for name in list(config.parties):
            del config.parties[name]
        for number in range(count):
            name = f"firm_{number}"
            config.parties[name] = deepcopy(pattern)
            config.parties[name].name = name
            config.parties[name].dataset.description = str(write_table(folder / name, rng))


DESCRIPTION = """\
file: clients.csv
id: {column: client, type: number}
label: {column: paid_back, classes: ["no", "yes"]}
features:
  income: {type: number, low: 0, high: 1, centre: 0.5, spread: 0.3}
  age: {type: number, low: 0, high: 1, centre: 0.5, spread: 0.3}
parts: {column: part}
"""


def write_table(folder: Path, rng: np.random.Generator) -> Path:
    """Twelve clients of one firm, four of them to be judged by; where their description is."""
    folder.mkdir(parents=True)
    (folder / "data.yaml").write_text(DESCRIPTION)
    lines = ["client,income,age,paid_back,part"]
    for client in range(12):
        income, age = rng.random(2).round(3)
        paid = "yes" if rng.random() < income else "no"
        part = "held_out" if client % 3 == 0 else "training"
        lines.append(f"{client},{income},{age},{paid},{part}")
    (folder / "clients.csv").write_text("\n".join(lines) + "\n")
    return folder / "data.yaml"


TEN_ROUNDS = (*SMALL_POOL, "strategy.rounds=10", "strategy.local_epochs=1")


def held(config: DictConfig, folder: Path, engine: Engine) -> str:
    """The sha256 of the verdict of a study, held and reported as the command does."""
    folder.mkdir()
    text = as_text(config)
    study = study_of(json.loads(text))
    job = Job(text, folder, study.names)
    engine.plan(job)
    engine.hold(job)
    verdict = conclude(study, RunFolder(folder))
    write_report(study, RunFolder(folder), verdict)
    with (folder / "rounds.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["contract"] == "train_sharing"]
    assert {row["status"] for row in rows} == {"ok"}
    assert len(rows) == 10 * len(study.names)
    return digest((folder / "verdict.json").read_bytes())


@pytest.mark.timeout(900)
def test_a_thousand_firms_complete_ten_rounds(tmp_path: Path) -> None:
    config = config_of(*TEN_ROUNDS, "parties=two_own")
    owners(config, 1000, tmp_path / "firms")
    began = time.process_time()
    held(config, tmp_path / "run", build(config.engine))
    sys.stdout.write(f"1,000 firms, 10 rounds: {time.process_time() - began:.0f} s of CPU\n")


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_two_hundred_firms_on_ray_come_to_the_bytes_of_inline(tmp_path: Path) -> None:
    words = ("parties=ten_digits", "parties.firm_0.dataset.clients=200", "partition.least=5")
    config = config_of(*TEN_ROUNDS, *words)
    crowd(config, 200)
    here = held(config, tmp_path / "inline", build(config.engine))
    try:
        there = held(config, tmp_path / "ray", RayActors(workers=2, num_cpus=0.5))
    finally:
        RayActors().close()
    assert here == there
    assert sessions(tmp_path / "inline") == sessions(tmp_path / "ray")
    assert models(tmp_path / "inline") == models(tmp_path / "ray")
