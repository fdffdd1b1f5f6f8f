"""sweep=random and sweep=sobol: points spread over the axes, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.stats import qmc

from parties.exchange import Array, FedpactError
from simulations.sweeps import Design, Held, Point
from simulations.sweeps.axes import check_whole

METHODS = ("random", "sobol")


@final
@dataclass(frozen=True)
class Drawn(Design):
    """Points drawn from the whole space of the axes.

    Args:
        points: how many; for sobol best a power of two.
        method: "random": each by itself; "sobol": a scrambled Sobol sequence, which leaves no
            corner empty (Owen 1998; scipy.stats.qmc).
        seed: of the draw.
    """

    points: int = 64
    method: str = "sobol"
    seed: int = 0

    def check(self) -> None:
        check_whole("points", self.points, 1)
        check_whole("seed", self.seed, 0)
        if self.method not in METHODS:
            raise FedpactError(f"sweep.method is {self.method!r}; legal are {', '.join(METHODS)}.")
        if not self.axes:
            raise FedpactError(
                f"sweep={self.method} has no axes to draw from. Name some: "
                f"fedpact sweep={self.method} 'sweep.axes={{market.C1:{{low:1,high:5}}}}'"
            )

    @property
    def words(self) -> str:
        return f"{self.points} points, {self.method}, seed {self.seed}"

    def most(self) -> int:
        return self.points

    def ask(self, held: Sequence[Held]) -> Sequence[Point]:
        if held:
            return []
        axes = self.parsed
        return [
            {axis.key: axis.at(float(share)) for axis, share in zip(axes, shares, strict=True)}
            for shares in self._shares(len(axes))
        ]

    def _shares(self, dimensions: int) -> Array:
        """Points of the unit cube, (points, dimensions)."""
        rng = np.random.default_rng(self.seed)
        if self.method == "random":
            return rng.random((self.points, dimensions))
        # Of a whole power of two the first ones: scipy warns of any other number.
        power = max(self.points - 1, 0).bit_length()
        drawn: Array = qmc.Sobol(dimensions, rng=rng).random_base2(power)[: self.points]
        return drawn
