"""Canonical forms of tables, without learning: rows in no order, directions without a sign."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from parties.exchange import FedpactError

ORDERS = ("hilbert", "lexicographic")
MOST_BITS = 52  # a float64 holds whole numbers up to 2^53


class Ordered(NamedTuple):
    """Sets in canonical order.

    Args:
        sets: (n, m, d); places: which row of the input each one was, (n, m).
    """

    sets: Tensor
    places: Tensor

    def restore(self, rows: Tensor) -> Tensor:
        """What a model said of each row, (n, m, ...), in the order of the inputs."""
        found = torch.empty_like(rows)
        at = self.places.reshape(*self.places.shape, *[1] * (rows.ndim - 2)).expand_as(rows)
        return found.scatter_(1, at, rows)


def ordered(sets: Tensor, order: str = "hilbert", bits: int = 10) -> Ordered:
    """Sets of rows (n, m, d) whose order means nothing: one order for all orders of the same rows.

    Args:
        order: "lexicographic": by the first column, then the second, ...; "hilbert": along a
            Hilbert curve through the set's own bounding box, which keeps near rows near, and rows
            of one cell in lexicographic order.
        bits: cells a column, 2^bits; bits * d is at most 52.

    References:
        Skilling, Programming the Hilbert curve, AIP Conf. Proc. 707 (2004).

    >>> ordered(torch.tensor([[[3.0], [1.0], [2.0]]])).sets.flatten().tolist()
    [1.0, 2.0, 3.0]
    """
    if sets.ndim != 3 or not sets.shape[-1]:
        raise FedpactError(
            f"sets have {sets.ndim} dimensions, {tuple(sets.shape)}; legal is (n, rows, columns) "
            "with a column or more."
        )
    if order not in ORDERS:
        raise FedpactError(f"order is {order!r}; legal are {', '.join(ORDERS)}.")
    n, m, d = sets.shape
    places = torch.arange(m, device=sets.device).expand(n, m)
    # Stable sorts from the least important key to the most important one.
    keys = [sets[..., column] for column in reversed(range(d))]
    if order == "hilbert":
        if not 1 <= bits <= MOST_BITS // max(d, 1):
            raise FedpactError(
                f"bits is {bits} for {d} columns; legal are 1 to {MOST_BITS // max(d, 1)}. Lower "
                "it, or use order=lexicographic."
            )
        if m:
            exact = sets.double()  # half precision has fewer numbers than there are cells
            low, high = exact.amin(1, keepdim=True), exact.amax(1, keepdim=True)
            span = torch.where(high > low, high - low, torch.ones_like(low))
            top = 2**bits - 1
            cells = ((exact - low) / span * top).round().long().clamp(0, top)
            keys.append(hilbert_index(cells, bits))
    for key in keys:
        again = key.gather(1, places).argsort(dim=1, stable=True)
        places = places.gather(1, again)
    return Ordered(sets.gather(1, places[..., None].expand(n, m, d)), places)


def hilbert_index(cells: Tensor, bits: int) -> Tensor:
    """How far along the Hilbert curve cells (..., d) of 0 .. 2^bits - 1 lie, (...) int64.

    Cells that follow each other on the curve differ by one in one column.

    >>> hilbert_index(torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0]]), 1).tolist()
    [0, 1, 2, 3]
    """
    x = list(cells.unbind(-1))
    d = len(x)
    q = 1 << (bits - 1)
    while q > 1:  # undo the turns of the curve, from its largest squares to its smallest
        p = q - 1
        for i in range(d):
            high = (x[i] & q) > 0
            swap = (x[0] ^ x[i]) & p
            first = torch.where(high, x[0] ^ p, x[0] ^ swap)
            x[i] = x[i] if i == 0 else torch.where(high, x[i], x[i] ^ swap)
            x[0] = first
        q >>= 1
    for i in range(1, d):  # Gray code
        x[i] = x[i] ^ x[i - 1]
    flip, q = torch.zeros_like(x[0]), 1 << (bits - 1)
    while q > 1:
        flip = torch.where((x[d - 1] & q) > 0, flip ^ (q - 1), flip)
        q >>= 1
    x = [v ^ flip for v in x]
    found = torch.zeros_like(x[0])
    for bit in reversed(range(bits)):
        for v in x:
            found = (found << 1) | ((v >> bit) & 1)
    return found


class Signed(NamedTuple):
    """Vectors in their canonical sign: vectors (n, d), signs (n,) of 1 and -1."""

    vectors: Tensor
    signs: Tensor

    def restore(self, values: Tensor) -> Tensor:
        """Vectors (n, ...) that a model told, in the signs of the inputs."""
        return values * self.signs.reshape(-1, *[1] * (values.ndim - 1)).to(values)


def signed(vectors: Tensor) -> Signed:
    """Vectors (n, d) whose sign means nothing, such as principal components: x and -x become one.

    The entry of the largest magnitude, the first of equal ones, is made positive. Near a tie of two
    entries of unlike signs a small change may change the sign.

    >>> signed(torch.tensor([[1.0, -3.0], [-1.0, 3.0]])).vectors.tolist()
    [[-1.0, 3.0], [-1.0, 3.0]]
    """
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise FedpactError(
            f"vectors have the shape {tuple(vectors.shape)}; legal is (n, d), with d >= 1."
        )
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))[:, 0]
    signs = torch.where(largest < 0, -1.0, 1.0).to(vectors)
    return Signed(vectors * signs[:, None], signs)
