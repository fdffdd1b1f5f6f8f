"""Axes: what a sweep varies, by the keys of the configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from parties.exchange import FedpactError

FIELDS = ("low", "high", "steps", "log", "integer")
FORM = (
    "legal is a list of values, such as [1,2,3], or a range, such as {low: 1, high: 5} with, if "
    "wanted, steps, log and integer"
)


@final
@dataclass(frozen=True)
class Axis:
    """One parameter of the configuration, and the values it may take.

    Args:
        key: as on the command line, "market.C1" or "backbone".
        values: the ones it takes, for a list.
        low, high: ends of a range, both in it.
        steps: values of a range that a grid takes, evenly spaced.
        log: evenly spaced in the logarithm.
        integer: only whole numbers.
    """

    key: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    steps: int | None = None
    log: bool = False
    integer: bool = False

    @property
    def ranged(self) -> bool:
        """A range, and not a list."""
        return not self.values

    def at(self, share: float) -> Any:
        """The value at a share of the way, 0 <= share <= 1; of a list, the one that it falls on.

        >>> axis_of("market.C1", {"low": 1, "high": 5}).at(0.25)
        2.0
        >>> axis_of("play", ["equilibrium", "myopic"]).at(0.5)
        'myopic'
        """
        if self.values:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        if self.integer and not self.log:  # every whole number is as wide as the others
            return min(int(self.low) + int(share * (self.high - self.low + 1)), int(self.high))
        if self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return round(value) if self.integer else float(f"{value:.12g}")

    def grid(self) -> tuple[Any, ...]:
        """The values of a grid, each once.

        >>> axis_of("market.C1", {"low": 1, "high": 2, "steps": 3}).grid()
        (1.0, 1.5, 2.0)

        Raises:
            FedpactError: a range without steps.
        """
        if self.values:
            return self.values
        if self.steps is None:
            raise FedpactError(
                f"sweep.axes.{self.key} is a range without steps; a grid takes some of its values. "
                f"Write {{low: {self.low:g}, high: {self.high:g}, steps: 5}}, or use sweep=sobol."
            )
        shares = np.linspace(0, 1, self.steps)
        if self.integer and not self.log:
            found = [round(self.low + (self.high - self.low) * share) for share in shares]
        else:
            found = [self.at(float(share)) for share in shares]
        return tuple(dict.fromkeys(found))

    def told(self) -> dict[str, Any]:
        """The axis for sweep.json."""
        if self.values:
            return {"key": self.key, "values": list(self.values)}
        ends = {"low": self.low, "high": self.high, "log": self.log, "integer": self.integer}
        return {"key": self.key, "values": None, **ends}


def axes_of(given: Mapping[str, Any]) -> tuple[Axis, ...]:
    """All axes of a sweep.

    Raises:
        FedpactError: an axis is not legal, or holds a part of another one.
    """
    if not isinstance(given, Mapping):
        raise FedpactError(
            f"sweep.axes is {given!r}; legal are keys with their values, such as "
            "{market.C1:[1,2,3]}."
        )
    axes = tuple(axis_of(str(key), value) for key, value in given.items())
    for one in axes:
        for two in axes:
            if two.key.startswith(f"{one.key}."):
                raise FedpactError(
                    f"sweep.axes has {one.key} and {two.key}, which is a part of it; a sweep "
                    "varies a part or the whole. Leave one of them out."
                )
    return axes


def axis_of(key: str, given: Any) -> Axis:
    """An axis from its configuration.

    Raises:
        FedpactError: it is not legal.
    """
    name = f"sweep.axes.{key}"
    if isinstance(given, list | tuple):
        values = tuple(given)
        if not values:
            raise FedpactError(f"{name} has no values; {FORM}.")
        if any(isinstance(v, Mapping) for v in values):
            raise FedpactError(
                f"{name} holds settings ({{...}}); legal are single values and lists. Take an axis "
                f"for each setting, such as {key}.NAME."
            )
        same = [v for i, v in enumerate(values) if _among(v, values[:i])]
        if same:
            raise FedpactError(f"{name} has {same[0]!r} twice; legal are different values.")
        return Axis(key, values)
    if not isinstance(given, Mapping) or not {"low", "high"} <= set(given):
        raise FedpactError(f"{name} is {given!r}; {FORM}.")
    unknown = sorted(set(map(str, given)) - set(FIELDS))
    if unknown:
        raise FedpactError(f"{name} has {', '.join(unknown)}; legal are {', '.join(FIELDS)}.")
    low, high, steps = given["low"], given["high"], given.get("steps")
    log, integer = given.get("log", False), given.get("integer", False)
    if not all(_number(v) for v in (low, high)) or low >= high:
        raise FedpactError(f"{name} is from {low!r} to {high!r}; legal are numbers, low < high.")
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 2):
        raise FedpactError(f"{name}.steps is {steps!r}; legal is a whole number >= 2.")
    for field, flag in (("log", log), ("integer", integer)):
        if not isinstance(flag, bool):
            raise FedpactError(f"{name}.{field} is {flag!r}; legal are true and false.")
    if log and low <= 0:
        raise FedpactError(f"{name}.low is {low!r}; with log: true legal is a number > 0.")
    if integer and (low != int(low) or high != int(high)):
        raise FedpactError(
            f"{name} is from {low!r} to {high!r}; with integer: true legal are whole numbers."
        )
    return Axis(key, (), float(low), float(high), steps, log, integer)


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse a field of a design that is no whole number.

    Raises:
        FedpactError: it is none, or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise FedpactError(f"sweep.{name} is {value!r}; legal is a whole number >= {least}.")


def _number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(float(value))  # type: ignore[arg-type]


def _among(value: Any, others: tuple[Any, ...]) -> bool:
    """Whether a value is among others; true and 1 are two values."""
    return any(type(value) is type(other) and value == other for other in others)
