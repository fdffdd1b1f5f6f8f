"""What a firm's files hold: rows in the order of their ids, and everything wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np

from parties.datasets.own.description import Description, Finding
from parties.datasets.own.parts import divide
from parties.exchange import Array

UNKNOWN = -1
CLIP = 10.0  # a level or a number that no training row has stays small


@final
@dataclass(frozen=True)
class Features:
    """Features (n, d) of all rows, before what training rows decide.

    Args:
        values: numbers, NaN where missing; or pixels, uint8.
        standardised: which of the d columns are standardised on the training rows.
        white: what stands for 1 in pixels.
    """

    values: Array
    standardised: Array
    white: float = 1.0

    def of(self, rows: Array, training: Array) -> Array:
        """(len(rows), d) float32: standardised on the training rows, missing as 0, within +-10."""
        if self.values.dtype == np.uint8:
            pixels: Array = self.values[rows].astype(np.float32) / np.float32(self.white)
            return pixels
        found = self.values[rows]
        columns = np.flatnonzero(self.standardised)
        seen = self.values[np.ix_(training, columns)]
        known = ~np.isnan(seen)
        count = np.maximum(known.sum(0), 1)
        centre = np.where(known, seen, 0).sum(0) / count
        spread = np.sqrt(np.where(known, (seen - centre) ** 2, 0).sum(0) / count)
        spread[spread == 0] = 1  # a column of one value says nothing
        found[:, columns] = (found[:, columns] - centre) / spread
        return np.clip(np.where(np.isnan(found), 0, found), -CLIP, CLIP).astype(np.float32)


@final
@dataclass(frozen=True)
class Holding:
    """A firm's data, as far as they could be read.

    Args:
        description: what the firm says of them; None where it says nothing that can be read.
        findings: everything that is wrong; data with any are not used.
        hashes: file name -> sha256.
        rows: how many there are in the files.
        columns: those of the files.
        missing: column -> in how many rows it is missing, where it is.
        ids: (n,) int64, sorted; labels: (n,) int64, -1 where unknown; features of the same rows.
        fixed: (n,) the part of each row, where a column says it; seeds: (n,) for which seed the
            row counts, -1 for all.
    """

    description: Description | None
    findings: tuple[Finding, ...]
    hashes: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    columns: tuple[str, ...] = ()
    missing: dict[str, int] = field(default_factory=dict)
    ids: Array | None = None
    labels: Array | None = None
    features: Features | None = None
    fixed: Array | None = None
    seeds: Array | None = None

    def parts(self, seed: int) -> dict[str, Array]:
        """Rows of each part under a seed, in the order of their ids."""
        assert self.description is not None
        assert self.description.parts is not None
        assert self.ids is not None
        if self.fixed is None:
            division = self.description.parts
            return divide(self.ids, division.folds, division.key, seed)
        now = np.ones(len(self.ids), bool)
        if self.seeds is not None:
            now = (self.seeds == seed) | (self.seeds == UNKNOWN)
        names = [str(name) for name in np.unique(self.fixed) if name != "unused"]
        found = {name: np.flatnonzero(now & (self.fixed == name)) for name in names}
        return {name: rows for name, rows in found.items() if len(rows)}
