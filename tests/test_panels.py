"""Maps side by side: each is the single map of its own command, in one shape and one legend."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from parties.exchange import FedpactError
from simulations.game import grid, maps
from simulations.game.__main__ import main
from simulations.game.axes import Plan
from simulations.game.panels import MOST_PANELS, Each, Panels
from simulations.game.picture import drawn
from simulations.game.refine import explore

AXES = ["--x", "alpha=0.5:1:9", "--y", "beta=0.5:1:7"]
COSTS = "C1=0.7555,1.5,2.5"
PRIORS = "world=1:independent,1/2:independent+1/2:strongest"
EACH = ["--each", COSTS, "--each", PRIORS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panels") / "all"
    assert main(["map", *AXES, *EACH, "--refine", "2", "--out", str(path)]) == 0
    return path


def facts_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "map.json").read_text())
    return facts


def lasting(facts: dict[str, Any]) -> dict[str, Any]:
    """What is said of a map whenever it is drawn, beside others or not."""
    kept = {k: v for k, v in facts.items() if k not in ("title", "at", "seconds", "drawn")}
    rows = [{k: v for k, v in row.items() if k != "colour"} for row in kept["regions"]]
    return {**kept, "regions": rows}


# ------------------------------------------------------------------------------------ what is known


def test_the_panels_are_the_table_of_where_each_contract_wins(tmp_path: Path) -> None:
    axes = ["--x", "alpha=0.5:0.995:41", "--y", "beta=0.5:0.995:21"]
    each = ["--each", "C1=3/4,3/2,5/2", *EACH[2:]]
    assert main(["map", *axes, *each, "--refine", "0", "--out", str(tmp_path)]) == 0
    table = pd.read_parquet(tmp_path / "map.parquet")
    below = table[table["beta"] <= table["alpha"]]
    known = {
        (0.75, "1:independent"): {"no=train": 393, "infer=full": 22, "no=train=infer=full": 26},
        (1.5, "1:independent"): {"no=train": 350, "infer=full": 76, "no=train=infer=full": 15},
        (2.5, "1/2:independent+1/2:strongest"): {
            "no=train": 276, "infer=full": 12, "full only": 129, "train only": 2, "no only": 10,
            "train & full": 7, "no=train=infer=full": 5,
        },
    }  # fmt: skip
    for (cost, prior), expected in known.items():
        panel = below[(below["C1"] == cost) & (below["world"] == prior)]
        assert expected == Counter(panel["region"])


def test_each_panel_is_the_map_of_its_own_command(folder: Path, tmp_path: Path) -> None:
    facts, table = facts_of(folder), pd.read_parquet(folder / "map.parquet")
    for place in (1, 3, 5):  # every column, both rows; drawing all six is slow
        panel = facts["panels"][place]
        alone = tmp_path / str(place)
        assert main([*shlex.split(panel["command"])[3:], "--out", str(alone)]) == 0
        expected = pd.read_parquet(alone / "map.parquet").astype({"region": str})
        begun = sum(one["points"] for one in facts["panels"][:place])
        found = table[begun : begun + panel["points"]].reset_index(drop=True)
        assert set(found["C1"]) == {float(panel["at"]["C1"])}
        assert set(found["world"]) == {panel["at"]["world"]}
        found = found.drop(columns=["C1", "world"]).astype({"region": str})
        pd.testing.assert_frame_equal(expected, found)
        assert lasting(panel) == lasting(facts_of(alone))
    assert len(table) == facts["points"] == sum(one["points"] for one in facts["panels"])


def test_one_value_is_held_fixed_as_by_set(tmp_path: Path) -> None:
    axes = [*AXES, "--refine", "1", "--out"]
    each = ["--each", "C1=1.5", "--each", "world=1/2:independent+1/2:strongest"]
    held = ["--set", "C1=1.5", "--world", "1/2:independent", "--world", "1/2:strongest"]
    for name, words in (("each", each), ("held", held)):
        assert main(["map", *axes, str(tmp_path / name), *words]) == 0
    for file in ("map.parquet", "map.png"):
        assert (tmp_path / "each" / file).read_bytes() == (tmp_path / "held" / file).read_bytes()
    assert facts_of(tmp_path / "each")["command"] == facts_of(tmp_path / "held")["command"]


def test_the_command_of_all_draws_all_again(folder: Path, tmp_path: Path) -> None:
    words = shlex.split(facts_of(folder)["command"])
    assert main([*words[3:], "--out", str(tmp_path)]) == 0
    for file in ("map.parquet", "map.png"):
        assert (folder / file).read_bytes() == (tmp_path / file).read_bytes()
    assert maps.told(folder)[:-1] == maps.told(tmp_path)[:-1]


# ------------------------------------------------------------------------------- words and pictures


@given(
    costs=st.lists(st.fractions(0, 5, max_denominator=20), min_size=1, max_size=5, unique=True),
    kept=st.lists(st.fractions(0, 1, max_denominator=20), min_size=1, max_size=5, unique=True),
)
def test_columns_vary_first_and_each_panel_is_the_plan_with_its_values_set(
    costs: list[Any], kept: list[Any]
) -> None:
    each = [f"C1={','.join(map(str, costs))}", f"gamma={','.join(map(str, kept))}"]
    if len(costs) * len(kept) > MOST_PANELS:
        with pytest.raises(FedpactError, match="asks for 25 panels"):
            Panels.parse("alpha=.5:1", "beta=.5:1", each=each)
        return
    panels = Panels.parse("alpha=.5:1", "beta=.5:1", each=each)
    assert panels.shape == (len(kept), len(costs))
    assert list(panels.plans) == [
        Plan.parse("alpha=.5:1", "beta=.5:1", [f"C1={cost}", f"gamma={share}"])
        for share in kept
        for cost in costs
    ]


@pytest.mark.parametrize(
    ("each", "shape"),
    [(["C1=1,2,4"], (1, 3)), (["gamma=0.5,1", "C1=1,2,4"], (3, 2)), (["C1=1", "R1=1,2"], (2, 1))],
)
def test_panels_stand_in_columns_and_rows_with_one_legend(
    each: list[str], shape: tuple[int, int]
) -> None:
    panels = Panels.parse("alpha=.5:1:5", "beta=.5:1:5", each=each)
    assert shape == panels.shape
    figure = drawn(panels, [explore(plan, 0) for plan in panels.plans], "nearest")
    FigureCanvasAgg(figure).draw()
    places = [axes.get_position() for axes in figure.axes]
    assert len(places) == shape[0] * shape[1]
    for place, box in enumerate(places):
        row, column = divmod(place, shape[1])
        if column:
            assert places[place - 1].x1 < box.x0
            assert places[place - 1].y0 == pytest.approx(box.y0)
        if row:
            assert places[place - shape[1]].y0 > box.y1
            assert places[place - shape[1]].x0 == pytest.approx(box.x0)
    columns, *rows = panels.each
    over = [axes.get_title() for axes in figure.axes[: shape[1]]]
    assert over == [columns.title(value) for value in columns.values]
    beside = [
        text.get_text() for axes in figure.axes[shape[1] - 1 :: shape[1]] for text in axes.texts
    ]
    assert beside == [one.title(value) for one in rows for value in one.values]
    assert len(figure.legends) == 1


def test_a_region_has_one_colour_in_all_panels(folder: Path) -> None:
    facts = facts_of(folder)
    legend = {row["region"]: row["colour"] for row in facts["regions"]}
    assert len(set(legend.values())) == len(legend)
    assert "train & infer=full" in legend  # one of the regions without a colour of its own
    panels = Panels.parse(AXES[1], AXES[3], each=[COSTS, PRIORS])
    found = [explore(plan, 2) for plan in panels.plans]
    pictures = [axes.images[0].get_array() for axes in drawn(panels, found, "nearest").axes]
    for panel, picture in zip(facts["panels"], pictures, strict=True):
        told = {row["region"]: row["colour"] for row in panel["regions"]}
        assert told.items() <= legend.items()
        assert picture is not None
        red, green, blue = (picture[..., part].astype(int) for part in range(3))
        seen = np.unique(red << 16 | green << 8 | blue)
        assert {f"#{colour:06X}" for colour in seen} <= set(told.values())


def test_the_page_of_all_needs_nothing_but_itself_and_names_each_panel(folder: Path) -> None:
    page, facts = (folder / "map.html").read_text(), facts_of(folder)
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    for panel in facts["panels"]:
        assert page.count(panel["title"]) == 4  # read aloud, in the table, and two details
        assert panel["command"] in page
    for row in facts["regions"]:
        assert row["region"].replace("&", "&amp;") in page


def test_what_is_printed_names_each_panel_over_its_shares(folder: Path) -> None:
    lines, panels = maps.told(folder), facts_of(folder)["panels"]
    assert [line for line in lines if "prior" in line] == [panel["title"] for panel in panels]
    assert lines[0] == "C1 = 0.7555, prior: independent"
    assert lines[-1] == str(folder)
    assert len(lines) == 1 + sum(1 + len(panel["regions"]) for panel in panels)


def test_a_note_names_the_panel_that_it_is_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "MOST_EXACT", 0)
    axes = ["--x", "alpha=.6000001:.8:11", "--y", "beta=.5000003:.6:11", "--refine", "0"]
    each = ["--each", "C1=0.7555001,5", "--world", "1/2:independent", "--world", "1/2:strongest"]
    assert main(["map", *axes, *each, "--out", str(tmp_path)]) == 0
    facts = facts_of(tmp_path)
    left = [panel["title"] for panel in facts["panels"] if panel["counts"]["left"]]
    assert left
    assert [note.partition(":")[0] for note in facts["notes"]] == left


# ----------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"each": ["C1"]}, r"--each is 'C1'; legal is NAME=VALUE,VALUE.* write --each C1=1,2,4"),
        ({"each": ["C9=1,2"]}, r"There is no parameter 'C9'\. Did you mean"),
        ({"each": ["worlds=1:independent"]}, r"no parameter 'worlds'\. Did you mean 'world'\?"),
        ({"each": ["C1=1,,2"]}, r"C1 is ''; legal is a finite number"),
        ({"each": ["gamma=.5,2"]}, r"gamma is 2; legal is a number from 0 to 1"),
        ({"each": ["alpha=.6,.7"]}, r"alpha is given twice; legal .* --each\. Leave one"),
        ({"each": ["C1=1,2"], "sets": ["C1=3"]}, r"C1 is given twice"),
        ({"each": ["C1=1,2", "C1=3,4"]}, r"C1 is given twice"),
        ({"each": ["C1=1,2,1.0"]}, r"has 1 and 1\.0, which are the same; legal .* Leave one"),
        ({"each": ["world=1:.5,1:1/2"]}, r"has 1:\.5 and 1:1/2, which are the same"),
        ({"each": ["world=1:strongest", "world=1:weakest"]}, r"The prior is given twice; legal is"),
        ({"each": ["world=1:strongest"], "worlds": ["1:weakest"]}, r"The prior is given twice"),
        ({"each": ["world=strongest"]}, r"has no weight; .* write --each world=1:strongest"),
        ({"each": ["world=1:strong"]}, r"--each world=1:strong has .* Did you mean 'strongest'\?"),
        ({"each": ["world=1/2:weakest,1/2:strongest"]}, r"sum to 1/2; .* --each world=1/3:indep"),
        ({"each": ["weight=0,1"]}, r"weight is the first of two worlds'"),
        ({"each": ["C1=1,2,3,4,5", "R1=1,2,3,4,5"]}, r"asks for 25 panels; legal are at most 24"),
        ({"each": ["C1=1", "R1=1", "gamma=1"]}, r"--each is given 3 times; legal is at most twice"),
    ],
)
def test_a_mistake_in_what_differs_is_told_before_anything_is_solved(
    arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(FedpactError, match=said):
        Panels.parse("alpha=.5:1", "beta=.5:1", **arguments)


def test_a_panel_without_a_possible_market_is_named_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--x", "alpha=.5:.6:3", "--y", "C1=1:2:3", "--each", "rho1=0.5,0.9"]
    assert main(["map", *words, "--out", str(tmp_path / "none")]) == 2
    said = r"fedpact: In the panel rho1 = 0\.9: No point of the map is a possible market"
    assert re.match(said, capsys.readouterr().err)
    assert not (tmp_path / "none").exists()


def test_a_prior_reads_as_words() -> None:
    title = Each.parse("world=1/3:independent+2/3:0.6,1:0.5").title
    assert title("1/3:independent+2/3:0.6") == "prior: 1/3 independent + 2/3 rho = 0.6"
    assert title("1:0.5") == "prior: rho = 0.5"
