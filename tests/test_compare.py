"""Comparisons: what rounds say, paired differences, and a campaign that can be resumed."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from parties.exchange import FedpactError
from simulations.compare import FIGURES, Plan, half_width, plan_of, summarise
from simulations.measures import Curve, curves, seconds, traffic
from simulations.page import number
from tests.checks import write_fashion
from tests.test_report import Page

IDS = ["summary", "counts", "verdicts"]
RIGHT = np.array([[4, 0], [2, 2], [3, 1]])
CURVE = Curve(RIGHT, np.full((3, 2), 4), np.ones(3), np.arange(3))


def test_forgetting_is_what_classes_lose_and_gains_do_not_make_up_for_it() -> None:
    # Class 0: 1, 1/2, 3/4; class 1: 0, 1/2, 1/4. Lost: (1/2 + 0) then (0 + 1/4), of 4 steps.
    assert CURVE.forgetting == (0.5 + 0.25) / 4


def test_accuracy_pools_the_firms_cases() -> None:
    np.testing.assert_allclose(CURVE.accuracy, [0.5, 0.5, 0.5])
    assert CURVE.last(2) == 0.5
    assert CURVE.rounds_to(0.5) == 1
    assert CURVE.rounds_to(0.6) is None


def test_a_void_round_counts_on_the_way_to_a_target() -> None:
    late = Curve(np.array([[0, 0], [4, 4]]), np.full((2, 2), 4), np.ones(2), np.array([0, 4]))
    assert late.rounds_to(0.9) == 5  # rounds 1 to 3 came to nothing


def test_what_a_round_measures_is_pooled_over_the_firms(tmp_path: Path) -> None:
    rows = ["seed,contract,round,firm,cases,log_loss,by_class"]
    rows += ["0,train_sharing,0,a,1,1.0,1/1 0/0", "0,train_sharing,0,b,3,2.0,0/1 1/2"]
    rows += ["0,train_sharing,2,a,1,0.5,1/1 0/0", "0,train_sharing,2,b,3,0.5,1/1 2/2"]
    (tmp_path / "scores.csv").write_text("\n".join(rows) + "\n")
    curve = curves(tmp_path)[0]
    np.testing.assert_allclose(curve.log_loss, [(1 * 1.0 + 3 * 2.0) / 4, 0.5])
    np.testing.assert_allclose(curve.accuracy, [2 / 4, 1.0])
    assert curve.turns.tolist() == [0, 2]


def test_bytes_down_are_the_operators_and_bytes_up_the_firms(tmp_path: Path) -> None:
    rows = ["session,seed,contract,round,sender,receiver,kind,carries,bytes"]
    rows += ["x,0,train_sharing,0,operator,a,Offer,,5", "x,0,train_sharing,0,a,operator,Trained,,7"]
    rows += ["x,0,train_sharing,0,a,operator,Scores,,100", "x,0,no_sharing,0,operator,a,Offer,,9"]
    (tmp_path / "messages.csv").write_text("\n".join(rows) + "\n")
    assert traffic(tmp_path) == {0: (5, 7)}


def test_a_paired_difference_has_students_interval() -> None:
    plan = Plan({"s": []}, {"a": [], "b": []}, "a", targets=(0.5,))
    rng = np.random.default_rng(0)
    base = rng.normal(80, 5, 6)
    extra = rng.normal(2, 1, 6)
    rows = pd.DataFrame(
        [
            {
                "setting": "s",
                "method": m,
                "seed": seed,
                **dict.fromkeys(FIGURES, value),
                "rounds_to_0.5": 3,
                **dict.fromkeys(("bytes_down", "bytes_up", "cpu_seconds"), 1.0),
            }
            for m, values in (("a", base), ("b", base + extra))
            for seed, value in enumerate(values)
        ]
    )
    (one, two) = summarise(plan, rows).to_dict("records")
    assert one["last_difference"] == 0
    low, high = stats.t.interval(0.95, 5, extra.mean(), extra.std(ddof=1) / np.sqrt(6))
    assert two["last_difference"] == pytest.approx(extra.mean())
    assert two["last_half_width"] == pytest.approx((high - low) / 2)
    assert np.isnan(half_width(np.ones(1)))


FINE: dict[str, Any] = {"methods": {"a": []}, "settings": {"s": []}, "reference": "a"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"methods": {"a": []}, "settings": {"s": []}, "reference": "b"},
            "the methods a",
        ),
        ({"methods": {"a": "x"}, "settings": {"s": []}, "reference": "a"}, "list of overrides"),
        ({"methods": {"a": []}, "settings": {"../s": []}, "reference": "a"}, "a name has letters"),
        ({"methods": {"a": []}, "settings": {}, "reference": "a", "x": 1}, "compare has x"),
        ({"methods": {"a": []}, "settings": {}, "reference": "a"}, "compare.settings is missing"),
        ({"methods": {"a": []}, "settings": {"s": []}}, "compare.reference is missing"),
        ({"methods": {"a": []}, "settings": {"s": None}, "reference": "a"}, "settings is empty"),
        ({**FINE, "targets": 0.8}, "legal is a list"),
        ({**FINE, "targets": ["abc"]}, "legal are accuracies"),
        ({**FINE, "last": 0}, "whole number >= 1"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(FedpactError, match=message):
        plan_of(section)


TWO_CELLS = (  # fedavg and publish, at skew .1 with 3 of 10 firms a round
    "compare.settings.skew_1_all=null",
    "compare.settings.skew_3_all=null",
    "compare.settings.skew_3_some=null",
    "compare.methods.fedprox=null",
    "compare.methods.pull_weak=null",
    "compare.methods.pull_strong=null",
    "compare.methods.pull_late=null",
)
SMALL = (
    "experiment=fedref_digits",
    "study.seeds=2",
    "strategy.rounds=2",
    "strategy.local_epochs=1",
    "training.epochs=1",
    "progress=none",
    *TWO_CELLS,
)


def test_a_comparison_is_a_table_and_a_picture_and_can_be_resumed(here: Any) -> None:
    told = here(*SMALL, "run_dir=x")
    assert told.returncode == 0, told.stderr
    folder = Path(told.stdout.splitlines()[-1])
    rows = pd.read_csv(folder / "compare.csv")
    assert list(rows["method"]) == ["fedavg", "fedavg", "publish", "publish"]
    assert "publish" in told.stdout
    assert (folder / "compare.png").stat().st_size > 5000
    summary = json.loads((folder / "compare.json").read_text())
    assert {v["method"] for v in summary["verdicts"]} == {"fedavg", "publish"}
    place = folder / "skew_1_some" / "publish"
    # The last of two aggregates is one of the two that are averaged: the firms train alike.
    assert traffic(place) == traffic(folder / "skew_1_some" / "fedavg")
    assert set(curves(place)) == set(seconds(place)) == {0, 1}
    before = (folder / "compare.csv").read_bytes()
    page = Page(folder / "report.html")
    assert [table["id"] for table in page.named("table") if "id" in table] == IDS
    assert page.named("figure")[0]["aria-label"].startswith("Accuracy minus fedavg's: ")
    assert number(summary["summary"][1]["last"], digits=1) in page.tables[0]
    for link in page.named("a"):
        assert (folder / link["href"]).is_file()
    (place / "sessions" / "train_sharing-seed1.sha256").unlink()
    assert here(*SMALL, f"resume={folder}").returncode == 0
    (place / "sessions" / "train_sharing-seed0.sha256").unlink()
    (place / "config.yaml").unlink()  # killed before it was written
    assert here(f"resume={folder}").returncode == 0  # the folder alone says what was compared
    after = pd.read_csv(folder / "compare.csv").drop(columns="cpu_seconds")
    kept = pd.read_csv(BytesIO(before)).drop(columns="cpu_seconds")
    pd.testing.assert_frame_equal(after, kept)


def test_two_hospitals_are_compared_by_their_verdicts(here: Any) -> None:
    told = here(
        *("experiment=heart_pair_strategies", "study.seeds=2", "strategy.rounds=2"),
        *("training.epochs=2", "progress=none", "run_dir=p"),
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(Path("p/compare.json").read_text())["verdicts"]
    assert {(v["firm"], v["method"]) for v in found} == {
        (firm, method)
        for firm in ("hungary", "va_long_beach")
        for method in ("fedavg", "fedprox", "fedref_publish", "fedref_pull", "fedavg_best")
    }
    page = Page(Path("p/report.html"))
    assert page.named("figure") == []  # no round was watched
    counts, verdicts, *_ = page.tables
    for v in found:
        assert v["method"] in counts
        assert number(v["payoff"]) in verdicts


@pytest.mark.parametrize("experiment", ["fedref_digits", "heart_strategies"])
def test_every_cell_of_a_comparison_can_be_built(here: Any, experiment: str) -> None:
    told = here(f"experiment={experiment}", "dry_run=true")
    assert told.returncode == 0, told.stderr
    assert "fedprox: " in told.stdout
    assert "Nothing was trained" in told.stdout


def test_the_engine_of_a_comparison_is_checked_before_anything_starts(here: Any) -> None:
    told = here("experiment=fedref_digits", "training.device=cuda:99", "dry_run=true")
    assert told.returncode == 2
    assert "Use training.device=auto" in told.stderr


def test_a_rule_that_no_cell_would_use_is_refused(here: Any) -> None:
    told = here("experiment=heart_pair_strategies", "strategy=median", "dry_run=true")
    assert told.returncode == 2
    assert "would change nothing" in told.stderr
    added = "\"+compare.methods.mine=['strategy=median']\""
    assert added in told.stderr
    told = here("experiment=heart_pair_strategies", added.strip('"'), "dry_run=true")
    assert told.returncode == 2
    assert "compare, pair under mine: median needs" in told.stderr


@pytest.mark.long
def test_every_cell_of_the_photographs_can_be_built(here: Any, tmp_path: Path) -> None:
    folder = write_fashion(tmp_path / "fashion")
    small = (f"parties.firm_0.dataset.folder={folder}", "parties.firm_0.dataset.limit=400")
    told = here("experiment=fedref_fashion", *small, "dry_run=true")
    assert told.returncode == 0, told.stderr


def test_a_mistake_in_one_cell_is_found_before_the_first_epoch(here: Any) -> None:
    told = here(*SMALL, 'compare.methods.publish=["strategy=krum"]', "run_dir=y")
    assert told.returncode == 2
    assert "krum needs" in told.stderr.lower()
    assert not Path("y").exists()


def test_rounds_that_were_not_watched_say_so(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("seed,contract,round,firm,by_class\n")
    with pytest.raises(FedpactError, match=r"study.watch=true"):
        curves(tmp_path)


GOLDEN = json.loads((Path(__file__).parent / "golden" / "fedref_digits.json").read_text())


def close_to_golden(rows: pd.DataFrame) -> None:
    """Each seed's accuracy and forgetting are those of the committed summary, to its tolerances."""
    known = {(r["setting"], r["method"], r["seed"]): r for r in GOLDEN["seeds"]}
    for row in rows.to_dict("records"):
        expected = known[row["setting"], row["method"], row["seed"]]
        for name, tolerance in GOLDEN["tolerance"].items():
            assert row[name] == pytest.approx(expected[name], abs=tolerance), (row, name)


