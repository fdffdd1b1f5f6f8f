"""Maps of a sweep: what happened where, over one axis or two.

A grid is drawn as cells of equal size; studies that lie anywhere, such as random ones, are drawn
as points, since nothing was measured between them. No map needs its colours to be read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, NullFormatter

from parties.exchange import Array
from parties.files import digest
from simulations.game.regions import colours
from simulations.page import INK, NONE, svg, with_own_ids
from simulations.sweeps.columns import Axis, label

EDGE = "#8C8C8C"  # reads on a light page and on a dark one
GAIN, LOSS = "#0072B2", "#E69F00"  # green and vermilion are kept for decisions
STYLE: dict[Any, Any] = {"font.size": 9, "axes.titlesize": 9.5, "lines.markersize": 5.5}
STYLE |= {"hatch.color": EDGE, "hatch.linewidth": 0.5, "savefig.dpi": 100}
LEVELS, POINTS = 60, 300  # values of an axis that are still cells; points that are still vectors
WRITTEN, TICKS = 14, 8  # marks and tick labels along an axis at most
GUIDE: dict[str, Any] = {"color": EDGE, "linewidth": 0.8, "linestyle": (0, (3, 3))}

Panel = tuple[str, Markup]
"""What a drawing shows, in words, and the drawing."""


@final
@dataclass(frozen=True)
class Kind:
    """How one answer looks: its letter in a cell, its shape as a point (and in words), its colour.

    Without a colour it is hatched (or empty) as a cell and hollow as a point.
    """

    letter: str
    marker: str
    shape: str
    colour: str | None = None
    hatch: str = ""

    @property
    def ink(self) -> str:
        """Black or white, whichever reads better on the colour."""
        if self.colour is None:
            return INK
        red, green, blue, _ = to_rgba(self.colour)
        return "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.45 else "#FFFFFF"


SHAPES = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("p", "⬟"), ("*", "★"))
UNDECIDED = Kind("?", "o", "○", hatch="//")
FAILED = Kind("!", "x", "✕", hatch="xx")
NOT_HELD = Kind("∅", "|", "|")
VERDICTS = {
    "signs": Kind("✓", "^", "▲", "#009E73"),
    "refuses": Kind("✕", "v", "▼", "#D55E00"),
    "undecided": UNDECIDED,
    "no prediction": Kind(NONE, ".", "·", hatch=".."),
    "failed": Kind("!", "+", "+", hatch="xx"),
    "not held": NOT_HELD,
}


def kinds_of(contracts: Sequence[str]) -> dict[str, Kind]:
    """A letter, shape and colour for each contract, the same as in the maps of exact games."""
    short = {name: name.removesuffix("_sharing") or name for name in contracts}
    palette = colours([f"{word} only" for word in short.values()])
    found = {}
    for place, (name, word) in enumerate(short.items()):
        size = next(
            (n for n in range(1, 4) if [w[:n] for w in short.values()].count(word[:n]) == 1), 4
        )
        marker, shape = SHAPES[place % len(SHAPES)]
        letter = word[:size].capitalize()
        found[name] = Kind(letter, marker, shape, palette[f"{word} only"])
    return {**found, "undecided": UNDECIDED, "failed": FAILED}


@final
@dataclass(frozen=True)
class Plane:
    """One axis or two on which maps are drawn, and whether as cells."""

    x: Axis
    y: Axis | None
    cells: bool

    @property
    def shape(self) -> tuple[int, int]:
        return (1 if self.y is None else len(self.y.levels), len(self.x.levels))

    @property
    def places(self) -> tuple[Array, Array]:
        """Row and column of each study."""
        return (np.zeros_like(self.x.places) if self.y is None else self.y.places, self.x.places)

    @property
    def size(self) -> tuple[float, float]:
        """Inches of a map."""
        return (5.6, 1.15) if self.y is None else (3.9, 3.3)

    @property
    def shared(self) -> bool:
        """Whether some cell holds several studies."""
        return self.cells and max(Counter(zip(*self.places, strict=True)).values()) > 1


def plane_of(axes: Sequence[Axis]) -> Plane | None:
    """The first two of the axes that vary, the longer one along the page; None if none does."""
    chosen = sorted((a for a in axes if len(a.levels) > 1), key=lambda a: -len(a.levels))
    if not chosen:
        return None
    x, y = chosen[0], chosen[1] if len(chosen) > 1 else None
    filled = len(set(zip(x.places, y.places if y else x.places, strict=True)))
    whole = len(x.levels) * (len(y.levels) if y else 1)
    return Plane(x, y, cells=len(x.levels) <= LEVELS and 2 * filled > whole)


def panel(
    words: str, size: tuple[float, float], draw: Callable[[Axes], None], salt: str = ""
) -> Panel:
    """Draw into an SVG (inches) that takes its ink from the page and has ids of its own."""

    def drawn() -> Figure:
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        return figure

    key = f"f{digest((salt + words).encode())[:8]}"
    return words, with_own_ids(svg(drawn, STYLE, key), key)


def kind_map(plane: Plane, title: str, found: Array, kinds: Mapping[str, Kind]) -> Panel:
    """A map of words: in each cell the most frequent one, with its share where there are several.

    Studies that failed or were not held are no answers: they do not count against those that are.

    Args:
        found: of each study, one of the kinds, (studies,).
    """
    counts = Counter(found.tolist())
    told = ", ".join(f"{name} in {counts[name]}" for name in kinds if counts[name])
    words = f"{title}, of {len(found)} studies: {told}"

    def draw(axes: Axes) -> None:
        axes.set_title(title)
        if plane.cells:
            _kind_cells(axes, plane, found, kinds)
        else:
            for name, kind in kinds.items():
                _points(axes, plane, found == name, kind.marker, kind.colour)
        _frame(axes, plane)

    return panel(words, plane.size, draw, title)


def _kind_cells(axes: Axes, plane: Plane, found: Array, kinds: Mapping[str, Kind]) -> None:
    names = [name for name in kinds if name not in ("failed", "not held")]
    counts = np.zeros((len(names), *plane.shape), dtype=int)
    broken, absent = (np.zeros(plane.shape, dtype=int) for _ in range(2))
    rows, columns = plane.places
    for number, name in enumerate(names):
        np.add.at(counts[number], (rows[found == name], columns[found == name]), 1)
    for name, place in (("failed", broken), ("not held", absent)):
        np.add.at(place, (rows[found == name], columns[found == name]), 1)
    image = np.zeros((*plane.shape, 4))
    hatched: dict[str, list[tuple[int, int]]] = {}
    letters = {}
    for cell in np.ndindex(plane.shape):
        held = counts[(slice(None), *cell)]
        if not held.sum() + broken[cell] + absent[cell]:
            continue
        none = "not held" if absent[cell] else "failed"
        kind = kinds[names[held.argmax()] if held.sum() else none]
        if kind.colour is None:
            hatched.setdefault(kind.hatch, []).append(cell)
        else:
            image[cell] = to_rgba(kind.colour)
        mark = "!" if broken[cell] and held.sum() + absent[cell] else ""
        share = f"{100 * held.max() / held.sum():.0f} %" if held.max() < held.sum() else ""
        letters[cell] = (kind.letter + mark, share, kind.ink)
    _image(axes, image)
    for hatch, cells in hatched.items():
        _hatch(axes, cells, hatch)
    few = plane.shape[1] <= 7 and plane.shape[0] <= 7
    for (row, column), (letter, share, ink) in letters.items():
        if _is_marked(plane, row, column):
            text = f"{letter}\n{share}" if share and few else letter
            size = 8.5 if max(plane.shape) <= 12 else 7
            _write(axes, column, row, text, color=ink, size=size)


def amount_map(
    plane: Plane,
    title: str,
    amounts: Array,
    unsure: Array,
    absent: Array,
    top: float,
    unit: str,
) -> Panel:
    """A map of money, blue above zero and orange below, hatched where it is not decided.

    Args:
        amounts: (studies,), nan where there is none; a cell shows the mean of its studies.
        unsure: of which studies the decision is open, (studies,) of bool.
        absent: which studies did not hold the contract, (studies,) of bool.
        top: the amount from which on a colour is full.
        unit: of the amounts, in words.
    """
    known = ~np.isnan(amounts)
    told = (
        f"{amounts[known].min():+.4g} to {amounts[known].max():+.4g} {unit}, "
        f"above zero in {int((amounts[known] > 0).sum())} of {int(known.sum())} studies, "
        f"{int((unsure & known).sum())} undecided"
        if known.any()
        else "not known in any study"
    ) + (f", not held in {int(absent.sum())}" if absent.any() else "")

    def draw(axes: Axes) -> None:
        axes.set_title(title)
        if plane.cells:
            _amount_cells(axes, plane, amounts, unsure, absent, top)
        else:
            for marker, colour, side in (("^", GAIN, amounts > 0), ("v", LOSS, amounts <= 0)):
                sure = side & ~unsure
                faces = [to_rgba(colour, s) for s in _strength(amounts[sure], top)]
                _points(axes, plane, sure, marker, faces, width=0.3)
                _points(axes, plane, side & unsure, marker, None, edge=colour)
            _points(axes, plane, absent, NOT_HELD.marker, None)
        _frame(axes, plane)

    return panel(f"{title}: {told}".replace("-", "\N{MINUS SIGN}"), plane.size, draw, title)


def _amount_cells(
    axes: Axes, plane: Plane, amounts: Array, unsure: Array, absent: Array, top: float
) -> None:
    known = ~np.isnan(amounts)
    sums, counts, open_, all_, lack = (np.zeros(plane.shape) for _ in range(5))
    place = tuple(p[known] for p in plane.places)
    np.add.at(all_, plane.places, 1)
    np.add.at(lack, plane.places, absent)
    np.add.at(sums, place, amounts[known])
    np.add.at(counts, place, 1)
    np.add.at(open_, place, unsure[known])
    cells = [(row, column) for row, column in np.ndindex(plane.shape) if counts[row, column]]
    image = np.zeros((*plane.shape, 4))
    for cell in cells:
        image[cell] = _shade(float(sums[cell] / counts[cell]), top)
    _image(axes, image)
    _hatch(axes, [cell for cell in cells if 2 * open_[cell] > counts[cell]], UNDECIDED.hatch)
    empty = [cell for cell in np.ndindex(plane.shape) if all_[cell] and not counts[cell]]
    for kind, chosen in (
        (NOT_HELD, [cell for cell in empty if lack[cell]]),
        (FAILED, [cell for cell in empty if not lack[cell]]),
    ):
        _hatch(axes, chosen, kind.hatch)
        for row, column in chosen:
            mark = "!" if 0 < lack[row, column] < all_[row, column] else ""
            _write(axes, column, row, kind.letter + mark, color=INK, size=7.5)
    digits = max(0, 2 - math.floor(math.log10(top)))
    written = plane.size[0] - 0.9 > 0.075 * (digits + 4) * plane.shape[1]
    for row, column in cells:
        value = sums[row, column] / counts[row, column]
        if written and plane.shape[0] <= WRITTEN:
            text = f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
        elif _is_marked(plane, row, column):
            text = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else "0"
        else:
            continue
        _write(axes, column, row, text, color=INK, size=7.5)


def _strength(values: Array, top: float) -> Array:
    """Of a point's colour: pale near zero, but never so pale that it is not seen."""
    return 0.35 + 0.65 * np.minimum(1, np.abs(values) / top)


