"""The Bayesian game of one contract, split into independent components, solved exactly.

Information sets are linked when both can be true at once; what is linked is one component. That is
at least as fine as the split by common knowledge, and no firm's choice in one component matters in
another. Values are whole numbers over `Setting.unit`, so nothing is ever rounded.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import final

from parties.exchange import FedpactError
from server.game.sight import Seen, Sight
from server.game.worlds import Setting

MOST_EQUILIBRIA = 50_000
MOST_STEPS = 3_000_000  # cells looked at while equilibria are searched for
Acts = tuple[int, ...]
"""An action an information set: firm 1's first, then firm 2's."""


@final
@dataclass(frozen=True)
class Profile:
    """Both firms' actions in one component, and what they come to.

    Args:
        acts: an action an information set, in the component's order.
        by_history: for each firm its training observation z_i -> its part of the utility there.
        potential, plays, trade: exact potential, expected plays of action 1 by both firms, and
            probability that some firm plays action 1.
    """

    acts: Acts
    by_history: tuple[dict[Hashable, int], dict[Hashable, int]]
    potential: int
    plays: int
    trade: int

    @cached_property
    def utilities(self) -> tuple[int, int]:
        """Both firms' parts of their ex-ante utility."""
        one, two = self.by_history
        return sum(one.values()), sum(two.values())


@final
@dataclass(frozen=True)
class Elimination:
    """One step of iterated elimination: a strictly dominated action of an information set."""

    round: int
    firm: int
    seen: Seen
    action: int


@final
@dataclass(frozen=True)
class Component:
    """A part of the game that can be played by itself.

    Args:
        infos: information sets; firm 1's first.
        firsts: how many of them are firm 1's.
        cells: (i, j, mass, E0, E1): both information sets, and what each action earns there alone.
        gamma: (p, q) with gamma = p / q; utilities below are q times the cells' values.
    """

    infos: tuple[Seen, ...]
    firsts: int
    cells: tuple[tuple[int, int, int, int, int], ...]
    gamma: tuple[int, int]

    def firm(self, info: int) -> int:
        """Whose information set it is: 0 or 1."""
        return int(info >= self.firsts)

    @cached_property
    def edges(self) -> tuple[tuple[tuple[int, int, int], ...], ...]:
        """Of each information set: (rival's set, gain of action 1 if it plays 0, if it plays 1)."""
        p, q = self.gamma
        found: list[list[tuple[int, int, int]]] = [[] for _ in self.infos]
        for i, j, _, e0, e1 in self.cells:
            gains = (q * e1 - p * e0, p * e1 - q * e0)
            found[i].append((j, *gains))
            found[j].append((i, *gains))
        return tuple(map(tuple, found))

    def gain(self, info: int, acts: Sequence[int | None]) -> tuple[int, int]:
        """Least and largest gain of action 1 over action 0, whatever open rival's sets play."""
        low = high = 0
        for other, g0, g1 in self.edges[info]:
            act = acts[other]
            if act is None:
                low += min(g0, g1)
                high += max(g0, g1)
            else:
                low += (g0, g1)[act]
                high += (g0, g1)[act]
        return low, high

    def profile(self, acts: Acts) -> Profile:
        """What a choice of actions comes to."""
        p, q = self.gamma
        by_history: tuple[dict[Hashable, int], dict[Hashable, int]] = ({}, {})
        for info, seen in enumerate(self.infos):
            by_history[self.firm(info)].setdefault(_history(seen, self.firm(info)), 0)
        potential = plays = trade = 0
        for i, j, mass, *values in self.cells:
            a, b = acts[i], acts[j]
            share = p if a == b else q
            by_history[0][_history(self.infos[i], 0)] += share * values[a]
            by_history[1][_history(self.infos[j], 1)] += share * values[b]
            potential += (p + q) * values[a] if a == b else q * (values[0] + values[1])
            plays += (a + b) * mass
            trade += (a | b) * mass
        return Profile(acts, by_history, potential, plays, trade)

    @cached_property
    def eliminations(self) -> tuple[Elimination, ...]:
        """Iterated elimination of strictly dominated actions, to its end (the certificate)."""
        return tuple(self._eliminated()[1])

    @property
    def dominance_solvable(self) -> bool:
        """Whether that elimination leaves one profile."""
        return len(self.eliminations) == len(self.infos)

    def _eliminated(self) -> tuple[list[int | None], list[Elimination]]:
        acts: list[int | None] = [None] * len(self.infos)
        steps: list[Elimination] = []
        turn, last = 0, -1
        while len(steps) > last:
            turn, last = turn + 1, len(steps)
            for info, act in enumerate(acts):
                if act is None:
                    low, high = self.gain(info, acts)
                    if low > 0 or high < 0:
                        acts[info] = int(low > 0)
                        firm = self.firm(info)
                        steps.append(Elimination(turn, firm, self.infos[info], int(high < 0)))
        return acts, steps

    @cached_property
    def equilibria(self) -> tuple[Profile, ...]:
        """Every pure Bayes-Nash equilibrium; one exists, as the game has an exact potential.

        Raises:
            FedpactError: there are too many to list.
        """
        budget = [MOST_STEPS]
        found = list(islice(self._search(self._eliminated()[0], budget), MOST_EQUILIBRIA + 1))
        if len(found) > MOST_EQUILIBRIA or budget[0] < 0:
            raise FedpactError(
                f"A component of {len(self.infos)} information sets has too many pure equilibria, "
                "or too many candidates, to list. Use fewer signals or samples, or break ties: an "
                "action that earns exactly nothing makes every choice an equilibrium."
            )
        return tuple(map(self.profile, found))

    def _search(self, acts: list[int | None], budget: list[int]) -> Iterator[Acts]:
        """Depth first; a branch ends where some set's action can be no best response."""
        acts = list(acts)
        budget[0] -= len(self.cells)
        if budget[0] < 0:
            return
        settled = False
        while not settled:
            settled = True
            for info, act in enumerate(acts):
                low, high = self.gain(info, acts)
                if (act == 1 and high < 0) or (act == 0 and low > 0):
                    return
                if act is None and (low > 0 or high < 0):
                    acts[info] = int(low > 0)
                    settled = False
        if None not in acts:
            yield tuple(a for a in acts if a is not None)
            return
        info = acts.index(None)
        for act in (0, 1):
            acts[info] = act
            yield from self._search(acts, budget)

    @cached_property
    def selected(self) -> Profile:
        """The equilibrium with the largest potential; ties: larger u1, fewer plays, larger u2."""
        return max(
            self.equilibria,
            key=lambda e: (e.potential, e.utilities[0], -e.plays, e.utilities[1]),
        )


