"""sweep=adaptive: a grid, and ever finer ones only where the verdict changes.

A cell lies between neighbouring points of the grid. It is halved along every axis where firms sign
other contracts at one of its corners than at another, and its parts likewise. A point that was
asked for one cell and lies on another one's edge speaks for that one too.
"""

from __future__ import annotations

import itertools
import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from parties.exchange import FedpactError
from simulations.sweeps import Design, Held, Point, Row
from simulations.sweeps.axes import Axis, check_whole

MOST_AXES = 3

Place = tuple[int, ...]
"""Where a point is, a number for each range (`_Line`)."""
Box = tuple[tuple[int, int], ...]
"""Where a cell begins and ends along each range."""
Signed = tuple[tuple[str, bool | None], ...]
"""Whether every firm signs, for each contract; None: undecided."""


@final
@dataclass(frozen=True)
class Adaptive(Design):
    """A grid over the axes, refined where the verdict changes.

    The verdict of a point says of every contract whether all firms sign it; undecided is an answer
    of its own. A study that failed says nothing. Lists are taken as they are, each combination of
    their values with a grid of its own; an axis of whole numbers is not halved below 1.

    Args:
        depth: a cell of the grid is halved so many times at most.
        points: in all at most, the grid's among them. Where they are too few, large cells are
            halved before small ones, and of equal ones those at the low ends of the axes first;
            `extra` says which were left.
    """

    depth: int = 3
    points: int = 1000

    def check(self) -> None:
        check_whole("depth", self.depth, 0)
        check_whole("points", self.points, 1)
        ranges = sum(axis.ranged for axis in self.parsed)
        if not 1 <= ranges <= MOST_AXES:
            raise FedpactError(
                f"sweep.axes has {ranges} ranges; sweep=adaptive refines 1 to {MOST_AXES}, and "
                "takes lists as they are. Write for example: fedpact sweep=adaptive "
                "'sweep.axes={market.C1:{low:1,high:5,steps:5}}'"
            )
        least = math.prod(len(axis.grid()) for axis in self.parsed)
        if self.points < least:
            raise FedpactError(
                f"sweep.points is {self.points}, and the grid to begin with has {least} points; "
                f"legal is a whole number >= {least}. Raise it, or take fewer steps."
            )

    @property
    def words(self) -> str:
        sizes = " x ".join(str(len(axis.grid())) for axis in self.parsed)
        return (
            f"grid of {sizes} values, halved up to {self.depth} times where the verdict changes, "
            f"{self.points} points at most"
        )

    def most(self) -> int:
        return self.points

    def ask(self, held: Sequence[Held]) -> Sequence[Point]:
        trees = self._grown(held)
        asked = {_name(one.point) for one in held}
        if not asked:
            return [tree.point(place) for tree in trees for place in tree.corners]
        wanted: dict[str, Point] = {}
        for tree, cell in _largest_first(trees):
            named = {_name(point): point for point in map(tree.point, cell.missing)}
            new = {name: point for name, point in named.items() if name not in wanted}
            if len(asked) + len(wanted) + len(new) <= self.points:
                wanted |= new
        return list(wanted.values())

    def extra(self, held: Sequence[Held]) -> Mapping[str, Any]:
        """points, and how many there would be with all cells halved (finest); `left`: cells in
        which the verdict changes and that no points were left to halve; the same in words."""
        trees = self._grown(held)
        left = [
            tree.listed | {line.key: list(map(line.value, ends)) for line, ends in cell.along(tree)}
            for tree, cell in _largest_first(trees)
        ]
        finest = math.prod(line.most(self.depth) for line in self._lines) * len(trees)
        told = f"{len(held):,} points; a grid as fine everywhere has {finest:,}"
        if left:
            told += (
                f". sweep.points={self.points} ended it before {len(left)} cells were halved in "
                "which the verdict changes"
            )
        return {"points": len(held), "finest": finest, "left": left, "told": told}

    @property
    def _lines(self) -> list[_Line]:
        return [_Line(axis, 1 << self.depth) for axis in self.parsed if axis.ranged]

    def _grown(self, held: Sequence[Held]) -> list[_Tree]:
        """The cells of each combination of the lists' values, as far as what is held tells."""
        known = {_name(one.point): signed(one.row) for one in held}
        lists = [axis for axis in self.parsed if not axis.ranged]
        keys, lines = [axis.key for axis in lists], self._lines
        every = itertools.product(*(axis.values for axis in lists))
        trees = [_Tree(lines, dict(zip(keys, values, strict=True)), known) for values in every]
        for tree in trees:
            tree.grow(self.depth)
        return trees


def signed(row: Row) -> Signed | None:
    """The verdict of a study; None for one that failed."""
    if row["status"] != "ok":
        return None
    return tuple(sorted((key, row[key]) for key in row if key.endswith(".signed")))


