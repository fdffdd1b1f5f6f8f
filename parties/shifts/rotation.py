"""Cameras mounted askew: every firm turns its images a little further than the one before."""

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
class Rotation(Shift):
    """Firm i turns its square images by i * degrees_step, anticlockwise, about their centre.

    Bilinear; what comes in from outside the image is 0.

    Args:
        degrees_step: degrees from one firm to the next.
    """

    degrees_step: float = 10.0

    def __post_init__(self) -> None:
        step = self.degrees_step
        number = isinstance(step, int | float) and not isinstance(step, bool)
        if not number or not -360 <= step <= 360:
            raise FedpactError(
                f"shift.degrees_step is {step!r}; legal is a number of degrees from -360 to 360. "
                "Set shift.degrees_step=10."
            )

    def apply(self, features: Array, ids: Array, client: int, clients: int, seed: int) -> Array:
        side = math.isqrt(features.shape[1])
        if side * side != features.shape[1]:
            raise FedpactError(
                f"shift=rotation was given {features.shape[1]} features; legal are square images "
                "of one channel (64 features for 8x8). Use shift=noise, or another data set."
            )
        angle = client * self.degrees_step
        if angle % 360 == 0:
            return features
        images = features.reshape(-1, side, side)
        turned = ndimage.rotate(images, angle, axes=(2, 1), reshape=False, order=1)
        return np.asarray(turned, np.float32).reshape(features.shape)
