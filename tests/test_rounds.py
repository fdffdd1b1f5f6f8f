"""Rounds: who trains, what it costs, which model a firm adopts, and taking a session up again."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st

from parties.backbones.logistic import Logistic
from parties.exchange import FedpactError, Measure, Offer, Scores, Terms, Trained, Weights
from parties.files import digest
from parties.firm import Firm
from parties.memory import Memory
from parties.training import Training
from server.market import OwnCases
from server.outcome import Outcome, Progress
from server.participation import Participation
from server.strategies import State
from simulations.build import build
from simulations.engines import apps
from simulations.results import RunFolder
from tests.checks import SMALL_HEART, contexts, hold_on, plain, run_config
from tests.inline_grid import InlineGrid

FIRMS = ("a", "b", "c", "d", "e")
SHARED = Terms("train_sharing", models=True, predictions=False, rounds=4)
HEART = (*SMALL_HEART, "study.seeds=1", "strategy.rounds=3")


@given(share=st.floats(0.01, 1), seed=st.integers(0, 99), turn=st.integers(0, 99))
def test_a_share_of_the_firms_is_asked_and_the_same_one_always(
    share: float, seed: int, turn: int
) -> None:
    found = Participation(share).asked(FIRMS, seed, turn)
    assert len(found) == max(1, round(share * len(FIRMS)))
    assert found == Participation(share).asked(FIRMS[::-1], seed, turn) == tuple(sorted(found))


def test_over_many_rounds_every_firm_is_asked_as_often() -> None:
    asked = [n for turn in range(2000) for n in Participation(0.4).asked(FIRMS, 0, turn)]
    assert np.allclose([asked.count(name) / 2000 for name in FIRMS], 0.4, atol=0.04)


def test_an_absent_firm_is_not_asked() -> None:
    away = Participation(absent={"b": [1]})
    assert away.asked(FIRMS, 0, 0) == FIRMS
    assert away.asked(FIRMS, 0, 1) == ("a", "c", "d", "e")


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: Participation(0), "participation.share is 0"),
        (lambda: Participation(1.5), "> 0 and <= 1"),
        (lambda: Participation(absent={"a": 3}), "legal is firm: "),  # type: ignore[dict-item]
        (lambda: Participation(absent={"a": [-1]}), "legal is firm: "),
        (lambda: Participation(absent={"x": [1]}).check(FIRMS), "names x; the firms are a, b"),
        (lambda: OwnCases(compute_price=-1), "compute_price is -1"),
        (lambda: OwnCases(paid_by="nobody"), "legal are firm, consortium"),
    ],
)
def test_what_is_wrong_is_said(build_it: Callable[[], Any], message: str) -> None:
    with pytest.raises(FedpactError, match=message):
        build_it()


# -------------------------------------------------------------------------------- the firm


def hospital(**changes: Any) -> Firm:
    firm: Firm = build(plain(*HEART)["parties"]["va_long_beach"])
    return replace(firm, **changes)


def trained(firm: Firm, **offer: Any) -> Trained:
    answer = firm.answer(Offer(SHARED, 0, 0, 2, **offer), Memory())
    assert isinstance(answer, Trained)
    return answer


def scored(firm: Firm, measure: Measure) -> Scores:
    answer = firm.answer(measure, Memory())
    assert isinstance(answer, Scores)
    return answer


def test_the_proximal_penalty_holds_a_firm_to_the_model_it_was_sent() -> None:
    firm = hospital()
    start = trained(firm).weights
    assert start is not None

    def distance(mu: float) -> float:
        weights = trained(firm, model=start, proximal=mu).weights
        assert weights is not None
        return sum(float(np.sum((v - start.arrays[k]) ** 2)) for k, v in weights.arrays.items())

    free, held, tight = distance(0.0), distance(1.0), distance(10.0)
    assert free > held > tight > 0


def test_the_precision_is_the_mean_squared_gradient_of_each_example() -> None:
    firm = hospital()
    weights = trained(firm, precision=True).weights
    assert weights is not None
    assert weights.precision is not None
    split = firm.dataset.split(0).training
    probs = firm._models.probabilities(dict(weights.arrays), split.features, 0)
    # Logistic regression: d log p / d w_c = (1[y = c] - p_c) x.
    error = np.eye(2)[split.labels] - probs
    found = {v.shape: v for v in weights.precision.values()}
    slopes = np.mean((error[:, :, None] * split.features[:, None, :]) ** 2, axis=0)
    np.testing.assert_allclose(found[slopes.shape], slopes, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found[(2,)], np.mean(error**2, axis=0), rtol=1e-4)


def test_a_firm_that_judges_keeps_back_what_it_judges_by() -> None:
    firm = hospital(kept_back=0.25, adopts="best")
    fit, judging = firm._models.parts(0)
    assert judging is not None
    everyone = firm.dataset.split(0).training
    np.testing.assert_array_equal(np.sort([*fit.ids, *judging.ids]), np.sort(everyone.ids))
    assert len(judging.ids) == round(0.25 * len(everyone.ids))
    assert trained(firm).examples == len(fit.ids)


def test_a_firm_adopts_the_model_that_is_best_on_what_it_kept_back() -> None:
    firm = hospital(kept_back=0.3, adopts="best")
    good = trained(firm).weights
    assert good is not None
    bad = Weights({k: -5 * v for k, v in good.arrays.items()}, 1)

    def adopted(published: Weights, last: Weights | None, adopt: bool = True) -> str:
        return scored(firm, Measure(SHARED, 0, published, last, adopt)).adopted

    own = Weights(firm._models.own(0, Memory(), whole=False)[0], 1)
    assert adopted(bad, None) == "own"
    assert adopted(bad, None, adopt=False) == "published"
    assert adopted(own, bad) == "own"  # an equal model is no reason to change
    assert {adopted(bad, own), adopted(own, own)} == {"own"}
    assert scored(hospital(), Measure(SHARED, 0, bad, None, True)).adopted == "published"


def test_by_class_adds_up() -> None:
    found = scored(hospital(), Measure(SHARED, 0, by_class=True))
    assert found.by_class is not None
    assert sum(n for n, _ in found.by_class) == found.cases
    right = sum(r for _, r in found.by_class)
    assert right / found.cases == pytest.approx(found.accuracy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adopts": "all"}, "adopts is 'all'; legal are published, canonical"),
        ({"adopts": "best"}, "kept_back=0.2"),
        ({"kept_back": 0.9}, "legal is a share from 0 to 0.5"),
        ({"contributes": "no"}, "contributes is 'no'"),
    ],
)
def test_a_firm_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FedpactError, match=message):
        hospital(**changes)


# ------------------------------------------------------------------------------ the session


def held(folder: Path, *overrides: str) -> dict[str, Outcome]:
    """Every session of a small heart study, by name."""
    config = run_config(folder, *HEART, *overrides)
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    found = {name: RunFolder(folder).load(name) for name in RunFolder(folder).held()}
    return {name: pair[0] for name, pair in found.items() if pair is not None}


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_free_rider_is_noted_and_pays_only_where_costs_are_shared(tmp_path: Path) -> None:
    rider = ("parties.hungary.contributes=false", "market.compute_price=0.01")
    each = held(tmp_path / "each", *rider)["train_sharing-seed0"]
    assert each.riders == ("hungary",)
    assert each.summaries["hungary"].cost == 0
    assert each.summaries["cleveland"].cost > 0
    together = held(tmp_path / "all", *rider, "market.paid_by=consortium")["train_sharing-seed0"]
    costs = {s.cost for s in together.summaries.values()}
    assert len(costs) == 1
    total = sum(s.cost for s in each.summaries.values())
    assert costs.pop() == pytest.approx(total / 4)


def test_an_excluded_rider_gets_no_model(tmp_path: Path) -> None:
    told = held(tmp_path, "parties.hungary.contributes=false", "market.excludes_riders=true")[
        "train_sharing-seed0"
    ]
    offers = [r for r in table(tmp_path / "messages.csv") if r["receiver"] == "hungary"]
    shared = [(r["kind"], r["round"]) for r in offers if r["contract"] == "train_sharing"]
    assert shared == []  # it said when it enrolled that it would train on nothing
    assert told.summaries["hungary"].adopted == "own"
    assert told.summaries["hungary"].gain == 0
    assert told.summaries["cleveland"].adopted == "published"


def test_training_alone_costs_what_it_takes(tmp_path: Path) -> None:
    outcome = held(tmp_path, "market.compute_price=1.0")["no_sharing-seed0"]
    firm = hospital()
    passes = len(firm.dataset.split(0).training.ids) * firm.training.epochs
    assert outcome.summaries["va_long_beach"].cost == pytest.approx(passes / 1000)


def test_a_round_without_two_firms_is_void_and_changes_nothing(tmp_path: Path) -> None:
    firms = ("cleveland", "hungary", "switzerland")
    held(tmp_path, *(f"+participation.absent.{name}=[1]" for name in firms))
    rows = table(tmp_path / "rounds.csv")
    rows = [r for r in rows if r["contract"] == "train_sharing"]
    assert [r["firm"] for r in rows if r["status"] == "void"] == ["va_long_beach"]
    assert {r["round"] for r in rows if r["status"] == "ok"} == {"0", "2"}


def test_a_round_with_too_few_for_the_rule_is_void_too(tmp_path: Path) -> None:
    # The median needs three firms; in round 1 only two can be reached.
    away = [f"+participation.absent.{name}=[1]" for name in ("cleveland", "hungary")]
    held(tmp_path, "strategy=median", "strategy.rounds=3", *away)
    rows = [r for r in table(tmp_path / "rounds.csv") if r["contract"] == "train_sharing"]
    void = {r["firm"] for r in rows if r["status"] == "void"}
    assert void == {"switzerland", "va_long_beach"}
    assert {r["round"] for r in rows if r["status"] == "void"} == {"1"}


def test_watching_scores_every_firm_after_every_round_and_changes_nothing(tmp_path: Path) -> None:
    plainly, watched = held(tmp_path / "a"), held(tmp_path / "b", "study.watch=true")
    for name, outcome in plainly.items():
        assert outcome.summaries == watched[name].summaries
    rows = table(tmp_path / "b" / "scores.csv")
    assert len(rows) == 3 * 4
    assert table(tmp_path / "a" / "scores.csv") == []
    for row in rows:
        right = [int(pair.split("/")[0]) for pair in row["by_class"].split()]
        assert sum(right) / int(row["cases"]) == pytest.approx(float(row["accuracy"]))


class KilledError(Exception):
    """The end of a process, at a moment of the test's choice."""