def _shade(value: float, top: float) -> tuple[float, float, float, float]:
    """So pale that the page's ink reads on it."""
    if math.isnan(value):
        return (0.0, 0.0, 0.0, 0.0)
    return to_rgba(GAIN if value > 0 else LOSS, 0.65 * min(1.0, abs(value) / top))


def _is_marked(plane: Plane, row: int, column: int) -> bool:
    """Of long axes every second, third ... cell has a mark."""
    room = 2 * WRITTEN if plane.y is None else WRITTEN
    return not (row % math.ceil(plane.shape[0] / room) or column % math.ceil(plane.shape[1] / room))


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, text, ha="center", va="center", **style).set_in_layout(False)  # for speed


def _image(axes: Axes, image: Array) -> None:
    height, width, _ = image.shape
    extent = (-0.5, width - 0.5, -0.5, height - 0.5)
    axes.imshow(image, extent=extent, origin="lower", aspect="auto", interpolation="none")


def _hatch(axes: Axes, cells: Sequence[tuple[int, int]], hatch: str) -> None:
    if not cells:
        return
    corners = [
        np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) / 2 + (c, r) for r, c in cells
    ]
    outline = Outline.make_compound_path(*[Outline(c, closed=True) for c in corners])
    edge = 0.4 if max(axes.get_images()[0].get_size()) <= WRITTEN else 0
    axes.add_patch(PathPatch(outline, fill=False, hatch=hatch, edgecolor=EDGE, linewidth=edge))


