"""The price of a contract: it moves money from one firm to the other, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest

from parties.exchange import ExchangeError, FedpactError, Query, Refusal, Terms, pack, unpack
from parties.memory import Memory
from server.contracts import Contract, Sharing
from server.contracts.full_sharing import FullSharing
from server.contracts.infer_sharing import InferSharing
from server.contracts.no_sharing import NoSharing
from server.contracts.train_sharing import TrainSharing
from server.estimate import Estimate, estimate, posterior
from server.market import Contest, after_price
from server.outcome import Outcome
from server.play import Equilibrium
from server.verdict import ContractVerdict, judge
from simulations.build import build
from simulations.conclude import conclude
from simulations.engines import apps
from simulations.game.rows import answer
from simulations.prices import price_lines
from simulations.report import write_report
from simulations.results import RunFolder
from simulations.study import study_of
from simulations.sweeps.configs import Configs
from simulations.sweeps.grid import Grid
from simulations.sweeps.held import hold_jobs
from simulations.sweeps.limits import JobLimits
from simulations.terminal import payment_lines
from tests.checks import SMALL_LOANS, contexts, hold_on, plain, run_config
from tests.inline_grid import InlineGrid
from tests.test_game import correlation_table

PRICES = {"no_sharing": 0.0, "train_sharing": 0.01, "infer_sharing": -0.02, "full_sharing": 0.3}
PRICED = tuple(f"contract.{name}.price={p}" for name, p in PRICES.items() if p)
SHARING = [TrainSharing, InferSharing, FullSharing]
S1 = correlation_table(0.8, 0.7, 0.56)  # its gains under full_sharing are -1/40 and 3/40
MARKET = Contest(R0=0, R1=1, C0=0, C1=1)


def near(value: float) -> Any:
    return pytest.approx(value, abs=1e-12)


# -------------------------------------------------------------------------------- by closed forms


def verdict_on_s1(price: float) -> ContractVerdict:
    """Full-sharing, where both do what the better firm 1 says, over 20,000 clients."""
    counts = np.rint(S1.ravel() * 20_000).astype(int)
    t, s1, s2 = np.unravel_index(np.repeat(np.arange(8), counts), S1.shape)

    def outcome(contract: str, actions: tuple[Any, Any], paid: float) -> Outcome:
        one, two = after_price(np.stack(MARKET.settle(actions, t)), paid)
        ids = dict.fromkeys(("a", "b"), np.arange(len(t)))
        return Outcome(0, contract, ids, {"a": one, "b": two})

    held = [outcome("no_sharing", (s1, s2), 0), outcome("full_sharing", (s1, s1), price)]
    return judge(held, ["a", "b"])["full_sharing"]


def test_a_refusing_firm_signs_once_the_price_covers_its_loss_with_its_interval() -> None:
    plainly = verdict_on_s1(0)
    assert plainly.firms["a"].decision == "refuses"
    assert plainly.firms["a"].gain == near(-1 / 40)
    enough = -plainly.firms["a"].interval[0]
    short, covered = verdict_on_s1(enough - 1e-9), verdict_on_s1(enough + 1e-9)
    assert short.firms["a"].decision == "undecided"
    assert short.individually_rational is None
    assert covered.firms["a"].decision == covered.firms["b"].decision == "signs"
    assert covered.individually_rational is True
    assert covered.irpo is True
    assert verdict_on_s1(0.1).firms["b"].decision == "refuses"


def test_a_price_moves_both_gains_by_itself_and_the_surplus_not_at_all() -> None:
    for price in (0.01, -0.02):
        firms = verdict_on_s1(price).firms
        assert firms["a"].gain == near(-1 / 40 + price)
        assert firms["b"].gain == near(3 / 40 - price)
        assert firms["a"].gain + firms["b"].gain == near(1 / 20)


def test_the_posterior_counts_the_price() -> None:
    tables = posterior(S1 * 1e7, np.random.default_rng(0), draws=50)

    def found(price: float) -> Estimate:
        contracts: dict[str, Contract] = {c.name: c for c in (NoSharing(), FullSharing(price))}
        return estimate(tables, contracts, Equilibrium(), MARKET)["full_sharing"]

    plainly, priced = found(0), found(0.05)
    np.testing.assert_allclose(priced.payoffs - plainly.payoffs, [0.05, -0.05], atol=1e-12)
    assert (plainly.individually_rational, plainly.irpo) == (0, 0)
    assert (priced.individually_rational, priced.irpo) == (1, 1)
    assert found(0.1).signs.tolist() == [1, 0]


@pytest.mark.parametrize("price", [0.0, -0.0, 0])
def test_a_price_of_zero_leaves_payoffs_to_the_bit(price: float) -> None:
    earned = np.array([[0.0, -0.0, 1.5], [-0.0, 0.0, -3.0]])
    assert after_price(earned, price).tobytes() == earned.tobytes()


# ------------------------------------------------------------------------------------- the terms


@pytest.mark.parametrize("contract", SHARING)
def test_the_price_is_part_of_the_terms_and_crosses_the_wall(contract: type[Sharing]) -> None:
    terms = contract(-0.25).terms(1)
    assert terms.price == -0.25
    assert unpack(pack(Query(terms, 0, "validation"))) == Query(terms, 0, "validation")
    assert NoSharing().terms(1).price == 0


def test_a_price_cannot_change_once_a_firm_has_accepted_it() -> None:
    firm, memory = build(plain(*SMALL_LOANS)["parties"]["lender_a"]), Memory()
    agreed, other = (Query(InferSharing(p).terms(1), 0, "validation") for p in (0.01, 0.02))
    assert not isinstance(firm.answer(agreed, memory), Refusal)
    refusal = firm.answer(other, memory)
    assert isinstance(refusal, Refusal)
    assert "not those that lender_a accepted" in refusal.reason
    assert not isinstance(firm.answer(agreed, memory), Refusal)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: FullSharing(float("nan")), r"contract.full_sharing.price is nan; legal is a fin"),
        (lambda: TrainSharing(float("inf")), r"Set it with contract.train_sharing.price="),
        (lambda: InferSharing(True), "contract.infer_sharing.price is True"),
        (lambda: FullSharing("free"), "price is 'free'"),  # type: ignore[arg-type]
        (lambda: Terms("x", False, True, 0, float("nan")), "terms.price is nan; legal is a fin"),
        (lambda: Terms("x", False, True, 0, "1"), "terms.price is '1'"),  # type: ignore[arg-type]
        (lambda: Terms("no_sharing", False, False, 0, 1.0), "must be 0 where nothing is shared"),
    ],
)
def test_a_price_that_is_none_is_refused(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        make()


def test_terms_without_a_price_are_those_with_a_price_of_zero() -> None:
    text = json.dumps({"contract": "infer_sharing", "models": False, "predictions": True})
    assert Terms(**json.loads(text)) == InferSharing().terms(0)
    with pytest.raises(ExchangeError, match="finite number"):
        Terms(**json.loads(text), price=1)  # a whole number is no price on the wall


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ("experiment=heart", "contract.train_sharing.price=0.01"),
            r"contract.train_sharing.price is 0.01; where firms have their own clients it is 0: .* "
            r"Set contract.train_sharing.price=0, or use market=loans",
        ),
        (
            ("market=common_clients", "contract.full_sharing.price=-1"),
            "where firms have their common clients it is 0",
        ),
    ],
)
def test_a_price_is_refused_where_firms_do_not_contest_clients(
    words: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(FedpactError, match=problem):
        study_of(plain(*words))


# ---------------------------------------------------------------------------------- real studies


def held(folder: Path, *words: str) -> tuple[Any, RunFolder, dict[str, Any]]:
    """A small study of the lenders: itself, its folder and its verdict."""
    config = run_config(folder, *SMALL_LOANS, *words)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    study, run = study_of(json.loads(config["config"])), RunFolder(folder)
    return study, run, conclude(study, run)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same study without prices and with."""
    folder = tmp_path_factory.mktemp("prices")
    return held(folder / "plain"), held(folder / "priced", *PRICED)


