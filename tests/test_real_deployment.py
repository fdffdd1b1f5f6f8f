"""Real processes: a SuperLink, SuperNodes and desks with TLS and keys, some of them killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pytest
from omegaconf import DictConfig, open_dict

from parties.desk.audit import verify
from simulations.build import as_text
from simulations.conclude import conclude
from simulations.deploy.layout import Deployment
from simulations.engines import apps
from simulations.results import RunFolder, digest
from simulations.study import study_of
from tests.checks import SMALL_LOANS, config_of, contexts, hold_on, plain, run_config
from tests.federation import Federation, descendants, federation
from tests.inline_grid import InlineGrid

LENDERS = ("lender_a", "lender_b")
LOANS = (*SMALL_LOANS, "study.seeds=1")
PAIR = (
    *("experiment=heart_pair_strategies", "compare=none", "study=model_sharing"),
    *("study.seeds=2", "strategy.rounds=3", "training.epochs=2", "progress=none"),
)
HOSPITALS = ("hungary", "va_long_beach")


def inline(folder: Path, *overrides: str) -> str:
    """sha256 of the verdict of the same study in one process; models are in it by theirs."""
    config = run_config(folder, *overrides)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    conclude(study_of(plain(*overrides)), RunFolder(folder))
    return verdict_of(folder)


def verdict_of(folder: Path) -> str:
    verdict = (folder / "verdict.json").read_bytes()
    assert "models_sha256" in json.loads(verdict)
    return digest(verdict)


def at_work(held: Federation, firms: tuple[str, ...]) -> dict[str, subprocess.Popen[bytes]]:
    """The SuperLink, and every firm's desk and node, running; by what they are called."""
    found = {"superlink": held.trial.start_superlink()}
    held.trial.register()
    for firm in firms:
        found[f"{firm} desk"] = held.trial.start_desks(firm)[firm]
        found[f"{firm} node"] = held.trial.start_node(firm)
    return found


def whole_logs(folder: Deployment, firms: tuple[str, ...]) -> None:
    """Every firm's audit log is whole."""
    for firm in firms:
        own = folder.firm(firm)
        assert verify(own.audit, own.signing_pub).lines > 0


@pytest.mark.flower
def test_two_lenders_on_machines_of_their_own_get_the_verdict_of_a_simulation(
    tmp_path: Path,
) -> None:
    expected = inline(tmp_path, *LOANS, "study.settles=firms")
    with federation(*LOANS) as held:
        at_work(held, LENDERS)
        done = held.run(240)
        assert done.returncode == 0, done.stdout + done.stderr
        results = held.folder.operator.results
        assert verdict_of(results) == expected
        assert "Would every firm sign?" in done.stdout
        assert "Next " not in done.stdout  # no override makes another deployment
        told = [line for line in done.stderr.splitlines() if "exchange" in line or "run " in line]
        assert told[-1].endswith("finished:completed")
        assert any(line.startswith("exchange ") for line in told)
        assert (results / "report.html").exists()
        whole_logs(held.folder, LENDERS)
        for firm in LENDERS:
            log = held.folder.firm(firm).audit.read_text()
            assert {json.loads(line)["direction"] for line in log.splitlines()} == {
                "received",
                "sent",
            }


# ------------------------------------------------------------------------------- killed processes


@final
@dataclass(frozen=True)
class Hospitals:
    """Two hospitals at work: their processes by name, and the verdict that their study comes to."""

    held: Federation
    processes: dict[str, subprocess.Popen[bytes]]
    expected: str


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    expected = inline(tmp_path_factory.mktemp("inline"), *PAIR)
    with federation(*PAIR) as held:
        yield Hospitals(held, at_work(held, HOSPITALS), expected)


