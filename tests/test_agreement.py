"""Measured and predicted verdicts, counted against each other."""

from __future__ import annotations

import pandas as pd

from simulations.sweeps.agreement import agreement

CASES = [  # measured, predicted, how many studies
    (True, True, 5), (False, False, 3), (True, False, 2), (False, True, 1),
    (None, True, 4), (None, None, 6), (True, None, 7),
]  # fmt: skip


def table_of(cases: list[tuple[bool | None, bool | None, int]]) -> pd.DataFrame:
    rows = [(m, p) for m, p, times in cases for _ in range(times)]
    table = pd.DataFrame(rows, columns=["c.signed", "c.predicted_signed"], dtype=object)
    return table.assign(**{"status": "ok", "c.surplus": 0.0, "c.alice.decision": "undecided"})


def test_every_pair_of_verdicts_is_counted_where_it_belongs() -> None:
    assert agreement(table_of(CASES)) == {
        "c": {
            "compared": 11,
            "signs": 5,
            "refuses": 3,
            "only_measured": 2,
            "only_predicted": 1,
            "undecided": 4,
            "unpredicted": 13,
            "agree": 8,
            "share": 8 / 11,
        }
    }


def test_failed_studies_and_those_without_the_contract_count_nowhere() -> None:
    table = table_of(CASES)
    failed = table.assign(status="failed")
    other = table.assign(**dict.fromkeys((c for c in table if c.startswith("c.")), None))
    assert agreement(pd.concat([table, failed, other])) == agreement(table)


def test_where_nothing_is_decided_there_is_no_share() -> None:
    assert agreement(table_of([(None, True, 2)]))["c"]["share"] is None
    assert agreement(table_of([(True, None, 2)]))["c"]["share"] is None
    assert agreement(table_of([]))["c"]["compared"] == 0


def test_nullable_and_plain_columns_count_the_same() -> None:
    table = table_of(CASES)
    columns = ["c.signed", "c.predicted_signed"]
    assert agreement(table.astype(dict.fromkeys(columns, "boolean"))) == agreement(table)
