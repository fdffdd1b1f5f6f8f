"""Offered models: who trains, what is judged, what it costs, and what the firm decides."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parties.backbones.logistic import Logistic
from parties.backbones.mlp import Mlp
from parties.datasets import Examples
from parties.datasets.digits import Digits
from parties.energy import Spent
from parties.exchange import FedpactError, Terms, Weights
from parties.firm import Firm
from parties.reuse import Target
from parties.reuse.adopt import Adopted, Adopter
from parties.reuse.arm import Arm
from parties.reuse.checked import Checker, problems_of
from parties.reuse.frechet import Frechet
from parties.reuse.gate import Gate
from parties.reuse.history import History
from parties.reuse.judge import Epoch, Judge, Judgement
from parties.reuse.ledger import Ledger
from parties.reuse.leep import Leep
from parties.reuse.linear_probe import LinearProbe
from parties.reuse.profile import Profile, Source
from parties.reuse.resque import Resque
from parties.reuse.zero_shot import ZeroShot
from parties.shifts.rotation import Rotation
from parties.stopping.patience import Patience
from parties.training import Training, load_weights, weights_of
from server.outcome import Outcome, Progress
from server.strategies import State
from server.strategies.donor import Donor
from simulations.build import build as build_part
from simulations.engines import apps
from simulations.results import RunFolder
from tests.checks import SMALL_HEART, contexts, hold_on, plain, run_config
from tests.inline_grid import InlineGrid

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
        (1.0, 0.5, "probe"),  # nobody knows what a new model comes to
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
    assert set(told.options) == {"as_is"}  # nothing is forecast


@pytest.mark.parametrize(
    ("required", "ceiling", "scratch", "decision"),
    [
        (0.9, 0.8, 0.95, "scratch"),  # only a new model gets there
        (0.9, 0.8, 0.7, "fine_tune"),  # nothing does, and tuning comes closest
        (0.9, 0.3, 0.2, "as_is"),
        (0.9, 0.95, 0.2, "fine_tune"),  # what a new model is worth does not matter
    ],
)
def test_where_tuning_falls_short_the_best_there_is_is_taken(
    model: nn.Module,
    source: Source,
    upright: Examples,
    measured: list[dict[str, float]],
    required: float,
    ceiling: float,
    scratch: float,
    decision: str,
) -> None:
    past = history(measured, 1.0, ceiling)
    past = History(tuple({**row, "scratch_accuracy": str(scratch)} for row in past.rows))
    told = judged(model, source, seen(upright, 35.0), past, required=required)
    right = told.options["as_is"].accuracy
    assert right is not None
    assert 0.3 < right[0] < 0.7
    assert told.decision == decision
    new, tuned = told.options["scratch"].accuracy, told.options["fine_tune"].accuracy
    assert new is not None
    assert tuned is not None
    assert (new[0], tuned[0]) == (pytest.approx(scratch), pytest.approx(ceiling))
    if ceiling < required:
        assert f"{decision} is the best there is" in told.reasons[0]


def test_without_new_models_accuracies_none_is_shown_and_none_is_trained_for_it(
    model: nn.Module, source: Source, upright: Examples, measured: list[dict[str, float]]
) -> None:
    told = judged(model, source, seen(upright, 42.0), history(measured, 1.0, 0.5))
    assert told.options["scratch"].accuracy is None
    assert "nobody knows what a new model would come to" in told.reasons[0]


def test_a_model_that_was_never_caught_up_with_makes_training_from_scratch_dear(
    model: nn.Module, source: Source, upright: Examples, measured: list[dict[str, float]]
) -> None:
    past = history(measured, 8.0)
    # In two of three cases a new model never got there; in the others it took five epochs.
    rows = tuple(r | ({} if i % 3 else {"scratch_epochs": ""}) for i, r in enumerate(past.rows))
    rows = tuple(r | ({"scratch_epochs": ""} if i % 3 else {}) for i, r in enumerate(rows))
    told = judged(model, source, seen(upright, 42.0), History(rows))
    assert told.decision == "fine_tune"
    assert told.options["scratch"].epochs[0] == pytest.approx(20)


def test_a_model_without_a_hidden_layer_is_judged_by_its_answers(upright: Examples) -> None:
    training, target = replace(TRAINING, epochs=3), Target(upright.features, upright.labels)
    linear = Logistic().build(64, 10, 0)
    training.fit(linear, upright.features, upright.labels, 0)
    told = judged(linear, Source(None), target, History(), measures=(ZeroShot(), Leep()))
    assert told.decision == "as_is"
    assert set(told.scores) == {"zero_shot_error", "leep"}


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
        ({"miss": 0}, "reuse.miss is 0; legal is a number between 0 and 0.5, without these"),
        ({"miss": 0.5}, "reuse.miss is 0.5"),
        ({"outside": 0}, "reuse.outside is 0"),
        ({"outside": 0.5}, "reuse.outside is 0.5"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FedpactError, match=message):
        replace(JUDGE, **fields)


@pytest.mark.parametrize("share", [1e-9, 0.499])
def test_what_a_judge_takes_its_forecasts_take(
    model: nn.Module,
    source: Source,
    upright: Examples,
    measured: list[dict[str, float]],
    share: float,
) -> None:
    past, target = history(measured, 1.0), seen(upright, 42.0)
    told = judged(model, source, target, past, miss=share, outside=share)
    assert told.decision != "probe"
    assert told.sure == 1 - share


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
    assert told.module is not None
    # Five passes forward over what is trained on, three over what is kept back, a third each.
    n, m = len(firm.fit.ids), len(firm.judging.ids)
    assert told.report.passes == math.ceil((5 * n + 3 * m) / 3) + n // 4 + 3 * n
    judging = (firm.judging.features, firm.judging.labels)
    before = TRAINING.loss(load_weights(build(), weights_of(model)), *judging)
    assert TRAINING.loss(told.module, *judging) < before / 2


def test_a_stopping_rule_that_looks_at_examples_kept_back_is_paid_for(
    model: nn.Module, source: Source, upright: Examples
) -> None:
    plainly = adopter(turned(upright, 45.0), tune_epochs=3)
    watched = replace(plainly, training=replace(TRAINING, stopping=Patience(epochs=9)))
    more, passes = (f.adopt(offered(model, source)).report.passes for f in (watched, plainly))
    # Once after the quarter of an epoch, and after each of three.
    n, m = len(plainly.fit.ids), len(plainly.judging.ids)
    assert more - passes == math.ceil((5 * n + 7 * m) / 3) - math.ceil((5 * n + 3 * m) / 3) > m


def test_a_model_that_does_not_learn_is_left(
    model: nn.Module, source: Source, upright: Examples
) -> None:
    shuffled = Examples(
        upright.ids, upright.features, np.random.default_rng(0).permutation(upright.labels)
    )
    told = adopter(shuffled, least_gain=0.9).adopt(offered(model, source))
    assert (told.name, told.module, told.report.decision) == ("own", None, "scratch")


def test_a_model_without_its_card_cannot_be_judged(model: nn.Module, upright: Examples) -> None:
    with pytest.raises(FedpactError, match="strategy=donor"):
        adopter(upright).adopt(Weights(weights_of(model), 10))


def test_where_the_judge_abstains_the_probe_tunes_by_the_rule_and_not_by_a_forecast(
    model: nn.Module,
    source: Source,
    upright: Examples,
    measured: list[dict[str, float]],
    tmp_path: Path,
) -> None:
    odd = [{**values, "arm": 100 + values["arm"]} for values in measured]
    history(odd, 0.1).save(tmp_path / "history.csv")
    firm = adopter(turned(upright, 45.0), tune_epochs=3, history=str(tmp_path / "history.csv"))
    told = firm.adopt(offered(model, source))
    assert (told.name, told.report.probed, told.report.forecast) == ("tuned", True, None)
    assert told.report.passes > 3 * len(firm.fit.ids)  # not the one epoch that was forecast


# --------------------------------------------------------------------------------- a hostile card


class Small:
    """A firm with 60 cases and 40 finished ones, and a donor whose card may say anything."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        features = rng.normal(size=(60, 4)).astype(np.float32)
        labels = (features[:, 0] > 0).astype(np.int64)
        self.model = Mlp((3,)).build(4, 2, 0)
        card = Profile.of(self.model, features, labels, rng)
        self.arrays = card.to_arrays()
        measures = (ZeroShot(), Arm(draws=1), Resque(), Frechet(), LinearProbe())
        names = [m.name for m in measures]
        past = History()
        for i in range(40):
            row: dict[str, Any] = {"case": str(i), "kind": f"k{i % 4}", "ceiling": 0.9}
            row |= {"epochs": 5 * rng.random(), "scratch_epochs": 6.0}
            past = past.with_case(row | {name: rng.random() for name in names})
        past.save(folder / "history.csv")
        judge = Judge(measures, 1.0, str(folder / "history.csv"), tune_epochs=1)
        fit, judging = (
            Examples(np.arange(60)[rows], features[rows], labels[rows])
            for rows in (slice(0, 40), slice(40, 60))
        )
        self.adopter = Adopter(
            judge, replace(TRAINING, epochs=1), lambda: Mlp((3,)).build(4, 2, 0), fit, judging, 0
        )

    def adopt(self, card: dict[str, Any]) -> Adopted:
        return self.adopter.adopt(Weights(weights_of(self.model), 60, card=card))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("small"))


