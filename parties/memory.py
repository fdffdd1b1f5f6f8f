"""What a firm keeps between messages."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import final

from parties.exchange import Array


@final
@dataclass(frozen=True)
class Memory:
    """What a firm keeps between messages. Losing it costs time, never a different answer.

    Args:
        models: name -> arrays; the firm's own model of the current seed.
        notes: name -> text; the terms it accepted.
        seeds: of how many seeds it keeps models; those of the one that came first go first.
    """

    models: MutableMapping[str, dict[str, Array]] = field(default_factory=dict)
    notes: MutableMapping[str, str] = field(default_factory=dict)
    seeds: int = 1

    def make_room(self, seed: int) -> None:
        """Forget models of other seeds, so that there is room for those of this one.

        Models have the names `kind/seed` and `kind/seed/more`.
        """
        known = dict.fromkeys(key.split("/")[1] for key in self.models)
        others = [other for other in known if other != str(seed)]
        stale = set(others[: max(len(others) - self.seeds + 1, 0)])
        for key in list(self.models):
            if key.split("/")[1] in stale:
                del self.models[key]
