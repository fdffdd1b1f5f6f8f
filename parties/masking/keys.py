"""Keys: what two firms agree on through the operator, who does not learn it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from parties.exchange import Array, FedpactError, Terms
from parties.exchange.masks import KEY
from parties.masking.words import stream

NONCE = bytes(12)  # every key seals one message


class OfRound(Protocol):
    """A request of a masked round."""

    @property
    def terms(self) -> Terms: ...
    @property
    def seed(self) -> int: ...
    @property
    def round(self) -> int: ...


def round_of(request: OfRound) -> str:
    """Names a round, so that no key of it is one of another."""
    return f"{request.terms.contract} {request.seed} {request.round}"


def derived(secret: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose, from a secret (HKDF-SHA256)."""
    return HKDF(SHA256(), KEY, None, f"fedpact {purpose}".encode()).derive(secret)


def public(secret: bytes) -> bytes:
    """The public key of a secret one (X25519)."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agreed(secret: bytes, other: bytes, purpose: str) -> bytes:
    """The key that a firm and another have in common: both compute the same.

    Args:
        secret: one's own; other: the other's public key.

    Raises:
        FedpactError: the public key is one with which any two would agree on nothing.
    """
    try:
        common = X25519PrivateKey.from_private_bytes(secret).exchange(
            X25519PublicKey.from_public_bytes(other)
        )
    except ValueError as fault:
        raise FedpactError("a public key is of no use. Leave out the firm that sent it.") from fault
    return derived(common, purpose)


def seal(key: bytes, content: bytes) -> bytes:
    """The content for the one who has the key; a key seals once."""
    return ChaCha20Poly1305(key).encrypt(NONCE, content, None)


def opened(key: bytes, sealed: bytes) -> bytes | None:
    """What was sealed, or None where it was not sealed with this key, or is altered."""
    try:
        return ChaCha20Poly1305(key).decrypt(NONCE, sealed, None)
    except InvalidTag:
        return None


def useful(key: bytes) -> bool:
    """Whether a public key is one that firms can agree on something with."""
    try:
        agreed(bytes(range(KEY)), key, "trial")
    except FedpactError:
        return False
    return True


def sum_of(where: str, total: int, dealers: Iterable[str]) -> str:
    """Names a sum: firms that were told another total, or other dealers, mask for another one.

    Args:
        where: the round, by `round_of`; total: examples; dealers: who dealt shares.
    """
    return f"{where} {total} {' '.join(sorted(dealers))}"


def pair_mask(secret: bytes, firm: str, other: str, key: Array, where: str, count: int) -> Array:
    """What a firm adds for another: the negative, modulo 2^64, of what that one adds for it.

    Args:
        secret: the firm's, for masks; key: (2, 32), the other's public keys.
        where: the sum, by `sum_of`.
        count: words.
    """
    mask = stream(agreed(secret, key[1].tobytes(), f"mask {where}"), count)
    return mask if firm < other else np.uint64(0) - mask
