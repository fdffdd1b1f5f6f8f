"""sweep.html: one safe file on many studies, whatever their axes, firms and failures."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulations.results import RunFolder
from simulations.sweeps import maps
from simulations.sweeps.agreement import agreement
from simulations.sweeps.axes import axis_of
from simulations.sweeps.columns import axes_of
from simulations.sweeps.noise import borne
from simulations.sweeps.report import ROWS, SCRIPT, write_sweep_report
from simulations.sweeps.sensitivity import effects
from simulations.sweeps.table import table_of
from simulations.terminal import print_sweep
from tests.sweep_tables import (
    CONTRACTS,
    FULL,
    INFER,
    TRAIN,
    facts_of,
    failed,
    grid,
    study_table,
    without,
)
from tests.test_report import LOADING, Page

STEPS = [-2.0, -1.0, -0.1, 0.5, 2.0]
THREE = grid(market_C1=STEPS, market_R0=[-1.0, 0.0, 1.0], play=["myopic", "equilibrium"])
RANDOM = pd.DataFrame(np.random.default_rng(0).uniform(-2, 2, (30, 2)), columns=["a.x", "a.y"])


def undecided(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    table[[c for c in table if c.endswith((".signed", ".irpo"))]] = pd.NA
    table[[c for c in table if c.endswith(".decision")]] = "undecided"
    return table.assign(best=None)


def only_full(table: pd.DataFrame) -> pd.DataFrame:
    """A sweep in which firms are offered nothing but full_sharing."""
    others = [c for c in table if c.startswith(("train", "infer"))]
    return table.drop(columns=others)


TABLES: dict[str, pd.DataFrame] = {
    "no axis": study_table(pd.DataFrame(index=[0])),
    "one axis": study_table(grid(market_C1=STEPS)),
    "one axis of words": study_table(grid(play=["myopic", "equilibrium", "[1, 2]"])),
    "two axes": failed(study_table(grid(market_C1=STEPS, market_R0=STEPS)), [3], "E", "broke"),
    "three axes": only_full(study_table(THREE)),
    "random": only_full(study_table(RANDOM)),
    "three firms": study_table(grid(market_C1=STEPS), ("a", "b", "c")),
    "not held": without(failed(study_table(grid(C=STEPS, R=STEPS)), [3], "E", ""), TRAIN, [0, 6]),
    "not held on one axis": without(study_table(grid(market_C1=STEPS)), TRAIN, [0, 2]),
    "not held anywhere on a grid": without(study_table(RANDOM), INFER, list(range(7))),
    "all failed": failed(study_table(grid(market_C1=STEPS)), list(range(5)), "ValueError", "broke"),
    "all undecided": undecided(study_table(grid(market_C1=STEPS, play=["x"]))),
}


def page_of(table: pd.DataFrame, folder: Path, **facts: Any) -> Page:
    return Page(write_sweep_report(table, facts_of(table, **facts), folder))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    folder = tmp_path_factory.mktemp("pages")
    return {name: page_of(table, folder) for name, table in TABLES.items()}


def labels(page: Page) -> list[str]:
    return [figure["aria-label"] for figure in page.named("figure")]


def drawn(page: Page) -> list[str]:
    return [text for tag, text in page.texts if tag == "text"]


def body_of(page: Page, table: str) -> list[list[str]]:
    """The words of a table's rows."""
    found = re.search(rf'<table id="{table}">.*?</table>', page.source, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", found[0].split("</thead>")[1], re.DOTALL)
    return [re.findall(r"<td>(.*?)</td>", row) for row in rows]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_a_page_that_is_whole_and_accessible(
    name: str, pages: dict[str, Page]
) -> None:
    page = pages[name]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels.count(2) == 8
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(f["role"] == "img" and f["aria-label"] for f in page.named("figure"))
    assert all(cell.get("scope") for cell in page.named("th"))
    assert len(page.named("table")) == len(page.named("caption"))
    ids = Counter(attrs["id"] for _, attrs in page.tags if "id" in attrs)
    assert [name for name, times in ids.items() if times > 1] == []
    assert set(re.findall(r'(?:url\(|xlink:href=")#([^)"]+)', page.source)) <= set(ids)
    assert set(re.findall(r'getElementById\("(\w+)"\)', SCRIPT.read_text())) <= set(ids)
    assert len(body_of(page, "studies")) == len(TABLES[name])
    words = [page.text, *(f["aria-label"] for f in page.named("figure"))]
    assert not re.search(r"\bnan\b|\bNone\b|<NA>", " ".join(words))


@pytest.mark.parametrize("name", ["two axes", "random"])
def test_the_page_loads_nothing_and_runs_only_its_own_script(
    name: str, pages: dict[str, Page]
) -> None:
    page = pages[name]
    for _, attrs in page.tags:
        for key, value in attrs.items():
            assert key not in LOADING or value.startswith(("#", "data:image/png;base64,"))
            assert not key.startswith("on")
    assert re.findall(r"url\((?!#)", page.source) == []
    assert re.findall(r"https?://", page.source) == []
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv"))
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{hashed}'"
    )