def _points(
    axes: Axes,
    plane: Plane,
    chosen: Array,
    marker: str,
    colour: Any,
    edge: str = EDGE,
    width: float = 0.8,
) -> None:
    """Points of some studies; hollow without a colour."""
    x = _spread(plane.x)[chosen]
    y = np.zeros(len(x)) if plane.y is None else _spread(plane.y)[chosen]
    many = len(chosen) > POINTS
    face = "none" if colour is None else colour
    style: dict[str, Any] = {"linewidths": width, "rasterized": many, "s": 14 if many else 26}
    style |= {"color": edge} if marker in "x+|" else {"facecolors": face, "edgecolors": edge}
    axes.scatter(x, y, marker=marker, **style)


def _spread(axis: Axis) -> Array:
    """Positions along an axis; around a word they are spread, so that each point is seen."""
    golden = (math.sqrt(5) - 1) / 2
    aside = (np.arange(len(axis.places)) * golden) % 1 - 0.5
    return axis.positions + (0.0 if axis.numeric else 0.6 * aside)


def _frame(axes: Axes, plane: Plane) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0 if plane.cells else 3)
    axes.set_xlabel(plane.x.key)
    if plane.y is None:
        axes.set_yticks([])
    else:
        axes.set_ylabel(plane.y.key)
    for name, axis in (("x", plane.x), ("y", plane.y)):
        if axis is not None:
            ticks(axes, name, axis, plane.cells or not axis.numeric)
    if plane.cells:
        axes.set(xlim=(-0.5, plane.shape[1] - 0.5), ylim=(-0.5, plane.shape[0] - 0.5))


