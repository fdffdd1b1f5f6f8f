"""A model behind a canonicalizer: any module, untouched, that sees every image in one pose."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from parties.canonicalize import Canonicalizer
from parties.exchange import FedpactError


@final
class CanonicalBackbone(nn.Module):
    """backbone(canonical image), for any backbone.

    Args:
        backbone: (n, c, s, s), or (n, c s s) if `channels` is set, -> (n, classes).
        canonicalizer: finds the pose.
        channels: of flat inputs, (n, channels * side * side); None: inputs are images.
        top: how many of the best poses are looked at: with 2 or more the class probabilities are
            their mean, weighted by the softmax of their scores (a weighted frame).
    """

    def __init__(
        self,
        backbone: nn.Module,
        canonicalizer: Canonicalizer,
        channels: int | None = None,
        top: int = 1,
    ) -> None:
        super().__init__()
        order = canonicalizer.group.order
        if not 1 <= top <= order:
            raise FedpactError(
                f"canonicalizer.top is {top}; legal are 1 to {order}, the poses of the group."
            )
        if top > 1 and canonicalizer.refine:
            raise FedpactError(
                "canonicalizer.top and canonicalizer.refine are both set; a refined pose is one. "
                "Set canonicalizer.top=1."
            )
        if top > 1 and canonicalizer.gate:
            raise FedpactError(
                "canonicalizer.top and canonicalizer.gate are both set; an image that is left "
                "alone has one pose. Set canonicalizer.top=1, or canonicalizer.gate=0."
            )
        self.backbone, self.canonicalizer = backbone, canonicalizer
        self.channels, self.top = channels, top

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (n, classes); with weighted frames the logarithms of probabilities."""
        images = inputs if self.channels is None else as_images(inputs, self.channels)
        if self.top == 1:
            return self._read(self.canonicalizer(images).images, inputs)
        scores = self.canonicalizer.scores(images)
        best = scores.topk(self.top, dim=1)
        weights = best.values.softmax(1).T  # (top, n)
        group = self.canonicalizer.group
        frames = torch.cat([group.act(images, group.inverse(k)) for k in best.indices.T])
        told = self._read(frames, inputs).log_softmax(-1)
        told = told.reshape(self.top, images.shape[0], told.shape[-1])
        return torch.logsumexp(told + weights.log()[..., None], 0)

    def _read(self, images: Tensor, inputs: Tensor) -> Tensor:
        told: Tensor = self.backbone(images.reshape(images.shape[0], *inputs.shape[1:]))
        return told


def as_images(features: Tensor, channels: int) -> Tensor:
    """Flat features (n, channels * s * s) as images (n, channels, s, s)."""
    width = features.shape[1]
    side = math.isqrt(width // channels)
    if channels * side * side != width:
        raise FedpactError(
            f"{width} features are no square images of {channels} channel(s); legal is channels * "
            "side * side, such as 784. Canonicalize square images only."
        )
    return features.view(-1, channels, side, side)
