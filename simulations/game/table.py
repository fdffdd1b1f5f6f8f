"""Points of maps as a table: map.parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from server.game.fast import CONTRACTS
from simulations.game.axes import value_of
from simulations.game.panels import PRIOR, Panels
from simulations.game.refine import RegionMap, legend
from simulations.game.regions import CODES, name_of


def write_table(
    panels: Panels, found: Sequence[RegionMap], facts: Mapping[str, Any], path: Path
) -> None:
    """One row a point, by y and then x; of several maps, one map after the other."""
    codes = sorted(legend(found))
    varied = [one.name for one in panels.each]
    tables = []
    for one, at in zip(found, panels.at, strict=True):
        table = _table(one, codes)
        for column, (name, value) in enumerate(zip(varied, at, strict=True)):
            table.insert(column, name, value if name == PRIOR else float(value_of(name, value)))
        tables.append(table)
    table = tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)
    if PRIOR in varied:
        table[PRIOR] = table[PRIOR].astype("category")
    table.attrs = {"command": facts["command"], "reading": facts["reading"]}
    part = path.with_name(path.name + ".part")
    # Columns of few values; of the other numbers all differ.
    few = [*varied, found[0].plan.x.name, found[0].plan.y.name, "region"]
    many = [name for name, values in table.items() if values.dtype == float and name not in few]
    table.to_parquet(
        part,
        engine="pyarrow",
        index=False,
        compression="zstd",
        use_dictionary=few,
        use_byte_stream_split=many,
    )
    part.replace(path)


def _table(found: RegionMap, codes: list[int]) -> pd.DataFrame:
    """The rows of one map; `codes` are the regions that any map has."""
    sheet, plan = found.sheet, found.plan
    place = np.zeros(CODES, np.int8)
    place[codes] = np.arange(len(codes))
    names = pd.Index([name_of(code) for code in codes])
    named = pd.Categorical.from_codes(place[sheet.region], names)
    columns: dict[str, Any] = {
        plan.x.name: plan.x.floats(sheet.x, found.fine),
        plan.y.name: plan.y.floats(sheet.y, found.fine),
        "region": named,
        "level": sheet.level,
        "exact": sheet.exact,
    }
    for c, name in enumerate(CONTRACTS):
        columns[f"payoff1_{name}"], columns[f"payoff2_{name}"] = sheet.payoffs[c]
        columns[f"trade_{name}"], columns[f"irpo_{name}"] = sheet.trade[c], sheet.irpo[c]
    no, full = sheet.payoffs[0], sheet.payoffs[3]
    columns["transfer_low"], columns["transfer_high"] = no[0] - full[0], full[1] - no[1]
    return pd.DataFrame(columns, copy=False)
