"""Region maps: where each contract wins, thin bands, exact ties, files and mistakes."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parties.exchange import Array, FedpactError
from server.game.dominance import Reading, Solved
from server.game.settings import correlation
from simulations.game import grid, maps
from simulations.game.__main__ import main
from simulations.game.axes import Axis, Plan
from simulations.game.refine import RegionMap, explore
from simulations.game.regions import IMPOSSIBLE, TIE, name_of

TWO = ("1/2:independent", "1/2:strongest")
NAMES = ("no", "train", "infer", "full")
BAND = ("C1=0.7555",)  # where train-sharing alone is signed in a thin band


def drawn(x: str, y: str, refine: int = 0, sets: Any = (), worlds: Any = TWO) -> RegionMap:
    return explore(Plan.parse(x, y, sets, worlds), refine)


def named(found: RegionMap) -> Array:
    """Every point's region in words."""
    return np.array([name_of(int(code)) for code in found.sheet.region])


def shares(found: RegionMap) -> dict[str, float]:
    return {name_of(code): share for code, share in found.shares.items()}


def told_exactly(plan: Plan, a: Fraction, b: Fraction) -> str:
    """A region by the exact engine, named from the definition."""
    solved = Solved(plan.exact(a, b))
    standings = solved.standings(Reading("selected", "ex_ante"))
    classes: dict[Any, list[str]] = {}
    for name in NAMES:
        if standings[f"{name}_sharing"].irpo:
            classes.setdefault(solved.payoffs(f"{name}_sharing"), []).append(name)
    sets = ["=".join(names) for names in classes.values()]
    return f"{sets[0]} only" if sets[0] in NAMES and len(sets) == 1 else " & ".join(sets)


# -------------------------------------------------------------------------------- what is known

