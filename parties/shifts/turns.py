"""Cameras held any way: every image is turned by an angle of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final
from zlib import crc32

import numpy as np
import torch

from parties.canonicalize.groups import MOST, Group
from parties.exchange import Array, FedpactError
from parties.shifts import Shift


@final
@dataclass(frozen=True)
class Turns(Shift):
    """All firms but the first see every image moved by an element of a group, drawn by its id.

    Args:
        turns: poses a circle: 4 for quarters, which move pixels only.
        mirrors: whether images may be mirrored too.
    """

    turns: int = 4
    mirrors: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.turns, int) and not isinstance(self.turns, bool)
        if not whole or not 1 <= self.turns <= MOST or not isinstance(self.mirrors, bool):
            raise FedpactError(
                f"shift.turns is {self.turns!r} and shift.mirrors {self.mirrors!r}; legal are a "
                f"whole number from 1 to {MOST}, and true or false. Set shift.turns=4."
            )

    def apply(self, features: Array, ids: Array, client: int, clients: int, seed: int) -> Array:
        side = math.isqrt(features.shape[1])
        if side * side != features.shape[1]:
            raise FedpactError(
                f"shift=turns was given {features.shape[1]} features; legal are square images of "
                "one channel (64 features for 8x8). Use shift=noise, or another data set."
            )
        if client == 0 or not len(ids):
            return features
        group = Group(self.turns, self.mirrors)
        # One draw an image, whichever images it comes with.
        stream = np.random.default_rng([seed, crc32(b"turns")])
        by = stream.integers(0, group.order, int(ids.max()) + 1)[ids]
        images = torch.from_numpy(features).view(-1, 1, side, side)
        moved: Array = group.act(images, torch.from_numpy(by)).flatten(1).numpy()
        return moved