def test_the_headline_counts_the_studies(pages: dict[str, Page]) -> None:
    table = TABLES["two axes"]
    best = Counter(table["best"].dropna())
    open_ = int((table["best"].isna() & (table["status"] == "ok")).sum())
    assert (best[FULL], best["no_sharing"], open_) == (10, 11, 3)  # by s = C1 + R0, and one failed
    text = pages["two axes"].text
    assert "Of 25 studies, the best contract that every firm signs is" in text
    assert "full_sharing in 10 (40 %), " in text
    assert "no_sharing in 11 (44 %), undecided in 3 (12 %); 1 failed." in text
    signed = table[f"{TRAIN}.signed"]
    words = f"every firm signs in {(signed == True).sum()}, some firm refuses in"  # noqa: E712
    assert f"{words} {(signed == False).sum()}, undecided in {24 - signed.count()} of 24." in text  # noqa: E712


def test_the_headline_says_what_best_means_and_nothing_more(pages: dict[str, Page]) -> None:
    text = pages["two axes"].text
    assert (
        "Best: the contract with the largest mean joint surplus among those that every firm signs "
        "(no_sharing has 0); undecided while one that is not decided yet could have a larger one."
    ) in text
    told = "no_sharing : no contract that every firm signs has a larger joint surplus in 11."
    assert told in text


def test_a_contract_that_a_study_did_not_hold_is_neither_undecided_nor_failed(
    pages: dict[str, Page],
) -> None:
    page, whole = pages["not held"], pages["two axes"]
    assert "of 22 that held it." in page.text
    assert page.text.count("that held it") == 1
    cells = [row for row in body_of(page, "studies") if "not held" in row]
    assert [row[0] for row in cells] == ["0", "6"]
    assert all(row[4:].count("not held") == 1 for row in cells)
    gains = next(f for f in labels(page) if f.startswith(f"{TRAIN}: joint surplus: "))
    assert gains.endswith(", not held in 2")
    measured = next(f for f in labels(page) if f.startswith(f"{TRAIN}, measured"))
    assert "failed in 1, not held in 2" in measured
    # Joint surplus and two firms' gains, measured and predicted verdict: two cells each.
    assert drawn(page).count("∅") == 5 * 2
    assert drawn(page).count("!") == drawn(whole).count("!")
    assert page.source.count("∅</span>not held") == 1  # the legend
    assert page.text.count("∅: not held") == 1
    assert "∅" not in whole.source


