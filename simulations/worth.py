"""Was training still worth it when it ended? From a run's learning curves and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from parties.reuse.gdei import course, efficiency, step_gains

Row = Mapping[str, Any]


def worth(rounds: pd.DataFrame, seconds: pd.DataFrame) -> list[Row]:
    """How every firm's training ended; contracts under which it ended alike share a row.

    Args:
        rounds: as rounds.csv; a seed's losses are its epochs in the order of rounds.
        seconds: as seconds.csv.

    Returns:
        contracts and firm; first and last (mean loss, nats), efficiency (GDEI's E_n, mean over
        seeds where it is defined), step_gain (share that the last epoch took off the loss, mean),
        joule (nats of loss that a joule took off, all seeds; None where none was counted), course
        (what the runs did, with how many seeds: see `parties.reuse.gdei.course`).
    """
    if rounds.empty:
        return []
    found: dict[tuple[Any, ...], list[str]] = {}
    for keys, rows in rounds[rounds["loss"].notna()].groupby(["contract", "firm"], sort=False):
        contract, firm = (str(k) for k in keys)
        found.setdefault((firm, *_end(rows, _joules(seconds, contract, firm))), []).append(contract)
    names = ("firm", "first", "last", "efficiency", "step_gain", "joule", "course")
    rows_ = [dict(zip(names, ends, strict=True)) | {"contracts": c} for ends, c in found.items()]
    return sorted(rows_, key=lambda row: row["contracts"])


def _end(rows: pd.DataFrame, joules: float) -> tuple[Any, ...]:
    runs = [
        part.sort_values(["round", "epoch"])["loss"].to_numpy(float)
        for _, part in rows.groupby("seed")
    ]
    did = [course(losses) for losses in runs]
    gained = sum(float(losses[0] - losses[-1]) for losses in runs)
    return (
        _mean([losses[0] for losses in runs]),
        _mean([losses[-1] for losses in runs]),
        _mean([efficiency(losses)[-1] for losses in runs if len(losses) > 1]),
        _mean([step_gains(losses)[-1] for losses in runs if len(losses) > 1]),
        round(gained / joules, 9) if joules > 0 else None,
        ", ".join(f"{name} ({did.count(name)})" for name in dict.fromkeys(did)),
    )


def _mean(values: Sequence[float]) -> float | None:
    known = [v for v in values if np.isfinite(v)]
    return round(float(np.mean(known)), 9) if known else None


def _joules(seconds: pd.DataFrame, contract: str, firm: str) -> float:
    if seconds.empty:
        return 0.0
    spent = seconds[(seconds["contract"] == contract) & (seconds["firm"] == firm)]["joules"]
    return float(pd.to_numeric(spent, errors="coerce").sum())
