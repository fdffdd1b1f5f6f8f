"""Sweeps: every job once, whatever happens; its row is what its study's own run says."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import hydra
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from parties.exchange import FedpactError
from simulations.conclude import conclude
from simulations.results import RunFolder
from simulations.study import study_of
from simulations.sweeps import Design, Held, Point
from simulations.sweeps.axes import axes_of, axis_of
from simulations.sweeps.configs import APART, Configs
from simulations.sweeps.drawn import Drawn
from simulations.sweeps.grid import Grid
from simulations.sweeps.held import hold_jobs
from simulations.sweeps.journal import Journal
from simulations.sweeps.launch import Launch
from simulations.sweeps.limits import OUT_OF_MEMORY, OUT_OF_TIME, Clock, JobLimits, OutOfTimeError
from simulations.sweeps.run import Progress, Unwatched, hold_sweep
from tests.checks import SMALL_HEART, contexts, hold_on, run_config
from tests.inline_grid import InlineGrid

# Python drops what a clock raises while garbage is collected, and warns of it; it is raised again.
DROPPED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
TINY = (
    "parties.lender_a.dataset.clients=500",
    "parties.lender_b.dataset.clients=500",
    "training.epochs=1",
    "study.seeds=1",
    "progress=none",
)


@pytest.fixture
def composing() -> Iterator[None]:
    with hydra.initialize_config_module("conf", version_base="1.3"):
        yield


# --------------------------------------------------------------------------------------------- axes


def test_an_axis_has_evenly_spaced_values() -> None:
    assert axis_of("k", {"low": 0, "high": 1, "steps": 5}).grid() == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert axis_of("k", {"low": 0.01, "high": 100, "steps": 3, "log": True}).grid() == (
        *(0.01, 1.0, 100.0),
    )
    assert axis_of("k", {"low": 1, "high": 3, "steps": 9, "integer": True}).grid() == (1, 2, 3)
    assert axis_of("k", {"low": 0.1, "high": 0.3, "steps": 3}).grid() == (0.1, 0.2, 0.3)
    assert axis_of("k", ["a", None, True, 1]).grid() == ("a", None, True, 1)


@given(
    st.floats(0, 1),
    st.integers(-50, 50),
    st.integers(1, 100),
    st.booleans(),
)
def test_an_axis_stays_between_its_ends(share: float, low: int, more: int, whole: bool) -> None:
    value = axis_of("k", {"low": low, "high": low + more, "integer": whole}).at(share)
    assert low <= value <= low + more
    assert isinstance(value, int) == whole


def test_every_whole_number_of_an_axis_is_as_likely() -> None:
    axis = axis_of("k", {"low": 1, "high": 4, "integer": True})
    found = [axis.at(share) for share in np.linspace(0, 1, 4000, endpoint=False)]
    assert np.unique(found, return_counts=True)[1].tolist() == [1000] * 4


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "has no values; legal is a list"),
        (3, "is 3; legal is a list"),
        ([1, 2, 1], "has 1 twice"),
        ({"low": 1}, "legal is a list"),
        ({"low": 2, "high": 1}, "low < high"),
        ({"low": 1, "high": float("nan")}, "low < high"),
        ({"low": 1, "high": 2, "step": 3}, "has step; legal are low, high, steps"),
        ({"low": 1, "high": 2, "steps": 1}, "steps is 1; legal is a whole number >= 2"),
        ({"low": 0, "high": 2, "log": True}, "a number > 0"),
        ({"low": 0, "high": 2.5, "integer": True}, "whole numbers"),
        ({"low": 0, "high": 2, "log": 1}, "true and false"),
    ],
)
def test_an_axis_that_makes_no_sense_is_refused(value: object, problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        axis_of("market.C1", value)


def test_a_part_and_the_whole_cannot_both_vary() -> None:
    with pytest.raises(FedpactError, match=r"market and market\.C1, which is a part of it"):
        axes_of({"market": ["loans"], "market.C1": [1, 2]})


# ------------------------------------------------------------------------------------------ designs


def test_a_grid_holds_every_combination_once() -> None:
    points = Grid({"a": [1, 2], "b": ["x", "y", "z"]}).ask([])
    assert [(p["a"], p["b"]) for p in points] == list(itertools.product([1, 2], "xyz"))
    assert Grid({"a": [1, 2]}).most() == 2
    assert Grid({}).ask([]) == [{}]


def test_a_sobol_sequence_leaves_no_corner_empty() -> None:
    axes = {"a": {"low": 0, "high": 1}, "b": {"low": 0, "high": 1}}
    points = Drawn(axes, points=16).ask([])
    cells = {(int(4 * p["a"]), int(4 * p["b"])) for p in points}
    assert len(cells) == 16  # a (0, 2)-net in base 2: one point in each cell of side 1/4
    assert Drawn(axes, points=16).ask([]) == points
    assert Drawn(axes, points=16, seed=1).ask([]) != points
    assert Drawn(axes, points=10).ask([]) == points[:10]


def test_random_points_are_those_of_their_seed() -> None:
    axes = {"a": {"low": 1, "high": 1000, "log": True}, "b": ["x", "y"]}
    points = Drawn(axes, points=400, method="random").ask([])
    assert points == Drawn(axes, points=400, method="random").ask([])
    assert 150 < sum(p["a"] < 1000**0.5 for p in points) < 250  # half in the logarithm
    assert {p["b"] for p in points} == {"x", "y"}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"axes": {}}, "no axes to draw from"),
        ({"axes": {"a": [1]}, "points": 0}, "points is 0; legal is a whole number >= 1"),
        ({"axes": {"a": [1]}, "method": "halton"}, "legal are random, sobol"),
    ],
)
def test_a_draw_that_makes_no_sense_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        Drawn(**fields)


# ------------------------------------------------------------------------------------------ configs


def test_a_job_is_what_hydra_composes(composing: None) -> None:
    axes = {
        "market.C1": [1, 2.5],
        "backbone": ["logistic", "mlp"],
        "+backbone@parties.lender_b.backbone": ["mlp"],
        "training.epochs": [1, 3],
        "study.seeds": [2, [0, 5]],
        "play.signal_bins": [0, 3],
    }
    configs = Configs(["experiment=loans"], list(axes))
    points = Grid(axes).ask([])
    jobs = [configs.job(point) for point in points]
    assert len({job.key for job in jobs}) == len(points) == 32
    for point, job in list(zip(points, jobs, strict=True))[::5]:
        whole = hydra.compose("config", configs.words(point))
        plain = OmegaConf.to_container(whole, resolve=True)
        assert isinstance(plain, dict)
        mine = json.loads(job.text)
        assert mine == {key: plain[key] for key in mine}
        assert set(plain) - set(mine) == {*APART}
        assert {"engine", "sweep", "launch", "run_dir"} & set(mine) == set()


def test_the_key_of_a_job_follows_from_its_study_alone(composing: None) -> None:
    key = Configs([], ["market.C1"]).job({"market.C1": 2}).key
    assert Configs(["market.C1=2"], ["play"]).job({"play": "equilibrium"}).key == key
    assert (
        Configs(["format=json", "launch.batch=3"], ["market.C1"]).job({"market.C1": 2}).key == key
    )
    assert Configs([], ["market.C1"]).job({"market.C1": 3}).key != key


def test_what_is_no_part_of_a_study_is_no_axis(composing: None) -> None:
    for key in ("engine.workers", "study.name"):
        with pytest.raises(FedpactError, match=rf"{key}, which is no part of a study"):
            Configs([], [key])
    contracts = ["[no_sharing,full_sharing]", "[no_sharing,train_sharing]"]
    priced = [
        Configs([f"study.contracts={held}"], ["contract.full_sharing.price"]) for held in contracts
    ]
    keys = [
        {configs.job({"contract.full_sharing.price": p}).key for p in (0.01, 0.02)}
        for configs in priced
    ]
    assert [len(found) for found in keys] == [2, 1]  # a contract that nobody holds is no part of it


def test_studies_of_other_firms_are_no_one_sweep(composing: None) -> None:
    configs = Configs([], ["experiment"])
    with pytest.raises(FedpactError, match="cleveland"):
        configs.check([{"experiment": "loans"}, {"experiment": "heart"}])


# ------------------------------------------------------------------------------------- what is held


def own_run(folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """The verdict of a study in a run of its own, by the two Flower apps."""
    from simulations.engines import apps

    config = run_config(folder, *words)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    return conclude(study_of(json.loads(config["config"])), RunFolder(folder))


@pytest.mark.parametrize(
    "words",
    [
        (*TINY, "study.seeds=2"),
        (*TINY, "play.signal_bins=3", "backbone=mlp"),
        (*SMALL_HEART, "market.compute_price=0.01", "parties.hungary.contributes=false"),
    ],
    ids=["loans", "bins", "heart"],
)
def test_a_row_is_what_the_studys_own_run_says(
    words: tuple[str, ...], tmp_path: Path, composing: None
) -> None:
    job = Configs(words, []).job({})
    row = hold_jobs([job.text], JobLimits(together=False))[0]
    batched = hold_jobs([job.text], JobLimits())[0]
    assert row.keys() == batched.keys()
    for key, value in row.items():
        near = pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
        assert batched[key] == near, key
    with pytest.MonkeyPatch.context() as patch:
        from hydra.core.global_hydra import GlobalHydra

        patch.setattr(GlobalHydra.instance(), "hydra", None)
        verdict = own_run(tmp_path, words)
    assert row["status"] == "ok", row
    for name, contract in verdict["contracts"].items():
        if name == "no_sharing":
            for firm, v in contract["firms"].items():
                assert row[f"no_sharing.{firm}.payoff"] == v["payoff"]
            continue
        for key, told in (
            ("signed", "individually_rational"),
            ("pareto_optimal", "pareto_optimal"),
            ("irpo", "irpo"),
        ):
            assert row[f"{name}.{key}"] is contract[told]
        for firm, v in contract["firms"].items():
            assert row[f"{name}.{firm}.gain"] == v["gain"]
            assert [row[f"{name}.{firm}.low"], row[f"{name}.{firm}.high"]] == v["interval"]
            assert row[f"{name}.{firm}.decision"] == v["decision"]
        gains = [v["gain"] for v in contract["firms"].values()]
        assert row[f"{name}.surplus"] == pytest.approx(sum(gains), abs=1e-15)


def test_what_a_worker_remembers_changes_no_row(composing: None) -> None:
    configs = Configs(TINY, ["market.C1", "play"])
    points = Grid({"market.C1": [1, 4], "play": ["equilibrium", "myopic"]}).ask([])
    texts = [configs.job(point).text for point in points]
    together = hold_jobs(texts, JobLimits())
    backwards = hold_jobs(texts[::-1], JobLimits())
    assert together == backwards[::-1]
    for text, row in zip(texts, together, strict=True):
        code = (
            "import sys, json; from simulations.sweeps.held import hold_jobs; "
            "from simulations.sweeps.limits import JobLimits; "
            "print(json.dumps(hold_jobs([sys.stdin.read()], JobLimits())))"
        )
        if text == texts[2]:  # in a process that remembers nothing
            done = subprocess.run(
                [sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True
            )
            assert json.loads(done.stdout) == [row]


def test_the_best_contract_is_the_signed_one_with_the_largest_surplus(composing: None) -> None:
    configs = Configs(TINY, ["market.C1", "market.gamma"])
    points = Grid({"market.C1": [0.5, 1, 3, 6], "market.gamma": [0.2, 0.5, 0.9]}).ask([])
    rows = hold_jobs([configs.job(point).text for point in points], JobLimits())
    seen = set()
    for row in rows:
        shared = [key.split(".")[0] for key in row if key.endswith(".signed")]
        signed = {name: row[f"{name}.surplus"] for name in shared if row[f"{name}.signed"]}
        open_ = [row[f"{name}.surplus"] for name in shared if row[f"{name}.signed"] is None]
        most = max([0.0, *signed.values()])
        if max([-np.inf, *open_]) > most:
            assert row["best"] is None
        elif most == 0:
            assert row["best"] == "no_sharing"
        else:
            assert row["best"] in signed
            assert signed[row["best"]] == most
        seen.add(row["best"])
    assert len(seen) > 1  # the test has something to tell apart


@final
@dataclass(frozen=True)
class Again(Design):
    """Asks for a point that it has asked for before, and for one that is the same study."""

    words = "twice the same"

    def ask(self, held: Sequence[Held]) -> Sequence[Point]:
        waves = [[2, 1], [2, 1.5], [3, 2]]
        asked = 0
        for wave in waves:
            if asked == len(held):
                return [{"market.C1": cost, "study.seeds": 1} for cost in wave]
            asked += len(wave)
        return []


def test_a_point_that_is_asked_for_again_is_one_row_and_was_held_once(
    tmp_path: Path, composing: None
) -> None:
    words = [word for word in TINY if not word.startswith("study.seeds")]
    configs, progress = Configs(words, ["market.C1", "study.seeds"]), Progress()
    with closing(Journal(tmp_path / "jobs.jsonl")) as journal:
        hold_sweep(Again(), Launch(workers=0), configs, journal, progress, Unwatched())
    assert [one.point["market.C1"] for one in progress.held] == [2, 1, 1.5, 3]
    assert (progress.asked, progress.told) == (6, 6)
    assert len(read(tmp_path / "jobs.jsonl")) == 4
    assert (tmp_path / "jobs.jsonl").read_bytes().count(b"\n") == 4


# ----------------------------------------------------------------------------------------- failures


@DROPPED
def test_a_job_over_its_time_fails_and_the_next_is_held(composing: None) -> None:
    configs = Configs(TINY, ["training.epochs"])
    texts = [configs.job({"training.epochs": epochs}).text for epochs in (1, 10**7, 2)]
    rows = hold_jobs(texts, JobLimits(timeout_s=3))
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["error"] == OUT_OF_TIME
    assert "launch.timeout_s=3" in rows[1]["message"]


@DROPPED
def test_a_job_whose_end_of_time_is_dropped_is_told_again() -> None:
    class Dropped:
        def __del__(self) -> None:
            for _ in itertools.count():
                pass

    def work() -> None:
        dropped = [Dropped()]
        dropped.clear()  # what is raised in there goes no further
        assert clock.over
        for _ in itertools.count():
            pass

    clock = Clock(0.05)
    with pytest.raises(OutOfTimeError), clock.running():
        work()


def test_a_job_over_its_memory_fails_and_the_next_is_held(composing: None) -> None:
    configs = Configs([*TINY, "backbone=mlp"], ["backbone.widths"])
    texts = [configs.job({"backbone.widths": w}).text for w in ([4], [40000, 40000], [5])]
    rows = hold_jobs(texts, JobLimits(memory_gb=1))
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["error"] == OUT_OF_MEMORY
    assert "launch.memory_gb=1" in rows[1]["message"]


def test_a_job_that_is_no_legal_study_fails_with_the_reason(composing: None) -> None:
    configs = Configs(TINY, ["market.gamma"])
    rows = hold_jobs([configs.job({"market.gamma": g}).text for g in (2, 0.5)], JobLimits())
    assert [row["status"] for row in rows] == ["failed", "ok"]
    assert rows[0]["error"] == "FedpactError"
    assert "market.gamma is 2; legal is a number from 0 to 1" in rows[0]["message"]


# ------------------------------------------------------------------------------------------ journal


def written(path: Path, rows: Mapping[str, Any]) -> None:
    with closing(Journal(path)) as journal:
        journal.add(rows.items())


def read(path: Path) -> dict[str, Any]:
    with closing(Journal(path)) as journal:
        return journal.rows


def test_a_journal_gives_back_what_was_put_in(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    rows = {f"key{i}": {"gain": i / 3, "best": None, "words": "é\n"} for i in range(5)}
    written(path, rows)
    assert read(path) == rows


@given(cut=st.integers(0, 400), flip=st.none() | st.integers(0, 399))
def test_a_damaged_journal_loses_the_damaged_lines_only(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int | None
) -> None:
    path = tmp_path_factory.mktemp("journal") / "jobs.jsonl"
    rows = {f"key{i}": {"gain": float(i)} for i in range(6)}
    written(path, rows)
    whole = path.read_bytes()
    content = bytearray(whole[: min(cut, len(whole))])
    if flip is not None and flip < len(content):
        content[flip] ^= 0x41
    path.write_bytes(content)
    left = bytes(content).split(b"\n")[:-1]  # the last line is whole only with its end
    good = [line for line in whole.split(b"\n") if line in left and line]
    found = read(path)
    assert len(found) == len(good)
    assert all(rows[key] == row for key, row in found.items())
    written(path, {key: row for key, row in rows.items() if key not in found})
    assert read(path) == rows


def test_a_disk_without_room_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from simulations.sweeps.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "journal.add([(f'key{i}', {'gain': i}) for i in range(10)])\n"
        "size = Path(sys.argv[1]).stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))\n"
        "journal.add([(f'key{i}', {'gain': i}) for i in range(10, 20)])\n"
    )
    path = tmp_path / "jobs.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert "cannot be written" in done.stderr
    assert "run the same command again" in done.stderr
    rows = read(path)
    assert list(rows) == [f"key{i}" for i in range(len(rows))]
    assert 10 <= len(rows) < 20
