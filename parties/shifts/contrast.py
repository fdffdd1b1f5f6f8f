"""Ever flatter or brighter pictures, from the first firm to the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError
from parties.shifts import Shift


@final
@dataclass(frozen=True)
class Contrast(Shift):
    """Firm i sees 1/2 + gain_i (x - 1/2) + brightness_i; nothing is clipped, so nothing is lost.

    gain_i = gain^(i / (clients - 1)) and brightness_i = brightness * i / (clients - 1): nothing is
    left to chance, where `style` draws both.

    Args:
        gain: of the last firm; below 1 its pictures are flatter.
        brightness: added by the last firm; pixels are from 0 to 1.
    """

    gain: float = 0.5
    brightness: float = 0.0

    def __post_init__(self) -> None:
        for name, least, most in (("gain", 0.001, 1000), ("brightness", -5, 5)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not least <= value <= most:
                raise FedpactError(
                    f"shift.{name} is {value!r}; legal is a number from {least} to {most}. For no "
                    f"difference set shift.{name}={1 if name == 'gain' else 0}."
                )

    def apply(self, features: Array, ids: Array, client: int, clients: int, seed: int) -> Array:
        share = client / max(clients - 1, 1)
        if share == 0:
            return features
        gain, brightness = self.gain**share, self.brightness * share
        return np.asarray(0.5 + gain * (features - 0.5) + brightness, np.float32)
