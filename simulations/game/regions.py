"""Regions of a map: which contracts firms would sign, as a number a point and in words.

A region is the set of contracts that are IRPO (selected equilibrium, ex ante): bit c of its code
says that contract c is, and bit 4 + p that the p-th pair of them pays both firms the same.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np

from parties.exchange import Array
from server.game.fast import CONTRACTS

SHORT = ("no", "train", "infer", "full")  # in the order of CONTRACTS
PAIRS = tuple(combinations(range(len(CONTRACTS)), 2))
TIE, IMPOSSIBLE = 1 << 10, 1 << 11
CODES = IMPOSSIBLE + 1
COLOURS = {  # Okabe and Ito's palette, then Tol's muted one: safe for the colour-blind
    "no=train": "#56B4E9", "infer=full": "#E69F00", "full only": "#D55E00", "train only": "#117733",
    "no only": "#0072B2", "train & full": "#F0E442", "no=train=infer=full": "#B8B8B8",
    "infer only": "#CC79A7", "no & full": "#882255", "tie": "#000000", "impossible": "#FFFFFF",
}  # fmt: skip
OTHERS = ("#44AA99", "#AA4499", "#999933", "#332288", "#DDCC77", "#88CCEE", "#661100", "#6699CC")


def regions(irpo: Array, payoffs: Array, slack: Any) -> Array:
    """Codes (n,) from who is IRPO, (4, n), and payoffs (4, 2, n), equal within `slack`.

    >>> name_of(int(regions(np.array([[1], [1], [0], [0]]), np.zeros((4, 2, 1)), 0.0)[0]))
    'no=train'
    """
    codes = np.zeros(irpo.shape[1], np.int16)
    for contract, held in enumerate(irpo):
        codes |= (held.astype(np.int16) << contract).astype(np.int16)
    for place, (c, d) in enumerate(PAIRS):
        equal = (np.abs(payoffs[c] - payoffs[d]) <= slack).all(0)
        both = irpo[c].astype(bool) & irpo[d].astype(bool) & equal
        codes |= (both.astype(np.int16) << (4 + place)).astype(np.int16)
    return codes


def region_of(irpo: list[bool], payoffs: list[tuple[Fraction, Fraction]]) -> int:
    """The code of one point, exactly."""
    code = sum(1 << contract for contract, held in enumerate(irpo) if held)
    for place, (c, d) in enumerate(PAIRS):
        if irpo[c] and irpo[d] and payoffs[c] == payoffs[d]:
            code |= 1 << (4 + place)
    return code


def name_of(code: int) -> str:
    """A region in words: `=` joins contracts that pay both firms the same, `&` others.

    >>> name_of(0b1010), name_of(0b1000), name_of(TIE)
    ('train & full', 'full only', 'tie')
    """
    if code in (TIE, IMPOSSIBLE):
        return "tie" if code == TIE else "impossible"
    classes: list[list[int]] = []
    for contract in (c for c in range(len(CONTRACTS)) if code >> c & 1):
        for known in classes:
            if code >> (4 + PAIRS.index((known[0], contract))) & 1:
                known.append(contract)
                break
        else:
            classes.append([contract])
    names = ["=".join(SHORT[c] for c in known) for known in classes]
    return (
        f"{names[0]} only" if names and names[0] in SHORT and len(names) == 1 else " & ".join(names)
    )


def meaning(name: str) -> str:
    """A sentence on a region.

    >>> meaning("train & full")
    'Both firms would sign train-sharing or full-sharing, which pay differently.'
    """
    if name == "tie":
        return "Undecided: payoffs differ by too little for floats, and the point was not settled."
    if name == "impossible":
        return "No such market: a correlation lies outside what the accuracies allow."
    contracts = f"{name.removesuffix(' only')}-sharing"
    contracts = contracts.replace("=", "-sharing = ").replace(" & ", "-sharing or ")
    if name == "no=train=infer=full":
        return "The contract does not matter: all four pay both firms the same."
    if name == "no only":
        return "Both firms stay alone: no contract is good for both."
    if name == "no=train":
        return (
            "Both firms stay alone: sharing models changes nothing, sharing predictions hurts one."
        )
    if " & " in name:
        return f"Both firms would sign {contracts}, which pay differently."
    alike = ", which pay the same" if "=" in name else ", and nothing else"
    return f"Both firms would sign {contracts}{alike}."


def colours(names: list[str]) -> dict[str, str]:
    """A colour a region: the same in every map for the regions that are common."""
    spare = iter(OTHERS * len(names))
    return {name: COLOURS.get(name) or next(spare) for name in names}
