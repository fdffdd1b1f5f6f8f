"""What a contract game is made of: worlds, what firms observe in them, and what actions earn.

Everything is exact: numbers are `fractions.Fraction`, and a game's values are whole numbers over
one common denominator.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Any, final

from parties.exchange import FedpactError

Instance = tuple[int, int, int]
"""(t, s1, s2): the true class and both firms' signals (predictions) for one client."""
History = tuple[Hashable, Hashable, Hashable]
"""(z1, z2, pair): both firms' training observations, and what only the two together show."""
HUGE = 10**300
NOTHING: History = ("", "", "")


def fraction(value: Any, name: str) -> Fraction:
    """An exact number from "4/5", "0.8", 2 or 0.8 (read as it is written, in decimals).

    >>> fraction(0.1, "p"), fraction("4/5", "alpha")
    (Fraction(1, 10), Fraction(4, 5))
    """
    if isinstance(value, Fraction):
        return value
    shown = "huge" if isinstance(value, int) and abs(value) >= HUGE else str(value).strip()
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        power = re.search(r"[eE]([+-]?\d+)$", shown)
        if len(shown) <= 1000 and (power is None or abs(int(power[1])) <= 300):
            try:
                return Fraction(shown)
            except (ValueError, ZeroDivisionError):
                pass
    said = shown if shown == "huge" else repr(value)
    raise FedpactError(
        f"{name} is {said[:60]}; legal is a finite number of a size that can be meant. Write it as "
        'a fraction ("4/5"), a decimal ("0.8") or a whole number.'
    )


@final
@dataclass(frozen=True)
class World:
    """One state of the world: given it, training and the inference instance are independent.

    Args:
        weight: its prior probability.
        instance: P(t, s1, s2), for one client at inference.
        history: P(z1, z2, pair); `pair` is seen by a firm that sees z1 and z2.
    """

    weight: Fraction
    instance: Mapping[Instance, Fraction]
    history: Mapping[History, Fraction] = field(default_factory=lambda: {NOTHING: Fraction(1)})


@final
@dataclass(frozen=True)
class Cell:
    """All that is observed in one event, with its mass and what each action earns in it.

    `mass` is in units of 1 / Setting.masses, `values[a]` = mass * E[e(a, t)] in units of
    1 / (Setting.masses * Setting.stakes).
    """

    z1: Hashable
    z2: Hashable
    pair: Hashable
    s1: int
    s2: int
    mass: int
    values: tuple[int, int]


@final
@dataclass(frozen=True)
class Setting:
    """A finite contract game before a contract is chosen (arXiv 2403.17515, Section 2).

    A firm that takes action a on a client of class t earns e(a, t) = R_a if a = t, else -C_a, if
    its rival acts differently, and gamma * e(a, t) if both act alike.

    Args:
        worlds: with weights that sum to 1.
        rewards: (R0, R1), each >= 0.
        costs: (C0, C1), each >= 0.
        gamma: share kept when both act alike, in [0, 1].
    """

    worlds: tuple[World, ...]
    rewards: tuple[Fraction, Fraction]
    costs: tuple[Fraction, Fraction]
    gamma: Fraction

    def __post_init__(self) -> None:
        for name, pair in (("R", self.rewards), ("C", self.costs)):
            for action, value in enumerate(pair):
                if value < 0:
                    raise FedpactError(
                        f"{name}[{action}] is {value}; legal is a number >= 0. Rewards and costs "
                        "are both written as positive numbers."
                    )
        if not 0 <= self.gamma <= 1:
            raise FedpactError(
                f"gamma is {self.gamma}; legal is 0 to 1: 1/2 splits a client that both take, 1 "
                "means no rivalry."
            )
        check_distribution((w.weight for w in self.worlds), "the weights of the worlds")
        for number, world in enumerate(self.worlds):
            check_distribution(world.instance.values(), f"P(t, s1, s2) of world {number}")
            check_distribution(world.history.values(), f"P(z1, z2) of world {number}")

    def earns(self, action: int, label: int) -> Fraction:
        """e(action, class): what an action earns that the rival does not take."""
        return self.rewards[action] if action == label else -self.costs[action]

    @cached_property
    def stakes(self) -> int:
        """Common denominator of rewards and costs."""
        return lcm(*(v.denominator for v in (*self.rewards, *self.costs)))

    @property
    def unit(self) -> int:
        """Utilities of a game are whole numbers over this denominator."""
        return self.masses * self.stakes * self.gamma.denominator

    @cached_property
    def masses(self) -> int:
        """Common denominator of the probabilities of all events."""
        return lcm(*(p.denominator for p in self._joint.values()))

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every event of positive probability, as the firms together could observe it."""
        earned = [[int(self.earns(a, t) * self.stakes) for t in (0, 1)] for a in (0, 1)]
        gathered: dict[tuple[Hashable, Hashable, Hashable, int, int], list[int]] = {}
        for (z1, z2, pair, t, s1, s2), probability in self._joint.items():
            mass = int(probability * self.masses)
            found = gathered.setdefault((z1, z2, pair, s1, s2), [0, 0, 0])
            found[0] += mass
            for action in (0, 1):
                found[1 + action] += mass * earned[action][t]
        return tuple(
            Cell(z1, z2, pair, s1, s2, mass, (v0, v1))
            for (z1, z2, pair, s1, s2), (mass, v0, v1) in gathered.items()
        )

    @property
    def events(self) -> Iterator[tuple[Cell, int, Fraction]]:
        """What is observed (a cell), the true class, and their probability."""
        cells = {(c.z1, c.z2, c.pair, c.s1, c.s2): c for c in self.cells}
        for (z1, z2, pair, t, s1, s2), probability in self._joint.items():
            yield cells[z1, z2, pair, s1, s2], t, probability

    @cached_property
    def _joint(self) -> dict[tuple[Any, ...], Fraction]:
        """P(z1, z2, pair, t, s1, s2), positive ones only."""
        joint: dict[tuple[Any, ...], Fraction] = {}
        for world in self.worlds:
            for history, seen in world.history.items():
                for instance, mass in world.instance.items():
                    probability = world.weight * seen * mass
                    if probability:
                        key = (*history, *instance)
                        joint[key] = joint.get(key, Fraction(0)) + probability
        return joint


def check_distribution(values: Any, name: str) -> None:
    """Raises a FedpactError unless the values are >= 0 and sum to 1 exactly."""
    values = list(values)
    if not values or min(values) < 0 or sum(values) != 1:
        shown = ", ".join(str(v) for v in values[:8])
        raise FedpactError(
            f"{name} are {shown}, which sum to {sum(values)}; legal are numbers >= 0 that sum to "
            'exactly 1. Write them as fractions, such as "1/3".'
        )