def test_a_cell_of_several_studies_tells_of_those_that_held_the_contract() -> None:
    table = THREE.assign(**{"market.C1": 1.0})
    plane = maps.plane_of(axes_of(table, facts_of(study_table(table)))[1:])
    found = np.where(table["market.R0"] == 0, "not held", "signs").astype(object)
    found[(table["market.R0"] == 1) & (np.arange(len(table)) > 5)] = "not held"
    first = (table["market.R0"] == 0) & (np.arange(len(table)) < 6)
    found[first & (table["play"] == "myopic")] = "failed"
    words, svg = maps.kind_map(plane, "t", found, maps.VERDICTS)
    assert words == "t, of 30 studies: signs in 12, failed in 1, not held in 17"
    letters = Counter(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert (letters["✓"], letters["∅"], letters["∅!"]) == (4, 1, 1)
    absent, money = found == "not held", np.where(found == "signs", 1.0, np.nan)
    _, svg = maps.amount_map(plane, "t", money, money < 0, absent, 1.0, "money")
    letters = Counter(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert (letters["+1.00"], letters["∅"], letters["∅!"]) == (4, 1, 1)


def test_on_two_axes_every_cell_of_the_map_has_the_letter_of_its_contract(
    pages: dict[str, Page],
) -> None:
    source = pages["two axes"].source
    panel = source.split("best contract that every firm signs, of")[1].split("</svg>")[0]
    letters = Counter(re.findall(r"<text[^>]*>(\S+)</text>", panel))
    assert {k: letters[k] for k in "FNT?!"} == {"F": 10, "N": 11, "T": 0, "?": 3, "!": 1}


def test_gains_are_written_into_the_cells_and_told_in_words(pages: dict[str, Page]) -> None:
    page = pages["two axes"]
    assert drawn(page).count("+4.00") == 1  # alice under full_sharing, C1 = R0 = 2
    gains = [text for text in labels(page) if text.startswith(f"{FULL}: alice")]
    assert gains[0].startswith(
        f"{FULL}: alice: \N{MINUS SIGN}4 to +4 money a client, above zero in"
    )
    assert len([text for text in labels(page) if ": joint surplus: " in text]) == len(CONTRACTS)


def test_studies_that_lie_anywhere_are_points_and_grids_are_cells(pages: dict[str, Page]) -> None:
    planes = {}
    for name in ("random", "two axes", "one axis"):
        planes[name] = maps.plane_of(axes_of(TABLES[name], facts_of(TABLES[name])))
    assert {name: plane.cells for name, plane in planes.items()} == {
        "random": False,
        "two axes": True,
        "one axis": True,
    }
    assert "nothing was measured between points" in pages["random"].text
    refined = axes_of(study_table(RANDOM.head(8)), facts_of(study_table(RANDOM.head(8))))
    assert not maps.plane_of(refined).cells


def test_axes_by_logarithm_have_plain_numbers_and_words_have_room() -> None:
    table = RANDOM.head(20).assign(play=["myopic", "equilibrium"] * 10)
    table["a.x"] = np.exp(2 * table["a.x"])
    told = [{"key": "a.x", "log": True}, {"key": "play", "values": ["myopic", "equilibrium"]}]
    plane = maps.plane_of(axes_of(table, {"axes": told}))
    kinds = maps.kinds_of(CONTRACTS)
    _, svg = maps.kind_map(plane, "best", np.array([FULL] * 20, dtype=object), kinds)
    words = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"0.1", "1", "10", "myopic", "equilibrium"} <= set(words)
    assert not any("$" in word for word in words)
    heights = re.findall(r'<use[^>]* y="([\d.]+)"', svg)
    assert len(set(heights)) > 20  # not on two lines


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["myopic", "equilibrium"], ["myopic", "equilibrium"]),
        (['["a", "b"]', '["a", "c", "d"]', '["a"]'], ["b", "c, d", "a"]),
        (['["a", "b"]', '["b", "a"]'], ["a, b", "b, a"]),
        (["[4]", "[40000, 40000]"], ["4", "40000, 40000"]),
        (["null", '["no_sharing", "full_sharing"]'], ["null", '["no_sharing"…']),
        (["a long name for one", "a long name for two"], ["…one", "…two"]),
        (["a long name for", "a long name for two"], ["…", "… two"]),
        (["an only name that is cut"], ["an only name …"]),
        (
            ["x" + 19 * "y" + "1", "z" + 19 * "y" + "1"],
            ["x" + 12 * "y" + "…", "z" + 12 * "y" + "…"],
        ),
        (["x" + 19 * "y" + c for c in "12"] + ["z"], ["x" + 19 * "y" + c for c in "12"] + ["z"]),
    ],
)
def test_labels_are_as_short_as_keeps_them_apart(names: list[str], expected: list[str]) -> None:
    assert maps.apart(names, 14) == expected


