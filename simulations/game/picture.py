"""A map as a picture: a PNG, and an SVG that takes its ink from the page it stands on."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from textwrap import fill

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle

from parties.exchange import Array
from simulations import page
from simulations.game.panels import PRIOR, Panels
from simulations.game.refine import RegionMap, legend
from simulations.game.regions import CODES, IMPOSSIBLE, colours, name_of

EDGE = "#8C8C8C"
PIXELS = 1_000  # of the regions, either way
SIZE, DPI = (8.2, 5.4), 200  # inches, dots an inch
STYLE = {**page.STYLE, "font.size": 9.5, "hatch.color": EDGE, "hatch.linewidth": 0.6}
LABELS = {
    "alpha": "accuracy of firm 1 (alpha)",
    "beta": "accuracy of firm 2 (beta)",
    "R0": "reward of action 0 where it is right (R0)",
    "R1": "reward of action 1 where it is right (R1)",
    "C0": "cost of action 0 where it is wrong (C0)",
    "C1": "cost of action 1 where it is wrong (C1)",
    "gamma": "share kept where both act alike (gamma)",
    "weight": "prior probability of world 1 (weight)",
    PRIOR: "prior over how both are right together",
}


def label_of(name: str) -> str:
    """A parameter in plain words.

    >>> label_of("rho2")
    'probability that both are right in world 2 (rho2)'
    """
    return LABELS.get(name) or f"probability that both are right in world {name[3:]} ({name})"


def percent(share: float, thin: bool = False) -> str:
    """A share of the area; of a thin region only a bound.

    >>> percent(0.80462), percent(0.0135), percent(0.00002), percent(0.0029, thin=True)
    ('80.5 %', '1.35 %', '< 0.01 %', 'thin, < 0.3 %')
    """
    value = 100 * share
    if value < 0.01:
        return f"{'thin, ' * thin}< 0.01 %"
    if thin:
        digits = -math.floor(math.log10(value))
        return f"thin, < {math.ceil(value * 10**digits) / 10**digits:g} %"
    return f"{value:.1f} %" if value >= 9.95 else f"{value:.2f} %"


def png(panels: Panels, found: Sequence[RegionMap]) -> bytes:
    """The picture as a PNG file, black on white."""
    file = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure = drawn(panels, found, "nearest")
        FigureCanvasAgg(figure)
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def svg(panels: Panels, found: Sequence[RegionMap]) -> Markup:
    """The picture as an element of a page."""
    return page.svg(lambda: drawn(panels, found, "none"), STYLE, "map")


def drawn(panels: Panels, found: Sequence[RegionMap], interpolation: str) -> Figure:
    """One map, or several in the shape of their panels, with one legend."""
    names = {code: name_of(code) for code in legend(found)}
    palette = colours(list(names.values()))
    table = np.zeros((CODES, 4), np.uint8)
    for code, name in names.items():
        table[code] = np.rint(255 * np.array(to_rgba(palette[name])))
    table[IMPOSSIBLE] = 0  # the hatching behind it shows
    rows, columns = panels.shape
    alone = not panels.each
    side = min(2.3, max(1.2, 14 / columns))  # inches
    size = SIZE if alone else (columns * side + 3.4, rows * side + 0.9)
    layout = ConstrainedLayoutEngine(wspace=0.08 * (columns > 1))  # room for the end ticks' labels
    figure = Figure(figsize=size, layout=layout)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, one in zip(grid.flat, found, strict=True):
        _paint(axes, one, table, PIXELS if alone else PIXELS // 2, interpolation)
    x, y = (label_of(axis.name) for axis in (found[0].plan.x, found[0].plan.y))
    if alone:
        grid[0, 0].set(xlabel=x, ylabel=y)
    else:
        figure.supxlabel(fill(x, 32 * columns), fontsize="medium")
        figure.supylabel(fill(y, 32 * rows), fontsize="medium")
        grid[0, 0].locator_params(nbins=5 if side > 2 else 3)
        _title(figure, grid, panels)
    figure.legend(
        [_patch(name, palette[name]) for name in names.values()],
        [f"{name}\N{EM SPACE}{_most(code, found)}" for code, name in names.items()],
        loc="outside right upper",
        title=f"IRPO contracts, {'share of area' if alone else 'share at most'}",
        alignment="left",
        handlelength=1.2,
        handleheight=1.2,
    )
    return figure


def _paint(axes: Axes, found: RegionMap, table: Array, pixels: int, interpolation: str) -> None:
    """A map's regions, each in its colour of a table (codes, 4)."""
    x, y = found.plan.x, found.plan.y
    extent = (float(x.low), float(x.high), float(y.low), float(y.high))
    _hatch(axes, extent)
    image = table[found.image(pixels, pixels)]
    axes.imshow(
        image, extent=extent, origin="lower", aspect="auto", interpolation=interpolation, zorder=1
    )


def _title(figure: Figure, grid: Array, panels: Panels) -> None:
    """Say what differs: over each column, and to the right of each row."""
    for axes, value in zip(grid[0], panels.each[0].values, strict=True):
        axes.set_title(_wrapped(panels.each[0].title(value)), fontsize="medium")
    for row, axes in enumerate(grid[:, -1] if len(panels.each) > 1 else ()):
        words = _wrapped(panels.each[1].title(panels.each[1].values[row]))
        axes.annotate(
            words, (1.04, 0.5), xycoords="axes fraction", rotation=270, ha="left", va="center"
        )
    sides = zip(("columns", "rows"), panels.each, strict=False)
    told = [f"{side}: {label_of(one.name)}" for side, one in sides]
    figure.suptitle("\n".join(told), fontsize="medium")


def _wrapped(words: str) -> str:
    """Lines no longer than a panel, broken between worlds."""
    return fill(re.sub(r"(?<=\d) (?=[a-z])", "\N{NO-BREAK SPACE}", words), 28)


def _most(code: int, found: Sequence[RegionMap]) -> str:
    """A region's share of the map, or of the map where it is largest."""
    held = [(code not in one.thin, one.shares[code]) for one in found if code in one.shares]
    whole, share = max(held)
    return percent(share, not whole)


def _hatch(axes: Axes, extent: tuple[float, float, float, float]) -> None:
    left, right, low, high = extent
    size = (right - left, high - low)
    axes.add_patch(
        Rectangle((left, low), *size, fill=False, hatch="////", linewidth=0, zorder=0, ec=EDGE)
    )


def _patch(name: str, colour: str) -> Patch:
    if name == "impossible":
        return Patch(fill=False, hatch="////", edgecolor=EDGE, linewidth=0.5)
    return Patch(facecolor=colour, edgecolor=EDGE, linewidth=0.5)
