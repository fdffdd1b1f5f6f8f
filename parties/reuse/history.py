"""A firm's history of reuse: a table with a row a case, which grows with every one it finishes."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from parties.exchange import Array, FedpactError

NEEDED = ("case", "kind", "epochs", "scratch_epochs", "ceiling")
"""Columns of every history; those of measures stand beside them, by the measure's name.

case: its name; kind: of shift; epochs: that retraining took to its ceiling; scratch_epochs: that
training from scratch took to it, empty or nan where it never got there; ceiling: the accuracy that
retraining came to.

A history may also say `longest`, the epochs that the new model was trained at most, and
`scratch_accuracy`, the accuracy that it came to. Without the latter nobody knows what a new model
is worth, and a judge never takes one for its accuracy.
"""
LONGEST = 20.0
"""Epochs that count where a new model never got there and the row does not say `longest`."""


@final
@dataclass(frozen=True)
class History:
    """Finished cases.

    Args:
        rows: column -> text, a mapping a case.
    """

    rows: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read a history; a file that is not there is an empty one.

        Raises:
            FedpactError: it is no table with the needed columns, or a row has not as many values.
        """
        file = Path(path)
        if not file.exists():
            return cls()
        try:
            table = csv.DictReader(io.StringIO(file.read_text("utf-8")))
            rows, columns = tuple(table), table.fieldnames or ()
        except (OSError, UnicodeDecodeError, csv.Error) as fault:
            raise FedpactError(
                f"history {file} cannot be read ({fault}); legal is a csv file with the columns "
                f"{', '.join(NEEDED)} and one a measure. Choose another with history=..."
            ) from fault
        missing = [name for name in NEEDED if name not in columns]
        if missing:
            raise FedpactError(
                f"history {file} lacks the columns {', '.join(missing)}; legal is a table with "
                f"{', '.join(NEEDED)} and one a measure. `python -m simulations "
                "experiment=arm_digits` writes one (history.csv)."
            )
        if "" in columns or len(set(columns)) < len(columns):
            raise FedpactError(
                f"history {file} has a column without a name, or two of one; legal is a name each. "
                "Mend its first line."
            )
        for number, row in enumerate(rows, 1):
            if None in row or None in row.values():  # how csv marks values too many or too few
                raise FedpactError(
                    f"history {file}: case {number} has not as many values as there are columns; "
                    f"legal is one in each of {len(columns)}. Mend the row, or take it out."
                )
        return cls(rows)

    def with_case(self, row: Mapping[str, str | float]) -> History:
        """The history with one more case, in the place of one of the same name."""
        told = {k: v if isinstance(v, str) else repr(float(v)) for k, v in row.items()}
        kept = [r for r in self.rows if r["case"] != told["case"]]
        return History((*kept, told))

    def save(self, path: str | Path) -> None:
        """Write it, whole or not at all."""
        columns = list(dict.fromkeys([*NEEDED, *(key for row in self.rows for key in row)]))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n", restval="nan")
        table.writeheader()
        table.writerows(self.rows)
        file = Path(path)
        part = file.with_name(file.name + ".part")
        part.write_text(text.getvalue(), "utf-8")
        os.replace(part, file)

    def table(
        self, names: Sequence[str], value: str, longest: float = LONGEST
    ) -> tuple[Array, Array, Array]:
        """Measures (n, k), a value (n,) and the kinds (n,), of the cases that have all of them.

        A new model that never got there has no scratch_epochs. To leave it out would make training
        from scratch look cheap, so it counts as the longest that was tried: a lower bound.

        Args:
            longest: counts where the row does not say.
        """

        def outcome(row: Mapping[str, str]) -> float:
            found = number(row, value)
            if value != "scratch_epochs" or math.isfinite(found):
                return found
            tried = number(row, "longest")
            return tried if math.isfinite(tried) else longest

        kept = [
            (numbers, row["kind"])
            for row in self.rows
            if all(map(math.isfinite, numbers := [*(number(row, n) for n in names), outcome(row)]))
        ]
        found = np.array([numbers for numbers, _ in kept]).reshape(len(kept), len(names) + 1)
        return found[:, :-1], found[:, -1], np.array([kind for _, kind in kept])


def number(row: Mapping[str, str], name: str) -> float:
    """A row's number; not-a-number where it has none."""
    try:
        return float(row.get(name) or "nan")
    except ValueError:
        return math.nan
