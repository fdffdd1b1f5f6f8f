"""Designs on the command line: short real sweeps, and what they find."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from parties.files import digest
from tests.checks import Told
from tests.test_optuna_search import stored

ROOT = Path(__file__).parents[1]
Here = Callable[..., Told]
TINY = (
    "parties.lender_a.dataset.clients=500",
    "parties.lender_b.dataset.clients=500",
    "training.epochs=1",
    "progress=none",
    "launch.workers=0",
)


def results(folder: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A sweep's table, and what its sweep.json says."""
    path = Path(folder)
    return pd.read_parquet(path / "sweep.parquet"), json.loads((path / "sweep.json").read_text())


def test_a_grid_is_refined_where_lenders_change_their_minds(
    here: Here,
) -> None:
    axes = "sweep.axes={market.C1:{low:0.5,high:6,steps:3},market.gamma:{low:0.1,high:0.9,steps:3}}"
    words = ("sweep=adaptive", axes, "sweep.depth=2", *TINY, "study.seeds=1", "run_dir=fine")
    code, out, err = here(*words)
    assert code == 0, err
    table, facts = results("fine")
    assert 9 < len(table) < 81
    assert (
        facts["extra"]["points"]
        == len(table)
        == len(table.drop_duplicates(["market.C1", "market.gamma"]))
    )
    assert f"Found    {len(table)} points; a grid as fine everywhere has 81" in out
    code, _, err = here(*words[:3], "sweep.points=9", *words[3:])
    assert code == 0, err
    table, facts = results("fine")
    assert len(table) == 9
    assert facts["extra"]["left"]


def test_seeds_go_where_lenders_are_undecided(here: Here, tmp_path: Path) -> None:
    axes = "sweep.axes={market.C1:[1,4],market.gamma:[0.2,0.5,0.8]}"
    words = ("sweep=map", axes, "sweep.first_seeds=2", "sweep.most_seeds=4", *TINY)
    code, out, err = here(*words, "run_dir=map")
    assert code == 0, err
    table, facts = results("map")
    assert list(table.columns[:4]) == ["job", "market.C1", "market.gamma", "seeds"]
    assert list(zip(table["market.C1"], table["market.gamma"], strict=True)) == [
        (c, g) for c in (1, 4) for g in (0.2, 0.5, 0.8)
    ]
    flags = table.filter(regex=r"\.signed$")
    assert ((table["seeds"] == 4) | flags.notna().all(axis=1)).all()
    looks = {int(n): cells for n, cells in facts["extra"]["looks"].items()}
    assert looks[2] == 6
    assert looks[4] == int((table["seeds"] == 4).sum()) > 0
    assert re.search(
        rf"Found    {2 * 6 + 4 * looks[4]} seeds in 2 looks at 6, {looks[4]} cells", out
    )
    journal = (tmp_path / "map" / "jobs.jsonl").read_text()
    assert len(journal.splitlines()) == 6 + looks[4]
    code, _, err = here(*words, "run_dir=map")
    assert code == 0, err
    assert (tmp_path / "map" / "jobs.jsonl").read_text() == journal
    code, _, err = here(*words, "sweep.budget=20", "run_dir=bound")
    assert code == 0, err
    assert results("bound")[1]["extra"]["seeds"] == 2 * 6 + 4 * min(2, looks[4])


def test_what_a_map_sets_itself_cannot_be_fixed(
    here: Here,
) -> None:
    axes = "sweep.axes={market.C1:[1,4],market.gamma:[0.2,0.5]}"
    code, _, err = here("sweep=map", axes, "seeds=3")
    assert code == 2
    assert "study.seeds=3 is fixed, and this sweep sets study.seeds itself" in err


def test_contracts_that_only_some_studies_hold_are_all_told(here: Here) -> None:
    words = ("-m", "contract=train_sharing,full_sharing", "study.seeds=1", *TINY, "run_dir=two")
    code, out, err = here(*words)
    assert code == 0, err
    assert results("two")[1]["contracts"] == ["no_sharing", "train_sharing", "full_sharing"]
    assert re.search(r"^ full_sharing +[01] +[01] +[01] ", out, re.MULTILINE)


LOANS = (
    *("sweep=optuna", "sweep.trials=12", "sweep.parallel=3", "study.seeds=1", *TINY),
    "sweep.axes={market.C1:{low:0.5,high:6},market.gamma:{low:0.1,high:0.9}}",
)


@pytest.mark.long
def test_a_search_killed_in_the_middle_goes_on_to_the_same_table(
    here: Here, tmp_path: Path
) -> None:
    cut = subprocess.Popen(
        [sys.executable, "-m", "simulations", *LOANS, "run_dir=cut"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    journal = tmp_path / "cut" / "jobs.jsonl"
    while cut.poll() is None and not (journal.exists() and journal.read_text().count("\n") >= 4):
        time.sleep(0.01)
    cut.kill()
    cut.wait()
    assert 4 <= journal.read_text().count("\n") < 12
    for folder in ("cut", "whole"):
        code, out, err = here(*LOANS, f"run_dir={folder}")
        assert code == 0, err
        assert "\nFound    " in out
    one, two = (digest((tmp_path / n / "sweep.csv").read_bytes()) for n in ("cut", "whole"))
    assert one == two
    assert journal.read_text().count("\n") == 12
    assert stored(tmp_path / "cut") == stored(tmp_path / "whole")
    facts = results("cut")[1]["extra"]
    assert facts == results("whole")[1]["extra"]
    assert facts["trials"] == 12


def test_a_search_is_planned_by_the_middle_of_its_axes(here: Here, tmp_path: Path) -> None:
    code, out, err = here("sweep=loan_terms", "dry_run=true")
    assert code == 0, err
    assert (
        "64 trials of Optuna, 8 at a time, seed 0, for the largest surplus of any contract" in out
    )
    assert "64 jobs at most" in out
    assert list(tmp_path.iterdir()) == []


def test_what_firms_gain_is_told_against_the_noise_on_what_they_share(here: Here) -> None:
    code, out, err = here("sweep=epsilon", *TINY, "study.seeds=2", "run_dir=predictions")
    assert code == 0, err
    table, _ = results("predictions")
    gains = table.set_index("contract.infer_sharing.prediction_epsilon")["infer_sharing.surplus"]
    assert len(gains) == 8
    assert gains[0.5] <= gains[0.0]
    assert "Noise    infer_sharing by prediction_epsilon: " in out
    assert re.search(r"from off|at off", out)
    assert "infer_sharing by prediction_epsilon" in Path("predictions/sweep.html").read_text()
    small = ("strategy.rounds=2", "training.epochs=2", *TINY[-2:], "study.seeds=2")
    code, out, err = here("experiment=heart", "sweep=update_epsilon", *small, "run_dir=models")
    assert code == 0, err
    table, _ = results("models")
    gains = table.set_index("contract.train_sharing.update_epsilon")["train_sharing.surplus"]
    assert gains[8.0] < gains[0.0]
    assert "Noise    train_sharing by update_epsilon: " in out