def hold_while_one_is_killed(
    hospitals: Hospitals, victim: str, moment: float, whole_family: bool
) -> None:
    """A run during which a process is killed with all that it started, and started again."""
    held = hospitals.held
    shutil.rmtree(held.folder.operator.results, ignore_errors=True)
    runner = held.trial.start(held.folder.operator.path / "run.sh")
    time.sleep(moment)
    process = hospitals.processes[victim]
    assert runner.poll() is None, f"the run was over before {moment:.1f} s: kill earlier"
    for number in [process.pid, *(descendants(process.pid) if whole_family else ())]:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait(10)
    hospitals.processes[victim] = again(held, victim)
    assert runner.wait(400) == 0, held.trial.read_log(held.folder.operator.path / "run.sh")[-3000:]
    whole_logs(held.folder, HOSPITALS)


def again(held: Federation, victim: str) -> subprocess.Popen[bytes]:
    if victim == "superlink":
        return held.trial.start_superlink()
    firm, _, what = victim.rpartition(" ")
    return held.trial.start_desks(firm)[firm] if what == "desk" else held.trial.start_node(firm)


def moments(count: int, kind: str, first: float, last: float) -> list[tuple[int, float]]:
    """Random moments of a run, the same each time."""
    draw = random.Random(kind)
    return [(seed, draw.uniform(first, last)) for seed in range(count)]


VICTIMS = [
    *[(f"{HOSPITALS[seed % 2]} node", at, seed % 3 > 0) for seed, at in moments(10, "node", 6, 40)],
    *[("superlink", at, seed % 2 > 0) for seed, at in moments(10, "superlink", 6, 40)],
    *[(f"{HOSPITALS[seed % 2]} desk", at, True) for seed, at in moments(4, "desk", 6, 40)],
]


@pytest.mark.long
@pytest.mark.flower
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("victim", "moment", "whole_family"), VICTIMS)
def test_whoever_is_killed_in_the_middle_comes_back_and_the_result_is_the_same(
    hospitals: Hospitals, victim: str, moment: float, whole_family: bool
) -> None:
    hold_while_one_is_killed(hospitals, victim, moment, whole_family)
    assert verdict_of(hospitals.held.folder.operator.results) == hospitals.expected


# ------------------------------------------------------------------------------------ many firms


TWENTY = (
    *("parties=ten_digits", "parties.firm_0.dataset.clients=20", "study=model_sharing"),
    *("market=own_cases", "strategy=fedavg", "strategy.rounds=10", "study.seeds=1"),
    *("training.epochs=1", "progress=none"),
)


def of_twenty(config: DictConfig) -> None:
    """Ten more firms divide the same digits."""
    with open_dict(config.parties):
        for number in range(10, 20):
            config.parties[f"firm_{number}"] = deepcopy(config.parties.firm_9)
            config.parties[f"firm_{number}"].name = f"firm_{number}"
            config.parties[f"firm_{number}"].dataset.client = number


@pytest.mark.long
@pytest.mark.flower
@pytest.mark.timeout(1800)
def test_twenty_nodes_complete_ten_rounds(tmp_path: Path) -> None:
    config = config_of(*TWENTY)
    of_twenty(config)
    folder = RunFolder(tmp_path)
    study_text = as_text(config)
    settings = apps.run_config(study_text, folder.path)
    hold_on(InlineGrid(apps.client, contexts(settings)), settings)
    conclude(study_of(json.loads(study_text)), folder)
    with federation(*TWENTY, change=of_twenty) as held:
        firms = tuple(sorted(config.parties))
        assert len(firms) == 20
        held.trial.start_superlink()
        held.trial.register()
        held.trial.start_desks(*firms)
        for firm in firms:
            held.trial.start_node(firm)
        done = held.run(1500)
        assert done.returncode == 0, done.stdout + done.stderr
        assert verdict_of(held.folder.operator.results) == verdict_of(tmp_path)
        rounds = (held.folder.operator.results / "rounds.csv").read_text().splitlines()[1:]
        shared = [row.split(",") for row in rounds if ",train_sharing," in row]
        assert {int(row[2]) for row in shared} == set(range(10))
        assert {row[4] for row in shared} == set(firms)
