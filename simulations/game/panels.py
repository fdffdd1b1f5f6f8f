"""Maps side by side: what differs between them, along columns and then along rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import final

from parties.exchange import FedpactError
from simulations.game.axes import COUPLINGS, Plan, check_name, value_of, world_of

PRIOR = "world"  # the name of all worlds together, as if they were a parameter
MOST_PANELS = 24


@final
@dataclass(frozen=True)
class Each:
    """A parameter, or the prior by the name of world, and the values it has, one a panel.

    >>> Each.parse("world=1:independent,1/2:independent+1/2:strongest").values
    ('1:independent', '1/2:independent+1/2:strongest')
    """

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Each:
        """NAME=VALUE,VALUE,...; a value of world is WEIGHT:RHO, or several joined by `+`.

        Raises:
            FedpactError: it is not of that form, or two values are the same.
        """
        name, sign, rest = text.partition("=")
        if not sign:
            raise FedpactError(
                f"--each is {text!r}; legal is NAME=VALUE,VALUE,... For a panel a cost write "
                "--each C1=1,2,4."
            )
        check_name(name, PRIOR)
        values = tuple(value.strip() for value in rest.split(","))
        known: dict[object, str] = {}
        for value in values:
            exact = _prior(value) if name == PRIOR else value_of(name, value)
            if exact in known:
                raise FedpactError(
                    f"--each {text} has {known[exact]} and {value}, which are the same; legal are "
                    "values that differ. Leave one of them out."
                )
            known[exact] = value
        return cls(name, values)

    @property
    def words(self) -> str:
        return f"{self.name}={','.join(self.values)}"

    def title(self, value: str) -> str:
        """What stands over a panel.

        >>> Each("C1", ("1", "2")).title("2"), Each("world", ()).title("1:independent")
        ('C1 = 2', 'prior: independent')
        """
        if self.name != PRIOR:
            return f"{self.name} = {value}"
        worlds = [world.split(":") for world in value.split("+")]
        told = [(share, rho if rho in COUPLINGS else f"rho = {rho}") for share, rho in worlds]
        if len(told) == 1:  # its weight is 1
            return f"prior: {told[0][1]}"
        return "prior: " + " + ".join(f"{share} {rho}" for share, rho in told)


@final
@dataclass(frozen=True)
class Panels:
    """Plans side by side, row by row; build them by :meth:`parse`.

    Args:
        each: what differs from column to column, then what differs from row to row, if anything.
        at: of each panel, its value of each.
        plans: of each panel.
    """

    each: tuple[Each, ...]
    at: tuple[tuple[str, ...], ...]
    plans: tuple[Plan, ...]

    @classmethod
    def parse(
        cls, x: str, y: str, sets: Sequence[str] = (), worlds: Sequence[str] = (),
        each: Sequence[str] = (),
    ) -> Panels:  # fmt: skip
        """Panels from the words of the command line.

        Raises:
            FedpactError: a word is not legal, two contradict each other, or there are too many.

        >>> Panels.parse("alpha=.5:1", "beta=.5:1", each=["C1=1,2", "gamma=0,1/2,1"]).shape
        (3, 2)
        """
        if len(each) > 2:
            raise FedpactError(
                f"--each is given {len(each)} times; legal is at most twice, for columns and for "
                "rows. Draw a map for every value of the third."
            )
        found = tuple(Each.parse(text) for text in each)
        names = [one.name for one in found] + [PRIOR] * bool(worlds)
        if names.count(PRIOR) > 1:
            raise FedpactError(
                f"The prior is given twice; legal is once, as --world or as --each {PRIOR}. Leave "
                "one of them out."
            )
        count = prod(len(one.values) for one in found)
        if count > MOST_PANELS:
            raise FedpactError(
                f"--each asks for {count} panels; legal are at most {MOST_PANELS}. Leave out some "
                "values, or draw them as another map."
            )
        columns, rows = [*(one.values for one in found), ("",), ("",)][:2]
        at = tuple((column, row)[: len(found)] for row in rows for column in columns)
        plans = []
        for values in at:
            held, prior = list(sets), worlds
            for one, value in zip(found, values, strict=True):
                if one.name == PRIOR:
                    prior = value.split("+")
                else:
                    held.append(f"{one.name}={value}")
            plans.append(Plan.parse(x, y, held, prior))
        if count == 1:  # nothing differs: one map, as by --set
            return cls((), ((),), tuple(plans))
        return cls(found, at, tuple(plans))

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns."""
        columns = len(self.each[0].values) if self.each else 1
        return len(self.plans) // columns, columns

    def title(self, place: int) -> str:
        """A panel in words."""
        pairs = zip(self.each, self.at[place], strict=True)
        return ", ".join(one.title(value) for one, value in pairs)


def _prior(text: str) -> tuple[tuple[Fraction, Fraction | str], ...]:
    return tuple(world_of(world, f"--each {PRIOR}=") for world in text.split("+"))