TABLE = [
    (("1:independent",), "3/4", {"no=train": 393, "infer=full": 22, "no=train=infer=full": 26}),
    (("1:independent",), "3/2", {"no=train": 350, "infer=full": 76, "no=train=infer=full": 15}),
    (TWO, "3/2", {"no=train": 344, "infer=full": 16, "full only": 59, "train only": 5,
                  "no only": 11, "train & full": 3, "no=train=infer=full": 3}),
    (TWO, "5/2", {"no=train": 276, "infer=full": 12, "full only": 129, "train only": 2,
                  "no only": 10, "train & full": 7, "no=train=infer=full": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("worlds", "cost", "expected"), TABLE)
def test_the_map_is_the_table_of_where_each_contract_wins(
    worlds: tuple[str, ...], cost: str, expected: dict[str, int]
) -> None:
    found = drawn("alpha=0.5:0.995:41", "beta=0.5:0.995:21", 0, [f"C1={cost}"], worlds)
    below = 2 * found.sheet.y <= found.sheet.x  # beta <= alpha: beta's steps are twice as long
    assert expected == Counter(named(found)[below])


@pytest.mark.parametrize(("worlds", "cost", "expected"), TABLE[::2])  # a second each
def test_the_exact_engine_says_the_same_at_every_point_of_the_table(
    worlds: tuple[str, ...], cost: str, expected: dict[str, int]
) -> None:
    plan = Plan.parse("alpha=0.5:0.995:41", "beta=0.5:0.995:21", [f"C1={cost}"], worlds)
    places = [(i, j) for i in range(41) for j in range(21) if 2 * j <= i]
    found = Counter(told_exactly(plan, plan.x.at(i, 1), plan.y.at(j, 1)) for i, j in places)
    assert expected == found


def test_train_sharing_alone_is_signed_in_the_known_box() -> None:
    for cost in ("C1=0.7551", "C1=0.7559"):
        found = drawn("alpha=.715:.725:21", "beta=.508:.518:21", 0, [cost])
        a, b = (axis.floats(p, 1) for axis, p in ((found.plan.x, found.sheet.x),
                                                  (found.plan.y, found.sheet.y)))  # fmt: skip
        inside = (a >= 0.72) & (a <= 0.721) & (b >= 0.513) & (b <= 0.514)
        assert inside.sum() == 9
        assert set(named(found)[inside]) == {"train only"}
        assert set(named(found)) > {"train only"}


def test_changing_the_firms_names_mirrors_the_map() -> None:
    found = drawn("alpha=.5:1:31", "beta=.5:1:31", 0, BAND)
    square = named(found).reshape(31, 31)
    assert (square == square.T).all()


def test_a_correlation_out_of_its_bounds_is_impossible_and_on_them_it_is_not() -> None:
    # alpha = 4/5 and beta = 7/10: P(both right) is 1/2 to 7/10, both ends on the grid.
    found = drawn("rho1=0.4:0.8:5", "C1=1:2:3", 0, (), ("1:independent",))
    row = [bool(code == IMPOSSIBLE) for code in found.sheet.region[:5]]
    assert row == [True, False, False, False, True]
    assert shares(found)["impossible"] == pytest.approx(1 / 4)
    assert sum(shares(found).values()) == pytest.approx(1)


def test_a_map_without_a_possible_market_is_refused() -> None:
    with pytest.raises(FedpactError, match=r"No point of the map .* Change rho"):
        drawn("rho1=0.8:0.9:3", "C1=1:2:3", 0, (), ("1:independent",))


def test_the_weight_of_the_first_world_ends_where_the_other_is_certain() -> None:
    found = drawn("weight=0:1:3", "C1=1.5:2.5:3")
    for column, coupling in ((0, "strongest"), (2, "independent")):
        alone = drawn("gamma=0.5:1:2", "C1=1.5:2.5:3", 0, (), (f"1:{coupling}",))
        mine, its = found.sheet.x == column, alone.sheet.x == 0
        np.testing.assert_allclose(
            found.sheet.payoffs[..., mine], alone.sheet.payoffs[..., its], atol=1e-15
        )


# ------------------------------------------------------------------------------------ refinement


def test_halving_finds_bands_that_no_coarse_point_lies_in() -> None:
    coarse = drawn("alpha=.5:1:6", "beta=.5:1:6", 0, BAND)
    assert "train only" not in named(coarse)
    fine = drawn("alpha=.5:1:6", "beta=.5:1:6", 5, BAND)
    assert shares(fine)["train only"] == pytest.approx(0.00948, rel=0.05)  # of 1000 x 1000 points
    assert len(fine.sheet) < 161**2 / 3


def test_a_coarse_map_of_a_wider_window_shows_the_known_box() -> None:
    found = drawn("alpha=.6:.8:21", "beta=.5:.6:21", 3, BAND)
    pixels = found.image(400, 400)
    assert name_of(int(pixels[54, 241])) == "train only"  # alpha .72075, beta .513625
    assert shares(found)["train only"] == pytest.approx(0.03188, rel=0.01)


def test_refined_points_are_those_of_a_plain_map_as_fine() -> None:
    found = drawn("alpha=.5:1:6", "beta=.5:1:6", 3, BAND)
    plain = drawn("alpha=.5:1:41", "beta=.5:1:41", 0, BAND)
    same = found.sheet.y * 41 + found.sheet.x
    assert (np.diff(same) > 0).all()
    assert (plain.sheet.region[same] == found.sheet.region).all()
    assert np.bincount(found.sheet.level)[0] == 36
    left = np.setdiff1d(np.arange(41**2), same)
    missed = plain.sheet.region[left] != found.image(41 * 3, 41 * 3)[1::3, 1::3].ravel()[left]
    assert missed.mean() < 0.01


def test_no_point_is_solved_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    solved, solve = [], grid.solve_correlation

    def counted(**given: Any) -> Any:
        solved.append(len(given["rho"]))
        return solve(**given)

    monkeypatch.setattr(grid, "solve_correlation", counted)
    found = drawn("alpha=.5:1:11", "beta=.5:1:11", 3, BAND)
    assert sum(solved) == len(found.sheet)
    assert len(solved) < 30


def test_refinement_stops_at_the_most_points_and_says_so() -> None:
    plan = Plan.parse("alpha=.5:1:21", "beta=.5:1:21", BAND, TWO)
    found = explore(plan, 5, most=2_000)
    assert 441 < len(found.sheet) <= 2_000
    assert found.counts["undivided"] > 0
    assert sum(found.shares.values()) == pytest.approx(1)
    assert "Refinement was stopped" in maps._notes(found)[0]
    with pytest.raises(FedpactError, match="coarser grid"):
        explore(plan, 0, most=440)


def test_a_line_is_said_to_be_thin() -> None:
    found = drawn("alpha=.6:1:11", "beta=.6:1:11", 2, BAND)
    assert {name_of(code) for code in found.thin} == {"no=train=infer=full"}


# ------------------------------------------------------------------------------------------ ties


def test_ties_between_round_numbers_are_proved_and_the_exact_engine_agrees() -> None:
    found = drawn("alpha=.6:.8:21", "beta=.5:.6:21", 1, BAND)
    counts = found.counts
    assert counts["ties"] == counts["proved"] > 100
    assert (counts["differing"], counts["left"]) == (0, 0)
    assert found.sheet.exact.sum() == counts["ties"]
    plan, ties = found.plan, np.flatnonzero(found.sheet.exact)
    for point in ties[::4]:
        a = plan.x.at(int(found.sheet.x[point]), found.fine)
        b = plan.y.at(int(found.sheet.y[point]), found.fine)
        assert told_exactly(plan, a, b) == name_of(int(found.sheet.region[point]))


def test_ties_between_odd_numbers_are_left_to_the_exact_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    odd = ("alpha=.6000001:.8:11", "beta=.5000003:.6:11", 0, ["C1=0.7555001"])
    found = drawn(*odd)
    assert found.counts["ties"] == found.counts["settled"] > 0
    assert TIE not in found.sheet.region
    monkeypatch.setattr(grid, "MOST_EXACT", found.counts["ties"] - 1)
    left = drawn(*odd)
    assert left.counts["left"] == found.counts["ties"]
    assert "left as ties" in maps._notes(left)[0]


def test_every_payoff_is_a_whole_multiple_of_the_unit() -> None:
    plan = Plan.parse("alpha=.5:.9:7", "weight=0.1:1/3:4", ["C1=0.75", "beta=0.61"], TWO)
    for fine in (1, 4):
        for i, j in ((1, 1), (3 * fine, 2 * fine), (5, 3)):
            solved = Solved(plan.exact(plan.x.at(i, fine), plan.y.at(j, fine)))
            paid = [u for name in NAMES for u in solved.payoffs(f"{name}_sharing")]
            assert all((plan.unit(fine) * u).denominator == 1 for u in paid)


# -------------------------------------------------------------------------------- files and words

SMALL = ["--x", "alpha=0.5:1:9", "--y", "beta=0.5:1:7", "--set", "C1=0.7555", "--refine", "2"]
WORLDS = ["--world", TWO[0], "--world", TWO[1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "band"
    assert main(["map", *SMALL, *WORLDS, "--out", str(path)]) == 0
    return path


def test_a_map_is_a_table_a_picture_a_page_and_its_facts(folder: Path) -> None:
    assert {"map.html", "map.json", "map.parquet", "map.png"} == {p.name for p in folder.iterdir()}
    assert (folder / "map.png").read_bytes().startswith(b"\x89PNG")
    facts, table = (
        json.loads((folder / "map.json").read_text()),
        pd.read_parquet(folder / "map.parquet"),
    )
    assert len(table) == facts["points"] == sum(row["points"] for row in facts["regions"])
    assert sum(row["share"] for row in facts["regions"]) == pytest.approx(1)
    assert table.groupby("region", observed=True).size().to_dict() == {
        row["region"]: row["points"] for row in facts["regions"]
    }
    s1 = table[(table["alpha"] == 0.75) & (table["beta"] == 0.75)].iloc[0]
    solved = Solved(
        correlation("3/4", "3/4", [("1/2", "9/16"), ("1/2", "3/4")], (0, 1), (0, "0.7555"))
    )
    for name in solved.games:
        paid = (s1[f"payoff1_{name}"], s1[f"payoff2_{name}"])
        assert paid == pytest.approx([float(u) for u in solved.payoffs(name)], abs=1e-12)
        assert s1[f"trade_{name}"] == pytest.approx(float(solved.trade_probability(name)))
    assert s1["transfer_low"] == pytest.approx(
        s1["payoff1_no_sharing"] - s1["payoff1_full_sharing"]
    )


def test_the_page_needs_nothing_but_itself_and_names_every_region(folder: Path) -> None:
    page = (folder / "map.html").read_text()
    facts = json.loads((folder / "map.json").read_text())
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "prefers-color-scheme: dark" in page
    for row in facts["regions"]:
        escaped = row["region"].replace("&", "&amp;")
        assert page.count(escaped) >= 3  # legend, table, and what is read aloud
        assert row["percent"].replace("<", "&lt;") in page
    for axis in facts["axes"]:
        assert axis["words"] in page


def test_the_command_of_a_map_draws_it_again(folder: Path, tmp_path: Path) -> None:
    words = shlex.split(json.loads((folder / "map.json").read_text())["command"])
    assert words[:4] == ["python", "-m", "simulations.game", "map"]
    assert main([*words[3:], "--out", str(tmp_path)]) == 0
    again = pd.read_parquet(tmp_path / "map.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "map.parquet"), again)
    assert (folder / "map.png").read_bytes() == (tmp_path / "map.png").read_bytes()
    assert maps.told(folder)[:-1] == maps.told(tmp_path)[:-1]


def test_a_folder_that_holds_something_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in folder.iterdir()}
    assert main(["map", *SMALL, "--out", str(folder)]) == 2
    assert re.match(r"fedpact: --out .* already holds files; legal is", capsys.readouterr().err)
    assert before == {p: p.read_bytes() for p in folder.iterdir()}


def test_a_map_goes_to_a_folder_named_by_the_time_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = maps._folder(None)
    assert first.parent == Path("maps")
    first.mkdir(parents=True)
    assert maps._folder(None) != first


def test_a_map_that_is_refused_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--x", "rho1=0.8:0.9:3", "--y", "C1=1:2:3", "--out", str(tmp_path / "none")]
    assert main(["map", *words]) == 2
    assert capsys.readouterr().err.startswith("fedpact: No point of the map is a possible market")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    for name, said in (("file", "is a file"), ("file/below", "cannot be written")):
        assert main(["map", *SMALL, "--out", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["alpha=.5:1", "beta"], r"--y is 'beta'; legal is NAME=LOW:HIGH:STEPS\. For .* write"),
        (["alpha=.5:1", "beat=.5:1"], r"no parameter 'beat'\. Did you mean 'beta'\?"),
        (["alpha=.5:1:1", "beta=.5:1"], r"legal are .* at least 2\. .* --set alpha=\.5"),
        (["alpha=1:.5", "beta=.5:1"], r"a low end below the high end"),
        (["alpha=.5:1.5", "beta=.5:1"], r"alpha is 1\.5; legal is a number from 0 to 1\. Write 80"),
        (["alpha=.5:1:2.5", "beta=.5:1"], r"a whole number of points"),
        (["alpha=.5:x", "beta=.5:1"], r"alpha is 'x'; legal is a finite number"),
        (["alpha=.5:1", "alpha=.5:1"], r"alpha is given twice; legal .* Leave one"),
        (["alpha=.5:1", "beta=.5:1", ["alpha=.5"]], r"alpha is given twice"),
        (["alpha=.5:1", "beta=.5:1", ["C1"]], r"--set is 'C1'; legal is NAME=VALUE\. For"),
        (["alpha=.5:1", "beta=.5:1", ["C1=-1"]], r"C1 is -1; legal is a number >= 0\. Costs"),
        (["alpha=.5:1", "weight=0:1"], r"weight is the first of two worlds'.* Name both: --world"),
        (["alpha=.5:1", "rho2=.5:1"], r"rho2 .* legal are the worlds named\. Add one: --world"),
        (["alpha=.5:1", "beta=.5:1", [], ["independent"]], r"legal is WEIGHT:RHO.* --world 1:in"),
        (["alpha=.5:1", "beta=.5:1", [], ["1:strong"]], r"legal are .* Did you mean 'strongest'\?"),
        (["alpha=.5:1", "beta=.5:1", [], ["1/2:.5", "1/3:.6"]], r"sum to 5/6; legal is exactly 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_what_is_legal_and_what_to_do(
    arguments: list[Any], said: str
) -> None:
    with pytest.raises(FedpactError, match=said):
        Plan.parse(*arguments)


def test_an_axis_is_exact_and_its_floats_are_correctly_rounded() -> None:
    axis = Axis.parse("alpha=0.1:0.7:7", "--x")
    places = np.array([0, 1, 12, 3])
    assert axis.at(3, 2) == Fraction(1, 4)
    assert axis.floats(places, 2).tolist() == [float(axis.at(int(p), 2)) for p in places]
    vast = Axis.parse("alpha=0.1:0.7:70000", "--x")
    assert vast.floats(places, 2).tolist() == [float(vast.at(int(p), 2)) for p in places]
