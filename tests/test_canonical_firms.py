"""Firms that reuse a frozen model in a canonical pose: what they share, serve, adopt and pay."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from parties.backbones import pooled
from parties.backbones.canonical import Canonical, Frozen
from parties.backbones.mlp import Mlp
from parties.canonicalize.groups import Group
from parties.canonicalize.neighbours import Neighbours
from parties.canonicalize.offered import align, put_behind, scoring_share
from parties.canonicalize.recipe import Canonicalization
from parties.canonicalize.scalar import Scalar
from parties.datasets import Examples
from parties.datasets.digits import Digits
from parties.exchange import (
    Enrol,
    FedpactError,
    Predictions,
    Query,
    Refusal,
    Serve,
    Served,
    Terms,
    Weights,
)
from parties.firm import Firm
from parties.memory import Memory
from parties.partitions.class_blocks import ClassBlocks
from parties.reuse.adopt import Adopter
from parties.reuse.arm import Arm
from parties.reuse.judge import Judge
from parties.reuse.profile import Profile
from parties.reuse.zero_shot import ZeroShot
from parties.shifts.turns import Turns
from parties.training import Training, weights_of
from server.market import CommonClients
from simulations.engines import apps
from simulations.results import RunFolder
from simulations.study import study_of
from tests.checks import RecordingGrid, contexts, firms_of, hold_on, plain, run_config
from tests.inline_grid import InlineGrid

TRAINING = Training(epochs=10, batch_size=64, learning_rate=0.05)
TURNS = Canonicalization(Group(4), Scalar((16, 32)), TRAINING)


@cache
def a_backbone() -> Canonical:
    how = Training(epochs=20, batch_size=32)
    frozen = Frozen(Mlp((64,)), Digits(0, 1, test_share=0.3), how)
    return Canonical(frozen, TURNS)


def a_firm(client: int, **changes: Any) -> Firm:
    data = Digits(client, 2, ClassBlocks(), common=Turns(), test_share=0.3, test_seed=0)
    firm = Firm(f"firm_{client}", data, a_backbone(), TRAINING)
    return replace(firm, **changes)


NOTHING = Terms("no_sharing", models=False, predictions=False)
PREDICTIONS = Terms("infer_sharing", models=False, predictions=True)
BOTH = Terms("full_sharing", models=True, predictions=True, rounds=1)


# ----------------------------------------------------------------------------------- serving


def test_a_firm_serves_the_clients_that_all_serve_and_nobody_else_learns_the_labels() -> None:
    one, two = a_firm(0), a_firm(1)
    told = [firm.answer(Serve(NOTHING, 0), Memory()) for firm in (one, two)]
    ids, truth = one.dataset.outcomes(0, "common")
    for answer in told:
        assert isinstance(answer, Served)
        np.testing.assert_array_equal(answer.ids, ids)
    accuracies = [float(np.mean(a.classes == truth)) for a in told if isinstance(a, Served)]
    seen = [truth < 5, truth >= 5]
    for answer, own in zip(told, seen, strict=True):
        assert isinstance(answer, Served)
        right = answer.classes == truth
        assert right[own].mean() > right[~own].mean() + 0.1  # poses are learnt on its own classes
    assert max(accuracies) < 0.93
    declared = one.answer(Enrol(0), Memory())
    assert getattr(declared, "common", 0) == len(ids)


def test_added_scores_beat_either_firms_own() -> None:
    firms, memories = [a_firm(0), a_firm(1)], [Memory(), Memory()]
    _, truth = firms[0].dataset.outcomes(0, "common")
    opinions = [
        f.answer(Query(PREDICTIONS, 0, "common"), m) for f, m in zip(firms, memories, strict=True)
    ]
    for told in opinions:
        assert isinstance(told, Predictions)
        assert told.probs.shape[1] == 4  # poses, not classes
    found = []
    for others in ({}, {"firm_1": opinions[1]}):
        served = firms[0].answer(Serve(PREDICTIONS, 0, others=others), Memory())
        assert isinstance(served, Served)
        found.append(float(np.mean(served.classes == truth)))
    assert found[1] > found[0] + 0.02
    assert served.own_passes == 10 * len(firms[0].dataset.split(0).training.ids)


def test_under_full_sharing_a_firm_pools_its_own_the_published_and_the_others() -> None:
    firm, memory = a_firm(0), Memory()
    features = firm.dataset.split(0).common
    assert features is not None
    other = a_firm(1)
    model = Weights(other._models.own(0, Memory())[0], 1)
    own = firm.answer(Query(PREDICTIONS, 0, "common"), memory)
    theirs = other.answer(Query(PREDICTIONS, 0, "common"), Memory())
    assert isinstance(own, Predictions)
    assert isinstance(theirs, Predictions)
    served = firm.answer(Serve(BOTH, 0, model, {"firm_1": theirs}), memory)
    assert isinstance(served, Served)
    element = pooled([theirs.probs, own.probs, theirs.probs]).argmax(1)
    expected = a_backbone().decide(TRAINING, features.features, [np.eye(4)[element]])
    np.testing.assert_array_equal(served.classes, expected)


def test_what_is_not_shared_is_refused_and_other_clients_are_an_error() -> None:
    firm = a_firm(0)
    assert isinstance(firm.answer(Query(NOTHING, 0, "common"), Memory()), Refusal)
    strange = Predictions(np.arange(3), np.full((3, 4), 0.25))
    with pytest.raises(FedpactError, match="other clients"):
        firm.answer(Serve(PREDICTIONS, 0, others={"firm_1": strange}), Memory())


def test_a_plain_classifier_serves_common_clients_too() -> None:
    firm = a_firm(0, backbone=Mlp((32,)), dataset=Digits(0, 2, common=Turns(turns=1)))
    other = a_firm(1, backbone=Mlp((32,)), dataset=Digits(1, 2, common=Turns(turns=1)))
    _, truth = firm.dataset.outcomes(0, "common")
    theirs = other.answer(Query(PREDICTIONS, 0, "common"), Memory())
    assert isinstance(theirs, Predictions)
    memory = Memory()
    alone = firm.answer(Serve(NOTHING, 0), memory)
    together = firm.answer(Serve(PREDICTIONS, 0, others={"firm_1": theirs}), memory)
    assert isinstance(alone, Served)
    assert isinstance(together, Served)
    own = firm.answer(Query(PREDICTIONS, 0, "common"), memory)
    assert isinstance(own, Predictions)
    np.testing.assert_array_equal(alone.classes, own.probs.argmax(1))
    np.testing.assert_array_equal(together.classes, (own.probs * theirs.probs).argmax(1))
    assert np.mean(together.classes == truth) > 0.85


def test_a_right_answer_earns_one_less_what_training_cost() -> None:
    market = CommonClients(compute_price=0.01)
    assert (market.clients, market.contested) == ("common", False)
    assert market.price(2000) == pytest.approx(0.02)
    assert market.costs({"a": 1000}, ["a"]) == {"a": pytest.approx(0.01)}
    assert market.costs({"a": 1000}, []) == {}
    with pytest.raises(FedpactError, match=r"market\.compute_price is -1"):
        CommonClients(compute_price=-1)


# ----------------------------------------------------------------------------- whole studies


SIZES = ("experiment=canonical_sharing_digits", "study.seeds=2", "progress=none")


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RecordingGrid]:
    folder = tmp_path_factory.mktemp("sharing")
    config = run_config(folder, *SIZES)
    inner = InlineGrid(apps.client, contexts(config))
    names = dict(zip(sorted(inner.get_node_ids()), firms_of(config), strict=True))
    grid = RecordingGrid(inner, names)
    hold_on(grid, config)
    return folder, grid


def outcomes(folder: Path) -> pd.DataFrame:
    rows = []
    for path in sorted((folder / "sessions").glob("*")):
        filed = RunFolder(folder).load(path.stem)
        if filed is not None:
            o = filed[0]
            rows += [
                {"contract": o.contract, "seed": o.seed, "firm": f, "payoff": float(p.mean())}
                for f, p in o.payoffs.items()
            ]
    return pd.DataFrame(rows)


def test_four_contracts_over_poses_are_held_by_the_two_apps(
    sharing: tuple[Path, RecordingGrid],
) -> None:
    folder, _ = sharing
    payoffs = outcomes(folder).groupby(["contract", "firm"])["payoff"].mean()
    for firm in ("firm_0", "firm_1"):
        for contract in ("train_sharing", "infer_sharing", "full_sharing"):
            assert 0.3 < payoffs[contract, firm] <= 1
        assert payoffs["infer_sharing", firm] > payoffs["no_sharing", firm]


def test_only_scorers_and_poses_cross(sharing: tuple[Path, RecordingGrid]) -> None:
    _, grid = sharing
    arrays = {
        (packed.kind, path.split(".")[-1], array.shape[1:])
        for _, _, packed in grid.log
        for path, array in packed.arrays.items()
    }
    probabilities = {
        shape for kind, name, shape in arrays if kind == "Predictions" and name == "probs"
    }
    assert probabilities == {(4,)}
    tensors = {
        path for _, _, packed in grid.log for path in packed.arrays if "weights.arrays" in path
    }
    assert tensors
    assert all("canonicalizer.scorer" in path for path in tensors)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("parties.firm_0.dataset.common=null",), "these firms have no client in common"),
        (
            ("strategy=forward", "strategy.rounds=1", "strategy.local_epochs=0"),
            "publishes no common model",
        ),
        (("study.watch=true",), "no round's model is scored"),
        (("parties.firm_0.adopts=best", "parties.firm_0.kept_back=0.2"), "adopts is best"),
        (("canonicalizer=none",), "legal is a scorer that is trained and two poses"),
        (("market=loans",), "firms that contest clients hold different columns"),
        (
            ("parties.firm_0.dataset.test_seed=null",),
            "trained on cases that judge it under seed 1",
        ),
        (("canonicalizer.refine=2",), "canonicalizer.refine is 2; firms tell"),
        (("canonicalizer.realign=1",), "canonicalizer.realign is 1; firms tell"),
        (("backbone.frozen.seed=-1",), "frozen.seed is -1; legal"),
        (
            ("strategy=donor", "strategy.rounds=1", "strategy.local_epochs=0"),
            "a scorer of poses is shared without",
        ),
    ],
)
def test_a_study_of_poses_that_cannot_be_is_refused(
    overrides: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(FedpactError, match=problem):
        study_of(plain(*SIZES, *overrides))


# ------------------------------------------------------------------------ the frozen model


def test_a_frozen_model_is_trained_once_and_kept(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("FEDPACT_FROZEN", str(tmp_path))
    frozen = Frozen(Mlp((8,)), Digits(0, 1), Training(epochs=1), seed=3)
    first = frozen.module()
    (file,) = tmp_path.iterdir()
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())
    assert frozen.module() is first
    named = replace(frozen, weights=str(file))
    for key, value in weights_of(named.module()).items():
        np.testing.assert_array_equal(value, weights_of(first)[key])
    with pytest.raises(FedpactError, match="does not hold the tensors"):
        replace(named, backbone=Mlp((9,))).module()
    with pytest.raises(FedpactError, match="there is no such file"):
        replace(frozen, weights=str(tmp_path / "none"))


def test_a_backbone_of_poses_needs_a_scorer_that_can_be_shared() -> None:
    frozen = a_backbone().frozen
    for how in (replace(TURNS, group=Group(1)), replace(TURNS, scorer=Neighbours())):
        with pytest.raises(FedpactError, match="nothing to share"):
            Canonical(frozen, how)
    with pytest.raises(FedpactError, match="Freeze a model of the same classes"):
        a_backbone().build(64, 3, 0)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("scorer=neighbours",), "an offered model comes without"),
        (("canonicalizer.channels=3",), "64 features are no square images of 3"),
    ],
)
@pytest.mark.parametrize("adopts", ["canonical", "judge"])
def test_poses_that_a_firm_could_not_try_are_refused_before_the_first_epoch(
    adopts: str, overrides: tuple[str, ...], problem: str
) -> None:
    cast = ("compare=none", "canonicalizer=turns", f"parties.firm_1.adopts={adopts}")
    with pytest.raises(FedpactError, match=problem):
        study_of(plain("experiment=reuse_images", *cast, *overrides))


def test_the_frozen_models_data_are_in_the_provenance(tmp_path: Path) -> None:
    study = study_of(plain(*SIZES))
    assert study.hashes() == a_backbone().frozen.hashes()  # digits, both
    (tmp_path / "w.safetensors").write_bytes(b"abc")
    named = replace(a_backbone().frozen, weights=str(tmp_path / "w.safetensors"))
    assert named.hashes() == {"w.safetensors": hashlib.sha256(b"abc").hexdigest()}


def test_a_frozen_model_that_cannot_be_kept_says_where(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDPACT_FROZEN", str(tmp_path / "file"))
    with pytest.raises(FedpactError, match="FEDPACT_FROZEN"):
        Frozen(Mlp((8,)), Digits(0, 1), Training(epochs=1), seed=5).module()


def test_a_firm_of_poses_is_not_judged_as_a_classifier() -> None:
    judge = Judge((ZeroShot(),))
    with pytest.raises(FedpactError, match="not judged as a classifier"):
        a_firm(0, adopts="judge", reuse=judge, kept_back=0.2)


# --------------------------------------------------------------------- an offered model


@pytest.fixture(scope="module")
def upright() -> Examples:
    return Digits(0, 1, test_share=0.2).split(0).training


@pytest.fixture(scope="module")
def model(upright: Examples) -> nn.Module:
    module = Mlp((64,)).build(64, 10, 0)
    Training(epochs=20, batch_size=32).fit(module, upright.features, upright.labels, 0)
    return module


def moved(examples: Examples, by: np.ndarray) -> Examples:
    images = torch.from_numpy(examples.features).view(-1, 1, 8, 8)
    turned = Group(4).act(images, torch.from_numpy(by)).flatten(1).numpy()
    return Examples(examples.ids, turned, examples.labels)


def test_multiplications_of_scoring_are_counted() -> None:
    # A pose: a 3x3 convolution of stride 2 on 8x8 (16 places), then 16 * 4 * 4 inputs to one.
    how = Canonicalization(Group(4), Scalar((16,)), TRAINING)
    linear = nn.Linear(64, 10)
    expected = 4 * (16 * 16 * 9 + 16 * 16) / (64 * 10)
    assert scoring_share(how, linear, 64) == pytest.approx(expected)


@pytest.mark.parametrize("way", ["half turn", "any way"])
def test_an_offered_model_serves_behind_the_firms_own_canonicalizer(
    way: str, model: nn.Module, upright: Examples
) -> None:
    rng = np.random.default_rng(0)
    by = (
        np.full(len(upright.ids), 2) if way == "half turn" else rng.integers(0, 4, len(upright.ids))
    )
    seen = moved(upright, by)
    aligned = align(TURNS, model, seen.features, seen.labels)
    assert aligned.accuracy > 0.95
    assert aligned.passes == 2 * len(seen.ids)
    behind = put_behind(TURNS, model, aligned, 0)
    held_out = Digits(0, 1, test_share=0.2).split(0).held_out
    assert held_out is not None
    if way == "half turn":  # the camera is mounted upside down: nothing is to be trained
        assert aligned.steady == 2
        assert behind.passes == aligned.passes
        again = moved(held_out, np.full(len(held_out.ids), 2))
    else:
        share = scoring_share(TURNS, model, 64)
        assert behind.passes == aligned.passes + int(np.ceil(10 * len(seen.ids) * share))
        again = moved(held_out, rng.integers(0, 4, len(held_out.ids)))
    told = TRAINING.probabilities(behind.module, again.features).argmax(1)
    assert np.mean(told == again.labels) > 0.8


def adopter(seen: Examples, required: float, how: Canonicalization | None) -> Adopter:
    cut = len(seen.ids) // 5
    parts = [
        Examples(seen.ids[rows], seen.features[rows], seen.labels[rows])
        for rows in (slice(cut, None), slice(0, cut))
    ]
    judge = Judge((Arm(), ZeroShot()), required=required, tune_epochs=3)
    build = lambda: Mlp((64,)).build(64, 10, 0)  # noqa: E731
    return Adopter(judge, TRAINING, build, *parts, 0, how)


def an_offer(model: nn.Module, upright: Examples) -> Weights:
    card = Profile.of(model, upright.features, upright.labels, np.random.default_rng(0))
    return Weights(weights_of(model), len(upright.ids), card=card.to_arrays())


def test_a_judge_canonicalizes_what_is_turned_and_tells_arm_before_and_after(
    model: nn.Module, upright: Examples
) -> None:
    by = np.random.default_rng(0).integers(0, 4, len(upright.ids))
    told = adopter(moved(upright, by), 0.8, TURNS).adopt(an_offer(model, upright))
    assert (told.name, told.report.decision) == ("canonical", "canonicalize")
    measures = told.report.measures
    assert measures["arm_canonical"] < 0.5 * measures["arm"]
    assert measures["zero_shot_error_canonical"] < 0.2 < measures["zero_shot_error"]


def test_a_judge_without_poses_or_with_images_that_fit_does_not_canonicalize(
    model: nn.Module, upright: Examples
) -> None:
    offer = an_offer(model, upright)
    half = moved(upright, np.full(len(upright.ids), 2))
    idle = replace(TURNS, group=Group(1))
    plainly, idly = (adopter(half, 0.8, how).adopt(offer).report for how in (None, idle))
    assert plainly == idly
    assert plainly.decision != "canonicalize"
    as_is = adopter(upright, 0.8, TURNS).adopt(offer)
    assert (as_is.name, as_is.report.decision) == ("published", "as_is")
    assert not any(name.endswith("_canonical") for name in as_is.report.measures)


def test_a_model_that_no_pose_makes_good_enough_is_only_aligned_and_paid_for(
    model: nn.Module, upright: Examples
) -> None:
    rng = np.random.default_rng(0)
    noisy = replace(
        upright,
        features=(upright.features + rng.normal(0, 1.5, upright.features.shape)).astype(np.float32),
    )
    offer = an_offer(model, upright)
    with_poses, without = (adopter(noisy, 0.9, how).adopt(offer).report for how in (TURNS, None))
    assert with_poses.decision == without.decision
    fit = len(upright.ids) - len(upright.ids) // 5
    assert with_poses.passes - without.passes == 2 * fit


@pytest.mark.parametrize("adopts", ["canonical", "tuned"])
def test_a_firm_may_settle_beforehand_what_it_makes_of_a_model(adopts: str, tmp_path: Path) -> None:
    config = run_config(
        tmp_path,
        "experiment=reuse_images",
        "compare=none",
        "canonicalizer=turns",
        "scorer.widths=[16,32]",
        "shift=turns",
        "study.seeds=1",
        "training.epochs=5",
        "progress=none",
        f"parties.firm_1.adopts={adopts}",
    )
    hold_on(InlineGrid(apps.client, contexts(config)), config)
    filed = RunFolder(tmp_path).load("train_sharing-seed0")
    assert filed is not None
    summary = filed[0].summaries["firm_1"]
    assert summary.adopted == adopts
    assert summary.cost > 0
    table = pd.read_csv(tmp_path / "adoptions.csv")
    (row,) = [r for r in table.to_dict("records") if r["firm"] == "firm_1"]
    decision = {"canonical": "canonicalize", "tuned": "fine_tune"}[adopts]
    assert (row["adopted"], row["decision"]) == (adopts, decision)
    if adopts == "tuned":
        study = study_of(json.loads(config["config"]))
        firm = study.firms["firm_1"]
        assert row["passes"] == 5 * len(firm._models.parts(0)[0].ids)