DIGITS = ("experiment=fedref_digits", "progress=none", "training.epochs=1")


def test_publishing_the_reference_forgets_less_and_gives_the_known_figures(here: Any) -> None:
    told = here(*DIGITS, *TWO_CELLS, "study.seeds=1", "run_dir=z")
    rows = pd.read_csv(Path(told.stdout.splitlines()[-1]) / "compare.csv")
    close_to_golden(rows)
    forgetting = rows.set_index("method")["forgetting"]
    assert forgetting["publish"] < forgetting["fedavg"] / 3


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_the_digits_table_comes_out(here: Any) -> None:
    told = here(*DIGITS, "run_dir=w")
    folder = Path(told.stdout.splitlines()[-1])
    close_to_golden(pd.read_csv(folder / "compare.csv"))
    found = json.loads((folder / "compare.json").read_text())["summary"]
    for ours, known in zip(found, GOLDEN["summary"], strict=True):
        assert ours["last_difference"] == pytest.approx(known["last_difference"], abs=1.5)


# The table that fedref_digits is to reproduce: paired differences to FedAvg, in points.
PRINTED = {
    "skew_1_all": {
        "fedprox": -0.3,
        "pull_weak": -1.2,
        "pull_strong": -11.9,
        "pull_late": -2.0,
        "publish": -0.4,
    },
    "skew_3_all": {"fedprox": -0.3, "pull_weak": -0.6, "pull_strong": -7.9, "publish": -0.2},
    "skew_1_some": {
        "fedprox": -0.9,
        "pull_weak": -1.5,
        "pull_strong": -13.8,
        "pull_late": 2.6,
        "publish": 5.1,
    },
    "skew_3_some": {
        "fedprox": -0.2,
        "pull_weak": -0.9,
        "pull_strong": -8.8,
        "pull_late": 0.8,
        "publish": 1.8,
    },
}


def test_the_committed_table_holds_the_printed_one_within_its_seeds_intervals() -> None:
    ours = {(r["setting"], r["method"]): r for r in GOLDEN["summary"]}
    missed = []
    for setting, methods in PRINTED.items():
        for method, printed in methods.items():
            row = ours[setting, method]
            if abs(row["last_difference"] - printed) > row["last_half_width"]:
                missed.append((setting, method))
    # Two of 19 fall outside: a strong pull slows learning even more here; FedProx costs .3 more.
    assert missed == [("skew_1_all", "pull_strong"), ("skew_3_some", "fedprox")]
