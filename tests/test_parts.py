"""Every contract, strategy, backbone and data set passes the conformance check of its kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import parties.datasets as datasets
from parties.backbones import Backbone
from parties.backbones.logistic import Logistic
from parties.backbones.mlp import Mlp
from parties.datasets import Dataset, read_csv
from parties.datasets.heart_hospitals import HOSPITALS, HeartHospital
from parties.datasets.taiwan_credit import TaiwanCredit
from parties.exchange import FedpactError, Weights
from parties.reuse import ReuseMeasure
from parties.training import Training, weights_of
from server.contracts import Contract
from server.strategies import State, Strategy
from server.strategies.fedavg import FedAvg
from server.strategies.forward import Forward
from simulations.build import build
from tests.checks import (
    check_backbone,
    check_contract,
    check_dataset,
    check_reuse,
    check_strategy,
    plain,
)
from tests.test_conf import choices

CHECKS = {
    "contract": (Contract, check_contract),
    "strategy": (Strategy, check_strategy),
    "backbone": (Backbone, check_backbone),
    "dataset": (Dataset, check_dataset),
    "measure": (ReuseMeasure, check_reuse),
}


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in CHECKS for name in choices(group)]
)
def test_every_part_passes_the_check_of_its_kind(group: str, name: str) -> None:
    package = f"{group}@trial" if group in ("dataset", "contract", "measure") else group
    key = "trial" if "@" in package else group
    sign = "+" if "@" in package else ""
    kind, check = CHECKS[group]
    poses = ("canonicalizer=turns",) if name == "canonical" else ()
    part = build(plain(f"{sign}{package}={name}", *poses)[key])
    assert isinstance(part, kind)
    check(part)  # type: ignore[operator]


@pytest.mark.parametrize("hospital", HOSPITALS)
def test_every_hospital_is_a_sound_data_set(hospital: str) -> None:
    check_dataset(HeartHospital(hospital))


# ------------------------------------------------------------------------------------- data sets


def test_five_seeds_contest_every_client_once() -> None:
    dataset = TaiwanCredit("repayment")
    contested = [dataset.outcomes(seed, "contested")[0] for seed in range(5)]
    np.testing.assert_array_equal(np.sort(np.concatenate(contested)), np.arange(30_000))


def test_both_lenders_know_the_same_clients_by_other_columns() -> None:
    a, b = (TaiwanCredit(columns).split(3) for columns in ("repayment", "accounts"))
    for part in ("training", "validation", "contested"):
        np.testing.assert_array_equal(getattr(a, part).ids, getattr(b, part).ids)
    assert a.training.features.shape[1] != b.training.features.shape[1]


def test_the_share_of_defaults_is_the_published_one() -> None:
    dataset = TaiwanCredit("accounts")
    labels = np.concatenate([dataset.outcomes(seed, "contested")[1] for seed in range(5)])
    assert 1 - labels.mean() == pytest.approx(0.2212, abs=5e-5)


def test_features_are_scaled_on_training_clients_only() -> None:
    split = TaiwanCredit("accounts").split(0)
    assert split.contested is not None
    # The first column is the credit limit; rare categories are clipped, so not exactly centred.
    assert abs(split.training.features[:, 0].mean()) < 1e-5
    assert abs(split.contested.features[:, 0].mean()) > 1e-5


def test_four_seeds_hold_out_every_patient_once() -> None:
    held = []
    for hospital in HOSPITALS:
        for seed in range(4):
            part = HeartHospital(hospital).split(seed).held_out
            assert part is not None
            held.append(part.ids)
            assert len(np.unique(part.labels)) == 2
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(920))


def test_a_changed_data_file_is_named_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "heart_hospitals.csv.gz"
    shutil.copy(datasets.FILES / name, tmp_path / name)
    with (tmp_path / name).open("r+b") as file:
        file.seek(500)
        file.write(b"\0")
    monkeypatch.setattr(datasets, "FILES", tmp_path)
    with pytest.raises(FedpactError, match=r"heart_hospitals\.csv\.gz has sha256 .* expected"):
        read_csv.__wrapped__(name, HeartHospital("Hungary").hashes()[name])
    with pytest.raises(FedpactError, match="cannot be read"):
        read_csv.__wrapped__("absent.csv.gz", "")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: TaiwanCredit("income"), "legal are repayment, accounts"),
        (lambda: TaiwanCredit("repayment", clients=10), "500 to 30000"),
        (lambda: HeartHospital("Boston"), "legal are Cleveland"),
        (lambda: HeartHospital("Cleveland", folds=9), "2 to 8"),
        (lambda: Mlp(widths=(0,)), "whole number >= 1"),
        (lambda: Mlp(widths=()), "backbone=logistic"),
        (lambda: Training(epochs=0), "training.epochs is 0"),
        (lambda: Training(learning_rate=0.0), "training.learning_rate"),
        (lambda: Training(momentum=1.0), r"in \[0, 1\)"),
        (lambda: Training(device="tpu?"), "training.device"),
        (lambda: Training(device="meta"), "legal are 'auto', 'cpu', 'cuda'"),
        (lambda: Training(device="cuda:99").torch_device, "Use training.device=auto"),
        (lambda: Training(mixed_precision="fp16"), "'fp16'; legal are none and bf16. Change it"),
        (lambda: FedAvg(rounds=0), "strategy.rounds is 0"),
        (lambda: FedAvg(local_epochs=0), "local_epochs is 0; legal is a whole number >= 1"),
        (lambda: Forward(rounds=2), "strategy=fedavg"),
        (lambda: HeartHospital("Cleveland").outcomes(0, "contested"), "market=own_cases"),
    ],
)
def test_an_impossible_part_is_refused_with_what_is_legal(make: object, problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        make()  # type: ignore[operator]


# -------------------------------------------------------------------------------------- training


def test_training_finds_the_minimum_that_a_solver_finds() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 4)).astype(np.float32)
    odds = features @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.3
    labels = (rng.random(400) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    module = Logistic().build(4, 2, 0)
    training = Training(epochs=300, batch_size=400, learning_rate=0.5, weight_decay=0.0)
    losses = training.fit(module, features, labels, seed=0)
    solver = LogisticRegression(C=np.inf, tol=1e-8).fit(features, labels)
    found = training.probabilities(module, features)[:, 1]
    np.testing.assert_allclose(found, solver.predict_proba(features)[:, 1], atol=2e-3)
    assert losses[0] == pytest.approx(np.log(2))
    assert losses[-1] < losses[0]


def test_the_seed_alone_decides_what_training_gives() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(300, 3)).astype(np.float32), rng.integers(0, 2, 300)

    def fit(seed: int) -> np.ndarray:
        module = Mlp((4,)).build(3, 2, 1)
        Training(epochs=2, batch_size=32).fit(module, features, labels, seed)
        return weights_of(module)["0.weight"]

    np.testing.assert_array_equal(fit(1), fit(1))
    assert not np.array_equal(fit(1), fit(2))


def test_fedavg_is_the_mean_weighted_by_examples() -> None:
    updates = {
        "a": Weights({"w": np.array([1.0, 0.0], np.float32)}, 1),
        "b": Weights({"w": np.array([0.0, 4.0], np.float32)}, 3),
    }
    found = FedAvg().combine(updates, State()).published
    assert found is not None
    np.testing.assert_array_equal(found.arrays["w"], np.array([0.25, 3.0], np.float32))
    assert found.arrays["w"].dtype == np.float32


def test_fedavg_without_updates_keeps_what_was_published() -> None:
    last = Weights({"w": np.ones(2)}, 1)
    state = FedAvg().combine({}, State(turn=3, start=last, published=last))
    assert (state.turn, state.start, state.published) == (4, last, last)
