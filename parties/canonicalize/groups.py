"""Groups of turns and mirrorings, and how they act on images, points, boxes and masks.

Element k of C_n turns by 360 k / n degrees anticlockwise. D_n has 2 n elements: k < n turns, and
k >= n mirrors left and right first, then turns by 360 (k - n) / n degrees. Turns by quarters only
move pixels; others interpolate, n/4 - 1 times for a whole orbit where 4 divides n.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from parties.exchange import FedpactError

PADDINGS = ("zeros", "border", "reflection")
MOST = 360


class Moves(ABC):
    """A finite set of ways in which an image may have been moved; 0 leaves it as it is.

    Args:
        padding: what comes in from outside an image: "zeros", "border" or "reflection".
    """

    padding: str

    @property
    @abstractmethod
    def order(self) -> int:
        """How many there are."""

    @abstractmethod
    def inverse(self, element: Tensor) -> Tensor:
        """The element that undoes each, (n,) int64."""

    @abstractmethod
    def orbit(self, images: Tensor) -> Tensor:
        """Every image undone by every element, g_k^-1 x: (n, c, s, s) -> (order, n, c, s, s).

        Entry k is what the image would be if its pose were k.
        """

    @abstractmethod
    def act(self, images: Tensor, element: Tensor, extra: Tensor | None = None) -> Tensor:
        """Each image moved by its own element, (n, c, s, s).

        Args:
            extra: degrees to turn beyond that, (n,), where a pose was refined.
        """

    @abstractmethod
    def act_on_masks(self, masks: Tensor, element: Tensor, extra: Tensor | None = None) -> Tensor:
        """Masks (n, s, s) of labels, moved like the images: no label is made up."""

    @abstractmethod
    def act_on_vectors(
        self, vectors: Tensor, element: Tensor, extra: Tensor | None = None
    ) -> Tensor:
        """Directions (n, m, 2), x to the right and y up, moved with the image."""

    def act_on_points(
        self, points: Tensor, element: Tensor, side: int, extra: Tensor | None = None
    ) -> Tensor:
        """Points (n, m, 2) in pixels from the top left corner, x to the right and y down."""
        half = side / 2
        flip = torch.tensor([1.0, -1.0], dtype=points.dtype, device=points.device)
        return self.act_on_vectors((points - half) * flip, element, extra) * flip + half

    def act_on_boxes(
        self, boxes: Tensor, element: Tensor, side: int, extra: Tensor | None = None
    ) -> Tensor:
        """Boxes (n, m, 4) of x0, y0, x1, y1 in pixels: the upright box around the moved corners.

        It is the moved box itself under quarters and changes of size, and a larger one under other
        turns.
        """
        if boxes.ndim != 3 or boxes.shape[-1] != 4:
            raise FedpactError(
                f"boxes have the shape {tuple(boxes.shape)}; legal is (n, m, 4): x0, y0, x1, y1."
            )
        corners = torch.stack([boxes[..., [a, b]] for a in (0, 2) for b in (1, 3)], dim=2)
        moved = self.act_on_points(corners.flatten(1, 2), element, side, extra).view_as(corners)
        return torch.cat([moved.amin(2), moved.amax(2)], dim=-1)


@final
@dataclass(frozen=True)
class Group(Moves):
    """C_n, or D_n with mirrorings, about the centre of square images.

    Args:
        turns: n, from 1 to 360.
        mirrors: whether images are mirrored too (D_n).
        padding: what comes in from outside an image under turns that are no quarters: "zeros",
            "border" (its nearest pixel) or "reflection".
    """

    turns: int = 4
    mirrors: bool = False
    padding: str = "zeros"

    def __post_init__(self) -> None:
        if not isinstance(self.turns, int) or isinstance(self.turns, bool):
            raise FedpactError(
                f"canonicalizer.group.turns is {self.turns!r}; legal is a whole number, such as 4."
            )
        if not 1 <= self.turns <= MOST:
            raise FedpactError(
                f"canonicalizer.group.turns is {self.turns}; legal are 1 to {MOST} poses a circle. "
                "For any angle use turns=24 and refine=2."
            )
        if not isinstance(self.mirrors, bool):
            raise FedpactError(
                f"canonicalizer.group.mirrors is {self.mirrors!r}; legal are true and false."
            )
        if self.padding not in PADDINGS:
            raise FedpactError(
                f"canonicalizer.group.padding is {self.padding!r}; legal are {', '.join(PADDINGS)}."
            )

    @property
    def order(self) -> int:
        return 2 * self.turns if self.mirrors else self.turns

    # ------------------------------------------------------------------------ its elements

    def inverse(self, element: Tensor) -> Tensor:
        """The element that undoes each, (n,) int64.

        >>> Group(4, mirrors=True).inverse(torch.arange(8)).tolist()
        [0, 3, 2, 1, 4, 5, 6, 7]
        """
        turned = (-element) % self.turns
        return torch.where(element < self.turns, turned, element)  # a mirroring undoes itself

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        """The element that acts as `second` and then `first`, (n,) int64.

        >>> Group(4).compose(torch.tensor([1, 3]), torch.tensor([2, 2])).tolist()
        [3, 1]
        """
        n = self.turns
        mirrored = first >= n
        # r^a m r^b = r^(a - b) m
        turn = torch.where(mirrored, first - second, first + second) % n
        return turn + n * (mirrored != (second >= n))

    def degrees(self, element: Tensor) -> Tensor:
        """By how much each turns, degrees anticlockwise, (n,)."""
        return (element % self.turns) * (360 / self.turns)

    def matrix(self, element: Tensor, extra: Tensor | None = None) -> Tensor:
        """How each acts on points about the centre, x to the right and y up, (n, 2, 2) float64."""
        angle = torch.deg2rad(self.degrees(element).double() + (0 if extra is None else extra))
        cos, sin = angle.cos(), angle.sin()
        mirror = torch.where(element < self.turns, 1.0, -1.0).double()
        return torch.stack(
            [torch.stack([cos * mirror, -sin], -1), torch.stack([sin * mirror, cos], -1)], -2
        )

    # -------------------------------------------------------------------------- on images

    def orbit(self, images: Tensor) -> Tensor:
        turned = self._turns(_square(images))
        # g_k^-1 is a turn by -k; for a mirroring it is itself: mirror, then turn.
        undone = [turned[-k % self.turns] for k in range(self.turns)]
        if self.mirrors:
            undone += self._turns(images.flip(-1))
        return torch.stack(undone)

    def act(self, images: Tensor, element: Tensor, extra: Tensor | None = None) -> Tensor:
        images = self.mirrored(images, element)
        if extra is not None:
            return turned(images, self.degrees(element) + extra, self.padding)
        turn = element % self.turns
        if 4 % self.turns == 0:
            return _quarters(images, turn * (4 // self.turns))
        if self.turns % 4:
            return turned(images, self.degrees(element), self.padding)
        part = self.turns // 4
        between = turned(images, (turn % part) * (360 / self.turns), self.padding)
        exact = (turn % part == 0)[:, None, None, None]
        return _quarters(torch.where(exact, images, between), turn // part)

    def mirrored(self, images: Tensor, element: Tensor) -> Tensor:
        """The images, those that their element mirrors mirrored."""
        if not self.mirrors:
            return _square(images)
        return torch.where((element >= self.turns)[:, None, None, None], images.flip(-1), images)

    def _turns(self, images: Tensor) -> list[Tensor]:
        """The images under every turn; quarters are exact."""
        step = 360 / self.turns

        def by(k: int) -> Tensor:
            if k == 0:
                return images
            angle = torch.full((1,), k * step, device=images.device)
            # All by one angle: as channels of one image, so that one grid serves them all.
            return turned(images.flatten(0, 1)[None], angle, self.padding).view_as(images)

        if 4 % self.turns == 0:
            return [images.rot90(k * (4 // self.turns), (-2, -1)) for k in range(self.turns)]
        if self.turns % 4:
            return [by(k) for k in range(self.turns)]
        part = self.turns // 4
        first = [by(k) for k in range(part)]
        return [first[k % part].rot90(k // part, (-2, -1)) for k in range(self.turns)]

    # ---------------------------------------------------------- on what goes with an image

    def act_on_masks(self, masks: Tensor, element: Tensor, extra: Tensor | None = None) -> Tensor:
        """Masks; turns that are no quarters take the nearest pixel, and 0 from outside."""
        if masks.ndim != 3:
            raise FedpactError(f"masks have {masks.ndim} dimensions; legal is (n, side, side).")
        # Labels are exact in float32 up to 2^24.
        if 4 % self.turns == 0 and extra is None:
            return self.act(masks[:, None], element)[:, 0]
        by = self.degrees(element) + (0 if extra is None else extra)
        images = self.mirrored(masks[:, None], element)
        return turned(images, by, "zeros", "nearest")[:, 0]

    def act_on_vectors(
        self, vectors: Tensor, element: Tensor, extra: Tensor | None = None
    ) -> Tensor:
        if vectors.ndim != 3 or vectors.shape[-1] != 2:
            raise FedpactError(
                f"vectors have the shape {tuple(vectors.shape)}; legal is (n, m, 2): m an image."
            )
        return vectors @ self.matrix(element, extra).transpose(-1, -2).to(vectors)


def turned(images: Tensor, degrees: Tensor, padding: str, mode: str = "bilinear") -> Tensor:
    """Each image (n, c, s, s) turned anticlockwise by its own angle, (n,) degrees.

    The grid is made in float32 (half precision would misplace pixels).
    """
    side = images.shape[-1]
    angle = torch.deg2rad(degrees.float())[:, None, None]
    at = (2 * torch.arange(side, device=images.device) + 1) / side - 1  # centres of pixels
    x, y = at[None, None, :], at[None, :, None]
    # Where a pixel of the result comes from; y points down.
    grid = torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], -1)
    found = functional.grid_sample(
        images.float(), grid, mode=mode, padding_mode=padding, align_corners=False
    )
    return found.to(images.dtype)


def _quarters(images: Tensor, quarter: Tensor) -> Tensor:
    """Each image turned by its own number of quarters."""
    all_four = torch.stack([images.rot90(k, (-2, -1)) for k in range(4)])
    return all_four[quarter, torch.arange(images.shape[0], device=images.device)]


def _square(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[-1] != images.shape[-2]:
        raise FedpactError(
            f"images have the shape {tuple(images.shape)}; legal is (n, channels, side, side): "
            "square ones, since a turn must keep the shape. Pad the shorter side."
        )
    return images
