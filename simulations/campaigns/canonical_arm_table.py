"""table.csv and report.html of the campaign on ARM and canonicalization, from its cases.csv."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from parties.files import write_whole
from simulations.page import INK, number, render, svg
from simulations.results import RunFolder

MEANS = ["arm", "floor", "zero_shot_accuracy", "ceiling", "epochs"]
DECISIONS = ("as_is", "fine_tune", "scratch")
VIEWS = {"plain": "#8C8C8C", "canonical": "#009E73"}
TURNED = "rotation"
HALF = "rotation_180"


def table_of(cases: pd.DataFrame) -> pd.DataFrame:
    """A row a shift and view: means over models, and how often each decision was taken.

    Returns:
        Columns shift, view, models; arm, floor, zero_shot_accuracy, ceiling, epochs (means) and
        the first, third and last with their standard deviations over models as <name>_sd;
        as_is, fine_tune, scratch (counts).
    """
    groups = cases.groupby(["shift", "view"], sort=False)
    table = groups[MEANS].mean()
    table.insert(0, "models", groups["model"].nunique())
    for name in ("arm", "zero_shot_accuracy", "epochs"):
        table[f"{name}_sd"] = groups[name].std()
    for decision in DECISIONS:
        taken = cases["decision"] == decision
        table[decision] = taken.groupby([cases["shift"], cases["view"]]).sum()
    return table.reset_index()


def facts_of(table: pd.DataFrame) -> list[str]:
    """What canonicalization does to turned images, to half a turn and to the others."""
    rows = table.set_index(["shift", "view"])
    said = []
    shifts = list(dict.fromkeys(table["shift"]))
    turned = [s for s in shifts if s.startswith(TURNED) and s != HALF]
    for name, chosen in (
        ("Turns that ARM sees", turned),
        ("Half a turn", [s for s in shifts if s == HALF]),
        ("Upright images", [s for s in shifts if s == "upright"]),
        ("Other shifts", [s for s in shifts if not s.startswith((TURNED, "upright"))]),
    ):
        if not chosen:
            continue
        plain, found = (rows.loc[[(shift, view) for shift in chosen]].mean() for view in VIEWS)
        cases = sum(int(rows.loc[(shift, "plain"), "models"]) for shift in chosen)
        reused = [sum(int(rows.loc[(shift, view), "as_is"]) for shift in chosen) for view in VIEWS]
        said.append(
            f"{name}: ARM {plain['arm']:.3f} becomes {found['arm']:.3f} (floor "
            f"{plain['floor']:.3f}), accuracy as it is {plain['zero_shot_accuracy']:.3f} becomes "
            f"{found['zero_shot_accuracy']:.3f}, retraining {plain['epochs']:.2f} epochs "
            f"becomes {found['epochs']:.2f}; the judge reuses the model as it is in "
            f"{reused[0]}, then {reused[1]} of {cases} cases."
        )
    return said


def write_report(folder: RunFolder, required: float) -> list[str]:
    """Write table.csv and report.html; what a person should read on the screen, a line each."""
    table = table_of(pd.read_csv(folder.path / "cases.csv"))
    write_whole(folder.path / "table.csv", table.to_csv(index=False).encode())
    facts = facts_of(table)
    content = {
        "rows": table.to_dict("records"),
        "facts": facts,
        "required": required,
        "picture": svg(lambda: _drawn(table), {"font.size": 8.5}, "canonical_arm"),
        "provenance": (folder.path / "provenance.json").read_text("utf-8"),
        "config": (folder.path / "config.yaml").read_text("utf-8"),
    }
    write_whole(folder.path / "report.html", render("campaigns/canonical_arm.html", content))
    return [*_lines(table), *facts, f"Report   {folder.path / 'report.html'}"]


def _lines(table: pd.DataFrame) -> list[str]:
    lines = [
        f"{'':14}{'':11}{'ARM':>7}{'floor':>7}{'as it is':>10}{'ceiling':>9}{'epochs':>8}"
        f"{'as_is':>7}{'fine_tune':>11}{'scratch':>9}"
    ]
    for row in table.to_dict("records"):
        shift = row["shift"] if row["view"] == "plain" else ""
        lines.append(
            f"{shift:14}{row['view']:11}{_short(row['arm']):>7}{_short(row['floor']):>7}"
            f"{_short(row['zero_shot_accuracy']):>10}{_short(row['ceiling']):>9}"
            f"{number(row['epochs'], digits=2):>8}"
            f"{row['as_is']:>7}{row['fine_tune']:>11}{row['scratch']:>9}"
        )
    return lines


def _short(value: float) -> str:
    return number(value, digits=3).replace("0.", ".", 1)


def _drawn(table: pd.DataFrame) -> Figure:
    """ARM, accuracy as it is and epochs of retraining, before and after, a pair of bars a shift."""
    figure = Figure(figsize=(9.2, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    shifts = list(dict.fromkeys(table["shift"]))
    places = dict(zip(shifts, range(len(shifts)), strict=True))
    for panel, name, title in zip(
        panels,
        ("arm", "zero_shot_accuracy", "epochs"),
        ("ARM", "accuracy as it is", "epochs of retraining"),
        strict=True,
    ):
        for side, (view, colour) in enumerate(VIEWS.items()):
            part = table[table["view"] == view]
            at = [places[s] + 0.4 * side - 0.2 for s in part["shift"]]
            panel.bar(at, part[name], 0.38, color=colour, label=view)
            panel.errorbar(
                at, part[name], part[f"{name}_sd"].fillna(0), fmt="none", ecolor=INK, elinewidth=0.7
            )
        panel.set_xticks(range(len(shifts)), shifts, rotation=40, ha="right")
        panel.set_title(title, size=9)
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    floor = table["floor"].mean()
    panels[0].axhline(floor, color=INK, linewidth=0.7, linestyle=(0, (3, 3)))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return figure
