"""Small studies a second: sweeps beside Hydra's basic launcher, in alternated whole processes.

What is timed is what one more study takes: of two runs of each, a short and a long one, the
difference, so that the start of Python, Hydra and Ray does not count on either side. Hydra's
launcher holds each study as a run of its own (folder, report); a sweep gives it a row.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from parties.exchange import FedpactError
from simulations.bench.row import Row, add_count

SMALL = (
    "parties.lender_a.dataset.clients=500",
    "parties.lender_b.dataset.clients=500",
    "training.epochs=2",
    "study.seeds=2",
    "progress=none",
)
AXES = {
    "market.C1": "studies of one training (market.C1)",
    "training.weight_decay": "each with its own training (training.weight_decay)",
}
HYDRA, OURS = (1, 7), (16, 272)  # studies of the short and of the long run


def seconds_a_study(words: Sequence[str], axis: str, counts: tuple[int, int]) -> float:
    """What one more study takes, by wall clock."""
    taken = []
    for count in counts:
        values = ",".join(f"{1e-4 + i / 1e3:.6f}" for i in range(count))
        if axis == "market.C1":
            values = ",".join(f"{1 + i / 100:.2f}" for i in range(count))
        with tempfile.TemporaryDirectory(prefix="fedpact-bench-") as folder:
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "simulations", "-m", *SMALL, f"{axis}={values}", *words],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
                capture_output=True,
                text=True,
                check=False,
            )
            taken.append(time.perf_counter() - started)
        if done.returncode:
            raise FedpactError(f"a sweep ended with {done.returncode}: {done.stderr.strip()}")
    return (taken[1] - taken[0]) / (counts[1] - counts[0])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_count(parser, "--repeats", 3, "in which launchers take turns")


def rows(chosen: argparse.Namespace) -> list[Row]:
    """A row a kind of axis, printed: studies a second of a sweep, and the ratio to Hydra's."""
    cores, repeats, told = len(os.sched_getaffinity(0)), chosen.repeats, list[Row]()
    what = f"Small studies of two lenders a second, {cores} cores"
    print(f"{what}, {repeats} alternated repeats")
    for axis, name in AXES.items():
        pairs = []
        for _ in range(repeats):
            hydra = seconds_a_study(["hydra/launcher=basic"], axis, HYDRA)
            pairs.append((hydra, seconds_a_study([], axis, OURS)))
        rates = [1 / ours for _, ours in pairs]
        ratios = [hydra / ours for hydra, ours in pairs]
        print(
            f"{name}: sweep {statistics.median(rates):.1f} /s, Hydra's basic launcher "
            f"{statistics.median(1 / hydra for hydra, _ in pairs):.2f} /s, "
            f"{statistics.median(ratios):.1f} x [{min(ratios):.1f} to {max(ratios):.1f}]"
        )
        told.append(Row(what, name, tuple(rates), "/s", tuple(ratios), "Hydra's basic launcher"))
    return told
