"""A map as a picture: a PNG, and an SVG that takes its ink from the page it stands on."""

from __future__ import annotations

import io
import math
import warnings

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from simulations import page
from simulations.game.refine import RegionMap
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


def png(found: RegionMap) -> bytes:
    """The picture as a PNG file, black on white."""
    file = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure = _drawn(found, "nearest")
        FigureCanvasAgg(figure)
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def svg(found: RegionMap) -> Markup:
    """The picture as an element of a page."""
    return page.svg(lambda: _drawn(found, "none"), STYLE, "map")


def _drawn(found: RegionMap, interpolation: str) -> Figure:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    shares, thin = found.shares, found.thin
    names = {code: name_of(code) for code in shares}
    palette = colours(list(names.values()))
    table = np.zeros((CODES, 4), np.uint8)
    for code, name in names.items():
        table[code] = np.rint(255 * np.array(to_rgba(palette[name])))
    table[IMPOSSIBLE] = 0  # the hatching behind it shows
    x, y = found.plan.x, found.plan.y
    extent = (float(x.low), float(x.high), float(y.low), float(y.high))
    _hatch(axes, extent)
    image = table[found.image(PIXELS, PIXELS)]
    axes.imshow(
        image, extent=extent, origin="lower", aspect="auto", interpolation=interpolation, zorder=1
    )
    axes.set(xlabel=label_of(x.name), ylabel=label_of(y.name))
    handles = [_patch(names[code], palette[names[code]]) for code in shares]
    words = [f"{names[code]}\N{EM SPACE}{percent(a, code in thin)}" for code, a in shares.items()]
    figure.legend(
        handles,
        words,
        loc="outside right upper",
        title="IRPO contracts, share of area",
        alignment="left",
        handlelength=1.2,
        handleheight=1.2,
    )
    return figure


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
