"""What one round of training sends, before any is held: messages and bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from parties.exchange import (
    Advertised,
    Answer,
    Array,
    Deal,
    Dealt,
    Declaration,
    Keys,
    Masked,
    Masking,
    Offer,
    Packed,
    Request,
    Shares,
    Terms,
    Trained,
    Unmask,
    Weights,
    pack,
)
from parties.exchange.masks import CHECKS, KEY, SEALED, SHARE

Exchange = tuple[Request, Answer]
"""A question, and its answer."""


def traffic(
    terms: Terms, epochs: int, declared: Mapping[str, Declaration], published: bool
) -> list[Exchange]:
    """All messages of a round in which every firm takes part, with zeros in the place of numbers.

    Args:
        epochs: of a firm in a round.
        published: there is a model to train from.
    """
    if terms.secure:
        return [e for name in sorted(declared) for e in _masked(terms, epochs, declared, name)]
    found: list[Exchange] = []
    for told in declared.values():
        weights = _weights(told) if terms.models else None
        offer = Offer(terms, 0, 0, epochs, weights if published else None)
        found.append((offer, Trained(told.examples, (0.0,), weights)))
    return found


def _masked(
    terms: Terms, epochs: int, declared: Mapping[str, Declaration], name: str
) -> list[Exchange]:
    """The four questions to one firm (`parties.masking`), and its answers."""
    told, others = declared[name], sorted(declared.keys() - {name})
    keys = {firm: np.zeros((2, KEY), np.uint8) for firm in sorted(declared)}
    sealed = {firm: np.zeros(SEALED, np.uint8) for firm in others}
    masking = Masking(sum(d.examples for d in declared.values()), keys, sealed)
    size = sum(a.size for a in _weights(told).arrays.values())
    masked = Masked(
        np.zeros(size + CHECKS, np.uint64), told.tensors, dict.fromkeys(told.tensors, "float32")
    )
    shares = {firm: np.zeros(SHARE, np.uint8) for firm in sorted(declared)}
    return [
        (Keys(terms, 0, 0), Advertised(told.examples, keys[name])),
        (Deal(terms, 0, 0, keys), Dealt(sealed)),
        (
            Offer(terms, 0, 0, epochs, _weights(told), masking=masking),
            Trained(told.examples, (0.0,), masked=masked),
        ),
        (Unmask(terms, 0, 0, masking, tuple(sorted(declared))), Shares(shares)),
    ]


def _weights(told: Declaration) -> Weights:
    arrays: dict[str, Array] = {k: np.zeros(v, np.float32) for k, v in told.tensors.items()}
    return Weights(arrays, told.examples)


def size(packed: Packed) -> int:
    """Bytes of a packed message: its text and its arrays."""
    return len(packed.text.encode()) + sum(a.nbytes for a in packed.arrays.values())


def bytes_of(exchanges: list[Exchange]) -> tuple[int, int]:
    """Bytes to the firms, and from them."""
    down = sum(size(pack(request)) for request, _ in exchanges)
    return down, sum(size(pack(answer)) for _, answer in exchanges)