def _history(seen: Seen, firm: int) -> Hashable:
    return dict(seen)[("z1", "z2")[firm]]


@final
@dataclass(frozen=True)
class Game:
    """The game of one contract in one setting."""

    setting: Setting
    sight: Sight

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """Its independent parts, in the order in which their first event is listed."""
        gathered: dict[tuple[Seen, Seen], list[int]] = {}
        for cell in self.setting.cells:
            key = (self.sight.saw(0, cell), self.sight.saw(1, cell))
            total = gathered.setdefault(key, [0, 0, 0])
            for place, value in enumerate((cell.mass, *cell.values)):
                total[place] += value
        parts = _linked(list(gathered))
        ratio = self.setting.gamma
        gamma = (ratio.numerator, ratio.denominator)
        return tuple(_component(keys, gathered, gamma) for keys in parts)

    @property
    def dominance_solvable(self) -> bool:
        """Whether iterated elimination of strictly dominated actions leaves one profile."""
        return all(c.dominance_solvable for c in self.components)

    @property
    def unique_pure(self) -> bool:
        """Whether there is exactly one pure equilibrium."""
        return all(len(c.equilibria) == 1 for c in self.components)

    @property
    def selected(self) -> tuple[Profile, ...]:
        """The selected equilibrium, a profile a component."""
        return tuple(c.selected for c in self.components)

    def actions(self, profiles: Sequence[Profile]) -> dict[tuple[int, Seen], int]:
        """(firm, information set) -> action, of a profile a component."""
        return {
            (component.firm(place), seen): profile.acts[place]
            for component, profile in zip(self.components, profiles, strict=True)
            for place, seen in enumerate(component.infos)
        }


def _linked(keys: Sequence[tuple[Seen, Seen]]) -> list[list[tuple[Seen, Seen]]]:
    """Events grouped so that no information set is in two groups."""
    group: dict[tuple[int, Seen], int] = {}
    members: dict[int, list[tuple[Seen, Seen]]] = {}
    for number, key in enumerate(keys):
        ends = [(firm, seen) for firm, seen in enumerate(key)]
        joined = sorted({group[end] for end in ends if end in group})
        target = joined[0] if joined else number
        merged = [event for old in joined for event in members.pop(old)]
        members[target] = [*merged, key]
        for one, two in members[target] if len(joined) > 1 else [key]:
            group[0, one] = group[1, two] = target
    return [members[number] for number in sorted(members)]


def _component(
    keys: Sequence[tuple[Seen, Seen]],
    gathered: dict[tuple[Seen, Seen], list[int]],
    gamma: tuple[int, int],
) -> Component:
    first = list(dict.fromkeys(one for one, _ in keys))
    second = list(dict.fromkeys(two for _, two in keys))
    place = {(0, seen): i for i, seen in enumerate(first)}
    place |= {(1, seen): len(first) + j for j, seen in enumerate(second)}
    cells = []
    for one, two in keys:
        mass, e0, e1 = gathered[one, two]
        cells.append((place[0, one], place[1, two], mass, e0, e1))
    return Component((*first, *second), len(first), tuple(cells), gamma)