def test_on_an_axis_of_contracts_each_label_is_what_is_offered_besides() -> None:
    offered = [f'["no_sharing", "{name}"]' for name in (TRAIN, FULL)]
    table = study_table(pd.DataFrame({"study.contracts": offered}))
    plane = maps.plane_of(axes_of(table, facts_of(table)))
    _, svg = maps.kind_map(plane, "t", table["best"].to_numpy(), maps.kinds_of([TRAIN, FULL]))
    assert {TRAIN, FULL} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def test_of_three_axes_the_maps_show_the_two_that_matter(pages: dict[str, Page]) -> None:
    page = pages["three axes"]
    assert "hangs most, market.C1 and market.R0; also varied: play." in page.text
    assert "A cell holds several studies, which differ on play" in page.text
    assert "play" not in drawn(page)


def test_one_axis_has_lines_with_a_mark_for_each_firm(pages: dict[str, Page]) -> None:
    page = pages["one axis"]
    told = [text for text in labels(page) if text.startswith("Gains under")]
    assert len(told) == len(CONTRACTS)
    assert f"Gains under {FULL} along market.C1: alice \N{MINUS SIGN}2 to +2; bob" in told[-1]
    assert drawn(page).count("joint surplus") == len(CONTRACTS)


def test_measured_verdicts_stand_beside_the_predicted_ones(pages: dict[str, Page]) -> None:
    page = pages["two axes"]
    pairs = [text for text in labels(page) if re.match(r"\w+, (measured|predicted)", text)]
    assert [re.split(", of", text)[0] for text in pairs] == [
        f"{contract}, {part}" for contract in CONTRACTS for part in ("measured", "predicted")
    ]
    assert "infer_sharing : measured and predicted verdicts agree in 24 of 24 decided" in page.text


def test_an_axis_that_cannot_say_anything_has_no_share(pages: dict[str, Page]) -> None:
    table = study_table(grid(market_C1=STEPS, play=["myopic", "equilibrium"], market_R0=[0.0]))
    found = [e for e in effects(table, axes_of(table, facts_of(table))) if e.tells]
    assert {effect.axis for effect in found} == {"market.C1", "play"}
    assert "Left out are axes with one value or range" in pages["two axes"].text
    assert '<table id="effects">' not in pages["one axis"].source
    assert "or as many as there are studies, so what it explains" in pages["one axis"].text
    assert "No axis has more than one value, so none explains" in pages["no axis"].text
    assert "No answer varies between the studies" in pages["all failed"].text


def test_without_a_prediction_there_is_one_sentence_instead(tmp_path: Path) -> None:
    table = TABLES["one axis"].copy()
    table[[c for c in table if c.endswith("predicted_signed")]] = pd.NA
    page = page_of(table, tmp_path)
    assert "There is no prediction: the firms contest no clients" in page.text
    assert not [text for text in labels(page) if ", predicted" in text]


def test_the_front_of_gains_that_rise_together_is_the_largest(pages: dict[str, Page]) -> None:
    for name in ("one axis", "three firms"):
        page = pages[name]
        assert "Outcomes on the front (1)" in page.text
        (label,) = [text for text in labels(page) if "on the front" in text]
        assert label.startswith("gain of " + ("alice" if name == "one axis" else "the firm that"))
        best = "+2, +2.1" if name == "one axis" else "+2, +6.3"
        assert label.endswith(f"on the front: full_sharing {best}")


def test_where_all_studies_failed_the_page_says_so_and_lists_them(pages: dict[str, Page]) -> None:
    page = pages["all failed"]
    assert "All 5 studies failed, so nothing is known" in page.text
    assert page.text.count("no study was finished") == 3
    assert "ValueError in 5." in page.text
    assert re.findall(r"<pre>(fedpact .*?)</pre>", page.source) == [
        f"fedpact sweep=none &#39;play=the {job}th&#39;" for job in range(5)
    ]
    assert labels(page) == []


