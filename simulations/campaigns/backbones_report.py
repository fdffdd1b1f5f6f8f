"""report.html of the backbones: what a firm would reuse, and how good the forecast was."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from parties.files import write_whole
from simulations.campaigns.backbones_judged import ALL, CENTRED, PIXELS, Judged, answers
from simulations.page import INK, render, svg
from simulations.results import RunFolder

COLOURS = ("#0072B2", "#E69F00", "#009E73")
MARKS = ("o", "s", "^")


def write_pages(found: Judged, folder: RunFolder) -> None:
    """Write report.html of a campaign that has ended."""
    shown = found.forecasts["data"].drop_duplicates().tolist()
    content = {
        "name": folder.path.name,
        "answers": answers(found),
        "table": _nested(found.table),
        "choices": found.choices.to_dict("records"),
        "columns": shown,
        "forecasts": {
            name: {row["data"]: row for row in part.to_dict("records")}
            for name, part in found.forecasts.groupby("forecast", sort=False)
        },
        "words": {ALL: "all data sets", CENTRED: "all, centred"},
        "picture": svg(lambda: _drawn(found), {}, "backbones"),
        "provenance": (folder.path / "provenance.json").read_text("utf-8"),
        "config": (folder.path / "config.yaml").read_text("utf-8"),
    }
    write_whole(folder.path / "report.html", render("campaigns/backbones.html", content))


def _nested(table: pd.DataFrame) -> dict[str, list[dict[Hashable, Any]]]:
    groups = table.groupby("data", sort=False)
    return {str(data): part.to_dict("records") for data, part in groups}


def _drawn(found: Judged) -> Figure:
    """Forecast against accuracy, a panel a data set; the line is where they are equal."""
    offered = found.table[found.table["weights"] == _offered(found)]
    names = list(dict.fromkeys(offered["backbone"]))
    sets = list(dict.fromkeys(found.table["data"]))
    columns = min(2, len(sets))
    lines = math.ceil(len(sets) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.5 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, data in zip(panels, sets, strict=False):
        for name, colour, mark in zip(names, COLOURS, MARKS, strict=False):
            part = offered[(offered["data"] == data) & (offered["backbone"] == name)]
            xy = (part["forecast"], part["accuracy"])
            panel.plot(*xy, mark, color=colour, label=name, markersize=5)
            last = part.iloc[-1]
            panel.annotate(
                "last",
                (last["forecast"], last["accuracy"]),
                (4, -9),
                size=7,
                textcoords="offset points",
            )
        own = found.table[(found.table["data"] == data) & (found.table["backbone"] == PIXELS)]
        panel.plot(own["forecast"], own["accuracy"], "*", color=INK, markersize=11, label=PIXELS)
        low, high = (f(*panel.get_xlim(), *panel.get_ylim()) for f in (min, max))
        panel.plot([low, high], [low, high], color=INK, linewidth=0.6, linestyle=(0, (3, 3)))
        panel.set_title(data, size=10)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(sets) :]:
        panel.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
    figure.supxlabel("forecast: cross-validated accuracy on the labelled images", size=9)
    figure.supylabel("accuracy on held-out images", size=9)
    return figure


def _offered(found: Judged) -> str:
    return "pretrained" if "pretrained" in set(found.table["weights"]) else "untrained"
