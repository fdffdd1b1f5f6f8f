"""Offered models: who trains, what is judged, what it costs, and what the firm decides."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from torch import nn

from parties.backbones.mlp import Mlp
from parties.datasets import Examples
from parties.datasets.digits import Digits
from parties.energy import Spent
from parties.exchange import FedpactError, Terms, Weights
from parties.firm import Firm
from parties.reuse import Target
from parties.reuse.adopt import Adopter
from parties.reuse.arm import Arm
from parties.reuse.checked import Checker, problems_of
from parties.reuse.gate import Gate
from parties.reuse.history import History
from parties.reuse.judge import Epoch, Judge, Judgement
from parties.reuse.ledger import Ledger
from parties.reuse.linear_probe import LinearProbe
from parties.reuse.profile import Profile, Source
from parties.reuse.resque import Resque
from parties.reuse.zero_shot import ZeroShot
from parties.shifts.rotation import Rotation
from parties.training import Training, load_weights, weights_of
from server.outcome import Outcome, Progress
from server.strategies import State
from server.strategies.donor import Donor
from simulations.build import build as build_part
from simulations.engines import apps
from simulations.engines.grid import InlineGrid
from simulations.results import RunFolder
from tests.checks import SMALL_HEART, contexts, hold_on, plain, run_config

MEASURES = (ZeroShot(), Resque(), Arm(draws=0), LinearProbe())
TRAINING = Training(epochs=12, batch_size=32, learning_rate=0.1, momentum=0.0, schedule="constant")
JUDGE = Judge(MEASURES, required=0.85)


def build() -> nn.Module:
    return Mlp((64,)).build(64, 10, 0)


@pytest.fixture(scope="module")
def upright() -> Examples:
    return Digits(client=0, clients=1).split(0).training


@pytest.fixture(scope="module")
def model(upright: Examples) -> nn.Module:
    module = build()
    TRAINING.fit(module, upright.features, upright.labels, 0)
    return module


@pytest.fixture(scope="module")
def source(model: nn.Module, upright: Examples) -> Source:
    return Source(Profile.of(model, upright.features, upright.labels, np.random.default_rng(0)))


def seen(examples: Examples, degrees: float) -> Target:
    turned = Rotation(degrees).apply(examples.features, examples.ids, 1, 2, 0)
    return Target(turned, examples.labels)


@pytest.fixture(scope="module")
def measured(model: nn.Module, source: Source, upright: Examples) -> list[dict[str, float]]:
    """What the measures say of ten rotations, three parts of the data each."""
    rng = np.random.default_rng(0)
    found = []
    for degrees in np.linspace(20, 65, 10):
        for part in range(3):
            rows = slice(part, None, 3)
            some = Examples(upright.ids[rows], upright.features[rows], upright.labels[rows])
            scores = JUDGE.scores(model, source, seen(some, float(degrees)), rng)
            found.append({name: score.value for name, score in scores.items()})
    return found


def history(measured: list[dict[str, float]], epochs: float, ceiling: float = 0.95) -> History:
    """Finished cases that took so many epochs each, and five from scratch."""
    past = History()
    for place, values in enumerate(measured):
        spread = 1 + 0.02 * (place % 5)
        row: dict[str, Any] = {"case": str(place), "kind": f"turn{place // 3}", **values}
        row |= {"epochs": epochs * spread, "scratch_epochs": 5.0, "ceiling": ceiling}
        past = past.with_case(row)
    return past


def judged(
    model: nn.Module, source: Source, target: Target, past: History, **changes: Any
) -> Judgement:
    epoch = Epoch(Spent(36.0, 0.0, 3.6e6, 0.4), money=0.52)
    rng = np.random.default_rng(1)
    return replace(JUDGE, **changes).judge(model, source, target, past, epoch, rng)


def test_a_model_that_serves_is_used_as_it_is(
    model: nn.Module, source: Source, upright: Examples
) -> None:
    told = judged(model, source, seen(upright, 0.0), History())
    assert told.decision == "as_is"
    assert "0.850 is required" in told.reasons[0]
    assert told.options["as_is"].money == (0.0, 0.0)
    assert set(told.scores) == {"zero_shot_error", "resque", "arm", "linear_probe"}


def test_without_a_history_the_firm_says_so_and_probes(
    model: nn.Module, source: Source, upright: Examples
) -> None:
    told = judged(model, source, seen(upright, 45.0), History())
    assert (told.decision, told.known, told.cases) == ("probe", False, 0)
    assert "The history has 0 cases" in told.reasons[0]
    assert "quarter of an epoch" in told.reasons[0]


@pytest.mark.parametrize(
    ("epochs", "ceiling", "decision"),
    [
        (1.0, 0.95, "fine_tune"),
        (4.7, 0.95, "probe"),  # its upper end is above 5
        (5.5, 0.95, "scratch"),
        (1.0, 0.5, "scratch"),
    ],
)
def test_the_forecast_decides_where_there_is_a_history(
    model: nn.Module,
    source: Source,
    upright: Examples,
    measured: list[dict[str, float]],
    epochs: float,
    ceiling: float,
    decision: str,
) -> None:
    past = history(measured, epochs, ceiling)
    told = judged(model, source, seen(upright, 42.0), past)
    assert (told.decision, told.known, told.cases) == (decision, True, 30)
    tuned = told.options["fine_tune"]
    assert tuned.epochs[0] == pytest.approx(epochs, rel=0.1)
    assert tuned.money[0] == pytest.approx(0.52 * tuned.epochs[0])
    assert tuned.kg_co2e[1] == pytest.approx(0.4 * tuned.epochs[2])


def test_outside_the_history_the_judge_abstains(
    model: nn.Module, source: Source, upright: Examples, measured: list[dict[str, float]]
) -> None:
    odd = Target(40 * seen(upright, 42.0).features, upright.labels)
    told = judged(model, source, odd, history(measured, 1.0))
    assert (told.decision, told.known) == ("abstain", False)
    assert "lies outside the firm's history" in told.reasons[0]


def test_without_labels_only_what_needs_none_is_measured(
    model: nn.Module, source: Source, upright: Examples
) -> None:
    told = judged(model, source, Target(upright.features), History())
    assert set(told.scores) == {"arm"}
    assert told.decision == "probe"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"measures": ()}, "one or more different measures"),
        ({"measures": (Arm(), Arm())}, "different measures"),
        ({"required": 2.0}, "reuse.required is 2.0; legal is a number from 0 to 1"),
        ({"tune_epochs": 0}, "reuse.tune_epochs is 0"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FedpactError, match=message):
        replace(JUDGE, **fields)


# --------------------------------------------------------------------------------------- adopting


def adopter(examples: Examples, **changes: Any) -> Adopter:
    half = len(examples.ids) // 2
    parts = (
        Examples(examples.ids[rows], examples.features[rows], examples.labels[rows])
        for rows in (slice(None, half), slice(half, None))
    )
    fit, judging = parts
    return Adopter(replace(JUDGE, **changes), TRAINING, build, fit, judging, 0)


def offered(model: nn.Module, source: Source) -> Weights:
    return Weights(weights_of(model), 1000, card=source.profile.to_arrays())


def turned(examples: Examples, degrees: float) -> Examples:
    return Examples(examples.ids, seen(examples, degrees).features, examples.labels)


def test_a_turned_firm_tunes_what_it_is_offered(
    model: nn.Module, source: Source, upright: Examples
) -> None:
    firm = adopter(turned(upright, 45.0), tune_epochs=3)
    told = firm.adopt(offered(model, source))
    assert (told.name, told.report.decision, told.report.probed) == ("tuned", "fine_tune", True)
    assert told.arrays is not None
    n = len(firm.fit.ids)
    assert told.report.passes == -(-5 * n // 3) + n // 4 + 3 * n
    judging = (firm.judging.features, firm.judging.labels)
    before = TRAINING.loss(load_weights(build(), weights_of(model)), *judging)
    assert TRAINING.loss(load_weights(build(), told.arrays), *judging) < before / 2


def test_a_model_that_does_not_learn_is_left(
    model: nn.Module, source: Source, upright: Examples
) -> None:
    shuffled = Examples(
        upright.ids, upright.features, np.random.default_rng(0).permutation(upright.labels)
    )
    told = adopter(shuffled, least_gain=0.9).adopt(offered(model, source))
    assert (told.name, told.arrays, told.report.decision) == ("own", None, "scratch")


def test_a_model_without_its_card_cannot_be_judged(model: nn.Module, upright: Examples) -> None:
    with pytest.raises(FedpactError, match="strategy=donor"):
        adopter(upright).adopt(Weights(weights_of(model), 10))


# ---------------------------------------------------------------------------------- in the contract

SMALL = (
    "experiment=reuse_images",
    *("study.seeds=1", "training.epochs=6", "progress=none", "reuse.tune_epochs=2"),
)


def held(folder: Path, *overrides: str) -> dict[str, Outcome]:
    config = run_config(folder, *SMALL, *overrides)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    found = {name: RunFolder(folder).load(name) for name in RunFolder(folder).held()}
    return {name: pair[0] for name, pair in found.items() if pair is not None}


def test_only_the_donor_trains_for_the_others_and_gains_nothing(tmp_path: Path) -> None:
    told = held(tmp_path)["train_sharing-seed0"]
    rows = list(csv.DictReader((tmp_path / "rounds.csv").read_text().splitlines()))
    assert {r["firm"] for r in rows if r["contract"] == "train_sharing"} == {"firm_0"}
    assert told.summaries["firm_0"].gain == 0
    assert told.summaries["firm_1"].cost == 0  # it uses what it was offered
    alone = held(tmp_path / "b")["no_sharing-seed0"]
    assert told.summaries["firm_0"].cost == alone.summaries["firm_0"].cost > 0
    assert alone.summaries["firm_1"].cost > 0


def test_a_named_donor_is_the_one(tmp_path: Path) -> None:
    told = held(tmp_path, "strategy.donor=firm_1")["train_sharing-seed0"]
    assert told.summaries["firm_1"].gain == 0
    assert told.summaries["firm_0"].gain != 0


def test_who_judges_pays_for_judging_and_tuning_and_tells_how_it_decided(tmp_path: Path) -> None:
    judging = ("parties.firm_1.adopts=judge", "shift=rotation", "shift.degrees_step=60")
    judging = (*judging, "reuse.least_gain=0.0")
    told = held(tmp_path, *judging)["train_sharing-seed0"]
    (row,) = csv.DictReader((tmp_path / "adoptions.csv").read_text().splitlines())
    assert (row["firm"], row["decision"], row["adopted"]) == ("firm_1", "fine_tune", "tuned")
    assert row["probed"] == "True"
    assert "resque=" in row["measures"]
    assert told.summaries["firm_1"].adopted == "tuned"
    assert told.summaries["firm_1"].cost == pytest.approx(0.01 * int(row["passes"]) / 1000)
    assert told.summaries["firm_1"].gain != 0


def test_who_compares_with_its_own_model_has_paid_for_it(tmp_path: Path) -> None:
    told = held(tmp_path, "parties.firm_1.adopts=best")
    compared, alone = (
        told[f"{c}-seed0"].summaries["firm_1"] for c in ("train_sharing", "no_sharing")
    )
    assert compared.adopted == "published"
    # It trained one model to compare with, without a fifth of its examples.
    assert compared.cost == pytest.approx(0.8 * alone.cost, rel=0.01)


def test_a_stopping_rule_saves_a_firm_the_epochs_that_it_does_not_train(tmp_path: Path) -> None:
    rule = ("stopping=relative_gain", "stopping.least=0.9", "stopping.times=1")
    short, whole = held(tmp_path / "a", *rule), held(tmp_path / "b")
    for name in ("firm_0", "firm_1"):
        one, six = (told["no_sharing-seed0"].summaries[name].cost for told in (short, whole))
        assert one == pytest.approx(six * 2 / 6)  # the second epoch gains too little


class DyingGrid(InlineGrid):
    """The process dies before it asks for the last time."""

    left = 4  # enrolment, two questions of no-sharing, the donor's training

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError
        return super().send_and_receive(messages, timeout=timeout)


def test_a_killed_session_still_has_the_card_of_the_offered_model(tmp_path: Path) -> None:
    judging = ("parties.firm_1.adopts=judge", "shift=noise")
    whole = held(tmp_path / "whole", *judging)
    config = run_config(tmp_path / "cut", *SMALL, *judging)
    with pytest.raises(RuntimeError):
        hold_on(DyingGrid(apps.client, contexts(config)), config)
    begun = RunFolder(tmp_path / "cut").progress("train_sharing-seed0")
    assert begun is not None
    assert begun.state.turn == 1
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    found = RunFolder(tmp_path / "cut").load("train_sharing-seed0")
    assert found is not None
    assert found[0].summaries == whole["train_sharing-seed0"].summaries
    for name in ("adoptions.csv", "rounds.csv"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_card_is_kept_with_its_model(tmp_path: Path) -> None:
    card = {"mean": np.arange(3.0)}
    model = Weights({"w": np.ones(2, np.float32)}, 5, card=card)
    RunFolder(tmp_path).keep("x", Progress(State(1, model, model)))
    found = RunFolder(tmp_path).progress("x")
    assert found is not None
    assert found.state.published is not None
    assert found.state.published.card is not None
    np.testing.assert_array_equal(found.state.published.card["mean"], card["mean"])


def test_a_card_tells_nothing_of_a_class_with_few_cases(
    upright: Examples, model: nn.Module
) -> None:
    rare = np.flatnonzero((upright.labels != 3) | (np.cumsum(upright.labels == 3) <= 4))
    some = Examples(upright.ids[rare], upright.features[rare], upright.labels[rare])
    firm = Firm("a", Digits(0, 2), Mlp((64,)), TRAINING)
    card = firm._card(weights_of(model), some, 0)
    assert not card["class_sums"][3].any()
    assert card["class_sums"][4].any()


def test_a_donor_publishes_its_own_model_only() -> None:
    one, two = (Weights({"w": np.full(2, v)}, 3) for v in (1.0, 2.0))
    rule = Donor(donor="b")
    assert rule.trainers(["c", "b", "a"]) == ("b",)
    assert rule.trainers(["a", "c"]) == ()
    assert Donor().trainers(["c", "b"]) == ("b",)
    assert rule.combine({"a": one, "b": two}, State()).published is two
    assert rule.combine({}, State()).published is None


# --------------------------------------------------------------------- the gate, round by round

ROUNDS = (*SMALL_HEART, "study.seeds=1", "strategy.rounds=3", "gate=message")


def gated(folder: Path, *overrides: str) -> dict[str, Outcome]:
    config = run_config(folder, *ROUNDS, *overrides)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    found = {name: RunFolder(folder).load(name) for name in RunFolder(folder).held()}
    return {name: pair[0] for name, pair in found.items() if pair is not None}


HUNGARY = "+gate@parties.hungary.gate=message"


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_models_that_pass_are_used_as_without_a_gate(tmp_path: Path) -> None:
    told, plainly = gated(tmp_path / "a"), gated(tmp_path / "b", "gate=off")
    assert told["train_sharing-seed0"].summaries == plainly["train_sharing-seed0"].summaries
    assert {r["refused"] for r in rows(tmp_path / "a" / "adoptions.csv")} == {"False"}
    assert rows(tmp_path / "b" / "adoptions.csv") == []


def test_a_firm_does_not_train_on_from_a_model_that_its_gate_refuses(tmp_path: Path) -> None:
    told = gated(tmp_path, HUNGARY, "parties.hungary.gate.max_parameters=3")["train_sharing-seed0"]
    assert told.declined == {"hungary": "the model does not pass the adoption gate of hungary"}
    assert told.summaries["hungary"].gain == 0
    assert told.summaries["cleveland"].adopted == "published"
    trained = [r for r in rows(tmp_path / "rounds.csv") if r["contract"] == "train_sharing"]
    assert {r["round"] for r in trained if r["firm"] == "hungary" and r["status"] == "ok"} == {"0"}


def test_a_firm_does_not_use_a_model_that_its_gate_refuses(tmp_path: Path) -> None:
    # With one round the model is first seen when it is to be used.
    told = gated(tmp_path, HUNGARY, "strategy.rounds=1", "parties.hungary.gate.max_parameters=3")
    hungary = told["train_sharing-seed0"].summaries["hungary"]
    assert (hungary.adopted, hungary.gain) == ("own", 0)
    (row,) = [r for r in rows(tmp_path / "adoptions.csv") if r["firm"] == "hungary"]
    assert (row["decision"], row["refused"]) == ("scratch", "True")
    (problem,) = rows(tmp_path / "problems.csv")
    assert (problem["name"], problem["theme"]) == ("compute", "hardware")
    assert (problem["opened"], problem["closed"]) == ("1", "")


def test_problems_reach_the_results_with_the_round_they_opened_in(tmp_path: Path) -> None:
    back = ("parties.hungary.kept_back=0.4", HUNGARY, "parties.hungary.gate.max_ece=0.001")
    told = gated(tmp_path, *back)["train_sharing-seed0"]
    (problem,) = rows(tmp_path / "problems.csv")
    assert (problem["firm"], problem["name"], problem["theme"]) == (
        *("hungary", "reliability", "output quality"),
    )
    assert (problem["opened"], problem["closed"]) == ("1", "")
    assert told.summaries["hungary"].adopted == "published"  # it warns, and does not block


def test_checks_of_what_a_message_does_not_declare_object_to_every_model(
    model: nn.Module, upright: Examples
) -> None:
    gate = Gate(checks=(1, 2, 3, 6, 7, 9, 10, 17, 18, 19, 20), max_epsilon=1.0)
    checker = Checker(gate, Mlp((64,)), build, upright, upright, 10, torch.device("cpu"))
    terms = Terms("train_sharing", True, False, 3)
    for turn, objecting in ((0, [18, 20]), (1, [18, 19, 20])):
        passes, ledger = checker.check(Weights(weights_of(model), 1), terms, turn, Ledger())
        assert not passes
        assert [problem.check for problem in problems_of(ledger)] == objecting


def test_a_problem_closes_in_the_round_in_which_the_check_passes(
    model: nn.Module, upright: Examples
) -> None:
    gate = build_part(plain("gate=message")["gate"])
    checker = Checker(gate, Mlp((64,)), build, upright, None, 10, torch.device("cpu"))
    terms = Terms("train_sharing", True, False, 3)
    good = weights_of(model)
    flat = {k: np.full_like(v, 0.1) if v.ndim == 2 else v for k, v in good.items()}
    broken = {k: np.where(v == v.max(), np.nan, v) for k, v in good.items()}
    ledger = Ledger()
    for turn, (arrays, passes) in enumerate([(flat, True), (broken, False), (good, True)], 1):
        told, ledger = checker.check(Weights(arrays, 1), terms, turn, ledger)
        assert told is passes
    (found,) = problems_of(ledger)
    assert (found.name, found.opened, found.closed) == ("weights", 1, 3)
