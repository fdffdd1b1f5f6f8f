"""Money and honesty: side payments, prices, welfare, misreports and audits."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.game.bargain import Transfer, prediction_value, transfer, two_part, welfare
from server.game.dominance import BASELINE, Reading, Solved
from server.game.honesty import Liar, misreport
from server.game.settings import correlation, table
from server.game.sight import CONTRACTS
from server.game.worlds import Setting
from simulations.game.rows import solved_row
from tests.games import ROW, ROWS, F, finite_settings

SELECTED = Reading("selected", "ex_ante")
SMALL = settings(max_examples=30, deadline=None)


def test_the_transfer_of_row_s1() -> None:
    solved = solved_row(ROW["S1"])
    found = transfer(solved, "full_sharing")
    assert found == Transfer(F(1, 40), F(3, 40))
    assert (found.nash, found.surplus, found.exists) == (F(1, 20), F(1, 20), True)


def test_no_payment_mends_matching() -> None:
    found = transfer(solved_row(ROW["M1"]), "full_sharing")
    assert found.surplus == F(-3, 50)
    assert not found.exists
    assert found.nash is None


@SMALL
@given(setting=finite_settings(), share=st.fractions(0, 1))
def test_a_payment_in_the_interval_contents_both_and_sums_to_zero(
    setting: Setting, share: Fraction
) -> None:
    solved = Solved(setting)
    alone = solved.payoffs(BASELINE)
    for name in CONTRACTS:
        one, two = solved.payoffs(name)
        found = transfer(solved, name)
        payment = found.low + share * (found.high - found.low)
        after = (one + payment, two - payment)
        assert sum(after) == one + two
        content = all(u >= a for u, a in zip(after, alone, strict=True))
        assert content == found.exists
        if found.exists:
            nash = found.nash
            assert nash is not None
            assert one + nash - alone[0] == two - nash - alone[1]  # equal gains


@SMALL
@given(setting=finite_settings())
def test_full_sharing_is_payable_where_one_action_matters_and_the_client_is_split(
    setting: Setting,
) -> None:
    (_, r1), (_, c1) = setting.rewards, setting.costs
    split = Setting(setting.worlds, (F(0), r1), (F(0), c1), F(1, 2))
    assert transfer(Solved(split), "full_sharing").exists


def test_a_price_of_row_s1_is_what_the_prediction_is_worth() -> None:
    solved = solved_row(ROW["S1"])
    parts = two_part(solved, "infer_sharing")
    assert parts is not None
    assert parts.price + parts.fee == F(1, 20)
    assert parts.price <= parts.limit == prediction_value(solved, "infer_sharing", 1)


@SMALL
@given(setting=finite_settings(histories=1))
def test_seeing_a_prediction_is_never_worth_less_than_nothing(setting: Setting) -> None:
    solved = Solved(setting)
    for name, firm in product(("infer_sharing", "full_sharing"), (0, 1)):
        assert prediction_value(solved, name, firm) >= 0


def test_a_paid_prediction_needs_predictions() -> None:
    assert two_part(solved_row(ROW["S13"]), "train_sharing") is None


def test_the_regulator_is_told_where_firms_sign_and_trade_falls() -> None:
    solved = solved_row(ROW["S6"])
    found = welfare(solved, "train_sharing", SELECTED)
    assert found.trade < solved.trade_probability(BASELINE)
    assert found.lowers_trade
    assert found.total == sum(solved.payoffs("train_sharing"))
    assert not welfare(solved, BASELINE, SELECTED).lowers_trade
    assert not welfare(solved, "full_sharing", SELECTED).lowers_trade  # it is not signed


def test_consumers_who_want_what_firms_want_prefer_what_firms_sign() -> None:
    for row in ROWS:
        solved = solved_row(row)
        for name in solved.rational(SELECTED):
            assert sum(solved.payoffs(name)) >= sum(solved.payoffs(BASELINE))


def test_full_sharing_can_be_signed_and_leave_few_clients_served() -> None:
    # Equal firms who are nearly always right together, and a high cost of lending wrongly.
    a, rho = F(51, 100), F(3, 100)
    cost = F(102, 100)
    solved = Solved(correlation(a, a, [(1, rho)], (0, 1), (0, cost)))
    ratio = solved.trade_probability("full_sharing") / solved.trade_probability(BASELINE)
    assert "full_sharing" in solved.irpo(SELECTED)
    assert ratio < F(1, 10)


# ------------------------------------------------------------------------------- honesty


def test_in_row_s1_firm_1_doubles_its_payoff_by_lying() -> None:
    solved = solved_row(ROW["S1"])
    found = misreport(solved, "infer_sharing", 0)
    assert found.gain == solved.payoffs("infer_sharing")[0] == F(3, 20)
    assert found.audit == F(3, 10)


def test_nothing_is_gained_by_lying_where_nothing_is_shared() -> None:
    for row in ROWS:
        solved = solved_row(row)
        assert all(misreport(solved, BASELINE, firm).gain == 0 for firm in (0, 1))


def test_models_can_be_misreported_where_models_are_shared_only() -> None:
    solved = solved_row(ROW["S6"])
    assert misreport(solved, "train_sharing", 0).gain > 0
    one_world = solved_row(ROW["S1"])
    assert misreport(one_world, "train_sharing", 0).gain == 0  # the model says nothing new


@SMALL
@given(setting=finite_settings(), name=st.sampled_from(list(CONTRACTS)), firm=st.integers(0, 1))
def test_the_audit_removes_every_gain_and_nothing_less_does(
    setting: Setting, name: str, firm: int
) -> None:
    liar = Liar(Solved(setting), name, firm)
    gain = liar.best(F(0))
    assert gain >= 0
    assert liar.best(liar.audit) == 0
    assert (gain > 0) == (liar.audit > 0)
    if gain > 0:
        assert liar.best(liar.audit * F(999, 1000)) > 0


@pytest.mark.parametrize("row", ROWS[:4], ids=lambda row: row["id"])
def test_a_lie_about_predictions_is_found_by_trying_all(row: dict) -> None:  # type: ignore[type-arg]
    """All 4 reports of firm 1's signal against its best response, by hand, under infer-sharing."""
    solved = solved_row(row)
    game, setting = solved.games["infer_sharing"], solved.setting
    acts = {
        seen: profile.acts[n]
        for component, profile in zip(game.components, game.selected, strict=True)
        for n, seen in enumerate(component.infos)
        if component.firm(n) == 1
    }
    cells: dict[tuple[int, int], list[int]] = {}
    for cell in setting.cells:  # worlds are not told apart
        total = cells.setdefault((cell.s1, cell.s2), [0, 0])
        total[0] += cell.values[0]
        total[1] += cell.values[1]
    best = F(0)
    for report in product((0, 1), repeat=2):
        worth = F(0)
        for (s1, s2), values in cells.items():
            rival = acts[("z2", ""), ("s1", report[s1]), ("s2", s2)]
            worth += max((setting.gamma if a == rival else 1) * values[a] for a in (0, 1))
        best = max(best, worth / (setting.masses * setting.stakes))
    gain = best - solved.payoffs("infer_sharing")[0]
    assert misreport(solved, "infer_sharing", 0).gain == gain


