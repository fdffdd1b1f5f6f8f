"""Ever noisier sensors, from the first firm to the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final
from zlib import crc32

import numpy as np

from parties.exchange import Array, FedpactError
from parties.shifts import Shift


@final
@dataclass(frozen=True)
class Noise(Shift):
    """Firm i adds Gaussian noise of standard deviation level * i / (clients - 1) to every feature.

    Args:
        level: standard deviation of the last firm's noise; pixels are from 0 to 1.

    References:
        Li et al., arXiv 2102.02079 (noise-based feature skew).
    """

    level: float = 0.3

    def __post_init__(self) -> None:
        number = isinstance(self.level, int | float) and not isinstance(self.level, bool)
        if not number or not np.isfinite(self.level) or self.level < 0:
            raise FedpactError(
                f"shift.level is {self.level!r}; legal is a number >= 0. For no noise at all use "
                "shift=none."
            )

    def apply(self, features: Array, ids: Array, client: int, clients: int, seed: int) -> Array:
        deviation = self.level * client / max(clients - 1, 1)
        if deviation == 0:
            return features
        stream = crc32(b"noise")
        drawn = np.empty_like(features)
        for row, example in enumerate(ids):
            rng = np.random.default_rng([seed, stream, int(example)])
            rng.standard_normal(dtype=np.float32, out=drawn[row])
        return features + np.float32(deviation) * drawn
