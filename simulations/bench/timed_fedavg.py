"""FedAvg that notes when each round was over, and what all processes spent from end to end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from parties.exchange import Weights
from server.strategies import State, Strategy
from server.strategies.fedavg import FedAvg
from simulations.bench.tree import tree_cpu_seconds


@final
@dataclass(frozen=True)
class TimedFedAvg(Strategy):
    """`FedAvg`, with a line of JSON for each round in a file.

    Args:
        marks: the file.
        root: the process whose tree is counted.
    """

    marks: str = os.devnull
    root: int = 0
    rule: FedAvg = field(default_factory=FedAvg)

    combines = True
    linear = True

    def combine(self, updates: Mapping[str, Weights], state: State) -> State:
        after = self.rule.combine(updates, state)
        place = Path(self.marks)
        # To look at all processes takes as long as some firms' training: first and last only.
        ends = after.turn in (1, self.rounds)
        mark = {"cpu_s": tree_cpu_seconds(self.root) if ends else None}
        mark["wall_s"] = time.perf_counter()
        with place.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**mark, "updates": len(updates)}) + "\n")
        if after.turn == self.rounds and after.published is not None:
            arrays: dict[str, Any] = dict(after.published.arrays)
            np.savez(place.with_suffix(".npz"), **arrays)
        return after
