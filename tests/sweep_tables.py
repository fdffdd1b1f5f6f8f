"""Made-up tables of sweeps, by a closed form that a person can redo."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import pandas as pd

TRAIN, INFER, FULL = CONTRACTS = ("train_sharing", "infer_sharing", "full_sharing")
ALONE = "no_sharing"
WIDTH = 0.2  # half an interval


def grid(**levels: list[Any]) -> pd.DataFrame:
    """Every combination; `market_C1` stands for market.C1."""
    keys = [key.replace("_", ".") for key in levels]
    return pd.DataFrame(list(product(*levels.values())), columns=keys)


def study_table(design: pd.DataFrame, firms: tuple[str, ...] = ("alice", "bob")) -> pd.DataFrame:
    """One study a row of the design.

    With s the sum of its numbers, the first firm gains s from full_sharing, s / 2 from
    train_sharing and -1 from infer_sharing; every other firm 0.1 more than the firm before it.
    All measures are within 0.2, and the game predicts 0.3 too much.
    """
    rows = []
    for job, axes in enumerate(design.to_dict("records")):
        s = float(sum(v for v in axes.values() if isinstance(v, int | float)))
        row: dict[str, Any] = {"job": job, **axes, "seeds": 3, "status": "ok"}
        row |= {"error": None, "message": None, "best": None}
        for contract, first in zip(CONTRACTS, (s / 2, -1.0, s), strict=True):
            gains = {firm: first + 0.1 * place for place, firm in enumerate(firms)}
            row |= _verdict(contract, gains)
        signed = {c: row[f"{c}.surplus"] for c in CONTRACTS if row[f"{c}.signed"]}
        if signed:
            row["best"] = max(signed, key=signed.__getitem__)
        elif all(row[f"{c}.signed"] is False for c in CONTRACTS):
            row["best"] = ALONE
        row |= {f"{ALONE}.{firm}.payoff": 1.0 for firm in firms}
        rows.append(row)
    table = pd.DataFrame(rows)
    answers = [c for c in table if c.endswith(("signed", "optimal", "irpo"))]
    return table.astype(dict.fromkeys(answers, "boolean"))


def _verdict(contract: str, gains: dict[str, float]) -> dict[str, Any]:
    lows, highs = [g - WIDTH for g in gains.values()], [g + WIDTH for g in gains.values()]
    signed = True if min(lows) > 0 else False if min(highs) < 0 else None
    row: dict[str, Any] = {
        f"{contract}.signed": signed,
        f"{contract}.predicted_signed": min(gains.values()) + 0.3 > 0,
        f"{contract}.pareto_optimal": signed,
        f"{contract}.irpo": signed,
        f"{contract}.surplus": sum(gains.values()),
    }
    for firm, gain in gains.items():
        decision = "signs" if gain > WIDTH else "refuses" if gain < -WIDTH else "undecided"
        row |= {
            f"{contract}.{firm}.gain": gain,
            f"{contract}.{firm}.low": gain - WIDTH,
            f"{contract}.{firm}.high": gain + WIDTH,
            f"{contract}.{firm}.predicted": gain + 0.3,
            f"{contract}.{firm}.decision": decision,
        }
    return row


def without(table: pd.DataFrame, contract: str, jobs: list[int]) -> pd.DataFrame:
    """The table where some studies did not hold a contract; it must be the best in none of them."""
    table = table.copy()
    assert not (table.loc[jobs, "best"] == contract).any()
    table.loc[jobs, [c for c in table if c.startswith(f"{contract}.")]] = None
    return table


def failed(table: pd.DataFrame, jobs: list[int], error: str, message: str) -> pd.DataFrame:
    """The table with some of its studies failed."""
    table = table.copy()
    results = table.columns[list(table.columns).index("best") :]
    table.loc[jobs, results] = None
    table["error"], table["message"] = (
        table["error"].astype(object),
        table["message"].astype(object),
    )
    table.loc[jobs, ["status", "error", "message"]] = ["failed", error, message]
    return table


def facts_of(table: pd.DataFrame, **others: Any) -> dict[str, Any]:
    columns = list(table.columns)
    keys = columns[1 : columns.index("seeds")]
    firms = [c.split(".")[1] for c in columns if c.startswith(f"{ALONE}.")]
    status = Counter(table["status"])
    undecided = int((table["best"].isna() & (table["status"] == "ok")).sum())
    return {
        "name": "made_up",
        "command": "fedpact experiment=loans sweep=made_up",
        "design": "every combination of the values of its axes",
        "axes": [{"key": k, "values": list(dict.fromkeys(table[k]))} for k in keys],
        "firms": firms,
        "contracts": [ALONE, *(c for c in CONTRACTS if f"{c}.signed" in columns)],
        "unit": "money a client",
        "counts": {
            "jobs": len(table),
            "ok": status["ok"],
            "failed": status["failed"],
            "undecided": undecided,
        },
        "stopped": False,
        "failures": [
            {
                **{k: row[k] for k in ("job", "error", "message")},
                "command": f"fedpact sweep=none 'play=the {row['job']}th'",
            }
            for row in table[table["status"] == "failed"].to_dict("records")
        ],
        "errors": dict(Counter(table["error"].dropna())),
        "sha256": "ab" * 32,
        "started": "2026-03-01T10:00:00+00:00",
        "finished": "2026-03-01T10:20:00+00:00",
        "seconds": 1200.0,
        "versions": {"fedpact": "0.1.0", "numpy": "2.4"},
        "data": {"loans.csv.gz": "cd" * 32},
        "notes": [],
        "extra": {},
        **others,
    }
