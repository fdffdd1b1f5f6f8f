"""What a map is of: two axes, what is held fixed, and the worlds. Exact, and as floats."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import lcm
from typing import Any, final

import numpy as np

from parties.exchange import Array, FedpactError
from server.game.settings import correlation
from server.game.worlds import Setting, fraction
from simulations.mistakes import did_you_mean

DEFAULTS: Mapping[str, str] = {
    "alpha": "4/5", "beta": "7/10", "R0": "0", "R1": "1", "C0": "0", "C1": "1", "gamma": "1/2",
}  # fmt: skip
SHARES = ("alpha", "beta", "gamma", "weight")  # 0 to 1, as every rho is; the others are >= 0
COUPLINGS = ("independent", "strongest", "weakest")
STEPS = 101
MOST_TABLED = 1 << 16
MOST_WORLDS = 8


@final
@dataclass(frozen=True)
class Axis:
    """A parameter that varies from `low` to `high` in `steps` equal steps, ends included.

    >>> Axis.parse("alpha=1/2:0.995:41", "--x")
    Axis(name='alpha', low=Fraction(1, 2), high=Fraction(199, 200), steps=41)
    """

    name: str
    low: Fraction
    high: Fraction
    steps: int = STEPS

    @classmethod
    def parse(cls, text: str, option: str) -> Axis:
        """NAME=LOW:HIGH or NAME=LOW:HIGH:STEPS.

        Raises:
            FedpactError: it is not of that form, or the numbers make no axis.
        """
        name, sign, rest = text.partition("=")
        ends = rest.split(":")
        if not sign or len(ends) not in (2, 3):
            raise FedpactError(
                f"{option} is {text!r}; legal is NAME=LOW:HIGH:STEPS. For 101 accuracies from 1/2 "
                f"to 1 write {option} alpha=1/2:1:101."
            )
        steps = fraction(ends[2], f"the steps of {name}") if len(ends) == 3 else Fraction(STEPS)
        low, high = (value_of(name, end) for end in ends[:2])
        if steps.denominator != 1 or steps < 2 or low >= high:
            raise FedpactError(
                f"{option} is {text!r}; legal are a low end below the high end, and a whole number "
                f"of points, at least 2. What does not vary is held fixed: --set {name}={ends[0]}."
            )
        return cls(name, low, high, int(steps))

    def at(self, place: int, fine: int) -> Fraction:
        """The exact value at a place on the lattice that splits each step into `fine` parts."""
        return self.low + (self.high - self.low) * place / ((self.steps - 1) * fine)

    def floats(self, places: Array, fine: int) -> Array:
        """:meth:`at`, correctly rounded, of many places (n,)."""
        if (self.steps - 1) * fine < MOST_TABLED:
            return np.asarray(_table(self, fine)[places])
        used, back = np.unique(places, return_inverse=True)
        return np.asarray(np.array([float(self.at(int(p), fine)) for p in used])[back])

    @property
    def words(self) -> str:
        return f"{self.name}={self.low}:{self.high}:{self.steps}"


@lru_cache(maxsize=8)
def _table(axis: Axis, fine: int) -> Array:
    """Every value on the lattice as a float."""
    return np.array([float(axis.at(p, fine)) for p in range((axis.steps - 1) * fine + 1)])


@final
@dataclass(frozen=True)
class Plan:
    """Two axes, the other parameters, and each world's (weight, rho); build it by :meth:`parse`.

    A rho is a number or a coupling by name: independent (alpha * beta), strongest or weakest (the
    Frechet bounds). `fixed` overrides worlds by the names weight, rho1, rho2, ...
    """

    x: Axis
    y: Axis
    fixed: Mapping[str, Fraction]
    worlds: tuple[tuple[Fraction, Fraction | str], ...]

    @classmethod
    def parse(cls, x: str, y: str, sets: Sequence[str] = (), worlds: Sequence[str] = ()) -> Plan:
        """A plan from the words of the command line.

        Raises:
            FedpactError: a word is not legal, or two words contradict each other.

        >>> Plan.parse("alpha=.5:1", "rho1=0:1", ["C1=3/2"], ["1:0.6"]).fixed["C1"]
        Fraction(3, 2)
        """
        axes = Axis.parse(x, "--x"), Axis.parse(y, "--y")
        prior = tuple(world_of(text, "--world ") for text in worlds or ("1:independent",))
        fixed = {name: Fraction(value) for name, value in DEFAULTS.items()}
        named = [axis.name for axis in axes]
        for text in sets:
            name, sign, value = text.partition("=")
            if not sign:
                raise FedpactError(
                    f"--set is {text!r}; legal is NAME=VALUE. For the cost of a bad loan write "
                    "--set C1=1.5."
                )
            fixed[name] = value_of(name, value)
            named.append(name)
        _check(named, prior)
        kept = {name: value for name, value in fixed.items() if name not in named[:2]}
        return cls(axes[0], axes[1], kept, prior)

    # --------------------------------------------------------------------------------- exactly

    def exact(self, x: Fraction, y: Fraction) -> Setting:
        """The setting at one point of the map, for the exact engine."""
        known = {**self.fixed, self.x.name: x, self.y.name: y}
        R, C = (known["R0"], known["R1"]), (known["C0"], known["C1"])
        worlds = self._worlds(known)
        return correlation(known["alpha"], known["beta"], worlds, R, C, known["gamma"])

    def possible(self, x: Fraction, y: Fraction) -> bool:
        """Whether every rho lies within its Frechet bounds at one point."""
        known = {**self.fixed, self.x.name: x, self.y.name: y}
        low, high = (
            max(Fraction(0), known["alpha"] + known["beta"] - 1),
            min(known["alpha"], known["beta"]),
        )
        return all(low <= rho <= high for weight, rho in self._worlds(known) if weight)

    def _worlds(self, known: Mapping[str, Fraction]) -> list[tuple[Fraction, Fraction]]:
        a, b = known["alpha"], known["beta"]
        named = {
            "independent": a * b, "strongest": min(a, b), "weakest": max(Fraction(0), a + b - 1),
        }  # fmt: skip
        found = []
        for place, (share, coupling) in enumerate(self.worlds):
            rho = known.get(f"rho{place + 1}", coupling)
            if "weight" in known:
                share = (known["weight"], 1 - known["weight"])[place]
            found.append((share, rho if isinstance(rho, Fraction) else named[rho]))
        return found

    @cached_property
    def scale(self) -> float:
        """The largest reward or cost anywhere on the map."""
        ends = [axis.high for axis in (self.x, self.y) if axis.name[0] in "RC"]
        return float(max(ends + [value for name, value in self.fixed.items() if name[0] in "RC"]))

    def unit(self, fine: int) -> int:
        """D such that all payoffs and probabilities, everywhere on the lattice, are whole / D."""

        def below(name: str) -> int:
            for axis in (self.x, self.y):
                if axis.name == name:
                    step = (axis.high - axis.low) / ((axis.steps - 1) * fine)
                    return lcm(axis.low.denominator, step.denominator)
            return self.fixed[name].denominator if name in self.fixed else 1

        both = below("alpha") * below("beta")  # also of alpha, beta and their sum
        for place, (_, rho) in enumerate(self.worlds):
            written = rho.denominator if isinstance(rho, Fraction) else 1
            both = lcm(both, below(f"rho{place + 1}"), written)
        shares = lcm(below("weight"), *(share.denominator for share, _ in self.worlds))
        stakes = lcm(*(below(name) for name in ("R0", "R1", "C0", "C1")))
        return 2 * both * shares * stakes * below("gamma")

    # ------------------------------------------------------------------------------- as floats

    def floats(self, places: tuple[Array, Array], fine: int) -> dict[str, Any]:
        """Arguments of `solve_correlation` at points on the lattice, by their places (n,) each.

        Returns:
            alpha, beta, R0, R1, C0, C1, gamma: a number or (n,); rho: (n, W); weight: (W,) or
            (n, W).
        """
        known: dict[str, Any] = {name: float(value) for name, value in self.fixed.items()}
        for axis, part in zip((self.x, self.y), places, strict=True):
            known[axis.name] = axis.floats(part, fine)
        a, b, n = known["alpha"], known["beta"], len(places[0])
        named = {
            "independent": a * b,
            "strongest": np.minimum(a, b),
            "weakest": np.maximum(0.0, a + b - 1),
        }
        rho = np.empty((n, len(self.worlds)))
        for place, (_, coupling) in enumerate(self.worlds):
            written = known.get(f"rho{place + 1}", coupling)
            rho[:, place] = (
                named[written] if isinstance(written, str) else np.asarray(written, float)
            )
        weight = np.array([float(share) for share, _ in self.worlds])
        if "weight" in known:
            first = np.asarray(known["weight"])
            weight = np.stack([first, 1 - first], axis=-1)
        return {**{name: known[name] for name in DEFAULTS}, "rho": rho, "weight": weight}


def value_of(name: str, text: str) -> Fraction:
    """An exact value that a parameter may have.

    Raises:
        FedpactError: no parameter is called so, or it cannot have this value.

    >>> value_of("C1", "1.5")
    Fraction(3, 2)
    """
    check_name(name)
    value = fraction(text, name)
    share = name in SHARES or name.startswith("rho")
    if value < 0 or (share and value > 1):
        raise FedpactError(
            f"{name} is {text}; legal is a number {'from 0 to 1' if share else '>= 0'}. "
            + ('Write 80 % as "4/5".' if share else "Costs too are written as positive numbers.")
        )
    return value


def check_name(name: str, *more: str) -> None:
    """Refuse what is neither a parameter nor one of some more names."""
    if name not in (*DEFAULTS, "weight", *more) and not re.fullmatch(r"rho[1-9]\d*", name):
        raise FedpactError(
            f"There is no parameter {name!r}. "
            f"{did_you_mean(name, [*DEFAULTS, 'weight', 'rho1', 'rho2', *more])}"
        )


def world_of(text: str, option: str) -> tuple[Fraction, Fraction | str]:
    """A world's (weight, rho) from WEIGHT:RHO.

    Raises:
        FedpactError: it is not of that form; the message repeats what stood before it, `option`.
    """
    share, sign, rho = text.partition(":")
    if not sign:
        raise FedpactError(
            f"{option}{text} has no weight; legal is WEIGHT:RHO, with RHO a number or one of "
            f"{', '.join(COUPLINGS)}. If there is one world only, write {option}1:{text}."
        )
    weight = value_of("weight", share)
    if rho in COUPLINGS:
        return weight, rho
    if re.search("[A-Za-z]{2}", rho):
        raise FedpactError(
            f"{option}{text} has the coupling {rho!r}; legal are a number from 0 to 1 and "
            f"{', '.join(COUPLINGS)}. {did_you_mean(rho, list(COUPLINGS))}"
        )
    return weight, value_of("rho1", rho)


def _check(named: Sequence[str], worlds: Sequence[tuple[Fraction, Fraction | str]]) -> None:
    """Refuse what contradicts itself: a parameter named twice, or a world that is not there."""
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise FedpactError(
            f"{twice} is given twice; legal is each parameter once, as --x, --y, --set or --each. "
            "Leave one of them out."
        )
    if len(worlds) > MOST_WORLDS:
        raise FedpactError(
            f"There are {len(worlds)} worlds; legal are at most {MOST_WORLDS}. Merge some."
        )
    if "weight" in named and len(worlds) != 2:
        raise FedpactError(
            f"weight is the first of two worlds', and there are {len(worlds)}; legal are exactly "
            "two. Name both: --world 1/2:independent --world 1/2:strongest."
        )
    for name in named:
        if name.startswith("rho") and int(name[3:]) > len(worlds):
            raise FedpactError(
                f"{name} is the correlation of world {name[3:]}, and there are {len(worlds)}; "
                "legal are the worlds named. Add one: --world WEIGHT:RHO."
            )
    total = sum((weight for weight, _ in worlds), Fraction(0))
    if "weight" not in named and total != 1:
        raise FedpactError(
            f"The weights of the worlds sum to {total}; legal is exactly 1. Write thirds as "
            "fractions: --world 1/3:independent --world 2/3:strongest, or of one panel: "
            "--each world=1/3:independent+2/3:strongest."
        )
