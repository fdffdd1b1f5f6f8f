"""Which contracts firms would sign: dominance, individual rationality, Pareto optimality, exactly.

Contract c dominates d on an occasion if there is an equilibrium of c that gives both firms at least
what every equilibrium of d gives them (definition "paper"), or if its selected equilibrium gives
both at least what the selected one of d does (definition "selected"). Occasions are all (z1, z2) of
positive probability, where firm i's utility is conditional on z_i only (timing "interim"), or the
one before anything is observed (timing "ex_ante"). c dominates d if it does on every occasion.
Source: arXiv 2403.17515, Section 2.

"Every equilibrium of d" asks each firm for its own maximum, so d matters only through both maxima,
and c through the Pareto front of its equilibria; both are sums over components.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import final

from parties.exchange import FedpactError
from server.game.bayes import Component, Game, Profile
from server.game.sight import CONTRACTS, Sight
from server.game.worlds import Setting

BASELINE = "no_sharing"
DEFINITIONS = ("paper", "selected")
TIMINGS = ("interim", "ex_ante")
Occasion = tuple[Hashable, Hashable] | None
"""(z1, z2), or None: before anything is observed."""


@final
@dataclass(frozen=True)
class Reading:
    """How "dominates" is read.

    >>> Reading("paper", "interim").name
    'paper_interim'
    """

    definition: str
    timing: str

    def __post_init__(self) -> None:
        for name, value, legal in (
            ("definition", self.definition, DEFINITIONS),
            ("timing", self.timing, TIMINGS),
        ):
            if value not in legal:
                raise FedpactError(
                    f"{name} is {value!r}; legal are {' and '.join(legal)}. The golden rows use "
                    "paper with interim, and selected with ex_ante."
                )

    @property
    def name(self) -> str:
        return f"{self.definition}_{self.timing}"


GOLDEN = (Reading("selected", "ex_ante"), Reading("paper", "interim"))
READINGS = tuple(Reading(d, t) for d in DEFINITIONS for t in TIMINGS)


@final
@dataclass(frozen=True)
class Objection:
    """Why one contract does not dominate another: on this occasion, this firm may lose.

    Args:
        firm: 0 or 1; None where each firm could be content, but not both in one equilibrium.
        occasion: (z1, z2), or None for ex ante.
        offered: best utility of that firm (of firm 1 where firm is None) under the first contract.
        demanded: what the second contract may give it; both conditional on its own z_i.
        equilibrium: of the second contract, a profile a component, that gives `demanded`.
    """

    contract: str
    over: str
    firm: int | None
    occasion: Occasion
    offered: Fraction
    demanded: Fraction
    equilibrium: tuple[Profile, ...]


@final
@dataclass(frozen=True)
class Standing:
    """What is to be said of one contract under one reading.

    `objection`: why it is not individually rational; `beaten_by`: contracts that strictly dominate
    it; `alone`: whether it is the only contract that is IRPO.
    """

    individually_rational: bool
    pareto_optimal: bool
    alone: bool
    objection: Objection | None
    beaten_by: tuple[str, ...]

    @property
    def irpo(self) -> bool:
        return self.individually_rational and self.pareto_optimal


@final
@dataclass(frozen=True)
class Solved:
    """All contracts of one setting, solved.

    >>> from server.game.settings import correlation
    >>> row = Solved(correlation("4/5", "7/10", [(1, "14/25")]))
    >>> row.payoffs("no_sharing")
    (Fraction(7, 40), Fraction(3, 40))
    >>> row.irpo(Reading("paper", "interim"))
    ['no_sharing', 'train_sharing']
    """

    setting: Setting
    contracts: Mapping[str, Sight] | None = None

    @cached_property
    def games(self) -> dict[str, Game]:
        """The game of each contract, by name."""
        chosen = CONTRACTS if self.contracts is None else self.contracts
        return {name: Game(self.setting, sight) for name, sight in chosen.items()}

    def payoffs(self, contract: str) -> tuple[Fraction, Fraction]:
        """Both firms' ex-ante utilities in the selected equilibrium."""
        profiles = self.games[contract].selected
        one, two = (sum(p.utilities[firm] for p in profiles) for firm in (0, 1))
        return Fraction(one, self.setting.unit), Fraction(two, self.setting.unit)

    def trade_probability(self, contract: str) -> Fraction:
        """P(at least one firm plays action 1) in the selected equilibrium."""
        traded = sum(p.trade for p in self.games[contract].selected)
        return Fraction(traded, self.setting.masses)

    def potential(self, contract: str) -> Fraction:
        """The exact potential of the selected equilibrium."""
        total = sum(p.potential for p in self.games[contract].selected)
        return Fraction(total, self.setting.unit)

    def interim(self, contract: str, firm: int) -> dict[Hashable, Fraction]:
        """z_i -> utility given z_i, in the selected equilibrium."""
        parts: dict[Hashable, int] = {}
        for profile in self.games[contract].selected:
            for z, value in profile.by_history[firm].items():
                parts[z] = parts.get(z, 0) + value
        return {z: self._given(value, firm, z) for z, value in parts.items()}

    def dominates(self, one: str, two: str, reading: Reading) -> bool:
        """Whether contract `one` dominates contract `two`; not always true of one and itself."""
        return self.objection(one, two, reading) is None

    def objection(self, one: str, two: str, reading: Reading) -> Objection | None:
        """Where contract `one` fails to dominate contract `two`; None if nowhere."""
        occasions = [None] if reading.timing == "ex_ante" else self._histories
        for occasion in occasions:
            demand = self._demand(two, occasion, reading)
            offers = self._offers(one, occasion, reading)
            if any(u1 >= demand[0] and u2 >= demand[1] for u1, u2 in offers):
                continue
            best = [max(offer[firm] for offer in offers) for firm in (0, 1)]
            short = next((firm for firm in (0, 1) if best[firm] < demand[firm]), None)
            firm = 0 if short is None else short
            offered = best[firm]
            if short is None:  # what is left to firm 1 where firm 2 gets its due
                offered = max(u1 for u1, u2 in offers if u2 >= demand[1])
            z = None if occasion is None else occasion[firm]
            return Objection(
                one,
                two,
                short,
                occasion,
                self._given(offered, firm, z),
                self._given(demand[firm], firm, z),
                self._best(two, firm, occasion, reading),
            )
        return None

    def standings(self, reading: Reading) -> dict[str, Standing]:
        """Every contract under one reading."""
        if reading not in self._known:
            self._known[reading] = self._standings(reading)
        return self._known[reading]

    @cached_property
    def _known(self) -> dict[Reading, dict[str, Standing]]:
        return {}

    def _standings(self, reading: Reading) -> dict[str, Standing]:
        names = list(self.games)
        holds = {
            (one, two): self.dominates(one, two, reading)
            for one in names
            for two in names
            if one != two
        }
        rational = {n: n == BASELINE or holds[n, BASELINE] for n in names}
        beaten = {
            n: tuple(o for o in names if o != n and holds[o, n] and not holds[n, o]) for n in names
        }
        good = [n for n in names if rational[n] and not beaten[n]]
        return {
            name: Standing(
                individually_rational=rational[name],
                pareto_optimal=not beaten[name],
                alone=good == [name],
                objection=None if rational[name] else self.objection(name, BASELINE, reading),
                beaten_by=beaten[name],
            )
            for name in names
        }

    def rational(self, reading: Reading) -> list[str]:
        """Names of the individually rational contracts."""
        return [n for n, s in self.standings(reading).items() if s.individually_rational]

    def irpo(self, reading: Reading) -> list[str]:
        """Names of the contracts that are individually rational and Pareto-optimal."""
        return [n for n, s in self.standings(reading).items() if s.irpo]

    @cached_property
    def _histories(self) -> list[tuple[Hashable, Hashable]]:
        return list(dict.fromkeys((cell.z1, cell.z2) for cell in self.setting.cells))

    @cached_property
    def _history_masses(self) -> tuple[dict[Hashable, int], dict[Hashable, int]]:
        masses: tuple[dict[Hashable, int], dict[Hashable, int]] = ({}, {})
        for cell in self.setting.cells:
            for firm, z in enumerate((cell.z1, cell.z2)):
                masses[firm][z] = masses[firm].get(z, 0) + cell.mass
        return masses

    def _given(self, value: int, firm: int, z: Hashable | None) -> Fraction:
        """A utility as a number; conditional on z where one is named."""
        utility = Fraction(value, self.setting.unit)
        if z is None:
            return utility
        return utility * self.setting.masses / self._history_masses[firm][z]

    def _parts(self, contract: str, occasion: Occasion) -> list[Component]:
        """Components in which some firm has the occasion's observation."""
        components = self.games[contract].components
        if occasion is None:
            return list(components)
        return [
            c
            for c in components
            if any(occasion[firm] in c.selected.by_history[firm] for firm in (0, 1))
        ]

    def _demand(self, contract: str, occasion: Occasion, reading: Reading) -> tuple[int, int]:
        """The most that each firm by itself gets in any equilibrium that counts."""
        one = two = 0
        for component in self._parts(contract, occasion):
            values = [_at(p, occasion) for p in _counting(component, reading)]
            one, two = one + max(v[0] for v in values), two + max(v[1] for v in values)
        return one, two

    def _offers(self, contract: str, occasion: Occasion, reading: Reading) -> list[tuple[int, int]]:
        """The Pareto front of what both firms get in the equilibria that count."""
        front = [(0, 0)]
        for component in self._parts(contract, occasion):
            values = _front([_at(p, occasion) for p in _counting(component, reading)])
            front = _front([(a + c, b + d) for a, b in front for c, d in values])
        return front

    def _best(
        self, contract: str, firm: int, occasion: Occasion, reading: Reading
    ) -> tuple[Profile, ...]:
        """An equilibrium that gives one firm the most on an occasion."""
        touched = {id(c) for c in self._parts(contract, occasion)}
        return tuple(
            max(_counting(c, reading), key=lambda p: _at(p, occasion)[firm])
            if id(c) in touched
            else c.selected
            for c in self.games[contract].components
        )


def _counting(component: Component, reading: Reading) -> Sequence[Profile]:
    return component.equilibria if reading.definition == "paper" else (component.selected,)


def _at(profile: Profile, occasion: Occasion) -> tuple[int, int]:
    if occasion is None:
        return profile.utilities
    one, two = profile.by_history
    return one.get(occasion[0], 0), two.get(occasion[1], 0)


def _front(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Points that no other point matches in both coordinates."""
    front: list[tuple[int, int]] = []
    for point in sorted(set(points), reverse=True):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front
