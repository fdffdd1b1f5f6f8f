"""Engines beside a plain loop: one workload for all, and one loss due from all."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parties.exchange import FedpactError, Weights
from server.strategies import State
from server.strategies.fedavg import FedAvg
from simulations.bench import clients
from simulations.bench.timed_fedavg import TimedFedAvg
from simulations.bench.tree import tree_memory_mb
from simulations.bench.workloads import WORKLOADS, Workload, find_workload
from simulations.build import build
from tests.federation import descendants


def chosen(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    clients.add_arguments(parser)
    return parser.parse_args(words)


def test_a_workload_has_every_firms_own_examples_in_every_round(tmp_path: Path) -> None:
    work = WORKLOADS["digits"]
    work.write(tmp_path / "digits.npz")
    with np.load(tmp_path / "digits.npz") as found:
        firm, order, labels = found["firm"], found["order"], found["labels"]
        assert found["features"].shape == (len(labels), 64)
        assert found["start.0.weight"].shape == (32, 64)
    assert len(np.unique(firm)) == work.firms
    assert len(order) == work.rounds + 1
    assert not np.array_equal(order[0], order[1])
    for turn in order:
        assert np.array_equal(firm[turn], firm)
        assert np.array_equal(np.sort(turn), np.arange(len(labels)))


def test_marks_are_the_only_difference_to_fedavg(tmp_path: Path) -> None:
    updates = {f"f{i}": Weights({"w": np.full(3, float(i))}, i + 1) for i in range(3)}
    marks = tmp_path / "marks.jsonl"
    ours, theirs = TimedFedAvg(2, 1, str(marks), os.getpid()), FedAvg(rounds=2)
    state, due = State(), State()
    for _ in range(2):
        state, due = ours.combine(updates, state), theirs.combine(updates, due)
        assert state.published is not None
        assert due.published is not None
        assert np.array_equal(state.published.arrays["w"], due.published.arrays["w"])
    told = [json.loads(line) for line in marks.read_text().splitlines()]
    assert [mark["updates"] for mark in told] == [3, 3]
    assert 0 < told[0]["cpu_s"] <= told[1]["cpu_s"]
    with np.load(marks.with_suffix(".npz")) as found:
        assert np.array_equal(found["w"], state.published.arrays["w"])


def test_all_firms_of_a_workload_can_be_built() -> None:
    for work in WORKLOADS.values():
        if not work.missing:
            parties = work.config("inline")["parties"]
            assert len(parties) == work.firms
            assert build(parties["firm_0007"]).dataset.client == 7


def test_bars_are_of_rows_that_there_are() -> None:
    for work in WORKLOADS.values():
        assert set(work.bars) <= set(clients.ENGINES)


def test_who_is_not_known_is_refused() -> None:
    with pytest.raises(FedpactError, match=r"--who has \['inlin'\]; legal are 'plain loop'"):
        clients.rows(chosen("--who", "inlin"))
    with pytest.raises(FedpactError, match="no workload 'digit'; legal are digits, fashion"):
        find_workload("digit")


def test_the_memory_of_a_process_is_found() -> None:
    before = tree_memory_mb(os.getpid())
    held = np.ones(20_000_000)
    assert tree_memory_mb(os.getpid()) > before + 100
    assert held.sum() == 20_000_000


def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(FedpactError, match=r"--device is 'tpu', and torch .* legal are cpu"):
        clients.rows(chosen("--device", "tpu"))


def test_who_fails_is_left_out_and_the_others_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = clients._hold

    def hold(name: str, *rest: Any) -> clients.Held:
        if name == "batched":
            raise FedpactError("it broke")
        return real(name, *rest)

    monkeypatch.setattr(clients, "_hold", hold)
    words = ("--repeats", "1", "--workloads", "digits", "--who", "inline", "batched")
    found = clients.rows(chosen(*words))
    assert {row.name for row in found} == {"plain loop", "inline"}
    assert not [row.void for row in found if row.void]
    assert "(batched is left out: it broke)" in capsys.readouterr().out


def test_engines_stand_beside_a_loop_with_their_own_layers_where_these_are_special(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hold(name: str, *_: Any) -> clients.Held:
        return clients.Held({"plain loop": 4.0, "tuned plain loop": 2.0}.get(name, 3.0), 1, 0.5, 9)

    monkeypatch.setattr(clients, "_hold", hold)
    monkeypatch.setattr(Workload, "write", lambda *_: None)
    who = ["plain loop", "tuned plain loop", "inline"]
    found = {
        name: clients._rows(WORKLOADS[name], who, 2, Path(), "cpu") for name in ("digits", "cnn")
    }
    assert {row.name for row in found["digits"]} == {"plain loop", "inline"}
    beside = {(row.name, row.beside): row.ratio for row in found["cnn"] if "CPU" in row.what}
    assert beside["inline", "tuned plain loop"] == 1.5
    assert beside["tuned plain loop", "plain loop"] == 0.5


def test_the_tuned_loop_is_run_with_our_layers_and_keeps_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], env: dict[str, str], **_: Any) -> None:
        seen.append((command, env))
        raise FedpactError("seen")

    monkeypatch.setattr(subprocess, "Popen", start)
    for name in ("tuned plain loop", "plain loop"):
        with pytest.raises(FedpactError, match="seen"):
            clients._hold(name, WORKLOADS["cnn"], Path("cnn.npz"), Path(), "cpu")
    (tuned, kept), (usual, not_kept) = seen
    assert tuned == [*usual, "cnn:channels_last"]
    assert kept == not_kept | clients.KEEP


def test_a_bench_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simulations.bench", "clients"]
    running = subprocess.Popen(
        [*command, "--workloads", "digits", "--who", "inline"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (begun := descendants(running.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert errors.splitlines()[-1] == "bench: stopped; nothing was written"
    assert not list(tmp_path.iterdir())
    assert not [process for process in begun if Path(f"/proc/{process}").exists()]


def test_a_process_that_nobody_knows_of_ends_with_the_bench() -> None:
    """As one does whose start is interrupted."""
    code = """
import subprocess, sys
from simulations.bench import __main__, rounds
def rows(chosen):
    print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
    raise KeyboardInterrupt
rounds.rows = rows
sys.argv = ["bench", "rounds"]
__main__.main()
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (told.returncode, told.stderr) == (130, "bench: stopped; nothing was written\n")
    assert not Path(f"/proc/{int(told.stdout)}").exists()


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_engines_come_to_the_loss_of_the_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--repeats", "1", "--workloads", "digits", "--who", "inline", "batched", "ray")
    found = clients.rows(chosen(*words))
    assert {row.name for row in found} == {"plain loop", "inline", "batched", "ray"}
    assert not [row.void for row in found if row.void]
    assert all(row.peak_mb for row in found if row.what.startswith("CPU of"))
    assert "x plain loop" in capsys.readouterr().out