@pytest.mark.parametrize("contract", PRICES)
def test_a_study_with_a_price_differs_by_the_price_alone(contract: str, both: Any) -> None:
    (_, _, plainly), (_, _, priced) = both
    price = PRICES[contract]
    before, after = (v["contracts"][contract] for v in (plainly, priced))
    for firm, sign in (("lender_a", 1), ("lender_b", -1)):
        for key in ("payoff", "predicted", "gain"):
            assert after["firms"][firm][key] == near(before["firms"][firm][key] + sign * price)
        moved = [end + sign * price for end in before["firms"][firm]["interval"]]
        assert after["firms"][firm]["interval"] == pytest.approx(moved, abs=1e-9)
        told = [end + sign * price for end in before["posterior"]["gains"][firm]]
        assert after["posterior"]["gains"][firm] == pytest.approx(told, abs=1e-12)
    assert after["transfer"]["exists"] == before["transfer"]["exists"]
    if before["transfer"]["exists"]:
        left = [end - price for end in before["transfer"]["interval"]]
        assert after["transfer"]["interval"] == pytest.approx(left, abs=1e-12)
        assert after["transfer"]["nash"] == near(before["transfer"]["nash"] - price)
    assert after.get("price") == (price or None)
    assert "price" not in before
    assert plainly["models_sha256"] == priced["models_sha256"]


