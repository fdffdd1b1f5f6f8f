"""A map of regions: a coarse grid, halved again and again where something happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError
from server.game.selection import TIES
from simulations.game.axes import Plan
from simulations.game.grid import Sheet, Solver
from simulations.game.regions import CODES, IMPOSSIBLE, PAIRS, TIE

MOST_POINTS = 3_000_000
MOST_REFINE = 8
PART = 1 << 15  # squares looked at together
CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))


@final
@dataclass(frozen=True)
class RegionMap:
    """Solved points, and the squares between them that were not divided further.

    Args:
        fine: the lattice splits each step of an axis into so many parts.
        sheet: the points, ordered by place: y first, then x.
        squares: level -> keys of undivided squares (their lowest corner's), ordered.
        counts: ties, proved, settled, checked, differing (of `Solver`), left (ties), and undivided:
            how many squares were to be halved, but for the most points that a map may have.
    """

    plan: Plan
    fine: int
    sheet: Sheet
    squares: Mapping[int, Array]
    counts: Mapping[str, int]

    @property
    def shares(self) -> dict[int, float]:
        """Region -> share of the map's area, largest first; each square is its corners' in equal
        parts."""
        return self._tally[0]

    @property
    def thin(self) -> set[int]:
        """Regions in which no undivided square lies wholly: lines, points, or nearly so."""
        return self._tally[1]

    @cached_property
    def _tally(self) -> tuple[dict[int, float], set[int]]:
        area, whole = np.zeros(CODES), np.zeros(CODES, np.bool_)
        for level, squares in self.squares.items():
            corners = _corners(squares, self.fine >> level, _width(self.plan, self.fine))
            found = [self.sheet.region[self._at(corner)] for corner in corners]
            alike = np.ones(len(squares), np.bool_)
            for codes in found:
                area += np.bincount(codes, minlength=CODES) * 0.25 ** (level + 1)
                alike &= codes == found[0]
            whole[found[0][alike]] = True
        area /= (self.plan.x.steps - 1) * (self.plan.y.steps - 1)
        present = np.flatnonzero(np.bincount(self.sheet.region, minlength=CODES))
        order = present[np.argsort(-area[present], kind="stable")]
        shares = {int(code): float(area[code]) for code in order}
        return shares, {code for code in shares if not whole[code]}

    @cached_property
    def _keys(self) -> Array:
        return _keys(self.plan, self.fine, self.sheet.x, self.sheet.y)

    def _at(self, keys: Array) -> Array:
        """Which points of the sheet have these keys."""
        every = len(self._keys) == self._keys[-1] + 1  # a plain map has all places
        return keys if every else np.asarray(np.searchsorted(self._keys, keys))

    def image(self, width: int, height: int) -> Array:
        """Region codes (height, width), row 0 at the low end of y: each pixel as the nearest corner
        of the square it lies in."""
        wide = _width(self.plan, self.fine)
        spans = [(axis.steps - 1) * self.fine for axis in (self.plan.x, self.plan.y)]
        u, v = (
            (np.arange(size) + 0.5) / size * span
            for size, span in zip((width, height), spans, strict=True)
        )
        codes = np.zeros((height, width), np.int16)
        for level, squares in self.squares.items():
            step = self.fine >> level
            column, row = ((w // step).astype(np.int64) * step for w in (u, v))
            inside = _member(squares, row[:, None] * wide + column)
            near = [np.rint(w / step).astype(np.int64) * step for w in (u, v)]
            places = (near[1][:, None] * wide + near[0])[inside]
            codes[inside] = self.sheet.region[self._at(places)]
        return codes


def legend(found: Sequence[RegionMap]) -> list[int]:
    """All regions of some maps, by their area in all of them together, largest first."""
    area: dict[int, float] = {}
    for one in found:
        for code, share in one.shares.items():
            area[code] = area.get(code, 0.0) + share
    return sorted(area, key=lambda code: (-area[code], code))


def explore(plan: Plan, refine: int, most: int = MOST_POINTS) -> RegionMap:
    """Solve a grid, and halve its squares up to `refine` times, where

    * corners have different regions, or firms play differently there (a thin band may lie between
      two changes of what is played), or
    * payoffs of two contracts change their order, or come closer at a corner than their distance
      changes over the square, or
    * a point on the edge, solved for a neighbour, is not like the corners.

    Raises:
        FedpactError: too many points, or no possible market among them.
    """
    coarse = plan.x.steps * plan.y.steps
    if not 0 <= refine <= MOST_REFINE or coarse > most:
        raise FedpactError(
            f"The map has {plan.x.steps} x {plan.y.steps} points and --refine {refine}; legal are "
            f"at most {most:,} points and 0 to {MOST_REFINE} halvings. Use a coarser grid: "
            "--refine adds points only where regions change."
        )
    fine = 1 << refine
    solver = Solver(plan, fine, asks_plays=refine > 0)
    y, x = np.divmod(np.arange(coarse), plan.x.steps)
    state = _State(solver, solver.solve(x * fine, y * fine, 0))
    if (state.sheet.region == IMPOSSIBLE).all():
        raise FedpactError(
            "No point of the map is a possible market: with accuracies alpha and beta, P(both "
            "right) is max(0, alpha + beta - 1) to min(alpha, beta). Change rho, or write "
            "--world 1:independent."
        )
    inner = (x < plan.x.steps - 1) & (y < plan.y.steps - 1)
    todo = {0: _keys(plan, fine, x[inner] * fine, y[inner] * fine)}
    squares: dict[int, Array] = {}
    undivided = 0
    while todo:
        level = min(todo)
        found = todo.pop(level)
        if level == refine or undivided:
            squares[level] = _union(squares.get(level, found[:0]), found)
            continue
        opened = state.busy(found, level)
        squares[level] = _union(squares.get(level, found[:0]), found[~opened])
        parts = {level: found[opened]}
        while parts:
            level, parents = parts.popitem()
            new = state.missing(parents, level)
            if len(state.sheet) + len(new) > most:
                undivided += len(parents)
                squares[level] = _union(squares[level], parents)
                continue
            state.add(new, level + 1)
            children = _children(parents, fine >> level, state.wide)
            todo[level + 1] = _union(todo.get(level + 1, found[:0]), children)
            for coarser in [k for k in squares if k < refine]:
                touched = state.contradicted(new, squares[coarser], coarser)
                if len(touched):
                    squares[coarser] = squares[coarser][~_member(touched, squares[coarser])]
                    parts[coarser] = _union(parts.get(coarser, found[:0]), touched)
    names = ("ties", "proved", "settled", "checked", "differing")
    counts = {name: int(getattr(solver, name)) for name in names}
    counts |= {"left": int((state.sheet.region == TIE).sum()), "undivided": undivided}
    return RegionMap(plan, fine, state.sheet, squares, counts)


class _State:
    """The points so far, ordered by place, and what is asked of them while squares are halved."""

    def __init__(self, solver: Solver, sheet: Sheet) -> None:
        self.solver, self.sheet = solver, sheet
        self.wide = _width(solver.plan, solver.fine)
        self.keys = _keys(solver.plan, solver.fine, sheet.x, sheet.y)
        self.slack = TIES * solver.plan.scale

    def busy(self, squares: Array, level: int) -> Array:
        """Which squares, by their keys (m,), something happens in."""
        answers = [np.zeros(0, np.bool_)]
        for low in range(0, len(squares), PART):
            corners = _corners(squares[low : low + PART], self.solver.fine >> level, self.wide)
            at = np.searchsorted(self.keys, np.array(corners))
            region, plays = self.sheet.region[at], self.sheet.plays[at]
            found = (region != region[0]).any(0) | (plays != plays[0]).any(0)
            payoffs = self.sheet.payoffs[..., at]
            for c, d in PAIRS:
                more = payoffs[c] - payoffs[d]  # (2, 4, m)
                least, largest = more.min(1), more.max(1)
                crosses = (least <= self.slack) != (largest <= self.slack)
                crosses |= (least < -self.slack) != (largest < -self.slack)
                nearest = np.minimum(np.abs(least), np.abs(largest))
                close = (nearest < largest - least) & (largest - least > self.slack)
                found |= (crosses | close).any(0)
            answers.append(found & (region != IMPOSSIBLE).any(0))
        return np.concatenate(answers)

    def missing(self, squares: Array, level: int) -> Array:
        """Keys of the points that halving needs and that are not there yet, ordered."""
        half = self.solver.fine >> (level + 1)
        steps = ((1, 0), (0, 1), (1, 1), (2, 1), (1, 2))
        wanted = [squares + (dy * self.wide + dx) * half for dx, dy in steps]
        keys = _union(*wanted)
        return keys[~_member(self.keys, keys)]

    def add(self, keys: Array, level: int) -> None:
        """Solve new points and put them in their places."""
        y, x = np.divmod(keys, self.wide)
        self.sheet = self.sheet.join(self.solver.solve(x, y, level))
        self.keys = np.concatenate([self.keys, keys])
        order = np.argsort(self.keys, kind="stable")
        self.keys, self.sheet = self.keys[order], self.sheet.take(order)

    def contradicted(self, keys: Array, squares: Array, level: int) -> Array:
        """Undivided squares that points (of these keys) on their edges are not like."""
        step = self.solver.fine >> level
        y, x = np.divmod(keys, self.wide)
        found = []
        for dx, dy in CORNERS:  # the squares to either side of an edge
            left, low = (x - dx) // step * step, (y - dy) // step * step
            square = low * self.wide + left
            known = (left >= 0) & (low >= 0) & _member(squares, square)
            point, corner = (np.searchsorted(self.keys, k[known]) for k in (keys, square))
            sheet = self.sheet
            unlike = (sheet.region[point] != sheet.region[corner]) | (
                sheet.plays[point] != sheet.plays[corner]
            )
            found.append(square[known][unlike])
        return _union(*found)


def _width(plan: Plan, fine: int) -> int:
    return (plan.x.steps - 1) * fine + 1


def _keys(plan: Plan, fine: int, x: Array, y: Array) -> Array:
    """One number a place, (n,), in the order of the map's rows."""
    keys: Array = y.astype(np.int64) * _width(plan, fine) + x
    return keys


def _corners(squares: Array, step: int, wide: int) -> list[Array]:
    return [squares + (dy * wide + dx) * step for dx, dy in CORNERS]


def _children(squares: Array, step: int, wide: int) -> Array:
    return np.sort(np.concatenate(_corners(squares, step // 2, wide)))


def _union(*keys: Array) -> Array:
    """All keys, ordered, each once. (np.unique is slower by a factor of ten.)"""
    every: Array = np.sort(np.concatenate(keys))
    first = np.concatenate([np.ones(min(1, len(every)), np.bool_), every[1:] != every[:-1]])
    return np.asarray(every[first])


def _member(ordered: Array, keys: Array) -> Array:
    """Whether each key is among the ordered ones; same shape as the keys."""
    if not len(ordered):
        return np.zeros(keys.shape, np.bool_)
    at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    found: Array = ordered[at] == keys
    return found