NUMBERS = (0.0, -1.0, 1e-45, 1e-30, 1e-6, 1e6, 1e30, 3e38, 1e300, math.nan, math.inf, -math.inf)
LIES = st.one_of(
    st.tuples(st.just("fill"), st.sampled_from(NUMBERS)),
    st.tuples(st.just("scale"), st.sampled_from(NUMBERS)),
    st.tuples(st.just("shape"), st.sampled_from([(), (0,), (1,), (9, 0), (0, 3), (9, 3), (3, 3)])),
    st.tuples(st.just("type"), st.sampled_from(["f2", "f4", "f8", "i8", "u8"])),
    st.just(("leave out", None)),
)


def told_so(array: Any, lies: list[tuple[str, Any]]) -> Any:
    """An array after some lies; None where it is left out."""
    for kind, what in lies:
        if array is None or kind == "leave out":
            return None
        with np.errstate(all="ignore"):
            if kind == "fill":
                array = np.full(array.shape, what).astype(array.dtype)
            elif kind == "scale":
                array = (array * what).astype(array.dtype)
            elif kind == "type":
                array = array.astype(what)
            else:
                array = np.resize(array, what)
    return array


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_a_card_says_the_firm_decides_or_refuses(
    small: Small, data: st.DataObject
) -> None:
    lies = data.draw(
        st.dictionaries(st.sampled_from(sorted(small.arrays)), st.lists(LIES, max_size=3))
    )
    card = {name: told_so(array, lies.get(name, [])) for name, array in small.arrays.items()}
    try:
        told = small.adopt({name: array for name, array in card.items() if array is not None})
    except FedpactError:  # any other exception is a firm that a stranger has stopped
        return
    assert told.name in ("published", "tuned", "own")
    assert told.report.forecast is None or max(told.report.forecast) <= 1.01e6


def test_a_card_of_nothing_with_deviations_of_almost_nothing_is_outside_the_history(
    small: Small,
) -> None:
    card = {
        k: np.zeros_like(v) if k.startswith("quantiles") else v for k, v in small.arrays.items()
    }
    card = {k: np.full_like(v, 1e-30) if k.startswith("dev") else v for k, v in card.items()}
    told = small.adopt(card)
    assert told.report.measures["arm"] > 1e5
    assert (told.report.probed, told.report.forecast) == (True, None)


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
    card = firm._models.card(weights_of(model), some, 0)
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
