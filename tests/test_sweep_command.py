"""Sweeps on the command line: killed, resumed, stopped, locked, full; every job exactly once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest

from parties.files import digest
from simulations.results import RunFolder
from simulations.words import spelled_out
from tests.checks import Told

ROOT = Path(__file__).parents[1]
TINY = (
    "parties.lender_a.dataset.clients=500",
    "parties.lender_b.dataset.clients=500",
    "training.epochs=1",
    "study.seeds=1",
    "progress=none",
)
GRID = ("-m", *TINY, "market.C1=1,2,4", "market.gamma=0.25,0.5")


def started(*words: str, cwd: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, with its workers in one group."""
    return subprocess.Popen(
        [sys.executable, "-m", "simulations", *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background may have told everybody to ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def lines(folder: Path) -> list[str]:
    """Keys of the journal's whole lines."""
    path = folder / "jobs.jsonl"
    whole = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line.split(" ", 1)[1])["key"] for line in whole]


# -------------------------------------------------------------------------------------------- words


def test_a_list_behind_m_becomes_an_axis() -> None:
    words = ["-m", "experiment=loans", "contract=all", "market.cost=1,2,3", "seeds=4"]
    assert spelled_out(words) == [
        *("experiment=loans", "study.seeds=4", "sweep=grid", "sweep.axes={market.C1:[1,2,3]}")
    ]
    assert spelled_out(["contract=[infer_sharing,full_sharing]", "seeds=range(1,3)"]) == [
        *("study.contracts=[no_sharing,infer_sharing,full_sharing]", "study.seeds=range(1,3)")
    ]
    assert spelled_out(["market.cost=2", "contract=infer_sharing"]) == [
        *("market.C1=2", "study.contracts=[no_sharing,infer_sharing]")
    ]
    assert spelled_out(["-m", "sweep=sobol", "play=myopic,equilibrium"])[-1] == (
        "sweep.axes={play:[myopic,equilibrium]}"
    )
    kept = ["-m", "hydra/launcher=basic", "market.C1=1,2"]
    assert spelled_out(kept) == kept


# ----------------------------------------------------------------------------------------- a sweep


def test_a_sweep_is_one_table_and_the_same_command_holds_nothing_twice(
    here: Callable[..., Told], tmp_path: Path
) -> None:
    code, out, _ = here(*GRID, "launch.workers=0")
    assert code == 0
    folder = Path(out.splitlines()[-1])
    assert folder.parent == tmp_path / "sweeps"
    table = pd.read_parquet(folder / "sweep.parquet")
    csv = pd.read_csv(folder / "sweep.csv")
    assert list(table.columns) == list(csv.columns)
    assert table["job"].tolist() == list(range(6))
    assert list(zip(table["market.C1"], table["market.gamma"], strict=True)) == [
        (c, g) for c in (1, 2, 4) for g in (0.25, 0.5)
    ]
    assert set(table["status"]) == {"ok"}
    facts = json.loads((folder / "sweep.json").read_text())
    assert facts["counts"]["jobs"] == 6
    assert facts["sha256"] == digest((folder / "sweep.csv").read_bytes())
    assert f"sha256   {facts['sha256']}" in out
    before = lines(folder)
    begun = (folder / "jobs.jsonl").stat().st_mtime_ns
    code, again, _ = here(*GRID, "launch.workers=0")
    assert (code, Path(again.splitlines()[-1])) == (0, folder)
    assert lines(folder) == before
    assert (folder / "jobs.jsonl").stat().st_mtime_ns == begun
    code, _, _ = here(
        *GRID[:-2], "market.C1=1,2,4,6", GRID[-1], f"run_dir={folder}", "launch.workers=0"
    )
    assert code == 0
    assert [key for key in lines(folder) if key not in before] == lines(folder)[6:]
    assert len(lines(folder)) == 8
    code, out, _ = here(f"resume={folder}", "launch.workers=0", "format=json")
    assert code == 0
    assert json.loads("\n".join(out.splitlines()[:-1]))["counts"]["jobs"] == 8