def test_the_screen_and_the_report_tell_the_price(both: Any) -> None:
    (study, run, plainly), (study_priced, run_priced, priced) = both
    lines = price_lines(priced)
    assert lines == [
        "train_sharing: lender_b pays lender_a 0.01 a client, counted in its payoffs.",
        "infer_sharing: lender_a pays lender_b 0.02 a client, counted in its payoffs.",
        "full_sharing: lender_b pays lender_a 0.3 a client, counted in its payoffs.",
    ]
    assert price_lines(plainly) == []
    assert any(line.endswith("a client, besides its price.") for line in payment_lines(priced))
    page = write_report(study_priced, run_priced, priced).read_text()
    assert all(line in page for line in lines)
    assert "besides the price" in page
    assert "besides the price" not in write_report(study, run, plainly).read_text()


def test_the_exact_game_is_before_the_price_and_says_so(both: Any) -> None:
    plainly, priced = (json.loads((run.path / "game.json").read_text()) for _, run, _ in both)
    for before, after in zip(plainly, priced, strict=True):
        assert after["note"] == (
            f"{before['note']} Payoffs, verdicts and payments here are before prices: under "
            "train_sharing lender_b pays lender_a 0.01 a client, under infer_sharing lender_a pays "
            "lender_b 0.02 a client, under full_sharing lender_b pays lender_a 0.3 a client."
        )
        assert answer(after) | {"note": before["note"]} == answer(before)


def test_where_a_firm_declines_nothing_is_paid(tmp_path: Path) -> None:
    _, run, verdict = held(tmp_path, *PRICED, "parties.lender_b.shares=[]")
    for name in ("train_sharing", "infer_sharing", "full_sharing"):
        found, alone = run.load(f"{name}-seed0"), run.load("no_sharing-seed0")
        assert found is not None
        assert alone is not None
        assert list(found[0].declined) == ["lender_b"]
        for firm, payoffs in found[0].payoffs.items():
            assert payoffs.tobytes() == alone[0].payoffs[firm].tobytes()
        assert found[0].predicted == alone[0].predicted
        assert all(v["gain"] == 0 for v in verdict["contracts"][name]["firms"].values())
    assert price_lines(verdict)[0] == (
        "train_sharing: lender_b pays lender_a 0.01 a client; nothing was paid where there was no "
        "deal (lender_b)."
    )


def test_a_price_can_be_an_axis_of_a_sweep() -> None:
    words = (*SMALL_LOANS, "study.seeds=1", "study.contracts=[no_sharing,full_sharing]")
    axis = "contract.full_sharing.price"
    with hydra.initialize_config_module("conf", version_base="1.3"):
        configs = Configs(words, [axis])
        jobs = [configs.job(point).text for point in Grid({axis: [0, 0.01, -1]}).ask([])]
    rows = hold_jobs(jobs, JobLimits())
    gains = [[row[f"full_sharing.lender_{x}.gain"] for x in "ab"] for row in rows]
    for price, (one, two) in zip((0, 0.01, -1), gains, strict=True):
        assert (one, two) == (near(gains[0][0] + price), near(gains[0][1] - price))
    assert [row["full_sharing.lender_a.decision"] for row in rows][2] == "refuses"
