"""Firms with a style of their own: contrast, brightness, negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final
from zlib import crc32

import numpy as np

from parties.exchange import Array, FedpactError
from parties.shifts import Shift


@final
@dataclass(frozen=True)
class Style(Shift):
    """Firm i sees 1/2 + gain_i (x - 1/2) + bias_i, with 1 - x for x where it keeps negatives.

    log gain_i ~ N(0, contrast^2) and bias_i ~ N(0, brightness^2), one draw a firm and seed. Nothing
    is clipped, so nothing is lost.

    Args:
        contrast: standard deviation of the logarithm of a firm's gain.
        brightness: standard deviation of a firm's bias; pixels are from 0 to 1.
        inverted: share of the firms that keep negatives: the last ones.
    """

    contrast: float = 0.5
    brightness: float = 0.2
    inverted: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("contrast", 5), ("brightness", 5), ("inverted", 1)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= most:
                raise FedpactError(
                    f"shift.{name} is {value!r}; legal is a number from 0 to {most}. For no "
                    f"difference set shift.{name}=0."
                )

    def apply(self, features: Array, ids: Array, client: int, clients: int, seed: int) -> Array:
        rng = np.random.default_rng([seed, crc32(b"style"), client])
        log_gain, bias = rng.normal(size=2) * (self.contrast, self.brightness)
        centred = features - 0.5
        if client >= clients - round(self.inverted * clients):
            centred = -centred
        seen: Array = np.asarray(0.5 + np.exp(log_gain) * centred + bias, np.float32)
        return seen
