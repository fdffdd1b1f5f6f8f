"""The exact engine: golden rows, brute force, and what must hold in any finite setting."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.game.bayes import Component, Game
from server.game.dominance import BASELINE, GOLDEN, READINGS, Reading, Solved
from server.game.fast import solve_correlation
from server.game.mixed import mixed_equilibria
from server.game.settings import correlation, hypotheses
from server.game.sight import CONTRACTS, Sight
from server.game.worlds import Setting
from simulations.game.rows import answer, solved_row
from tests.games import ROW, ROWS, F, finite_settings, random_point, setting_at, swapped

PAPER = Reading("paper", "interim")
SELECTED = Reading("selected", "ex_ante")
CHECKED = ("payoffs", "dominance_solvable", "unique_pure", "trade_probability", "ir", "irpo")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_golden_row_comes_out_exactly(row: dict[str, Any]) -> None:
    question = {key: row[key] for key in ("id", "setting", "params")}
    found = answer(question)
    assert {key: found[key] for key in CHECKED} == {key: row[key] for key in CHECKED}
    assert list(found["transfers"]) == list(CONTRACTS)


def brute_force(component: Component) -> set[tuple[int, ...]]:
    """All profiles from which no information set gains by deviating."""
    found = set()
    for acts in product((0, 1), repeat=len(component.infos)):
        stable = True
        for info in range(len(component.infos)):
            other = tuple(1 - a if i == info else a for i, a in enumerate(acts))
            firm = component.firm(info)
            here, there = component.profile(acts), component.profile(other)
            stable &= here.utilities[firm] >= there.utilities[firm]
        if stable:
            found.add(acts)
    return found


SMALL = settings(max_examples=30, deadline=None)
MASKS = st.sampled_from(
    [Sight(a, b) for a in ((), ("z2",), ("s2",), ("z2", "s2")) for b in ((), ("z1",), ("s1",))]
)


@SMALL
@given(setting=finite_settings(), sight=MASKS)
def test_every_pure_equilibrium_is_found_and_nothing_else(setting: Setting, sight: Sight) -> None:
    for component in Game(setting, sight).components:
        assert {e.acts for e in component.equilibria} == brute_force(component)


@SMALL
@given(setting=finite_settings(signals=3, worlds=1), sight=MASKS)
def test_components_lose_nothing_and_share_nothing(setting: Setting, sight: Sight) -> None:
    game = Game(setting, sight)
    seen = [(c.firm(n), info) for c in game.components for n, info in enumerate(c.infos)]
    assert len(seen) == len(set(seen))
    mass = sum(cell[2] for c in game.components for cell in c.cells)
    assert mass == setting.masses


@SMALL
@given(setting=finite_settings(), sight=MASKS)
def test_the_potential_is_exact(setting: Setting, sight: Sight) -> None:
    for component in Game(setting, sight).components:
        for acts in list(product((0, 1), repeat=len(component.infos)))[:16]:
            here = component.profile(acts)
            for info in range(len(acts)):
                other = tuple(1 - a if i == info else a for i, a in enumerate(acts))
                there, firm = component.profile(other), component.firm(info)
                gain = there.utilities[firm] - here.utilities[firm]
                assert there.potential - here.potential == gain


@SMALL
@given(setting=finite_settings(), sight=MASKS)
def test_the_certificate_names_strictly_dominated_actions_only(
    setting: Setting, sight: Sight
) -> None:
    for component in Game(setting, sight).components:
        acts: list[int | None] = [None] * len(component.infos)
        order = {(component.firm(n), info): n for n, info in enumerate(component.infos)}
        for step in component.eliminations:
            info = order[step.firm, step.seen]
            low, high = component.gain(info, acts)
            assert low > 0 if step.action == 0 else high < 0
            acts[info] = 1 - step.action
        for equilibrium in component.equilibria:
            pairs = zip(acts, equilibrium.acts, strict=True)
            assert all(a is None or a == b for a, b in pairs)
        if component.dominance_solvable:
            assert len(component.equilibria) == 1


@SMALL
@given(setting=finite_settings())
def test_relabelling_the_firms_relabels_everything(setting: Setting) -> None:
    ours, theirs = Solved(setting), Solved(swapped(setting))
    for name in CONTRACTS:
        one, two = ours.games[name], theirs.games[name]
        assert one.dominance_solvable == two.dominance_solvable
        assert one.unique_pure == two.unique_pure
        if one.unique_pure:
            assert ours.payoffs(name) == theirs.payoffs(name)[::-1]
            assert ours.trade_probability(name) == theirs.trade_probability(name)
    for timing in ("interim", "ex_ante"):
        reading = Reading("paper", timing)
        assert ours.rational(reading) == theirs.rational(reading)
        assert ours.irpo(reading) == theirs.irpo(reading)


@SMALL
@given(setting=finite_settings(), scale=st.integers(1, 9).map(lambda n: F(n, 3)))
def test_scaling_rewards_and_costs_scales_payoffs(setting: Setting, scale: Fraction) -> None:
    (r0, r1), (c0, c1) = setting.rewards, setting.costs
    scaled = Setting(
        setting.worlds, (scale * r0, scale * r1), (scale * c0, scale * c1), setting.gamma
    )
    ours, theirs = Solved(setting), Solved(scaled)
    for name in CONTRACTS:
        assert tuple(scale * u for u in ours.payoffs(name)) == theirs.payoffs(name)
    for reading in READINGS:
        assert ours.irpo(reading) == theirs.irpo(reading)


@SMALL
@given(setting=finite_settings())
def test_without_rivalry_more_information_never_hurts(setting: Setting) -> None:
    solved = Solved(Setting(setting.worlds, setting.rewards, setting.costs, F(1)))
    for name in ("infer_sharing", "full_sharing"):
        pairs = zip(solved.payoffs(name), solved.payoffs(BASELINE), strict=True)
        assert all(under >= alone for under, alone in pairs)
        assert name in solved.rational(SELECTED)


@SMALL
@given(setting=finite_settings(worlds=1))
def test_a_contract_with_one_equilibrium_dominates_itself(setting: Setting) -> None:
    solved = Solved(setting)
    for name, game in solved.games.items():
        for reading in READINGS:
            if game.unique_pure or reading.definition == "selected":
                assert solved.dominates(name, name, reading)


def test_dominance_is_not_reflexive_where_equilibria_differ() -> None:
    solved = solved_row(ROW["M5"])
    assert not solved.dominates("infer_sharing", "infer_sharing", PAPER)
    assert solved.dominates("infer_sharing", "infer_sharing", SELECTED)


@SMALL
@given(setting=finite_settings())
def test_interim_utilities_average_to_the_ex_ante_ones(setting: Setting) -> None:
    solved = Solved(setting)
    for name in CONTRACTS:
        for firm in (0, 1):
            mass: dict[Any, Fraction] = {}
            for cell in setting.cells:
                z = (cell.z1, cell.z2)[firm]
                mass[z] = mass.get(z, F(0)) + F(cell.mass, setting.masses)
            interim = solved.interim(name, firm)
            assert sum(mass[z] * u for z, u in interim.items()) == solved.payoffs(name)[firm]


@SMALL
@given(setting=finite_settings(), reading=st.sampled_from(READINGS))
def test_an_objection_holds_what_it_says(setting: Setting, reading: Reading) -> None:
    solved = Solved(setting)
    for name, standing in solved.standings(reading).items():
        objection = standing.objection
        assert (objection is None) == standing.individually_rational
        if objection is None:
            continue
        assert objection.offered < objection.demanded
        assert (objection.contract, objection.over) == (name, BASELINE)
        firm = objection.firm or 0
        told = objection.equilibrium
        components = solved.games[BASELINE].components
        assert [e.acts for e in told] == [
            next(p.acts for p in c.equilibria if p.acts == e.acts)
            for c, e in zip(components, told, strict=True)
        ]
        if objection.occasion is None:
            given_it = sum(e.utilities[firm] for e in told)
            assert F(given_it, setting.unit) == objection.demanded


def test_equal_games_are_told_apart_by_their_equilibria_only() -> None:
    # One-sided model sharing reveals nothing here: there is one world.
    row = ROW["S1"] | {"contracts": {"no_sharing": {}, "mine": {"firm1": ["z2"], "firm2": []}}}
    solved = solved_row(row)
    assert solved.payoffs("mine") == solved.payoffs(BASELINE)
    assert solved.irpo(PAPER) == [BASELINE, "mine"]


def test_one_sided_prediction_sharing_helps_who_sees() -> None:
    row = ROW["S1"] | {
        "contracts": {"no_sharing": {}, "to_1": {"firm1": ["s2"]}, "to_2": {"firm2": ["s1"]}}
    }
    solved = solved_row(row)
    alone = solved.payoffs(BASELINE)
    assert solved.payoffs("to_1")[0] >= alone[0]
    assert solved.payoffs("to_2")[1] >= alone[1]


# --------------------------------------------------------------------- mixed equilibria


def test_a_shared_cell_has_the_mixed_equilibrium_of_its_closed_form() -> None:
    # Both see s1 = s2 = 1, where P(t = 1) = 3/5: matching, so splitting the client is best.
    law = {(1, 1, 1): F(3, 5), (0, 1, 1): F(2, 5)}
    from server.game.worlds import World

    setting = Setting((World(F(1), law),), (F(1), F(1)), (F(0), F(0)), F(1, 2))
    (component,) = Game(setting, CONTRACTS["full_sharing"]).components
    search = mixed_equilibria(component)
    assert search is not None
    assert search.complete
    (mixed,) = search.equilibria
    # The rival plays 1 with (E1 - gamma E0) / ((1 - gamma) (E0 + E1)).
    expected = (F(3, 5) - F(1, 2) * F(2, 5)) / (F(1, 2) * 1)
    assert mixed.acts == (expected, expected)
    assert len(component.equilibria) == 2  # and the two asymmetric pure ones


@SMALL
@given(setting=finite_settings(histories=1, worlds=1))
def test_mixed_equilibria_leave_nobody_a_gain(setting: Setting) -> None:
    for component in Game(setting, CONTRACTS[BASELINE]).components:
        search = mixed_equilibria(component)
        assert search is not None
        for mixed in search.equilibria:
            for info, act in enumerate(mixed.acts):
                gain = sum(
                    (1 - mixed.acts[o]) * g0 + mixed.acts[o] * g1
                    for o, g0, g1 in component.edges[info]
                )
                assert gain == 0 if 0 < act < 1 else (gain >= 0 if act else gain <= 0)
        if component.dominance_solvable:
            assert search.equilibria == ()


def test_a_large_component_is_not_searched_for_mixed_equilibria() -> None:
    (*_, large) = Game(hypotheses("1/3", "1/3", "1/4", "1/4", 2), CONTRACTS[BASELINE]).components
    assert len(large.infos) > 8
    assert mixed_equilibria(large) is None


# ------------------------------------------------- exact = closed form = fast, 10,000 points


def closed_form(point: dict[str, Any]) -> dict[str, tuple[Fraction, Fraction] | None]:
    """contracts.md, section 2: None where no listed profile is the only listed equilibrium."""
    a, b, r, c, g = (point[k] for k in ("alpha", "beta", "R", "C", "gamma"))

    def cells(rho: Fraction) -> list[Fraction]:
        low = 1 - a - b + rho
        w11, w10 = r * rho - c * low, r * (a - rho) - c * (b - rho)
        return [w11, w10, r * (b - rho) - c * (a - rho), r * low - c * rho]

    def private(rho: Fraction) -> list[tuple[Fraction, Fraction]]:
        w11, w10, w01, w00 = cells(rho)
        found = []
        both = ((w10 + g * w11) / 2, (w01 + g * w11) / 2)
        if min(both) >= 0 and g * w01 + w00 <= 0 and g * w10 + w00 <= 0:
            found.append(both)
        first = (w11 + w10) / 2
        if w01 + g * w11 <= 0 and w00 + g * w10 <= 0 and first >= 0 and r * (1 - a) <= c * a:
            found.append((first, F(0)))
        inverted = ((w11 + g * w10) / 2, (w00 + g * w10) / 2)
        if w01 + g * w11 <= 0 <= w00 + g * w10 and inverted[0] >= 0 and w01 + g * w00 <= 0:
            found.append(inverted)
        if r * a <= c * (1 - a) and r * b <= c * (1 - b):
            found.append((F(0), F(0)))
        return found

    mean = sum(w * rho for w, rho in zip(point["weight"], point["rho"], strict=True))
    worlds = list(zip(point["weight"], point["rho"], strict=True))
    infer = g / 2 * sum(max(F(0), w) for w in cells(mean))
    full = sum(p * g / 2 * sum(max(F(0), w) for w in cells(rho)) for p, rho in worlds)
    alone, each = private(mean), [private(rho) for _, rho in worlds]
    train = None
    if all(len(found) == 1 for found in each):
        parts = [(p * f[0][0], p * f[0][1]) for (p, _), f in zip(worlds, each, strict=True)]
        train = (sum((u for u, _ in parts), F(0)), sum((u for _, u in parts), F(0)))
    return {
        "no_sharing": alone[0] if len(alone) == 1 else None,
        "train_sharing": train,
        "infer_sharing": (infer, infer),
        "full_sharing": (full, full),
    }


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_exact_closed_form_and_fast_path_agree_on_random_points(count: int) -> None:
    rng = random.Random(7)
    points = [random_point(rng) for _ in range(count)]
    arrays = {k: np.array([float(p[k]) for p in points]) for k in ("alpha", "beta", "R", "C")}
    fast = solve_correlation(
        arrays["alpha"],
        arrays["beta"],
        np.array([[float(v) for v in p["rho"]] for p in points]),
        np.array([[float(v) for v in p["weight"]] for p in points]),
        0.0,
        arrays["R"],
        0.0,
        arrays["C"],
        np.array([float(p["gamma"]) for p in points]),
    )
    compared = dict.fromkeys(CONTRACTS, 0)
    for n, point in enumerate(points):
        solved = Solved(setting_at(point))
        closed = closed_form(point)
        for c, name in enumerate(CONTRACTS):
            exact = solved.payoffs(name)
            np.testing.assert_allclose(fast.payoffs[c, :, n], [float(u) for u in exact], atol=1e-12)
            form = closed[name]
            unique = solved.games[name].unique_pure
            # With shared signals the closed form is that of both acting in a cell.
            if form is not None and unique and (c < 2 or point["gamma"] > 0):
                compared[name] += 1
                assert exact == form, (name, point)
        if not fast.tie[n]:
            standings = solved.standings(SELECTED)
            flags = [(s.individually_rational, s.pareto_optimal) for s in standings.values()]
            found = zip(fast.ir[:, n], fast.pareto_optimal[:, n], strict=True)
            assert flags == [(bool(i), bool(p)) for i, p in found]
    assert np.mean(fast.tie) < 0.05
    assert all(number > 0.8 * count for number in compared.values())


# ------------------------------------------------------------------ what the paper proves


def unequal(rng: random.Random) -> tuple[Fraction, Fraction, Fraction]:
    """Random a > b and a possible rho."""
    while True:
        point = random_point(rng)
        if point["alpha"] > point["beta"]:
            return point["alpha"], point["beta"], point["rho"][0]


def test_known_correlation_and_equal_stakes_have_the_papers_payoffs() -> None:
    rng = random.Random(1)
    for _ in range(100):
        a, b, rho = unequal(rng)
        solved = Solved(correlation(a, b, [(1, rho)], (0, 1), (0, 1)))
        assert solved.payoffs("full_sharing") == ((2 * a - 1) / 4,) * 2
        alone = ((3 * a - b - 1) / 4, (3 * b - a - 1) / 4)
        assert solved.payoffs(BASELINE) == (alone if 3 * b > a + 1 else ((2 * a - 1) / 2, 0))


def test_with_a_significant_action_full_sharing_is_at_least_infer_sharing() -> None:
    rng = random.Random(2)
    for _ in range(200):
        solved = Solved(setting_at(random_point(rng) | {"gamma": F(1, 2)}))
        full, infer = solved.payoffs("full_sharing"), solved.payoffs("infer_sharing")
        assert all(f >= i for f, i in zip(full, infer, strict=True))


def test_in_matching_full_sharing_may_be_worse_than_infer_sharing() -> None:
    worlds = [("1/2", "33/100"), ("1/2", "55/100")]
    solved = Solved(correlation("3/5", "11/20", worlds, (1, 1), (0, 0)))
    assert solved.payoffs("infer_sharing")[0] == F(6, 10)
    assert solved.payoffs("full_sharing")[0] == F(5875, 10_000)


def test_with_equal_stakes_no_sharing_is_what_firms_sign() -> None:
    rng = random.Random(3)
    for _ in range(100):
        point = random_point(rng)
        point |= {"C": point["R"], "gamma": F(1, 2)}
        solved = Solved(setting_at(point))
        for reading in GOLDEN:
            found = solved.irpo(reading)
            assert BASELINE in found
            assert set(found) <= {BASELINE, "train_sharing"}
            if "train_sharing" in found:
                assert solved.payoffs("train_sharing") == solved.payoffs(BASELINE)


def test_equally_accurate_firms_lose_nothing_by_full_sharing() -> None:
    rng = random.Random(4)
    for _ in range(150):
        point = random_point(rng)
        b = point["beta"]
        low = max(F(0), 2 * b - 1)
        rho = [low + (b - low) * F(rng.randint(0, 100), 100) for _ in range(2)]
        point |= {"alpha": b, "rho": rho, "gamma": F(1, 2)}
        solved = Solved(setting_at(point))
        full = solved.payoffs("full_sharing")
        for game in solved.games[BASELINE].components:
            for equilibrium in game.equilibria:
                pairs = zip(full, equilibrium.utilities, strict=True)
                assert all(f >= F(u, solved.setting.unit) for f, u in pairs)


def test_with_asymmetric_costs_full_sharing_can_be_better_for_both() -> None:
    solved = Solved(correlation("9/10", "17/20", [(1, F(9, 10) * F(17, 20))], (0, 1), (0, "5/2")))
    full, alone = solved.payoffs("full_sharing"), solved.payoffs(BASELINE)
    assert all(f > n for f, n in zip(full, alone, strict=True))


def test_only_train_sharing_is_signed_in_its_box() -> None:
    rng = random.Random(5)
    for _ in range(300):
        a, b = between_(rng, "0.72", "0.721"), between_(rng, "0.513", "0.514")
        cost, reward = between_(rng, "0.755", "0.756"), between_(rng, "0.999", "1.001")
        weight = between_(rng, "0.5", "0.50001")
        worlds = [(weight, a * b), (1 - weight, b)]
        solved = Solved(correlation(a, b, worlds, (0, reward), (0, cost)))
        for reading in GOLDEN:
            assert solved.irpo(reading) == ["train_sharing"]


def between_(rng: random.Random, low: str, high: str) -> Fraction:
    return F(low) + (F(high) - F(low)) * F(rng.randint(1, 9999), 10_000)


Parameters = tuple[Fraction, Fraction, Fraction, Fraction]


def region(p: Fraction, k: Fraction, lam: Fraction, mu: Fraction) -> bool:
    """The five printed conditions of the two-hypotheses region: they fix the equilibria."""
    return (
        (1 - k) * mu > 2 * k
        and (1 - k) * (1 - lam - mu) / 2 > k
        and k > (1 - k) * lam
        and (1 - k) * (1 - p) * mu > k * p
        and (1 - k) * p * mu < k * (1 - p)
    )


def firm_2_gains(p: Fraction, k: Fraction, lam: Fraction, mu: Fraction) -> bool:
    """The sixth condition, derived: infer-sharing minus no-sharing for firm 2 is >= 0."""
    return k * (1 - p) >= (1 - k) * p * (lam + mu)


def points_of_the_region(count: int) -> list[Parameters]:
    rng, found = random.Random(6), []
    while len(found) < count:
        p, k, lam, mu = (F(rng.randint(1, 199), 200) for _ in range(4))
        if lam + mu <= 1 and region(p, k, lam, mu):
            found.append((p, k, lam, mu))
    return found


def test_in_the_region_of_two_hypotheses_payoffs_are_the_papers() -> None:
    for p, k, lam, mu in points_of_the_region(120):
        solved = Solved(hypotheses(p, k, lam, mu))
        half = F(1, 2)
        alone = (k * p + (1 - k) * (1 - p * lam) / 2, (1 - k) * p * lam / 2 + (1 - k) / 2)
        infer = (
            half + (1 - k) * p * mu / 2 + k * p / 2,
            k * (1 - p) / 2 + (1 - k) * (1 - p * mu) / 2,
        )
        assert solved.payoffs(BASELINE) == solved.payoffs("train_sharing") == alone
        assert solved.payoffs("infer_sharing") == infer
        assert solved.payoffs("full_sharing") == (half, half)


def test_only_infer_sharing_is_signed_in_the_region_where_firm_2_gains() -> None:
    points = points_of_the_region(300)
    inside = [point for point in points if firm_2_gains(*point)]
    assert len(inside) >= 120
    for point in points:
        solved = Solved(hypotheses(*point))
        assert (solved.irpo(PAPER) == ["infer_sharing"]) == firm_2_gains(*point)
        if firm_2_gains(*point):
            assert set(solved.irpo(SELECTED)) == {"infer_sharing", "full_sharing"}


def test_the_five_conditions_alone_do_not_make_firm_2_sign() -> None:
    """The parameter region, as printed, does not imply its own claim: a counterexample."""
    point = (F(9, 40), F(1, 10), F(9, 100), F(7, 20))
    assert region(*point)
    assert not firm_2_gains(*point)
    solved = Solved(hypotheses(*point))
    assert solved.irpo(PAPER) == [BASELINE, "train_sharing"]
    assert solved.payoffs("infer_sharing")[1] < solved.payoffs(BASELINE)[1]


def test_one_labelled_sample_does_not_pay_what_infinite_data_do() -> None:
    # Payoffs printed for one sample in the literature are not those of the game; enumeration over
    # 8 information sets a firm says what is.
    row = ROW["H3"]
    p, k, lam = (F(row["params"][name]) for name in ("p", "kappa", "lambda"))
    solved = solved_row(row)
    assert solved.games[BASELINE].unique_pure
    assert solved.payoffs(BASELINE)[0] != k * p + (1 - k) * (1 - p * lam) / 2
    for component in solved.games[BASELINE].components:
        assert {e.acts for e in component.equilibria} == brute_force(component)


def test_order_of_samples_changes_nothing_for_a_firm_that_has_none() -> None:
    none = Solved(hypotheses("1/3", "1/4", "1/8", "1/2", 0))
    assert none.payoffs("train_sharing") == none.payoffs(BASELINE)
    assert none.payoffs("full_sharing") == none.payoffs("infer_sharing")
