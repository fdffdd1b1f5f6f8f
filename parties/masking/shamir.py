"""Shamir's secret sharing: any t shares are the secret, t - 1 of them say nothing of it."""

from __future__ import annotations

from collections.abc import Mapping

from parties.exchange import FedpactError
from parties.exchange.masks import KEY, SHARE
from parties.masking.words import stream

PRIME = 2**256 + 297
"""The first prime above all secrets of 32 bytes."""


def split(secret: bytes, firms: int, needed: int, chance: bytes) -> list[bytes]:
    """Shares of the firms 1, 2 ...: p(1), p(2) ... of p(x) = secret + a_1 x + ... modulo `PRIME`.

    Args:
        secret: 32 bytes.
        firms: how many shares.
        needed: t, how many of them are the secret; p has the degree t - 1.
        chance: a key of 32 bytes that a_1 ... are drawn with; the same gives the same shares.

    References:
        Shamir, How to share a secret, CACM 22 (1979).

    >>> shares = split(bytes(31) + b"*", 5, 3, bytes(32))
    >>> join({2: shares[1], 3: shares[2], 5: shares[4]}, 3)[-1:]
    b'*'
    """
    # 64 bytes a coefficient: what the remainder favours is less than 2^-255 of it.
    drawn = stream(chance, 8 * (needed - 1)).astype("<u8").tobytes()
    drops = [int.from_bytes(drawn[at : at + 64], "big") for at in range(0, len(drawn), 64)]
    coefficients = [int.from_bytes(secret, "big"), *(drop % PRIME for drop in drops)]
    return [_value(coefficients, place).to_bytes(SHARE, "big") for place in range(1, firms + 1)]


def join(shares: Mapping[int, bytes], needed: int) -> bytes:
    """The secret, p(0), of the shares of some firms, by their number.

    Raises:
        FedpactError: there are fewer than needed, or they are not shares of one secret of 32 bytes
            (most that are not are found out in this way).
    """
    if len(shares) < needed:
        raise FedpactError(f"{len(shares)} shares of a secret; it takes {needed}. Ask more firms.")
    places = sorted(shares)[:needed]
    secret = 0
    for i in places:
        above, below = 1, 1
        for j in places:
            if j != i:
                above = above * j % PRIME
                below = below * (j - i) % PRIME
        secret += int.from_bytes(shares[i], "big") * above * pow(below, -1, PRIME)
    secret %= PRIME
    if secret >= 1 << 8 * KEY:
        raise FedpactError("the shares are not of one secret. Leave out the firm that sent others.")
    return secret.to_bytes(KEY, "big")


def _value(coefficients: list[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value
