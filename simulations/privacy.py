"""The noise that a contract asks of the firms, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parties.exchange import Terms


def noise_of(terms: Terms) -> dict[str, float]:
    """What verdict.json says of a contract's noise; nothing where there is none.

    >>> noise_of(Terms("infer_sharing", False, True, prediction_epsilon=2.0))
    {'prediction_epsilon': 2.0}
    """
    names = ("prediction_epsilon", "update_epsilon", "update_delta", "update_clip")
    return {name: getattr(terms, name) for name in names if getattr(terms, name)}


def noise_words(noise: Mapping[str, float]) -> str:
    """The noise in words.

    >>> noise_words({"prediction_epsilon": 2.0})
    'predictions are told with noise of epsilon 2 each'
    """
    told = []
    if "prediction_epsilon" in noise:
        told.append(
            f"predictions are told with noise of epsilon {noise['prediction_epsilon']:g} each"
        )
    if "update_epsilon" in noise:
        told.append(
            f"models leave a firm with noise of epsilon {noise['update_epsilon']:g}, delta "
            f"{noise['update_delta']:g} over all rounds of a seed, updates clipped to a norm of "
            f"{noise['update_clip']:g}"
        )
    return "; ".join(told)


def noise_lines(verdict: Mapping[str, Any]) -> list[str]:
    """What each contract with noise asks of the firms."""
    return [
        f"{name}: {noise_words(contract['privacy'])}."
        for name, contract in verdict["contracts"].items()
        if "privacy" in contract
    ]
