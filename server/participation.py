"""Participation: which firms train in a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final
from zlib import crc32

import numpy as np

from parties.exchange import FedpactError


@final
@dataclass(frozen=True)
class Participation:
    """A random share of the firms trains in each round; some may be away for a while.

    Args:
        share: of the firms that are asked in a round, in (0, 1]; rounded, at least one firm.
        absent: firm -> rounds (from 0) in which it cannot be reached.
    """

    share: float = 1.0
    absent: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        share = self.share
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not 0 < share <= 1:
            raise FedpactError(
                f"participation.share is {share!r}; legal is a number > 0 and <= 1. "
                "1 asks every firm in every round."
            )
        away = self.absent
        rounds = [r for listed in away.values() for r in listed] if _lists(away) else [None]
        whole = all(isinstance(r, int) and not isinstance(r, bool) and r >= 0 for r in rounds)
        if not whole:
            raise FedpactError(
                f"participation.absent is {away!r}; legal is firm: [rounds from 0], for example "
                "+participation.absent.hungary=[3,4]"
            )

    def check(self, firms: Sequence[str]) -> None:
        """Raises a FedpactError where an absent firm is not one of the cast."""
        unknown = sorted(set(self.absent) - set(firms))
        if unknown:
            raise FedpactError(
                f"participation.absent names {', '.join(unknown)}; the firms are "
                f"{', '.join(firms)}."
            )

    def count(self, firms: int) -> int:
        """How many of so many firms are asked in a round, if none is away."""
        return max(1, round(self.share * firms))

    def asked(self, firms: Sequence[str], seed: int, turn: int) -> tuple[str, ...]:
        """The firms that are asked to train, by name.

        >>> Participation(share=0.5).asked(["a", "b", "c", "d"], seed=0, turn=0)
        ('b', 'c')
        """
        chosen = sorted(firms)
        if self.share < 1:
            rng = np.random.default_rng([seed, turn, crc32(b"participation")])
            chosen = [
                chosen[i] for i in np.sort(rng.permutation(len(chosen))[: self.count(len(firms))])
            ]
        return tuple(name for name in chosen if turn not in self.absent.get(name, ()))


def _lists(away: object) -> bool:
    return isinstance(away, Mapping) and all(isinstance(v, list | tuple) for v in away.values())