def test_contracts_that_only_some_studies_hold_are_counted_where_they_are_held(
    here: Callable[..., Told],
) -> None:
    offered = "[[no_sharing,train_sharing],[no_sharing,full_sharing]]"
    axes = f"sweep.axes={{study.contracts:{offered},market.C1:[1,4]}}"
    code, out, err = here("sweep=grid", *TINY, axes, "launch.workers=0")
    assert code == 0, err
    table = pd.read_parquet(Path(out.splitlines()[-1]) / "sweep.parquet")
    for place, name in enumerate(("train_sharing", "full_sharing")):
        mine = table.iloc[[0, 1] if place == 0 else [2, 3]]
        signed = Counter(mine[f"{name}.signed"].dropna())
        (line,) = [one.split() for one in out.splitlines() if one.split()[:1] == [name]]
        told = [signed[True], signed[False], 2 - signed.total(), (table["best"] == name).sum()]
        assert line[1:5] == list(map(str, told))
        assert line[-1] == "2"  # not held
    page = (Path(out.splitlines()[-1]) / "sweep.html").read_text()
    assert page.count("of 2 that held it.") == 2


def test_failures_are_listed_and_the_others_complete(
    here: Callable[..., Told],
) -> None:
    words = ("-m", *TINY, "market.gamma=0.5,2,0.25,3", "launch.workers=0")
    code, out, err = here(*words)
    assert code == 1
    assert "fedpact: 2 of 4 jobs failed" in err
    assert "job 1: FedpactError: market.gamma is 2" in out
    table = pd.read_parquet(Path(out.splitlines()[-1]) / "sweep.parquet")
    assert table["status"].tolist() == ["ok", "failed", "ok", "failed"]
    assert table["error"].tolist()[1::2] == ["FedpactError"] * 2
    code, out, _ = here(*words)  # they are not missing: they have failed
    assert code == 1
    assert len(lines(Path(out.splitlines()[-1]))) == 4
    code, out, _ = here(*words, "launch.retry_failed=true")
    assert code == 1
    assert Counter(Counter(lines(Path(out.splitlines()[-1]))).values()) == {1: 2, 2: 2}
    for _ in range(2):  # the second time it stops at what is on file
        stop = ("launch.on_failure=stop", "run_dir=stopped", "launch.batch=1")
        code, out, err = here(*words, *stop)
        assert code == 1
        assert "1 of 2 jobs failed; 2 were not held" in err
        assert len(lines(Path("stopped"))) == 2


def test_a_sweep_that_could_not_begin_goes_on_when_that_is_mended(
    here: Callable[..., Told], tmp_path: Path
) -> None:
    (tmp_path / "bad.db").write_text("junk")
    words = ("-m", *TINY, "market.C1=1,2", "launch.workers=0")
    code, _, err = here(*words, "tracking=mlflow", "tracking.uri=sqlite:///bad.db")
    assert code == 2, err
    code, _, err = here(*words)
    assert code == 0, err


def test_a_folder_takes_more_values_and_no_other_sweep(
    here: Callable[..., Told], tmp_path: Path
) -> None:
    words = ("-m", *TINY, "launch.workers=0", "run_dir=one")
    assert here(*words, "market.C1=1,2")[0] == 0
    for others in (
        ("market.gamma=0.5,0.6",),
        ("market.C1=1,2", "market.gamma=0.7"),
        ("market.C1=1,2", "launch.together=false"),
    ):
        code, _, err = here(*words, *others)
        assert code == 2
        assert "one holds another sweep" in err
    assert here(*words, "market.C1=1,2,3")[0] == 0
    assert len(lines(tmp_path / "one")) == 3


