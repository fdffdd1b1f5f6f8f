"""Canonicalization: bring an image into one pose before any model sees it.

A `Canonicalizer` looks at an image in every pose of a group, scores each, and hands on the one that
scores highest, so that a frozen model sees what it was trained on whichever way the image was
turned. The canonical image of an image and of that image moved by the group is the same, whatever
the scorer of images, wherever the group moves pixels only (C_4 and D_4 on square images); for other
turns as far as interpolation lets it. There is no continuous canonicalization for all turns
(arXiv 2402.16077): near a tie of two poses a small change of the image may change the pose.

References:
    Panigrahi, Mondal, arXiv 2405.14089; Mondal, Panigrahi et al., arXiv 2310.01647.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from parties.canonicalize.groups import Group, Moves, turned
from parties.canonicalize.scorers import OnePass, Scorer
from parties.exchange import FedpactError


class Canonical(NamedTuple):
    """What a canonicalizer found.

    Args:
        images: in the canonical pose, (n, c, s, s).
        element: the pose of each input: it is its canonical image moved by this element, (n,).
        extra: degrees beyond that, where poses are refined, (n,); else None.
        scores: of every element, (n, order).
        margin: the best score less the second best, log odds, (n,); infinite for a group of one.
    """

    images: Tensor
    element: Tensor
    extra: Tensor | None
    scores: Tensor
    margin: Tensor


@final
class Canonicalizer(nn.Module):
    """Brings every image into its best-scored pose. It keeps nothing from one call to the next.

    Args:
        group: the poses that are tried.
        scorer: scores them.
        refine: how often the step between two angles is halved about the best one; 0 for the
            group's own poses only. The canonical image is then turned once more by interpolation.
        gate: an image is left as it is unless another pose scores higher by more than this, log
            odds. Above 0 the canonical image is no longer the same over a whole orbit.
    """

    def __init__(
        self, group: Moves, scorer: Scorer | OnePass, refine: int = 0, gate: float = 0.0
    ) -> None:
        super().__init__()
        if refine and not isinstance(group, Group):
            raise FedpactError(
                f"canonicalizer.refine is {refine}, and {type(group).__name__} has no angles; "
                "legal is 0 there. Use canonicalizer=turns."
            )
        if refine and isinstance(scorer, OnePass):
            raise FedpactError(
                "canonicalizer.refine is set, and the scorer tells poses at one look; legal is 0 "
                "there. Use a scorer of images, such as scorer=scalar."
            )
        if refine and gate:
            raise FedpactError(
                "canonicalizer.gate and canonicalizer.refine are both set; an image that is left "
                "alone has no angle to refine. Set one of them to 0."
            )
        self.group, self.scorer, self.refine, self.gate = group, scorer, refine, gate

    def forward(self, images: Tensor) -> Canonical:
        """Images (n, c, s, s) in their canonical pose, and what that pose is."""
        scores, orbit = self._seen(images)
        biased = scores
        if self.gate:
            at_rest = torch.arange(self.group.order, device=images.device) == 0
            biased = scores + self.gate * at_rest
        element = biased.argmax(1)
        return self._posed(images, orbit, scores, element)

    def scores(self, images: Tensor) -> Tensor:
        """Score of every pose, (n, order), log odds."""
        return self._seen(images)[0]

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.scorer, OnePass):
            return self.scorer(images), None
        orbit = self.group.orbit(images)
        return self.scorer(orbit.flatten(0, 1)).view(self.group.order, -1).T, orbit

    def _posed(
        self, images: Tensor, orbit: Tensor | None, scores: Tensor, element: Tensor
    ) -> Canonical:
        if self.refine:
            assert isinstance(self.group, Group)
            extra = self._refined(images, element, self.group)
            back = torch.where(element < self.group.turns, -extra, extra)
            found = self.group.act(images, self.group.inverse(element), back)
            return Canonical(found, element, extra, scores, margin(scores))
        if orbit is None:
            found = self.group.act(images, self.group.inverse(element))
        else:
            found = orbit[element, torch.arange(images.shape[0], device=images.device)]
        return Canonical(found, element, None, scores, margin(scores))

    def _refined(self, images: Tensor, element: Tensor, group: Group) -> Tensor:
        """Degrees beyond the element's own, by halving the step about the best angle."""
        assert isinstance(self.scorer, Scorer)
        mirrored = element >= group.turns
        upright = group.mirrored(images, element)
        # g = r^a m undone is m r^-a, which is r^a m: mirrored first, then turned by +a.
        sense = torch.where(mirrored, 1.0, -1.0)
        extra, step = torch.zeros(images.shape[0], device=images.device), 360 / group.turns
        for _ in range(self.refine):
            step /= 2
            tried = extra + step * torch.tensor([[-1.0], [0.0], [1.0]], device=images.device)
            angles = sense * (group.degrees(element) + tried)  # (3, n)
            seen = turned(upright.repeat(3, 1, 1, 1), angles.flatten(), group.padding)
            best = self.scorer(seen).view(3, -1).argmax(0)
            extra = tried[best, torch.arange(images.shape[0], device=images.device)]
        return extra


def margin(scores: Tensor) -> Tensor:
    """The best score less the second best, (n,).

    >>> margin(torch.tensor([[1.0, 4.0, 2.5]])).tolist(), margin(torch.zeros(1, 1)).tolist()
    ([1.5], [inf])
    """
    if scores.shape[1] < 2:
        return torch.full_like(scores[:, 0], torch.inf)
    best = scores.topk(2, dim=1).values
    return best[:, 0] - best[:, 1]


@final
@dataclass(frozen=True)
class Placed:
    """Turns what a model found in canonical images back into the frame of the inputs.

    Classes need no turning back; masks, points, directions and boxes do.

    Args:
        group: the canonicalizer's; found: what it returned.
    """

    group: Moves
    found: Canonical

    def images(self, images: Tensor) -> Tensor:
        """Images (n, c, s, s)."""
        return self.group.act(images, self.found.element, self.found.extra)

    def masks(self, masks: Tensor) -> Tensor:
        """Masks (n, s, s) of labels."""
        return self.group.act_on_masks(masks, self.found.element, self.found.extra)

    def vectors(self, vectors: Tensor) -> Tensor:
        """Directions (n, m, 2), x to the right and y up."""
        return self.group.act_on_vectors(vectors, self.found.element, self.found.extra)

    def points(self, points: Tensor) -> Tensor:
        """Points (n, m, 2) in pixels from the top left corner."""
        side = self.found.images.shape[-1]
        return self.group.act_on_points(points, self.found.element, side, self.found.extra)

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (n, m, 4) of x0, y0, x1, y1 in pixels."""
        side = self.found.images.shape[-1]
        return self.group.act_on_boxes(boxes, self.found.element, side, self.found.extra)
