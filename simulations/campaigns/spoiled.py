"""Twenty ways in which a firm's images may differ from those that a model was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final
from zlib import crc32

import numpy as np

from parties.exchange import Array
from parties.shifts import Shift
from parties.shifts.blur import Blur
from parties.shifts.contrast import Contrast
from parties.shifts.noise import Noise
from parties.shifts.rotation import Rotation
from parties.shifts.style import Style

See = Callable[[Array, Array, int], Array]
"""From images (n, side * side), their ids (n,) and a seed to the images as the firm sees them."""


@final
@dataclass(frozen=True)
class Spoiled:
    """One shift of a campaign.

    Args:
        kind: which sort it is of; a forecast is judged on sorts that it has not seen.
        level: how strong, in the sort's own unit.
        see: how the firm sees an image.
    """

    kind: str
    level: float
    see: See


def _of(shift: Shift) -> See:
    """What the last of two firms sees; the first is the source."""
    return lambda features, ids, seed: shift.apply(features, ids, 1, 2, seed)


def _drawn(ids: Array, seed: int, name: str, shape: tuple[int, ...]) -> Array:
    """Uniform numbers (n, *shape), the same for an example in every call."""
    stream = crc32(name.encode())
    return np.stack([np.random.default_rng([seed, stream, int(i)]).random(shape) for i in ids])


def _salt_and_pepper(share: float) -> See:
    def see(features: Array, ids: Array, seed: int) -> Array:
        drawn = _drawn(ids, seed, "salt", features.shape[1:])
        salted = np.where(drawn < share / 2, 0, np.where(drawn > 1 - share / 2, 1, features))
        return np.asarray(salted, np.float32)

    return see


def _occlusion(width: int) -> See:
    """A black square somewhere in every image."""

    def see(features: Array, ids: Array, seed: int) -> Array:
        side = round(features.shape[1] ** 0.5)
        corner = np.floor(_drawn(ids, seed, "occlusion", (2,)) * (side - width + 1)).astype(int)
        away = np.arange(side)[None, :, None] - corner[:, None, :]  # (n, side, 2)
        inside = (away >= 0) & (away < width)
        hidden = inside[:, :, None, 0] & inside[:, None, :, 1]
        return np.where(hidden.reshape(features.shape), np.float32(0), features)

    return see


def _shuffle(features: Array, ids: Array, seed: int) -> Array:
    """One order of the pixels for all images."""
    order = np.random.default_rng([seed, crc32(b"shuffle")]).permutation(features.shape[1])
    return np.ascontiguousarray(features[:, order])


SHIFTS: dict[str, Spoiled] = {
    **{f"noise_{v:g}": Spoiled("noise", v, _of(Noise(v))) for v in (0.1, 0.2, 0.3, 0.5)},
    **{f"blur_{v:g}": Spoiled("blur", v, _of(Blur(v))) for v in (0.5, 1.0)},
    **{f"contrast_{v:g}": Spoiled("contrast", v, _of(Contrast(v))) for v in (0.5, 0.2)},
    "brightness_0.3": Spoiled("brightness", 0.3, _of(Contrast(1.0, 0.3))),
    "inversion": Spoiled("inversion", 1.0, _of(Style(0, 0, 1.0))),
    **{f"rotation_{v}": Spoiled("rotation", v, _of(Rotation(v))) for v in (15, 30, 45, 90, 180)},
    **{f"salt_{v:g}": Spoiled("salt", v, _salt_and_pepper(v)) for v in (0.1, 0.3)},
    **{f"occlusion_{v}": Spoiled("occlusion", v, _occlusion(v)) for v in (3, 4)},
    "shuffle": Spoiled("shuffle", 1.0, _shuffle),
}
