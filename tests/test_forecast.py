"""Forecasts from a firm's history: exact where it is linear, covering, and silent outside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.exchange import Array, FedpactError
from parties.reuse.forecast import (
    EPOCHS,
    LARGEST,
    SHARE,
    Forecaster,
    ShortHistoryError,
    leave_one_kind_out,
)
from parties.reuse.history import NEEDED, History

Past = tuple[Array, Array, Array]


def past(seed: int, cases: int = 120, kinds: int = 12, noise: float = 0.1) -> Past:
    """Cases whose log(1 + epochs) is linear in two measures, with some noise."""
    rng = np.random.default_rng(seed)
    measures = rng.normal(size=(cases, 2)) * [1.0, 100.0]
    line = 1.0 + 0.5 * measures[:, 0] - 0.003 * measures[:, 1] + noise * rng.normal(size=cases)
    return (
        measures,
        np.expm1(np.maximum(line, 0)),
        np.array([f"k{i % kinds}" for i in range(cases)]),
    )


def test_a_linear_history_is_forecast_as_it_is() -> None:
    measures, epochs, kinds = past(0, cases=2000, noise=0.0)
    inside = np.log1p(epochs) > 0  # where the line was not cut off at 0
    forecaster = Forecaster(measures[inside], epochs[inside], kinds[inside])
    told = forecaster(np.array([0.5, 20.0]))
    assert told.middle == pytest.approx(np.expm1(1.0 + 0.25 - 0.06), rel=0.01)
    assert told.low <= told.middle <= told.high
    assert told.known


def test_the_interval_covers_nine_in_ten_cases_of_new_kinds() -> None:
    covered = []
    for seed in range(8):
        measures, epochs, kinds = past(seed)
        told = leave_one_kind_out(measures, epochs, kinds)
        covered += [f.low <= e <= f.high for f, e in zip(told, epochs, strict=True)]
    assert 0.86 <= np.mean(covered) <= 0.97


def test_a_wider_interval_is_asked_for_by_a_smaller_miss() -> None:
    measures, epochs, kinds = past(3)
    x = np.zeros(2)
    wide = Forecaster(measures, epochs, kinds, miss=0.02)(x)
    narrow = Forecaster(measures, epochs, kinds, miss=0.3)(x)
    assert wide.low < narrow.low <= narrow.middle == wide.middle <= narrow.high < wide.high


def test_a_case_far_from_all_others_is_not_known() -> None:
    forecaster = Forecaster(*past(1))
    assert forecaster(np.array([0.1, 10.0])).known
    far = forecaster(np.array([0.1, 5000.0]))
    assert not far.known
    assert far.distance > 5


def test_about_one_past_case_in_twenty_would_have_been_unknown() -> None:
    measures, epochs, kinds = past(2, cases=400)
    told = leave_one_kind_out(measures, epochs, kinds)
    assert 0.01 <= np.mean([not f.known for f in told]) <= 0.12


@given(st.permutations(range(40)))
def test_the_order_of_the_history_does_not_matter(order: list[int]) -> None:
    measures, epochs, kinds = past(4, cases=40, kinds=4)
    x = np.array([0.3, -40.0])
    one = Forecaster(measures, epochs, kinds)(x)
    two = Forecaster(measures[order], epochs[order], kinds[order])(x)
    assert (two.middle, two.low, two.high) == pytest.approx((one.middle, one.low, one.high))
    assert two.known == one.known


def test_a_share_stays_a_share() -> None:
    measures, _, kinds = past(5)
    share = 1 / (1 + np.exp(-measures[:, 0]))
    told = Forecaster(measures, share, kinds, SHARE)(np.array([0.5, 0.0]))
    assert 0 < told.low <= told.middle <= told.high < 1
    assert told.middle == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.01)


def test_a_measure_that_never_varies_does_no_harm() -> None:
    measures, epochs, kinds = past(6)
    flat = np.column_stack([measures, np.ones(len(epochs))])
    x = np.array([0.2, 10.0])
    one = Forecaster(measures, epochs, kinds)(x)
    two = Forecaster(flat, epochs, kinds)(np.array([*x, 1.0]))
    assert two.middle == pytest.approx(one.middle)


@pytest.mark.parametrize(
    ("cases", "kinds", "message"),
    [(19, 4, "19 cases of 4 kinds"), (40, 1, "40 cases of 1 kinds"), (0, 1, "0 cases of 0 kinds")],
)
def test_a_short_history_forecasts_nothing_and_says_so(
    cases: int, kinds: int, message: str
) -> None:
    with pytest.raises(FedpactError, match=f"{message}.*Probe instead"):
        Forecaster(*past(0, cases, kinds))


def test_a_forecast_of_epochs_is_a_number_from_0_on_however_far_the_case() -> None:
    forecaster = Forecaster(*past(1))
    for x in (1e30, -1e30):
        told = forecaster(np.array([x, 0.0]))
        assert not told.known
        assert 0 <= told.low <= told.middle <= told.high <= LARGEST * (1 + 1e-9)


def test_a_kind_without_enough_other_ones_is_named() -> None:
    with pytest.raises(ShortHistoryError, match=r"40 cases of 2 kinds, 20 of them not of .* 'k0'"):
        leave_one_kind_out(*past(0, cases=40, kinds=2))
    measures, epochs, kinds = past(0, cases=40, kinds=4)
    kinds[:25] = "k0"
    with pytest.raises(ShortHistoryError, match=r"40 cases of 4 kinds, \d+ of them not of"):
        leave_one_kind_out(measures, epochs, kinds)


def test_who_asks_for_more_unknown_cases_gets_them_left_out() -> None:
    parts = past(2, cases=200)
    few, many = (
        np.mean([not f.known for f in leave_one_kind_out(*parts, outside=share)])
        for share in (0.02, 0.45)
    )
    assert few < 0.1 < 0.3 < many


def test_epochs_and_shares_come_back_from_their_scales() -> None:
    for (forth, back), values in ((EPOCHS, [0.0, 2.5, 40.0]), (SHARE, [0.01, 0.5, 0.99])):
        np.testing.assert_allclose(back(forth(np.array(values))), values)


# ------------------------------------------------------------------------------------- the history


def case(name: str, kind: str = "noise", **more: float) -> dict[str, str | float]:
    facts = {"epochs": 2.0, "scratch_epochs": 5.0, "ceiling": 0.9, **more}
    return {"case": name, "kind": kind, **facts}


def test_a_history_is_kept_and_grows(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    assert History.load(file).rows == ()
    grown = History().with_case(case("a", arm=0.25)).with_case(case("b", "blur", resque=0.5))
    grown.save(file)
    again = History.load(file)
    measures, epochs, kinds = again.table(["arm"], "epochs")
    assert measures.tolist() == [[0.25]]
    assert epochs.tolist() == [2.0]
    assert kinds.tolist() == ["noise"]  # b has no arm, and is left out
    replaced = again.with_case(case("a", arm=0.75))
    assert [row["case"] for row in replaced.rows] == ["b", "a"]
    assert replaced.table(["arm"], "epochs")[0].tolist() == [[0.75]]


def test_a_table_that_is_no_history_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("case,epochs\na,1\n")
    with pytest.raises(FedpactError, match="lacks the columns kind, scratch_epochs, ceiling"):
        History.load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FedpactError, match="cannot be read"):
        History.load(file)


@pytest.mark.parametrize("text", ["", "a,b\n"])
def test_a_table_without_rows_must_have_the_columns_of_a_history_too(
    text: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text(text)
    with pytest.raises(FedpactError, match="lacks the columns case, kind"):
        History.load(file)
    file.write_text(",".join(NEEDED) + "\n")
    assert History.load(file).rows == ()


@pytest.mark.parametrize("values", ["a,b,1,2,.9,7", "a,b,1,2"])
def test_a_row_with_values_too_many_or_too_few_is_named(values: str, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(",".join(NEEDED) + "\nz,k,1,2,.9\n" + values + "\n")
    with pytest.raises(FedpactError, match="case 2 has not as many values as there are columns"):
        History.load(file)


@pytest.mark.parametrize("more", ["", "kind"])
def test_a_column_without_a_name_of_its_own_is_refused(more: str, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(",".join((*NEEDED, more)) + "\na,b,1,2,.9,7\n")
    with pytest.raises(FedpactError, match="a column without a name, or two of one"):
        History.load(file)


def test_a_word_in_the_place_of_a_number_leaves_the_row_out() -> None:
    rows = [dict.fromkeys(NEEDED, "1") | {"arm": word} for word in ("0.5", "much", "nan", "")]
    assert len(History(tuple(rows)).table(["arm"], "epochs")[1]) == 1


def test_a_new_model_that_never_got_there_counts_as_the_longest_that_was_tried() -> None:
    rows = [dict.fromkeys(NEEDED, "1") | {"scratch_epochs": told} for told in ("3", "", "nan")]
    rows[2]["longest"] = "40"
    past = History(tuple(rows))
    assert past.table([], "scratch_epochs")[1].tolist() == [3, 20, 40]
    assert past.table([], "scratch_epochs", longest=7)[1].tolist() == [3, 7, 40]
    assert len(past.table([], "ceiling")[1]) == 3
