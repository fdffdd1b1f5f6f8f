"""Whether the exact game foretells what real firms would sign."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from simulations.sweeps.columns import answers, contracts_of, holds


def agreement(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How often the measured verdict on a contract is the one that the exact game predicts.

    Compared are the studies whose measured verdict is decided and that have a prediction.

    Returns:
        For each contract: `compared` studies; in how many both say that every firm `signs`, both
        that some firm `refuses`, `only_measured` or `only_predicted` that every firm signs;
        `agree` = signs + refuses and its `share` of the compared (None if there are none);
        `undecided` studies, which have a prediction but no measured verdict, and `unpredicted`
        ones. Studies that failed or did not hold the contract are in none of these counts.

    >>> columns = {"status": ["ok", "ok", "failed"], "full.surplus": [1.0, 1.0, None]}
    >>> columns |= {"full.alice.decision": ["signs", "undecided", None]}
    >>> columns |= {"full.signed": [True, None, None], "full.predicted_signed": [True, True, None]}
    >>> found = agreement(pd.DataFrame(columns))["full"]
    >>> found["agree"], found["compared"], found["undecided"], found["share"]
    (1, 1, 1, 1.0)
    """
    ok = (table["status"] == "ok").to_numpy(dtype=bool)
    return {c: _counted(table[ok & holds(table, c)], c) for c in contracts_of(table)}


def _counted(table: pd.DataFrame, contract: str) -> dict[str, Any]:
    measured = answers(table[f"{contract}.signed"])
    predicted = answers(table[f"{contract}.predicted_signed"])
    both = ~np.isnan(measured) & ~np.isnan(predicted)
    counts = {
        "compared": both,
        "signs": (measured == 1) & (predicted == 1),
        "refuses": (measured == 0) & (predicted == 0),
        "only_measured": (measured == 1) & (predicted == 0),
        "only_predicted": (measured == 0) & (predicted == 1),
        "undecided": np.isnan(measured) & ~np.isnan(predicted),
        "unpredicted": np.isnan(predicted),
    }
    found: dict[str, Any] = {name: int(mask.sum()) for name, mask in counts.items()}
    found["agree"] = found["signs"] + found["refuses"]
    found["share"] = found["agree"] / found["compared"] if found["compared"] else None
    return found
