"""Ever softer lenses, from the first firm to the last."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from scipy import ndimage

from parties.exchange import Array, FedpactError
from parties.shifts import Shift


@final
@dataclass(frozen=True)
class Blur(Shift):
    """Firm i sees its square images through a Gaussian of deviation sigma * i / (clients - 1).

    At the border the image goes on as its edge.

    Args:
        sigma: standard deviation of the last firm's blur, pixels.
    """

    sigma: float = 1.0

    def __post_init__(self) -> None:
        number = isinstance(self.sigma, int | float) and not isinstance(self.sigma, bool)
        if not number or not 0 <= self.sigma <= 100:
            raise FedpactError(
                f"shift.sigma is {self.sigma!r}; legal is a number of pixels from 0 to 100. For "
                "no blur at all use shift=none."
            )

    def apply(self, features: Array, ids: Array, client: int, clients: int, seed: int) -> Array:
        side = math.isqrt(features.shape[1])
        if side * side != features.shape[1]:
            raise FedpactError(
                f"shift=blur was given {features.shape[1]} features; legal are square images of "
                "one channel (64 features for 8x8). Use shift=noise, or another data set."
            )
        sigma = self.sigma * client / max(clients - 1, 1)
        if sigma == 0:
            return features
        images = features.reshape(-1, side, side)
        soft = ndimage.gaussian_filter(images, (0, sigma, sigma), mode="nearest")
        return np.asarray(soft, np.float32).reshape(features.shape)