def ticks(axes: Axes, name: str, axis: Axis, by_level: bool) -> None:
    """Label an axis by its levels, as many as there is room for, or by numbers."""
    if not by_level:
        if axis.log and axis.positions.min() > 0:
            getattr(axes, f"set_{name}scale")("log")
            scale = getattr(axes, f"{name}axis")
            scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            scale.set_minor_formatter(NullFormatter())
        return
    every = math.ceil(len(axis.levels) / TICKS)
    places = range(0, len(axis.levels), every)
    labels = [axis.labels[place] for place in places]
    if axis.numeric:
        values = [axis.levels[place] for place in places]
        labels = _first_apart(([f"{v:.{d}g}" for v in values] for d in (3, 4, 5)), labels)
    else:
        labels = apart(labels, 14)
    getattr(axes, f"set_{name}ticks")(list(places), labels)
    if name == "x" and max(map(len, labels)) * len(labels) > 44:
        axes.tick_params(axis="x", rotation=30)


def apart(names: Sequence[str], most: int) -> list[str]:
    """Different names as short as keeps them apart; of lists only what not all have in common.

    >>> apart(["myopic", "equilibrium"], 14)
    ['myopic', 'equilibrium']
    >>> apart(['["no_sharing", "train_sharing"]', '["no_sharing", "full_sharing"]'], 14)
    ['train_sharing', 'full_sharing']
    >>> apart(["parties.card_clients.early", "parties.card_clients.late"], 14)
    ['…early', '…late']
    """
    names = _first_apart([_without_common(names)], list(names))
    alike = [len(set(letters)) == 1 for letters in zip(*names, strict=False)]
    head = [*alike, False].index(False)  # letters that all begin with
    headless = ["…" + name[head:] for name in names]
    lengths = range(most, max(map(len, names)))
    tries = ([short(n, length) for n in some] for length in lengths for some in (names, headless))
    return _first_apart(tries, names)


def _first_apart(tries: Iterable[list[str]], names: list[str]) -> list[str]:
    """The first of some ways to write names in which all differ; else the names."""
    return next((text for text in tries if len(set(text)) == len(names)), names)


def _without_common(names: Sequence[str]) -> list[str]:
    """Lists by the items that not all have; one that has no others is written whole."""
    try:
        lists = [json.loads(name) for name in names]
    except ValueError:
        return list(names)
    if not all(isinstance(items, list) for items in lists):
        return list(names)
    words = [[label(item) for item in items] for items in lists]
    common = set.intersection(*map(set, words))
    return [", ".join([w for w in items if w not in common] or items) for items in words]


def short(name: str, most: int) -> str:
    """A name that fits."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
