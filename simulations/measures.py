"""What a watched session's rounds say: accuracy, forgetting, rounds to a target, bytes, seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd

from parties.exchange import Array, FedpactError
from server.transport import OPERATOR


@final
@dataclass(frozen=True)
class Curve:
    """How the published model fared over the rounds of one session, all firms pooled.

    Args:
        right, cases: held-out cases by round and class, (rounds, classes).
        log_loss: mean log loss of all cases, nats, (rounds,).
        turns: which rounds these are, from 0, (rounds,): a void one is not measured.
    """

    right: Array
    cases: Array
    log_loss: Array
    turns: Array

    @property
    def accuracy(self) -> Array:
        """Share of all cases that each round's model gets right, (rounds,)."""
        found: Array = self.right.sum(1) / self.cases.sum(1)
        return found

    def last(self, rounds: int) -> float:
        """Mean accuracy of the last rounds."""
        return float(self.accuracy[-rounds:].mean())

    @property
    def forgetting(self) -> float:
        """Accuracy lost from one round to the next, a class: mean of max(0, a_r - a_{r+1}).

        A class's gains do not make up for another's losses.

        >>> right, cases = np.array([[2, 0], [1, 2]]), np.full((2, 2), 2)
        >>> Curve(right, cases, np.ones(2), np.arange(2)).forgetting
        0.25
        """
        by_class = self.right / np.maximum(self.cases, 1)
        return float(np.maximum(0.0, by_class[:-1] - by_class[1:]).mean())

    def rounds_to(self, target: float) -> int | None:
        """The first round, counted from 1, whose model reaches an accuracy; None if none does."""
        reached = np.flatnonzero(self.accuracy >= target)
        return int(self.turns[reached[0]]) + 1 if len(reached) else None


def curves(folder: Path, contract: str = "train_sharing") -> dict[int, Curve]:
    """Seed -> curve, from a run's scores.csv.

    Raises:
        FedpactError: its rounds were not watched.
    """
    table = pd.read_csv(folder / "scores.csv", dtype={"by_class": str})
    table = table[table["contract"] == contract]
    if table.empty:
        raise FedpactError(
            f"{folder / 'scores.csv'} has no rows of {contract}: its rounds were not watched. Hold "
            "it again with study.watch=true."
        )
    found = {}
    for seed, rows in table.groupby("seed"):
        parts = [part for _, part in rows.groupby("round")]
        by_round = [_counts(list(part["by_class"])) for part in parts]
        right, cases = (np.array([counts[i] for counts in by_round]) for i in (0, 1))
        losses = [np.average(part["log_loss"], weights=part["cases"]) for part in parts]
        turns = np.sort(rows["round"].unique())
        found[int(str(seed))] = Curve(right, cases, np.array(losses), turns)
    return found


def _counts(cells: Sequence[str]) -> tuple[Array, Array]:
    """Right ones and cases by class, summed over firms, of texts such as "3/5 0/2"."""
    pairs = np.array([[p.split("/") for p in cell.split()] for cell in cells], dtype=np.int64)
    total = pairs.sum(0)
    return total[:, 0], total[:, 1]


def traffic(folder: Path, contract: str = "train_sharing") -> dict[int, tuple[int, int]]:
    """Seed -> bytes of training down to the firms, and up from them."""
    table = pd.read_csv(folder / "messages.csv")
    table = table[(table["contract"] == contract) & table["kind"].isin(["Offer", "Trained"])]
    down = table[table["sender"] == OPERATOR].groupby("seed")["bytes"].sum()
    up = table[table["receiver"] == OPERATOR].groupby("seed")["bytes"].sum()
    return {int(seed): (int(down[seed]), int(up[seed])) for seed in down.index}


def seconds(folder: Path, contract: str = "train_sharing") -> dict[int, float]:
    """Seed -> CPU seconds that the firms' training took."""
    table = pd.read_csv(folder / "seconds.csv")
    spent = table[table["contract"] == contract].groupby("seed")["cpu_seconds"].sum()
    return {int(str(seed)): float(value) for seed, value in spent.items()}