@pytest.mark.parametrize(
    ("facts", "asked", "told"),
    [
        ({"interrupted": True}, 9, "Interrupted: 4 of 9 studies were not held."),
        (
            {"stopped": True},
            12,
            "Stopped at a failure (launch.on_failure=stop): 7 of 12 studies were not held.",
        ),
        ({"interrupted": True}, 5, "Interrupted: all 5 studies asked for by then were held."),
        ({"interrupted": True}, None, "Interrupted: not every study was held."),
        ({}, 9, ""),
    ],
)
def test_a_table_that_is_not_whole_is_said_to_be(
    facts: dict[str, Any],
    asked: int | None,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = TABLES["one axis"]
    known = facts_of(table, agreement=agreement(table), **facts)
    if asked is not None:
        known["counts"]["asked"] = asked
    text = Page(write_sweep_report(table, known, tmp_path)).text
    print_sweep(table, known, RunFolder(tmp_path))
    screen = capsys.readouterr().out.splitlines()
    if told:
        assert f"{told} All below is of those that were." in text
        assert told in screen
    else:
        assert "not held" not in text
        assert not [line for line in screen if "not held" in line]


def test_a_sweep_that_was_interrupted_before_any_study_ended_has_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = [{"key": "market.C1", "values": [1, 2]}]
    counts = {"jobs": 0, "ok": 0, "failed": 0, "undecided": 0, "asked": 2}
    nothing = {"axes": axes, "counts": counts, "firms": [], "contracts": [], "unit": ""}
    facts = facts_of(TABLES["one axis"], interrupted=True, agreement={}, **nothing)
    table = table_of([axis_of("market.C1", [1, 2])], [])
    print_sweep(table, facts, RunFolder(tmp_path))
    assert "Interrupted: 2 of 2 studies were not held." in capsys.readouterr().out
    page = Page(write_sweep_report(table, facts, tmp_path))
    assert "Interrupted: 2 of 2 studies were not held." in page.text
    assert "No study was held, so nothing is known about any contract." in page.text


def test_where_all_is_undecided_no_share_is_made_up(pages: dict[str, Page]) -> None:
    page = pages["all undecided"]
    assert "undecided in 5 (100 %)" in page.text
    assert page.text.count("no study is decided, so nothing can be compared") == 3


def test_a_failed_study_whose_command_is_not_known_is_listed_without(tmp_path: Path) -> None:
    page = page_of(TABLES["all failed"], tmp_path, failures=[])
    assert page.text.count("ValueError : broke") == 5
    assert "sweep=none" not in page.text


HOSTILE = "</td></svg><script>alert(1)</script><img src=x onerror=alert(2)>&$\\frac{1$"


def test_hostile_names_and_messages_stay_words(tmp_path: Path) -> None:
    firm = HOSTILE.replace(".", "")
    for design in (grid(market_C1=[0.0, 1.0]), grid(market_C1=[0.0, 1.0], market_R0=[0.0, 1.0])):
        table = only_full(failed(study_table(design, (firm, "bob")), [0], HOSTILE, HOSTILE))
        page = page_of(table, tmp_path, name=HOSTILE, notes=[HOSTILE], design=HOSTILE)
        assert [tag for tag, _ in page.tags].count("script") == 1
        assert "img" not in {tag for tag, _ in page.tags}
        assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
        assert page.text.count(HOSTILE) >= 5


def test_a_thousand_studies_keep_the_page_below_three_megabytes(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    design = pd.DataFrame(random.uniform(-2, 2, (1_000, 2)), columns=["market.C1", "market.R0"])
    design["play"] = random.choice(["myopic", "equilibrium"], 1_000)
    page = page_of(study_table(design), tmp_path)
    assert len(page.source) < 3e6
    assert len(body_of(page, "studies")) == 1_000


def test_of_very_many_studies_the_first_are_shown_and_the_rest_is_pointed_to(
    tmp_path: Path,
) -> None:
    table = study_table(pd.DataFrame({"x": [1.0] * (ROWS + 1)}))
    page = page_of(table, tmp_path)
    assert len(body_of(page, "studies")) == ROWS
    assert "The first 2,000 of 2,001 studies; all are in sweep.csv" in page.text


@pytest.mark.parametrize("name", ["one axis of words", "all failed", "all undecided"])
def test_the_table_on_disk_gives_the_same_bytes(
    name: str, tmp_path: Path, pages: dict[str, Page]
) -> None:
    table, facts = TABLES[name], facts_of(TABLES[name])
    first = pages[name].source.encode()
    table.to_csv(tmp_path / "sweep.csv", index=False)
    table.to_parquet(tmp_path / "sweep.parquet")
    csv, parquet = pd.read_csv(tmp_path / "sweep.csv"), pd.read_parquet(tmp_path / "sweep.parquet")
    for read in (csv, parquet):
        assert write_sweep_report(read, facts, tmp_path).read_bytes() == first


def test_the_optimum_of_a_search_is_told(tmp_path: Path) -> None:
    optimum = {"values": {"market.C1": 2.0}, "surplus": 4.1}
    text = page_of(TABLES["one axis"], tmp_path, extra={"optimum": optimum, "regret": 0}).text
    assert "its optimum at market.C1=2.0 : joint surplus +4.1000." in text
    assert '"regret": 0' in text


# ------------------------------------------------------------------------ along an axis of epsilon

EPSILON = "contract.full_sharing.prediction_epsilon"


def along_epsilon(gains: dict[float, float], **others: list[Any]) -> pd.DataFrame:
    """Studies whose first firm gains so much from full_sharing at each epsilon, whatever else."""
    axes = grid(market_R0=list(gains.values()), **others)
    table = study_table(axes[["market.R0"]])
    for key in axes.columns[1:]:
        table.insert(2, key, axes[key])
    table.insert(1, EPSILON, [e for e in gains for _ in range(len(axes) // len(gains))])
    return table.drop(columns="market.R0")


def told_of(table: pd.DataFrame, *keys: str) -> list[str]:
    return borne(table, axes_of(table, {"axes": [{"key": key} for key in (EPSILON, *keys)]}))


def test_no_noise_lies_beyond_every_epsilon_and_is_called_off() -> None:
    table = along_epsilon({8.0: 1.0, 0.0: 1.0, 0.5: 1.0})
    axis = axes_of(table, {"axes": [{"key": EPSILON}]})[0]
    assert axis.labels == ["0.5", "8", "off"]
    assert axis.positions.tolist() == [1, 2, 0]
    assert axis.ordered
    without_off = axes_of(table.iloc[[0, 2]], {"axes": [{"key": EPSILON}]})[0]
    assert without_off.levels == (0.5, 8.0)
    assert without_off.numeric


@pytest.mark.parametrize(
    ("gains", "sentence"),
    [
        (
            {0.0: 1.0, 4.0: 1.0, 2.0: 0.0, 1.0: -1.0},
            "every firm signs from off to 4, undecided at 2, some firm refuses at 1. It is "
            "individually rational from off to 4. It stops being so below 4: at 2 it is undecided. "
            "alice signs from off to 4. bob signs from off to 4.",
        ),
        (
            {0.0: -1.0, 4.0: 1.0, 1.0: -1.0},
            "some firm refuses at off, every firm signs at 4, some firm refuses at 1. It is "
            "individually rational at 4. It stops being so below 4: at 1 some firm refuses. "
            "alice signs at 4. bob signs at 4.",
        ),
        (
            {0.0: 1.0, 1.0: 1.0},
            "every firm signs from off to 1. It is individually rational at every one of them.",
        ),
        (
            {0.0: -1.0, 1.0: -1.0},
            "some firm refuses from off to 1. It is individually rational at none of them.",
        ),
        (
            {0.0: 0.15, 1.0: -1.0},
            "undecided at off, some firm refuses at 1. It is individually rational at none of "
            "them. bob signs at off.",
        ),
    ],
)
def test_a_sentence_says_how_much_noise_a_contract_bears(
    gains: dict[float, float], sentence: str
) -> None:
    assert told_of(along_epsilon(gains)) == [f"full_sharing by prediction_epsilon: {sentence}"]


def test_each_value_of_another_axis_has_its_own_sentence(tmp_path: Path) -> None:
    table = along_epsilon({0.0: 1.0, 1.0: -1.0}, play=["myopic", "equilibrium"])
    found = told_of(table, "play")
    assert [line.split(":")[0] for line in found] == [
        f"full_sharing by prediction_epsilon with play={play}" for play in ("myopic", "equilibrium")
    ]
    page = page_of(table, tmp_path)
    assert all(line in page.text for line in found)
    assert told_of(failed(table, [0, 1, 2, 3], "E", "broke"), "play") == []
