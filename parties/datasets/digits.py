"""1,797 handwritten digits of 8x8 pixels (UCI 80), those of scikit-learn's `load_digits`."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import final
from zlib import crc32

import numpy as np

from parties.datasets import read_known
from parties.datasets.pool import Pool, PoolPart
from parties.exchange import Array, FedpactError

FILE = "digits.csv.gz"
SHA256 = "e31b7ccbf8cc2b158de948b1bb7a67bf39a856fb064b3aa8ef489f12a2dc4b63"


@final
@dataclass(frozen=True)
class Digits(PoolPart):
    """One firm's handwritten digits: 64 pixels, 10 classes. The test part is drawn by the seed.

    Args:
        client, clients, partition, shift: see `PoolPart`.
        test_share: share of every class that is held out.
        test_seed: which draw of it; None: another for every seed of the study.

    References:
        Alpaydin & Kaynak, UCI data set 80, doi 10.24432/C50P49 (its test part).
    """

    test_share: float = 0.2
    test_seed: int | None = None

    classes = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.test_share, float) and not isinstance(self.test_share, bool)
        if not number or not 0.01 <= self.test_share <= 0.9:
            raise FedpactError(
                f"dataset.test_share is {self.test_share!r}; legal is a share from 0.01 to 0.9. "
                "Set dataset.test_share=0.2."
            )

        drawn = self.test_seed
        whole = isinstance(drawn, int) and not isinstance(drawn, bool)
        if drawn is not None and not (whole and drawn >= 0):
            raise FedpactError(
                f"dataset.test_seed is {drawn!r}; legal is a whole number >= 0, and null for a "
                "test part of each seed's own."
            )

    def hashes(self) -> dict[str, str]:
        return {FILE: SHA256}

    def pool(self) -> Pool:
        return _pool()

    def rows(self, seed: int) -> tuple[Array, Array]:
        drawn = seed if self.test_seed is None else self.test_seed
        rng = np.random.default_rng([drawn, crc32(b"digits")])
        tested = np.zeros(len(_pool().labels), bool)
        for label in range(self.classes):
            members = rng.permutation(np.flatnonzero(_pool().labels == label))
            tested[members[: round(self.test_share * len(members))]] = True
        return np.flatnonzero(~tested), np.flatnonzero(tested)


@cache
def _pool() -> Pool:
    cells = np.loadtxt(io.BytesIO(read_known(FILE, SHA256)), np.int64, delimiter=",")
    return Pool(cells[:, :-1].astype(np.uint8), cells[:, -1].copy(), white=16.0)