def test_a_dry_run_says_what_would_fail(here: Callable[..., Told]) -> None:
    code, out, _ = here("-m", *TINY, "market.C1=1,foo,-2", "dry_run=true")
    assert code == 0
    assert "Would fail: market.C1=foo: market.C1 is 'foo'" in out
    assert "Would fail: market.C1=-2: market.C1 is -2" in out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("-m", "market.C9=1,2"), "Did you mean 'market.C1'"),
        (("-m", "market.C1=1,1"), "has 1 twice"),
        (("-m", "engine.workers=1,2"), "There is no key|no part of a study"),
        (("-m", "engine=ray", "market.C1=1,2"), "launch.workers, launch.num_gpus"),
        (
            ("sweep=grid", "sweep.axes={market.C1:{low:1,high:2}}"),
            "a grid takes some of its values",
        ),
        (("sweep=sobol",), "no axes to draw from"),
        (("sweep=grid", "experiment=fedref_digits"), "a sweep holds single studies"),
        (("sweep=grid", "sweep.axes={market.C1:[1,2]}", "market.C1=3"), "is an axis of the sweep"),
        (("sweep=gird",), "Did you mean 'grid'"),
        (("-m", "market.C1=1,2", "sweep.axes={play:[myopic]}"), "legal is one of them"),
        (("-m", "backbone=logistic,mpl"), "Did you mean 'mlp'"),
        (("-m", "experiment=loans,heart"), "Hold a sweep for each"),
        (("-m", "study.name=a,b"), "study.name, which is no part of a study"),
        (("-m", "contract=all,full_sharing"), "contract is all,full_sharing; legal are all"),
        (("-m", "market.C1=interval(1,2)"), "is no list behind -m"),
        (("sweep=grid", "sweep.axes=3"), "sweep.axes is 3; legal are keys"),
        (("-m", "parties.lender_a.dataset={clients:500},{clients:600}"), "holds settings"),
        (("-m", "market.C1=1,2", "launch.workers=-1"), "launch.workers is -1; legal"),
        (("-m", "market.C1=1,2", "launch.on_failure=ask"), "legal are continue, stop"),
        (("-m", "market.C1=1,2", "launch.address=auto"), "Say how many: launch.workers=64"),
        (
            ("-m", "market.C1=1,2", "launch.address=127.0.0.1:1", "launch.workers=2"),
            "Nobody answers at the address 127.0.0.1:1",
        ),
        (("-m", "market.C1=1,2", "launch.num_gpus=1"), "Set launch.num_gpus=0, or join"),
        (
            ("-m", "market.C1=1,2", "launch.num_gpus=1.5"),
            "launch.num_gpus is 1.5; legal is a share",
        ),
        (("-m", "market.C1=1,2", "run_dir=/proc/sweep"), "cannot be written|No such file"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(
    words: tuple[str, ...], problem: str, here: Callable[..., Told], tmp_path: Path
) -> None:
    code, _, err = here(*words)
    assert code == 2
    assert len([line for line in err.splitlines() if line]) == 1
    assert re.search(problem, err), err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_holds_nothing(here: Callable[..., Told], tmp_path: Path) -> None:
    code, out, _ = here(*GRID, "dry_run=true")
    assert code == 0
    assert "grid of 3 x 2 values" in out
    assert "6 jobs at most" in out
    assert "Nothing was trained" in out
    assert list(tmp_path.iterdir()) == []


def test_two_sweeps_cannot_share_a_folder_at_a_time(
    here: Callable[..., Told], tmp_path: Path
) -> None:
    with RunFolder(tmp_path / "one").lock():
        code, _, err = here(*GRID, "run_dir=one", "launch.workers=0")
    assert code == 2
    assert "is in use by another run" in err
    assert not (tmp_path / "one" / "jobs.jsonl").exists()


def test_a_run_folder_is_not_taken_for_a_sweeps(here: Callable[..., Told], tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.yaml").write_text("study: {}\n")
    code, _, err = here(*GRID, "run_dir=one", "launch.workers=0")
    assert code == 2
    assert "holds a run that is no sweep" in err


@pytest.mark.long
def test_a_sweep_that_was_cut_off_twice_goes_on_to_the_same_table(
    here: Callable[..., Told], tmp_path: Path
) -> None:
    count, folder = 240, tmp_path / "cut"
    many = ("-m", *TINY, f"market.C1={','.join(str(1 + i / 50) for i in range(count))}")
    for sent, more in ((signal.SIGINT, 8), (signal.SIGKILL, 8)):
        begun = len(lines(folder))
        cut = started(*many, "launch.workers=0", "launch.batch=4", "run_dir=cut", cwd=tmp_path)
        while len(lines(folder)) < begun + more and cut.poll() is None:
            time.sleep(0.02)
        cut.send_signal(sent)
        _, err = cut.communicate(timeout=60)
        held = len(lines(folder))
        assert begun + more <= held < count, err
        if sent == signal.SIGINT:
            assert cut.returncode == 130
            assert f"{held} jobs are kept in cut, and the same command goes on with them" in err
            assert len(pd.read_parquet(folder / "sweep.parquet")) == held
            assert f"{count - held} of {count}" in (folder / "sweep.html").read_text()
    code, _, err = here(*many, "launch.workers=0", "run_dir=cut")
    assert code == 0, err
    assert Counter(Counter(lines(folder)).values()) == {1: count}
    code, _, _ = here(*many, "launch.workers=0", "run_dir=whole")
    assert code == 0
    one, two = (digest((tmp_path / n / "sweep.csv").read_bytes()) for n in ("cut", "whole"))
    assert one == two


# --------------------------------------------------------------------------------------- on Ray


@pytest.mark.ray
def test_ray_workers_make_the_same_table_and_leave_no_process(
    here: Callable[..., Told], tmp_path: Path
) -> None:
    words = ("-m", *TINY, "backbone=mlp", "backbone.widths=[4],[5],[6],[7],[40000,40000]")
    limits = ("launch.memory_gb=1", "launch.timeout_s=60")
    on_ray = started(
        *words, *limits, "launch.workers=2", "launch.batch=2", "run_dir=ray", cwd=tmp_path
    )
    out, err = on_ray.communicate(timeout=120)
    assert on_ray.returncode == 1, err
    assert "job 4: OutOfMemory" in out
    code, _, _ = here(*words, *limits, "launch.workers=0", "run_dir=inline")
    assert code == 1
    one, two = (digest((tmp_path / n / "sweep.csv").read_bytes()) for n in ("ray", "inline"))
    assert one == two
    left = [p for p in psutil.process_iter(["cmdline"]) if _of(p, tmp_path)]
    assert left == []


def _of(process: psutil.Process, folder: Path) -> bool:
    """Whether a process was started from this folder."""
    try:
        return process.pid != os.getpid() and process.cwd() == str(folder)
    except psutil.Error:
        return False


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_jobs_that_raise_or_take_too_long_stop_no_other(tmp_path: Path) -> None:
    costs = [f"{1 + place / 100:.2f}" for place in range(20)]
    words = (
        *(word for word in TINY if not word.startswith("training.epochs")),
        "sweep=grid",
        f"sweep.axes={{market.C1:[{','.join(costs)}],training.epochs:[1,2,3,4,5,6,7,8,0,"
        "1000000000]}",
        *("launch.workers=2", "launch.timeout_s=3", "run_dir=some"),
    )
    done = started(*words, cwd=tmp_path)
    out, err = done.communicate(timeout=1000)
    assert done.returncode == 1
    assert "fedpact: 40 of 200 jobs failed" in err
    table = pd.read_parquet(tmp_path / "some" / "sweep.parquet")
    failed = table[table["status"] == "failed"]
    assert Counter(failed["error"]) == {"OutOfTime": 20, "FedpactError": 20}
    assert set(failed["training.epochs"]) == {0, 10**9}
    assert len(table) == 200
    assert "and 35 more" in out
    page = (tmp_path / "some" / "sweep.html").read_text()
    assert page.count("training.epochs=1000000000") >= 20  # each with the command to repeat it


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_thousand_jobs_killed_ten_times_are_each_held_once(tmp_path: Path) -> None:
    costs = ",".join(str(1 + i / 100) for i in range(250))
    many = ("-m", *TINY, f"market.C1={costs}", "market.gamma=0.2,0.4,0.6,0.8", "launch.workers=2")
    whole = started(*many, "run_dir=whole", cwd=tmp_path)
    _, err = whole.communicate(timeout=600)
    assert whole.returncode == 0, err
    rng = random.Random(0)
    for step in range(10):
        cut = started(*many, "run_dir=cut", cwd=tmp_path)
        wanted = min(990, len(lines(tmp_path / "cut")) + rng.randrange(5, 150))
        while len(lines(tmp_path / "cut")) < wanted and cut.poll() is None:
            time.sleep(0.01)
        assert cut.poll() is None, step
        cut.kill()
        cut.communicate()
    last = started(*many, "run_dir=cut", cwd=tmp_path)
    _, err = last.communicate(timeout=600)
    assert last.returncode == 0, err
    assert Counter(Counter(lines(tmp_path / "cut")).values()) == {1: 1000}
    one, two = (digest((tmp_path / n / "sweep.csv").read_bytes()) for n in ("cut", "whole"))
    assert one == two
