"""report.html and compare.png of a comparison: which method, in which setting, for whom."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from parties.files import write_whole
from simulations.compare import Plan, interval_names
from simulations.page import INK, render, svg
from simulations.results import RunFolder

MOST = 60  # verdicts that are listed one by one
DECISIONS = ("signs", "undecided", "refuses")


def write_comparison(plan: Plan, folder: RunFolder) -> None:
    """Write report.html and compare.png of a comparison that has ended, from its files."""
    found = folder.read_json("compare.json")
    summary, verdicts = found["summary"], found["verdicts"]
    if plan.watch:
        write_whole(folder.path / "compare.png", _png(plan, summary))
    content = {
        "name": folder.read_json("provenance.json").get("study") or folder.path.name,
        "plan": plan,
        "level": interval_names(plan, folder.path),
        "summary": {(row["setting"], row["method"]): row for row in summary},
        "counted": {(row["setting"], row["method"]): row for row in _counted(plan, verdicts)},
        "verdicts": verdicts,
        "listed": len(verdicts) <= MOST,
        "picture": svg(lambda: _drawn(plan, summary), {}, "compare") if plan.watch else "",
        "provenance": (folder.path / "provenance.json").read_text("utf-8"),
        "config": (folder.path / "config.yaml").read_text("utf-8"),
    }
    write_whole(folder.path / "report.html", render("compare.html", content))


def _counted(plan: Plan, verdicts: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row a setting and method: how many firms sign, are undecided, refuse; the mean gain."""
    for setting, method, _ in plan.cells:
        rows = [v for v in verdicts if (v["setting"], v["method"]) == (setting, method)]
        gains = [v["gain"] for v in rows if v["gain"] is not None]
        yield {
            "setting": setting,
            "method": method,
            **{d: sum(v["decision"] == d for v in rows) for d in DECISIONS},
            "gain": float(np.mean(gains)) if gains else None,
        }


def _png(plan: Plan, summary: Sequence[Mapping[str, Any]]) -> bytes:
    file = io.BytesIO()
    with mpl.rc_context():
        _drawn(plan, summary).savefig(file, format="png", dpi=130, metadata={"Software": None})
    return file.getvalue()


def _drawn(plan: Plan, summary: Sequence[Mapping[str, Any]]) -> Figure:
    """Differences to the reference, a panel a setting, with their intervals."""
    table = pd.DataFrame(summary).set_index(["setting", "method"])
    settings, methods = list(plan.settings), [m for m in plan.methods if m != plan.reference]
    size = (2.2 + 2.6 * len(settings), 1.4 + 0.4 * len(methods))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(settings), sharey=True, squeeze=False)[0]
    places = np.arange(len(methods))[::-1]
    for panel, setting in zip(axes, settings, strict=True):
        part = table.loc[setting].loc[methods]
        width = part["last_half_width"].astype(float)
        panel.errorbar(
            part["last_difference"], places, xerr=width, fmt="o", color="#0072B2", capsize=3
        )
        panel.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (3, 3)))
        base = next(
            r["last"] for r in summary if (r["setting"], r["method"]) == (setting, plan.reference)
        )
        panel.set_title(f"{setting}\n{plan.reference} {base:.1f} %", size=9)
        panel.set_yticks(places, methods)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        f"accuracy of the last {plan.last} rounds minus {plan.reference}'s, points; 95 % interval "
        "over paired seeds",
        size=9,
    )
    return figure
