"""Messages of a round whose models are added up under masks (`parties.masking`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import final

import numpy as np

from parties.exchange.checks import Array, count, instance, numeric, require, signed, text
from parties.exchange.values import Terms

KEY = 32
"""Bytes of a public key (X25519)."""
SHARE = 33
"""Bytes of a share of a secret (`parties.masking.shamir`)."""
SEALED = 2 * SHARE + 16
"""Bytes of two shares, sealed for one firm."""
CHECKS = 2
"""Words after those of the model, zero in every firm's; whatever else they add up to is a fault."""
FEWEST_MASKED = 3
"""Firms whose models may be added up: of a sum of two, each would know the other's."""
DTYPES = ("float32", "float64", "int64")


def threshold(firms: int) -> int:
    """t: so many of the firms of a round undo its masks, and fewer learn nothing.

    More than half: a firm gives one share only of each other firm, so that an operator who tells
    firms different stories does not get t of both kinds either.

    >>> [threshold(firms) for firms in (3, 4, 5, 6, 10)]
    [3, 3, 3, 4, 6]
    """
    return max(FEWEST_MASKED, firms // 2 + 1)


@final
@dataclass(frozen=True)
class Keys:
    """Draw the secrets of one round, and tell their public keys."""

    terms: Terms
    seed: int
    round: int

    def __post_init__(self) -> None:
        _of_round(self, "keys")


@final
@dataclass(frozen=True)
class Advertised:
    """The public keys of a firm for one round.

    Args:
        examples: how many it will train on; 0: a free rider, who has no part in the sum.
        keys: (2, 32) bytes: for shares that are sealed for it, and for masks.
        signature: the firm's, of its keys, where the operator need not be believed
            (`parties.seals`): Ed25519, 64 bytes in hex; "": none.
    """

    examples: int
    keys: Array
    signature: str = ""

    def __post_init__(self) -> None:
        count(self.examples, "advertised.examples")
        _bytes(self.keys, "advertised.keys", (2, KEY))
        if self.signature != "":
            signed(self.signature, "advertised.signature")


@final
@dataclass(frozen=True)
class Deal:
    """Deal shares of your secrets to these firms.

    Args:
        keys: firm -> its public keys, as it advertised them; yours are among them.
        signatures: firm -> what it advertised with its keys, where it signs.
    """

    terms: Terms
    seed: int
    round: int
    keys: Mapping[str, Array]
    signatures: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _of_round(self, "deal")
        _keys(self.keys, "deal.keys")
        instance(self.signatures, "deal.signatures", Mapping)
        for name, signature in self.signatures.items():
            signed(signature, f"deal.signatures[{name!r}]")
        strangers = sorted(set(self.signatures) - set(self.keys))
        require(not strangers, f"deal.signatures names firms without keys: {', '.join(strangers)}.")


@final
@dataclass(frozen=True)
class Dealt:
    """Shares of a firm's secrets, each sealed for one other firm; nobody else can open it."""

    sealed: Mapping[str, Array]

    def __post_init__(self) -> None:
        _sealed(self.sealed, "dealt.sealed")


@final
@dataclass(frozen=True)
class Masking:
    """How a firm is to mask its model.

    Args:
        total: examples of all firms that dealt shares, yours among them.
        keys: firm -> its public keys.
        sealed: the other firms that dealt shares -> what each of them sealed for you.
    """

    total: int
    keys: Mapping[str, Array]
    sealed: Mapping[str, Array]

    def __post_init__(self) -> None:
        count(self.total, "masking.total", 1)
        _keys(self.keys, "masking.keys")
        _sealed(self.sealed, "masking.sealed")
        strangers = sorted(set(self.sealed) - set(self.keys))
        require(not strangers, f"masking.sealed names firms without keys: {', '.join(strangers)}.")


@final
@dataclass(frozen=True)
class Masked:
    """A model, times the firm's share of the examples, under masks.

    Args:
        words: (n + 2,) whole numbers modulo 2^64: of the tensors by name, then two of nothing.
        shapes, dtypes: of the tensors, by name.
    """

    words: Array
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    def __post_init__(self) -> None:
        for name in ("shapes", "dtypes"):
            instance(getattr(self, name), f"masked.{name}", Mapping)
        require(bool(self.shapes), "masked.shapes names no tensor.")
        require(set(self.shapes) == set(self.dtypes), "masked.dtypes names other tensors.")
        for name, shape in self.shapes.items():
            instance(shape, f"masked.shapes[{name!r}]", tuple)
            for size in shape:
                count(size, f"masked.shapes[{name!r}]")
            kind = self.dtypes[name]
            require(
                kind in DTYPES,
                f"masked.dtypes[{name!r}] is {kind!r}; legal are {', '.join(DTYPES)}.",
            )
        numeric(self.words, "masked.words", 1, "u")
        size = sum(prod(shape) for shape in self.shapes.values()) + CHECKS
        require(
            self.words.dtype == np.uint64 and len(self.words) == size,
            f"masked.words are {len(self.words)} of {self.words.dtype}; {size} of uint64 are due.",
        )


@final
@dataclass(frozen=True)
class Unmask:
    """Give the shares that undo the masks of a round.

    Args:
        masking: what you masked with.
        masked: the firms whose masked models came; of the others that dealt shares none did.
    """

    terms: Terms
    seed: int
    round: int
    masking: Masking
    masked: tuple[str, ...]

    def __post_init__(self) -> None:
        _of_round(self, "unmask")
        instance(self.masking, "unmask.masking", Masking)
        instance(self.masked, "unmask.masked", tuple)
        for name in self.masked:
            text(name, "unmask.masked")
        require(len(set(self.masked)) == len(self.masked), "unmask.masked names a firm twice.")
        strangers = sorted(set(self.masked) - set(self.masking.keys))
        require(not strangers, f"unmask.masked names firms without keys: {', '.join(strangers)}.")


@final
@dataclass(frozen=True)
class Shares:
    """A firm's shares of the others' secrets, one of each firm and never both.

    Args:
        selves: firm whose masked model came -> share of the seed of its own mask.
        pairs: firm that fell silent -> share of the key of its masks with the others.
    """

    selves: Mapping[str, Array] = field(default_factory=dict)
    pairs: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in ("selves", "pairs"):
            shares = getattr(self, kind)
            instance(shares, f"shares.{kind}", Mapping)
            for name, share in shares.items():
                text(name, f"shares.{kind}")
                _bytes(share, f"shares.{kind}[{name!r}]", (SHARE,))
        both = sorted(set(self.selves) & set(self.pairs))
        require(not both, f"shares hold both secrets of {', '.join(both)}; a firm gives one.")


def _of_round(request: Keys | Deal | Unmask, name: str) -> None:
    instance(request.terms, f"{name}.terms", Terms)
    count(request.seed, f"{name}.seed")
    count(request.round, f"{name}.round")
    require(
        request.terms.secure, f"{request.terms.contract} is not secure, yet masks were asked for."
    )


def _keys(keys: object, name: str) -> None:
    instance(keys, name, Mapping)
    assert isinstance(keys, Mapping)
    require(
        len(keys) >= FEWEST_MASKED, f"{name} are of {len(keys)} firms; {FEWEST_MASKED} are needed."
    )
    for firm, pair in keys.items():
        text(firm, name)
        _bytes(pair, f"{name}[{firm!r}]", (2, KEY))


def _sealed(sealed: object, name: str) -> None:
    instance(sealed, name, Mapping)
    assert isinstance(sealed, Mapping)
    for firm, box in sealed.items():
        text(firm, name)
        _bytes(box, f"{name}[{firm!r}]", (SEALED,))


def _bytes(value: object, name: str, shape: tuple[int, ...]) -> None:
    numeric(value, name, len(shape), "u")
    assert isinstance(value, np.ndarray)
    require(
        value.dtype == np.uint8 and value.shape == shape,
        f"{name} is {value.dtype} of shape {value.shape}; legal are bytes of shape {shape}.",
    )