@final
class _Line:
    """The values of a range, as numbers that can be halved: parts of it, or its whole numbers."""

    def __init__(self, axis: Axis, fine: int) -> None:
        self.key, self._axis = axis.key, axis
        grid = axis.grid()
        self.ticks = list(grid) if axis.integer else [fine * i for i in range(len(grid))]

    def value(self, at: int) -> Any:
        """The value at a place."""
        return at if self._axis.integer else self._axis.at(at / self.ticks[-1])

    def middle(self, low: int, high: int) -> int | None:
        """The place between two; None where there is none."""
        log = self._axis.integer and self._axis.log
        found = round(math.sqrt(low * high)) if log else (low + high) // 2
        return found if low < found < high else None

    def most(self, depth: int) -> int:
        """How many places there are if all is halved."""
        places = self.ticks
        for _ in range(depth):
            middles = itertools.starmap(self.middle, itertools.pairwise(places))
            places = sorted([*places, *(at for at in middles if at is not None)])
        return len(places)


@final
@dataclass
class _Cell:
    """A part of the space, and what is known of it.

    Args:
        level: how often it was halved.
        places: of points in it, edges included, that are held.
        parts: its halves, once their corners are held.
        missing: corners of its halves that are not.
    """

    box: Box
    level: int
    places: set[Place] = field(default_factory=set)
    parts: list[_Cell] = field(default_factory=list)
    missing: list[Place] = field(default_factory=list)

    def holds(self, place: Place) -> bool:
        return all(low <= at <= high for at, (low, high) in zip(place, self.box, strict=True))

    def along(self, tree: _Tree) -> Iterator[tuple[_Line, tuple[int, int]]]:
        """Each range, and where the cell begins and ends."""
        return zip(tree.lines, self.box, strict=True)


@final
class _Tree:
    """The cells of one grid.

    What comes of growing it does not depend on the order: a point can only add to what changes.
    """

    def __init__(
        self,
        lines: Sequence[_Line],
        listed: dict[str, Any],
        known: Mapping[str, Signed | None],
    ) -> None:
        self.lines, self.listed, self._known = lines, listed, known
        self.corners: list[Place] = list(itertools.product(*(line.ticks for line in lines)))
        steps = (enumerate(itertools.pairwise(line.ticks)) for line in lines)
        self._roots = {
            tuple(i for i, _ in chosen): _Cell(tuple(ends for _, ends in chosen), 0)
            for chosen in itertools.product(*steps)
        }

    def point(self, place: Place) -> dict[str, Any]:
        """The point at a place."""
        values = {line.key: line.value(at) for line, at in zip(self.lines, place, strict=True)}
        return self.listed | values

    def grow(self, depth: int) -> None:
        """Halve cells until what is known tells of no other one."""
        todo = list(self._roots.values())
        self._enter([place for place in self.corners if self._is_known(place)])
        while todo:
            cell = todo.pop()
            if cell.parts or cell.level == depth or not self._changes(cell):
                continue
            boxes = self._halves(cell.box)
            corners = {place for box in boxes for place in itertools.product(*box)}
            cell.missing = sorted(place for place in corners if not self._is_known(place))
            if len(boxes) == 1 or cell.missing:
                continue
            cell.parts = [_Cell(box, cell.level + 1) for box in boxes]
            for part in cell.parts:
                part.places = {place for place in cell.places if part.holds(place)}
            todo += [*cell.parts, *self._enter(corners)]

    def leaves(self) -> Iterator[_Cell]:
        """Cells that were not halved."""
        todo = list(self._roots.values())
        while todo:
            cell = todo.pop()
            todo += cell.parts
            if not cell.parts:
                yield cell

    def _enter(self, places: Iterable[Place]) -> list[_Cell]:
        """Tell cells of points; those that did not know."""
        found = []
        for place in places:
            todo = [self._roots[index] for index in self._around(place)]
            while todo:
                cell = todo.pop()
                todo += [part for part in cell.parts if part.holds(place)]
                if not cell.parts and place not in cell.places:
                    cell.places.add(place)
                    found.append(cell)
        return found

    def _around(self, place: Place) -> Iterator[tuple[int, ...]]:
        """Which cells of the grid a place is in: several, if it is on their edges."""
        sides = []
        for line, at in zip(self.lines, place, strict=True):
            after = bisect_right(line.ticks, at) - 1
            both = (after - 1, after) if line.ticks[after] == at else (after,)
            sides.append([i for i in both if 0 <= i < len(line.ticks) - 1])
        return itertools.product(*sides)

    def _halves(self, box: Box) -> list[Box]:
        parts = []
        for line, (low, high) in zip(self.lines, box, strict=True):
            middle = line.middle(low, high)
            parts.append([(low, high)] if middle is None else [(low, middle), (middle, high)])
        return list(itertools.product(*parts))

    def _changes(self, cell: _Cell) -> bool:
        answers = {self._known[_name(self.point(place))] for place in cell.places}
        return len(answers - {None}) > 1

    def _is_known(self, place: Place) -> bool:
        return _name(self.point(place)) in self._known


def _largest_first(trees: Sequence[_Tree]) -> list[tuple[_Tree, _Cell]]:
    """Cells that wait for points to be halved by."""
    waiting = [
        (cell.level, number, cell.box, cell)
        for number, tree in enumerate(trees)
        for cell in tree.leaves()
        if cell.missing
    ]
    ordered = sorted(waiting, key=lambda one: one[:3])
    return [(trees[number], cell) for _, number, _, cell in ordered]


def _name(point: Point) -> str:
    return json.dumps(point, sort_keys=True)
