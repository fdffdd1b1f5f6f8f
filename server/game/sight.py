"""Who sees what: a contract, as the game knows it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

from parties.exchange import FedpactError
from server.game.worlds import Cell

Seen = tuple[tuple[str, Hashable], ...]
"""An information set: what a firm sees, such as (("z1", ""), ("s1", 1))."""

OWN: tuple[tuple[str, str], ...] = (("z1", "s1"), ("z2", "s2"))
RIVAL: tuple[tuple[str, str], ...] = (("z2", "s2"), ("z1", "s1"))


@final
@dataclass(frozen=True)
class Sight:
    """What each firm sees of its rival before it acts. Its own z_i and s_i it always sees.

    Args:
        firm1: of "z2" (the rival's trained model) and "s2" (its prediction for the client).
        firm2: of "z1" and "s1".

    >>> Sight(firm1=("z2",)).saw(0, Cell("", "", "w", 1, 0, 1, (0, 0)))
    (('z1', ''), ('z2', ''), ('pair', 'w'), ('s1', 1))
    """

    firm1: tuple[str, ...] = ()
    firm2: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for number, (sees, legal) in enumerate(zip((self.firm1, self.firm2), RIVAL, strict=True)):
            listed = isinstance(sees, list | tuple)
            if not listed or any(s not in legal for s in sees) or len(set(sees)) != len(sees):
                raise FedpactError(
                    f"firm{number + 1} sees {sees!r} of its rival; legal is a list of "
                    f"{legal[0]!r} (its model) and {legal[1]!r} (its prediction), or neither."
                )
        for name, legal in zip(("firm1", "firm2"), RIVAL, strict=True):
            ordered = tuple(item for item in legal if item in getattr(self, name))
            object.__setattr__(self, name, ordered)

    def sees(self, firm: int) -> tuple[str, ...]:
        """Names of all that a firm (0 or 1) sees."""
        rival = (self.firm1, self.firm2)[firm]
        seen = {*OWN[firm], *rival}
        if {"z1", "z2"} <= seen:
            seen.add("pair")
        return tuple(name for name in ("z1", "z2", "pair", "s1", "s2") if name in seen)

    def saw(self, firm: int, cell: Cell) -> Seen:
        """A firm's information set in one event."""
        return tuple((name, getattr(cell, name)) for name in self.sees(firm))


CONTRACTS: Mapping[str, Sight] = {
    "no_sharing": Sight(),
    "train_sharing": Sight(("z2",), ("z1",)),
    "infer_sharing": Sight(("s2",), ("s1",)),
    "full_sharing": Sight(("z2", "s2"), ("z1", "s1")),
}
"""The four contracts of the paper."""


def sights(contracts: Mapping[str, Any] | Iterable[str] | None) -> dict[str, Sight]:
    """Contracts by name: the paper's four by default, further ones as {"firm1": [...], ...}.

    Raises:
        FedpactError: a name is unknown, or no_sharing (the baseline) is missing.

    >>> sights({"no_sharing": {}, "one_sided": {"firm1": ["z2", "s2"]}})["one_sided"].firm2
    ()
    """
    if contracts is None:
        return dict(CONTRACTS)
    if not isinstance(contracts, Mapping):
        listed = isinstance(contracts, list | tuple)
        if not listed or not all(isinstance(name, str) for name in contracts):
            raise FedpactError(
                f"contracts is {contracts!r}; legal is an object name -> mask, or a list of the "
                f"names {', '.join(CONTRACTS)}."
            )
    named = contracts if isinstance(contracts, Mapping) else dict.fromkeys(contracts)
    found = {}
    for name, mask in named.items():
        if name in CONTRACTS and not mask:
            found[name] = CONTRACTS[name]
        elif isinstance(mask, Mapping) and set(mask) <= {"firm1", "firm2"}:
            found[name] = Sight(mask.get("firm1", ()), mask.get("firm2", ()))
            if found[name] != CONTRACTS.get(name, found[name]):
                raise FedpactError(
                    f"{name} is the name of one of the paper's contracts, with another meaning. "
                    "Give yours a name of its own."
                )
        else:
            raise FedpactError(
                f"The contract {name!r} is {mask!r}; legal are the names {', '.join(CONTRACTS)}, "
                "or a name of your own with what each firm sees of its rival: "
                '{"firm1": ["z2", "s2"], "firm2": []}.'
            )
    if "no_sharing" not in found:
        raise FedpactError(
            f"contracts are {', '.join(found) or 'none'}; no_sharing must be among them: every "
            "verdict is a gain over it."
        )
    return found
