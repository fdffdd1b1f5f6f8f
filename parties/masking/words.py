"""Models as whole numbers modulo 2^64, which masks can be added to and taken off exactly."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from parties.exchange import Array, FedpactError
from parties.exchange.masks import CHECKS

BOUND = 2.0**24
"""Largest number of a model, either sign. Weighted models add up to 2^62 units at most (and half a
unit a firm), so that no sum of them wraps around 2^63."""
UNITS = 2.0**38
"""Words a 1. Of n firms, rounding moves the weighted sum by n / 2 units (1.8e-12 each) at most."""


def to_words(arrays: Mapping[str, Array], share: float) -> Array:
    """share * w of each number, tensors by name, then two zeros.

    Args:
        arrays: the model.
        share: of the examples, in (0, 1].

    Raises:
        FedpactError: a number is not finite, or beyond `BOUND`.
    """
    flat = [np.ravel(arrays[name]).astype(np.float64) for name in sorted(arrays)]
    numbers = np.concatenate([*flat, np.zeros(CHECKS)])
    if not np.all(np.abs(numbers) <= BOUND):
        raise FedpactError(
            f"a number of the model is not finite, or beyond {BOUND:g}; such a model cannot be "
            "masked. Train with a smaller learning rate."
        )
    return np.rint(numbers * share * UNITS).astype(np.int64).view(np.uint64)


def from_words(
    words: Array, shapes: Mapping[str, tuple[int, ...]], share: float
) -> dict[str, Array]:
    """The mean model, float64, of a sum of words.

    Args:
        share: of the examples that the summed models have together.

    Raises:
        FedpactError: masks are left in the sum, or a number is beyond `BOUND`.
    """
    if np.any(words[-CHECKS:]):
        raise FedpactError("the masks do not cancel: a firm masked or dealt other than agreed.")
    means = words.view(np.int64).astype(np.float64) / UNITS / share
    if not np.all(np.abs(means) <= BOUND * (1 + 1e-9)):
        raise FedpactError(
            f"the mean has numbers beyond {BOUND:g}, which no firm's model may have."
        )
    found, at = dict[str, Array](), 0
    for name in sorted(shapes):
        size = prod(shapes[name])
        found[name] = means[at : at + size].reshape(shapes[name])
        at += size
    return found


def stream(key: bytes, count: int) -> Array:
    """So many words that nobody without the key can tell from chance: ChaCha20 of zeros."""
    cipher = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * count)), "<u8").astype(np.uint64)