class DyingGrid(InlineGrid):
    """An inline grid whose process dies before it has asked `last` times."""

    last = 0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        self.last -= 1
        if self.last < 0:
            raise KilledError
        return super().send_and_receive(messages, timeout=timeout)


def files(folder: Path) -> dict[str, str]:
    """Digest of everything that a run leaves and that does not tell of its time."""
    return {
        str(p.relative_to(folder)): digest(p.read_bytes())
        for p in sorted(folder.rglob("*"))
        if p.is_file()
        and p.name != "seconds.csv"
        and p.suffix in (".csv", ".safetensors", ".sha256", ".progress")
    }


@pytest.mark.parametrize(
    ("last", "rule"),
    [
        *[(last, "fedavg") for last in (3, 5, 6, 8, 9)],
        *[(8, rule) for rule in ("fedavgm", "fedadam", "median", "fedref", "flower")],
    ],
)
def test_a_killed_session_is_taken_up_at_its_round_and_ends_the_same(
    tmp_path: Path, last: int, rule: str
) -> None:
    overrides = ("study.watch=true", f"strategy={rule}", "strategy.rounds=4")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    held(whole, *overrides)
    config = run_config(cut, *HEART, *overrides)
    grid = DyingGrid(apps.client, contexts(config))
    grid.last = last
    with pytest.raises(KilledError):
        hold_on(grid, config)
    begun = RunFolder(cut).progress("train_sharing-seed0")
    # Enrolment, no-sharing's offer and measure come first; then two questions a round.
    rounds = max(0, (last - 3) // 2)
    assert (0 if begun is None else begun.state.turn) == rounds
    fresh = InlineGrid(apps.client, contexts(config))
    hold_on(fresh, config)
    ours = {k: v for k, v in files(cut).items() if k != "messages.csv"}
    assert ours == {k: v for k, v in files(whole).items() if k != "messages.csv"}


def test_what_a_session_had_come_to_is_read_back_as_it_was(tmp_path: Path) -> None:
    weights = Weights({"w": np.arange(3, dtype=np.float32), "n": np.array(7)}, 5)
    progress = Progress(
        State(2, weights, weights, {"window/0": {"w": np.ones(3)}}),
        {"a": "no"},
        {"b": "late"},
        {"c": 12},
        ("d",),
    )
    folder = RunFolder(tmp_path)
    folder.keep("x", progress)
    found = folder.progress("x")
    assert found is not None
    assert found.state.start is found.state.published
    assert (found.declined, found.excluded, found.passes) == ({"a": "no"}, {"b": "late"}, {"c": 12})
    assert found.riders == ("d",)
    assert found.state.start is not None
    np.testing.assert_array_equal(found.state.start.arrays["w"], weights.arrays["w"])
    assert found.state.start.arrays["n"].dtype == weights.arrays["n"].dtype
    np.testing.assert_array_equal(found.state.memory["window/0"]["w"], np.ones(3))


def test_an_array_without_dimensions_stays_one(tmp_path: Path) -> None:
    counter = {"n": np.array(3), "w": np.ones(2)}
    state = State(1, Weights(counter, 1), None, {"flower/calls": {"calls": np.array(2)}})
    RunFolder(tmp_path).keep("x", Progress(state))
    found = RunFolder(tmp_path).progress("x")
    assert found is not None
    assert found.state.start is not None
    assert found.state.start.arrays["n"].shape == ()
    assert found.state.memory["flower/calls"]["calls"].shape == ()


def own_loss(tmp_path: Path, *overrides: str) -> tuple[float, Outcome]:
    """VA Long Beach's payoff alone, and its session under train-sharing."""
    told = held(tmp_path, *overrides)
    alone = told["no_sharing-seed0"].summaries["va_long_beach"].payoff
    return alone, told["train_sharing-seed0"]


def test_what_a_firm_has_without_the_others_is_trained_on_all_its_patients(tmp_path: Path) -> None:
    back = ("parties.va_long_beach.adopts=best", "parties.va_long_beach.kept_back=0.4")
    (plain_alone, _), (alone, shared) = own_loss(tmp_path / "a"), own_loss(tmp_path / "b", *back)
    assert alone == plain_alone
    va = shared.summaries["va_long_beach"]
    assert va.population == shared.summaries["va_long_beach"].cases + len(
        hospital().dataset.split(0).training.ids
    )
    if va.adopted == "own":
        assert va.gain == 0


def test_a_firm_that_keeps_to_its_own_model_gains_exactly_nothing(tmp_path: Path) -> None:
    # Three rounds of one pass against forty epochs: every hospital's own model is better.
    best = [
        word
        for name in ("cleveland", "hungary", "switzerland", "va_long_beach")
        for word in (f"parties.{name}.adopts=best", f"parties.{name}.kept_back=0.3")
    ]
    told = held(
        tmp_path, *best, "strategy.rounds=1", "strategy.local_epochs=1", "training.epochs=40"
    )
    own = [s for s in told["train_sharing-seed0"].summaries.values() if s.adopted == "own"]
    assert own
    assert {s.gain for s in own} == {0.0}


def test_a_rider_that_is_never_asked_is_excluded_too(tmp_path: Path) -> None:
    rider = ("parties.hungary.contributes=false", "market.excludes_riders=true")
    away = "+participation.absent.hungary=[0,1,2]"
    told = held(tmp_path, *rider, away)["train_sharing-seed0"]
    assert told.riders == ("hungary",)
    assert told.summaries["hungary"].adopted == "own"


def test_a_barred_firm_takes_no_place_in_the_draw(tmp_path: Path) -> None:
    rider = ("parties.hungary.contributes=false", "market.excludes_riders=true")
    held(tmp_path, *rider, "participation.share=0.5", "strategy.rounds=12")
    rows = [r for r in table(tmp_path / "rounds.csv") if r["contract"] == "train_sharing"]
    assert not [r for r in rows if r["status"] == "void"]
    for turn in range(12):
        assert len({r["firm"] for r in rows if r["round"] == str(turn)}) == 2


def test_where_only_one_firm_may_have_the_model_there_is_no_deal(tmp_path: Path) -> None:
    riders = [f"parties.{n}.contributes=false" for n in ("cleveland", "hungary")]
    away = "+participation.absent.switzerland=[0,1,2]"
    config = (*riders, away, "market.excludes_riders=true")
    told = held(tmp_path, *config)["train_sharing-seed0"]
    assert {s.gain for s in told.summaries.values()} == {0.0}
    assert set(told.excluded) == set(told.summaries)
    assert "no common model" in told.excluded["va_long_beach"]


def test_too_few_answers_in_a_round_make_it_void_and_the_run_goes_on(tmp_path: Path) -> None:
    # Two firms are asked in a round, and three must have enrolled.
    told = held(tmp_path, "participation.share=0.5", "limits.minimum_firms=3")
    assert told["train_sharing-seed0"].summaries["cleveland"].adopted == "published"


def test_training_is_paid_out_of_the_gain(tmp_path: Path) -> None:
    from simulations.conclude import conclude
    from simulations.study import study_of

    def gains(folder: Path, *more: str) -> dict[str, float]:
        held(folder, *more)
        found = conclude(study_of(plain(*HEART, *more)), RunFolder(folder))["contracts"]
        return {k: v["gain"] for k, v in found["train_sharing"]["firms"].items()}

    free, paid = gains(tmp_path / "a"), gains(tmp_path / "b", "market.compute_price=0.01")
    both = held(tmp_path / "b", "market.compute_price=0.01")
    for name in free:
        shared, alone = (
            both[f"{c}-seed0"].summaries[name].cost for c in ("train_sharing", "no_sharing")
        )
        assert paid[name] == pytest.approx(free[name] - (shared - alone))
        # Three rounds of two passes against two epochs alone.
        assert shared == pytest.approx(3 * alone)


def test_a_damaged_checkpoint_is_never_used(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.keep("x", Progress(State(1, Weights({"w": np.ones(2)}, 1))))
    path = tmp_path / "sessions" / "x.progress"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        assert folder.progress("x") is None
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        assert folder.progress("x") is None
    assert folder.progress("y") is None


# ----------------------------------------------------------------- against other implementations


@pytest.mark.parametrize("mu", [0.0, 0.3, 2.0])
def test_the_proximal_gradient_is_that_of_torchs_own_optimiser(mu: float) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 3)).astype(np.float32)
    labels = (features[:, 0] + rng.normal(size=40) > 0).astype(np.int64)
    ours, theirs = (Logistic().build(3, 2, 1) for _ in range(2))
    training = Training(epochs=6, batch_size=40, learning_rate=0.2, momentum=0.5, weight_decay=0.01)
    training = replace(training, schedule="constant")
    training.fit(ours, features, labels, 0, proximal=mu)
    start = [p.detach().clone() for p in theirs.parameters()]
    steps = torch.optim.SGD(theirs.parameters(), lr=0.2, momentum=0.5, weight_decay=0.01)
    for _ in range(6):
        steps.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            theirs(torch.from_numpy(features)), torch.from_numpy(labels)
        )
        pairs = zip(theirs.parameters(), start, strict=True)
        loss = loss + mu / 2 * sum(((p - w) ** 2).sum() for p, w in pairs)
        loss.backward()
        steps.step()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_the_last_aggregate_is_offered_beside_the_published_mean(tmp_path: Path) -> None:
    held(tmp_path, "strategy=fedref", "strategy.rounds=3")
    rows = table(tmp_path / "messages.csv")
    measured = [r for r in rows if r["kind"] == "Measure" and r["contract"] == "train_sharing"]
    assert len(measured) == 4
    for row in measured:
        assert "Measure.last.arrays" in row["carries"]
        assert "Measure.model.arrays" in row["carries"]


def test_a_firm_that_judges_may_use_the_last_aggregate() -> None:
    firm = hospital(kept_back=0.3, adopts="best")
    # Trained for long, and also on what is kept back: better there than the firm's own.
    longer = replace(firm, training=replace(firm.training, epochs=60))
    good = Weights(longer._models.own(0, Memory())[0], 1)
    bad = Weights({k: -5 * v for k, v in good.arrays.items()}, 1)
    assert scored(firm, Measure(SHARED, 0, bad, good, True)).adopted == "last"
    assert scored(firm, Measure(SHARED, 0, good, bad, True)).adopted == "published"
