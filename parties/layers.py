"""Layers of our own, for backbones. Like most of torch's they keep nothing from call to call:
modules of them are trained again and again (`parties.fitting`)."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn


@final
class Image(nn.Module):
    """Square images of one channel, flattened row by row (n, side**2) -> (n, 1, side, side).

    What nn.Unflatten says, and on a CPU written down as channels last, which nothing has to be
    copied for while there is one channel. Layers after it keep that order, and torch's pooling is
    several times faster in it.

    Args:
        side: pixels of a side.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, features: Tensor) -> Tensor:
        """The images, a view of the features (n, side**2).

        Raises:
            RuntimeError: the features are not as wide.
        """
        if features.device.type == "cpu":
            return features.view(len(features), self.side, self.side, 1).permute(0, 3, 1, 2)
        return features.view(len(features), 1, self.side, self.side)

    def extra_repr(self) -> str:
        """Its side, where a module is printed."""
        return f"side={self.side}"
