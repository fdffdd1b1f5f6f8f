"""What one firm pays the other under a contract, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def price_words(firms: Sequence[str], price: float) -> str:
    """Who pays whom how much under a contract with a price.

    >>> price_words(("alpha", "beta"), 0.01), price_words(("alpha", "beta"), -0.01)
    ('beta pays alpha 0.01 a client', 'alpha pays beta 0.01 a client')
    """
    payee, payer = firms if price > 0 else firms[::-1]
    return f"{payer} pays {payee} {abs(price):g} a client"


def price_lines(verdict: Mapping[str, Any]) -> list[str]:
    """What one firm pays the other under each contract that has a price."""
    lines = []
    for name, contract in verdict["contracts"].items():
        if "price" not in contract:
            continue
        words = price_words(verdict["firms"], contract["price"])
        if contract["declined"]:
            away = " and ".join(contract["declined"])
            lines.append(f"{name}: {words}; nothing was paid where there was no deal ({away}).")
        else:
            lines.append(f"{name}: {words}, counted in its payoffs.")
    return lines
