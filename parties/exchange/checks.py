"""What every type of the wall checks of its fields, and the errors that say what is wrong."""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class FedpactError(Exception):
    """An error its reader can act on: what is wrong, what is legal, what to do."""


@final
class ExchangeError(FedpactError):
    """A message that is not a well-formed value of this package."""


def require(condition: bool, problem: str) -> None:
    """Raises an ExchangeError with the problem where the condition does not hold."""
    if not condition:
        raise ExchangeError(problem)


def count(value: object, name: str, least: int = 0) -> None:
    """A whole number >= least."""
    # The words are made where they are needed only: all of every message comes by here.
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ExchangeError(f"{name} is {value!r}; a count is a whole number >= {least}.")


def amount(value: object, name: str) -> None:
    """A finite float >= 0."""
    legal = isinstance(value, float) and math.isfinite(value) and value >= 0
    require(legal, f"{name} is {value!r}; legal is a finite number >= 0.")


def flag(value: object, name: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise ExchangeError(f"{name} is {value!r}; legal are true and false.")


def text(value: object, name: str) -> None:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ExchangeError(f"{name} is {value!r}; a name is not empty.")


def signed(value: object, name: str) -> None:
    """A signature: 64 bytes in hex (Ed25519)."""
    hexed = isinstance(value, str) and len(value) == 128 and set(value) <= set("0123456789abcdef")
    require(hexed, f"{name} is not 128 hex digits.")


def instance(value: object, name: str, kind: type, optional: bool = False) -> None:
    """Of this type; or None, where it is optional."""
    if not isinstance(value, kind) and not (optional and value is None):
        raise ExchangeError(f"{name} is {type(value).__name__}, not {kind.__name__}.")


def numeric(value: object, name: str, ndim: int | None = None, kinds: str = "iuf") -> None:
    """An array of numbers; kinds are those of its dtype."""
    if not isinstance(value, np.ndarray):
        raise ExchangeError(f"{name} is {type(value).__name__}, not an array.")
    if value.dtype.kind not in kinds:
        raise ExchangeError(
            f"{name} has dtype {value.dtype}; legal are kinds {kinds!r} (i, u: integers, f: "
            "floats)."
        )
    if ndim is not None and value.ndim != ndim:
        raise ExchangeError(f"{name} has {value.ndim} dimensions, expected {ndim}.")


def ids(value: object, rows: int, name: str) -> None:
    """As many whole numbers as there are rows, none twice."""
    numeric(value, name, 1, "iu")
    assert isinstance(value, np.ndarray)
    require(len(value) == rows, f"{name} names {len(value)} clients for {rows} rows.")
    require(len(np.unique(value)) == rows, f"{name} names a client twice.")
