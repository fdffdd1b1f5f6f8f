"""30,000 card clients in Taiwan (UCI 350, Yeh & Lien 2009), split by columns between two lenders.

Class 1 is the client who pays back, class 0 the one who defaults next month (22.12 %).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import final

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from parties.datasets import Cases, Dataset, Examples, Split, read_csv
from parties.datasets.kept import SPLITS
from parties.exchange import Array, FedpactError

FILE = "taiwan_credit.csv.gz"
SHA256 = "906d88d0c1a8bf8538f16d7787535b1634ed18a8ad22a91d3b83f86a5547218b"

STATUS = ("PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6")
AMOUNTS = tuple(f"{kind}_AMT{month}" for kind in ("BILL", "PAY") for month in range(1, 7))
CATEGORIES = ("SEX", "EDUCATION", "MARRIAGE")
COLUMNS = {"repayment": STATUS, "accounts": ("LIMIT_BAL", *CATEGORIES, "AGE", *AMOUNTS)}
FOLDS = 5


@final
@dataclass(frozen=True)
class TaiwanCredit(Dataset):
    """One lender's columns of the same 30,000 clients.

    Seed s contests fold s mod 5 of shuffle s // 5, so five consecutive seeds contest every client
    exactly once. Of the other folds, one is for validation and three for training.

    Args:
        columns: "repayment" (six monthly repayment statuses) or "accounts" (credit limit,
            demographics, bill and payment amounts).
        clients: how many clients to use, drawn once; 0 for all 30,000.
    """

    columns: str
    clients: int = 0

    def __post_init__(self) -> None:
        if self.columns not in COLUMNS:
            raise FedpactError(
                f"dataset.columns is {self.columns!r}; legal are {', '.join(COLUMNS)}."
            )
        known = isinstance(self.clients, int) and not isinstance(self.clients, bool)
        if not known or not (self.clients == 0 or 500 <= self.clients <= 30_000):
            raise FedpactError(
                f"dataset.clients is {self.clients!r}; legal are 500 to 30000, and 0 for all."
            )

    def hashes(self) -> dict[str, str]:
        return {FILE: SHA256}

    def split(self, seed: int) -> Split:
        return SPLITS.get((type(self), self.clients, seed), self, lambda: _split(self, seed))

    def outcomes(self, seed: int, part: str) -> tuple[Array, Array]:
        ids = _parts(self.clients, seed)[part]
        return ids, _labels()[ids]


@cache
def _labels() -> Array:
    """1 where the client pays back, in the file's order."""
    return 1 - read_csv(FILE, SHA256)["default"].to_numpy(dtype=np.int64)


@lru_cache(maxsize=64)
def _parts(clients: int, seed: int) -> dict[str, Array]:
    """Row numbers of each part. Both lenders compute the same ones: they know the same clients."""
    everyone = np.arange(len(_labels()))
    if clients:
        everyone = np.random.default_rng([350, clients]).permutation(everyone)[:clients]
    shuffled = np.random.default_rng([350, seed // FOLDS]).permutation(everyone)
    folds = np.array_split(shuffled, FOLDS)
    turn = [folds[(seed + i) % FOLDS] for i in range(FOLDS)]
    return {
        "contested": np.sort(turn[0]),
        "validation": np.sort(turn[1]),
        "training": np.sort(np.concatenate(turn[2:])),
    }


def _features(table: pd.DataFrame, columns: str, training: Array) -> Array:
    """One-hot statuses and categories, signed-log amounts, standardised on the training rows."""
    blocks: list[pd.DataFrame] = []
    for name in COLUMNS[columns]:
        values = table[name]
        if name in STATUS or name in CATEGORIES:
            blocks.append(pd.get_dummies(values, prefix=name, dtype=np.float64))
        elif name == "AGE":
            blocks.append(values.to_frame().astype(np.float64))
        else:
            blocks.append((np.sign(values) * np.log1p(np.abs(values))).to_frame())
    matrix = pd.concat(blocks, axis=1).to_numpy()
    scaled = StandardScaler().fit(matrix[training]).transform(matrix)
    # Statuses that no training client has would be scaled by a zero variance: they stay small.
    features: Array = np.clip(scaled, -10, 10).astype(np.float32)
    return features


def _split(dataset: TaiwanCredit, seed: int) -> Split:
    parts = _parts(dataset.clients, seed)
    features = _features(read_csv(FILE, SHA256), dataset.columns, parts["training"])

    def cases(part: str) -> Cases:
        return Cases(parts[part], features[parts[part]])

    train = parts["training"]
    return Split(
        training=Examples(train, features[train], _labels()[train]),
        validation=cases("validation"),
        contested=cases("contested"),
    )