def test_of_payoff_free_equilibria_the_one_with_fewest_plays_is_selected() -> None:
    nothing = correlation("4/5", "7/10", [(1, "14/25")], (0, 0), (0, 0))
    solved = Solved(nothing)
    for name in CONTRACTS:
        assert solved.trade_probability(name) == 0


def test_firm_1_pays_where_firm_1_gains() -> None:
    parts = two_part(solved_row(ROW["H1"]), "infer_sharing")
    assert parts is not None
    assert (parts.payer, parts.price + parts.fee) == (0, F(63, 4000))


def test_a_false_model_may_need_false_predictions_to_be_believed() -> None:
    joint = [[[3, 0], [2, 2]], [[1, 3], [3, 1]]]
    prior = {"measured": "1/2", "strongest": "1/2"}
    solved = Solved(table(joint, prior, (1, 1), (0, 0)))
    assert misreport(solved, "full_sharing", 0).gain >= F(1, 60)


@SMALL
@given(counts=st.lists(st.integers(0, 3), min_size=8, max_size=8).filter(any))
def test_every_lie_of_full_sharing_is_tried(counts: list[int]) -> None:
    """All models and reports of firm 1, by hand; tables with empty cells."""
    joint = [[counts[0:2], counts[2:4]], [counts[4:6], counts[6:8]]]
    solved = Solved(table(joint, {"measured": "1/3", "strongest": "2/3"}, (1, 1), (0, 0)))
    game, setting = solved.games["full_sharing"], solved.setting
    acts = {
        tuple(v for _, v in seen): profile.acts[n]
        for component, profile in zip(game.components, game.selected, strict=True)
        for n, seen in enumerate(component.infos)
        if component.firm(n) == 1
    }
    pairs = sorted({cell.pair for cell in setting.cells}, key=repr)

    def best(told_pair: object) -> Fraction | None:
        total = F(0)
        for pair, s1 in {(c.pair, c.s1) for c in setting.cells}:
            group = [c for c in setting.cells if (c.pair, c.s1) == (pair, s1)]
            worth = []
            for report in sorted({c.s1 for c in setting.cells}):
                believed = pair if told_pair is None else told_pair
                rivals = [acts.get(("", "", believed, report, c.s2)) for c in group]
                if None not in rivals:
                    worth.append(
                        sum(
                            max((setting.gamma if a == r else 1) * c.values[a] for a in (0, 1))
                            for c, r in zip(group, rivals, strict=True)
                        )
                    )
            if not worth:
                return None
            total += max(worth)
        return total / (setting.masses * setting.stakes)

    found = [v for v in (best(None), *(best(p) for p in pairs)) if v is not None]
    gain = max(found) - solved.payoffs("full_sharing")[0]
    assert misreport(solved, "full_sharing", 0).gain == gain
