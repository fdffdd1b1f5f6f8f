"""Charts of a sweep beside its maps: gains along one axis, and the Pareto front of gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from parties.exchange import Array
from simulations.page import INK
from simulations.sweeps.columns import Axis, amounts, holds
from simulations.sweeps.maps import EDGE, GUIDE, POINTS, SHAPES, Kind, Panel, panel, short, ticks
from simulations.sweeps.pareto import pareto_front

FIRM_COLOURS = ("#0072B2", "#E69F00", "#CC79A7", "#56B4E9")


def gain_lines(
    table: pd.DataFrame, axis: Axis, contract: str, firms: Sequence[str], unit: str
) -> Panel:
    """Each firm's gain along the only axis, with its interval; hollow where it is undecided."""
    order = np.argsort(axis.positions, kind="stable")
    order = order[holds(table, contract)[order]]
    x = axis.positions[order]

    def draw(axes: Axes) -> None:
        for place, firm in enumerate(firms):
            gain, low, high = (
                amounts(table[f"{contract}.{firm}.{part}"])[order]
                for part in ("gain", "low", "high")
            )
            undecided = (table[f"{contract}.{firm}.decision"] == "undecided").to_numpy()[order]
            colour, marker = FIRM_COLOURS[place % 4], SHAPES[place % 5][0]
            axes.vlines(x, low, high, color=colour, linewidth=0.9, alpha=0.7)
            line = "-" if axis.ordered else "none"
            axes.plot(x, gain, linestyle=line, color=colour, linewidth=1, alpha=0.6)
            few: dict[str, Any] = {"linestyle": "none", "marker": marker, "markeredgecolor": colour}
            axes.plot(x[undecided], gain[undecided], markerfacecolor="none", **few)
            axes.plot(x[~undecided], gain[~undecided], color=colour, label=short(firm, 18), **few)
        surplus = amounts(table[f"{contract}.surplus"])[order]
        axes.plot(x, surplus, "_", color=INK, markersize=9, label="joint surplus")
        axes.axhline(0, **GUIDE)
        axes.set(title=contract, xlabel=axis.key, ylabel=short(f"gain, {unit}", 40))
        axes.spines[["top", "right"]].set_visible(False)
        ticks(axes, "x", axis, not axis.numeric)
        _legend(axes)

    gains = {firm: amounts(table[f"{contract}.{firm}.gain"])[order] for firm in firms}
    told = "; ".join(f"{f} {v.min():+.4g} to {v.max():+.4g}" for f, v in gains.items() if len(v))
    words = f"Gains under {contract} along {axis.key}: {told}".replace("-", "\N{MINUS SIGN}")
    return panel(words, (3.9, 3.2), draw)


def _legend(axes: Axes) -> None:
    if isinstance(axes.figure, Figure):
        axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8, handletextpad=0.3)


@final
@dataclass(frozen=True)
class Front:
    """The outcomes of all studies under all contracts, and which of them nobody can better.

    Args:
        rows: a row an outcome on the front: job, contract, x, y, undecided.
        words: what x and y are.
        outcomes: how many there were to choose from, staying alone not counted.
        picture: all outcomes, with the front.
    """

    rows: list[dict[str, Any]]
    words: tuple[str, str]
    outcomes: int
    picture: Panel


def front_of(
    table: pd.DataFrame, kinds: Mapping[str, Kind], alone: str, firms: Sequence[str]
) -> Front | None:
    """Pareto front of two firms' gains; of more firms, the worst firm's gain and all firms' sum.

    Staying alone, where every gain is zero, competes as one outcome. None if nothing was measured.
    """
    parts = []
    for contract in kinds:
        if f"{contract}.surplus" not in table:
            continue
        gains = np.column_stack([amounts(table[f"{contract}.{firm}.gain"]) for firm in firms])
        xy = gains if len(firms) == 2 else np.column_stack([gains.min(axis=1), gains.sum(axis=1)])
        part = pd.DataFrame({"job": table["job"], "contract": contract})
        part["x"], part["y"] = xy[:, 0], xy[:, -1]
        decisions = table[[f"{contract}.{firm}.decision" for firm in firms]]
        part["undecided"] = (decisions == "undecided").any(axis=1).to_numpy()
        parts.append(part)
    points = pd.concat(parts).dropna(subset=["x", "y"]) if parts else pd.DataFrame()
    if points.empty:
        return None
    origin = {"job": None, "contract": alone, "x": 0.0, "y": 0.0, "undecided": False}
    points = pd.concat([points.astype({"job": object}), pd.DataFrame([origin])], ignore_index=True)
    on_front = pareto_front(points[["x", "y"]].to_numpy(dtype=float))
    named = (f"gain of {firms[0]}", f"gain of {firms[-1]}")
    words = named if len(firms) == 2 else ("gain of the firm that gains least", "joint surplus")
    front = points[on_front].sort_values(["x", "y"])
    picture = _front_panel(points, on_front, kinds, alone, words)
    return Front(front.to_dict("records"), words, len(points) - 1, picture)  # type: ignore[arg-type]


def _front_panel(
    points: pd.DataFrame,
    on_front: Array,
    kinds: Mapping[str, Kind],
    alone: str,
    words: tuple[str, str],
) -> Panel:
    front = points[on_front].sort_values(["x", "y"])
    many = len(points) > POINTS

    def draw(axes: Axes) -> None:
        axes.axhline(0, **GUIDE)
        axes.axvline(0, **GUIDE)
        for contract, kind in kinds.items():
            mine = points[points["contract"] == contract]
            if contract == alone or mine.empty:
                continue
            for open_ in (False, True):
                part = mine[mine["undecided"] == open_]
                face = "none" if open_ else kind.colour
                style: dict[str, Any] = {"facecolors": face, "edgecolors": kind.colour}
                size = 12 if many else 22
                axes.scatter(
                    part["x"], part["y"], s=size, marker=kind.marker, rasterized=many, **style
                )
        axes.plot(0, 0, "+", color=INK, markersize=11, markeredgewidth=1.6)
        axes.plot(front["x"], front["y"], color=INK, linewidth=0.8)
        axes.plot(
            front["x"], front["y"], "o", color=INK, fillstyle="none", markersize=9, linestyle="none"
        )
        axes.set(xlabel=short(words[0], 50), ylabel=short(words[1], 50))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(color=EDGE)

    told = "; ".join(
        f"{row.contract} {row.x:+.4g}, {row.y:+.4g}" for row in front.head(20).itertuples()
    )
    label = f"{words[0]} against {words[1]}, {len(points)} outcomes; on the front: {told}"
    return panel(label.replace("-", "\N{MINUS SIGN}"), (5.6, 4.4), draw)
