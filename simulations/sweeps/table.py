"""The table of a sweep: a row a job, in the order in which they were asked for."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from simulations.sweeps import Held
from simulations.sweeps.axes import Axis

FIRST = ("seeds", "status", "error", "message", "best")
FLAGS = ("signed", "predicted_signed", "pareto_optimal", "irpo")


def table_of(axes: Sequence[Axis], held: Sequence[Held]) -> pd.DataFrame:
    """`job`, the axes, seeds, status, error, message, best, and what `rows` says of the rest."""
    keys = [axis.key for axis in axes]
    rows = [
        {"job": number, **{key: _cell(one.point[key]) for key in keys}, **one.row}
        for number, one in enumerate(held)
    ]
    rest = dict.fromkeys(name for row in rows for name in row)
    columns = ["job", *keys, *FIRST, *(n for n in rest if n not in {"job", *keys, *FIRST})]
    table = pd.DataFrame(rows, columns=columns)
    for name in columns:
        if name in keys:
            table[name] = _of_one_type(table[name])
        elif name == "seeds":
            table[name] = table[name].astype("Int64")
        elif name.rsplit(".", 1)[-1] in FLAGS:
            table[name] = table[name].astype("boolean")
        elif name not in ("job", *FIRST) and not name.endswith(".decision"):
            table[name] = table[name].astype("float64")
    return table


def as_csv(table: pd.DataFrame) -> bytes:
    """The table as sweep.csv."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def as_parquet(table: pd.DataFrame) -> bytes:
    """The table as sweep.parquet."""
    file = io.BytesIO()
    table.to_parquet(file, engine="pyarrow", index=False, compression="zstd")
    return file.getvalue()


def cut_off(facts: Mapping[str, Any]) -> str:
    """Why a sweep ended before its table was whole, and what is missing; empty where it did not.

    >>> cut_off({"interrupted": True, "counts": {"jobs": 2, "asked": 5}})
    'Interrupted: 3 of 5 studies were not held.'
    """
    if facts.get("interrupted"):
        why = "Interrupted"
    elif facts.get("stopped"):
        why = "Stopped at a failure (launch.on_failure=stop)"
    else:
        return ""
    asked = facts["counts"].get("asked")
    if asked is None:
        return f"{why}: not every study was held."
    if missing := asked - facts["counts"]["jobs"]:
        return f"{why}: {missing} of {asked} studies were not held."
    return f"{why}: all {asked} studies asked for by then were held."


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _of_one_type(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column of an axis that mixes numbers and words becomes words: files take one type."""
    kinds = {type(v) for v in values if v is not None}
    if len(kinds) > 1 and not kinds <= {int, float}:
        return values.map(lambda v: v if v is None or isinstance(v, str) else json.dumps(v))
    return values
