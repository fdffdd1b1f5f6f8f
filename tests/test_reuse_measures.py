"""Measures of reuse: closed forms, brute force, properties, and what a card tells of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from scipy.linalg import sqrtm
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, wasserstein_distance
from torch import nn

from parties.backbones.cnn import Cnn
from parties.backbones.mlp import Mlp
from parties.datasets.digits import Digits
from parties.exchange import Array, FedpactError
from parties.reuse import ReuseMeasure, ReuseScore, Target
from parties.reuse.arm import VARIANTS, Arm, of_heights, w1
from parties.reuse.cka import Cka, cka
from parties.reuse.features import look
from parties.reuse.frechet import Frechet, frechet
from parties.reuse.hscore import HScore, hscore
from parties.reuse.leep import Leep, leep
from parties.reuse.linear_probe import LinearProbe, probe_error
from parties.reuse.logme import LogMe, logme
from parties.reuse.preindex import PreIndex, inv_ari
from parties.reuse.profile import LEVELS, SHARES, Profile, Source
from parties.reuse.resque import Resque
from parties.reuse.transrate import TransRate, transrate
from parties.reuse.zero_shot import ZeroShot
from parties.shifts.noise import Noise
from parties.shifts.rotation import Rotation
from parties.training import Training

EVERY: tuple[ReuseMeasure, ...] = (
    *(Arm(v) for v in VARIANTS),
    *(PreIndex(), PreIndex(combined=False), Resque(), ZeroShot(), ZeroShot("cross_entropy")),
    *(Leep(), LogMe(), HScore(), TransRate(), Frechet(), Cka(), LinearProbe()),
)
every = pytest.mark.parametrize("measure", EVERY, ids=lambda m: m.name)
seeds = st.integers(0, 2**32 - 1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain(width: int, classes: int = 3) -> nn.Module:
    """A model whose one hidden layer puts out its input as it is; its logits are the first ones."""
    model = nn.Sequential(nn.Linear(width, width), nn.Linear(width, classes))
    with torch.no_grad():
        for layer, rows in ((model[0], width), (model[1], classes)):
            layer.weight.copy_(torch.eye(rows, width))
            layer.bias.zero_()
    return model


def cases(count: int, width: int, seed: int = 0) -> Array:
    return rng(seed).normal(size=(count, width)).astype(np.float32)


def judge(
    measure: ReuseMeasure,
    old: Array,
    new: Array,
    card: bool = False,
    model: nn.Module | None = None,
    seed: int = 5,
) -> ReuseScore:
    """A measure without labels, by default of a model whose filters are the features."""
    seer = plain(old.shape[1]) if model is None else model
    profile = Profile.of(seer, old, None, rng())
    return measure.score(seer, Source(profile, None if card else old), Target(new), rng(seed))


# ------------------------------------------------------------------------------------------- ARM


@given(seeds, st.integers(2, 40), st.integers(2, 40), st.integers(1, 4))
def test_w1_is_scipys_for_samples_of_any_sizes(seed: int, n: int, m: int, filters: int) -> None:
    old, new = rng(seed).normal(size=(n, filters)), rng(seed + 1).normal(1, 2, size=(m, filters))
    expected = [wasserstein_distance(a, b) for a, b in zip(old.T, new.T, strict=True)]
    np.testing.assert_allclose(w1(np.sort(old, 0), np.sort(new, 0)), expected, rtol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("card", [False, True])
def test_arm_of_the_same_data_is_zero(variant: str, card: bool) -> None:
    if not card or variant in ("exact", "raw"):
        data = cases(50, 3)
        assert judge(Arm(variant), data, data[::-1].copy(), card).value == 0


@given(seeds, st.sampled_from(VARIANTS), st.integers(5, 30))
@settings(max_examples=40)
def test_arm_is_no_less_than_zero_and_blind_to_the_order_of_filters(
    seed: int, variant: str, count: int
) -> None:
    old, new = cases(20, 4, seed), 2 * cases(count, 4, seed + 1)
    found, order = judge(Arm(variant), old, new).value, rng(seed).permutation(4)
    assert found >= 0
    assert judge(Arm(variant), old[:, order], new[:, order]).value == pytest.approx(found)


@given(seeds, st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=40)
def test_exact_arm_does_not_change_when_a_filter_is_rescaled_or_moved(
    seed: int, scale: float, offset: float
) -> None:
    old, new = cases(30, 2, seed), 1.5 * cases(25, 2, seed + 1)
    turned = [np.float32(-scale) * a + np.float32(offset) for a in (old, new)]
    mixed = [np.stack([t[:, 0], a[:, 1]], axis=1) for t, a in zip(turned, (old, new), strict=True)]
    expected = judge(Arm(), old, new).value
    assert judge(Arm(), *mixed).value == pytest.approx(expected, rel=1e-4)


@given(seeds)
@settings(max_examples=40)
def test_raw_arm_obeys_the_triangle_inequality(seed: int) -> None:
    a, b, c = (s * cases(n, 3, seed + n) for n, s in ((20, 1), (13, 2), (17, 0.5)))

    def distance(one: Array, two: Array) -> float:
        return judge(Arm("raw"), one, two).value

    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-6


@pytest.mark.parametrize("card", [False, True])
@pytest.mark.parametrize("shift", [-3.0, 0.25, 40.0])
def test_exact_arm_of_a_pure_shift_is_the_shift_in_deviations(shift: float, card: bool) -> None:
    old = cases(200, 1)
    found = judge(Arm(), old, old + np.float32(shift), card)
    assert found.value == pytest.approx(abs(shift) / old.std(), rel=1e-4)
    assert judge(Arm("raw"), old, old + np.float32(shift), card).value == pytest.approx(
        abs(shift), rel=1e-4
    )


def test_the_literal_variant_has_the_faults_of_the_published_code() -> None:
    heights = np.array([0.5, 0.3, 0.15, 0.05])
    assert of_heights(heights, heights[::-1]) == 0
    assert of_heights(heights, heights) == 0
    old = rng().exponential(size=(400, 3)).astype(np.float32)
    for changed in (old + 5, 10 * old):
        assert judge(Arm("literal"), old, changed).value == pytest.approx(0, abs=1e-3)
        assert judge(Arm("raw"), old, changed).value > 4
    assert judge(Arm("literal"), old, -old).value == pytest.approx(0, abs=1e-3)
    assert judge(Arm(), old, -old).value > 1


def test_the_literal_variant_is_scipys_distance_of_heights() -> None:
    old, new = cases(90, 1), rng(3).exponential(size=(70, 1)).astype(np.float32)
    p, q = (np.histogram(a[:, 0].astype(float), 16)[0] / len(a) for a in (old, new))
    assert judge(Arm("literal", 16), old, new).value == pytest.approx(wasserstein_distance(p, q))


def test_the_histogram_variant_is_scipys_earth_mover_over_bin_positions() -> None:
    old, new = cases(90, 1), 2 * cases(70, 1, 8)
    ends = min(old.min(), new.min()), max(old.max(), new.max())
    p, q = (np.histogram(a, 16, ends)[0] for a in (old, new))
    places = (np.arange(16) + 0.5) / 16
    expected = wasserstein_distance(places, places, p, q)
    assert judge(Arm("hist", 16), old, new).value == pytest.approx(expected, abs=2e-3)


def test_arm_is_the_mean_over_layers_and_says_each() -> None:
    model = Mlp((6, 3)).build(5, 2, 0)
    found = judge(Arm(), cases(40, 5), 2 * cases(30, 5, 1), model=model)
    assert list(found.layers) == ["0", "2"]
    assert found.value == pytest.approx(np.mean(list(found.layers.values())))
    assert (found.measure, found.higher_is_better, found.needs_labels) == ("arm", False, False)


def test_filters_that_are_constant_on_the_source_are_left_out() -> None:
    old, new = cases(40, 2), cases(40, 2, 1)
    dead = [np.stack([a[:, 0], np.full(40, v, np.float32)], 1) for a, v in ((old, 3), (new, 4))]
    for card in (False, True):
        alone = judge(Arm(), old[:, :1], new[:, :1], card, plain(1, 1)).value
        assert judge(Arm(), *dead, card, plain(2, 1)).value == pytest.approx(alone, rel=1e-5)
    still = np.ones((40, 2), np.float32)
    with pytest.raises(FedpactError, match=r"Every filter .* variant=raw"):
        judge(Arm(), still, old)
    assert judge(Arm("raw"), still, still + 1).value == pytest.approx(1)


@pytest.mark.parametrize("card", [False, True])
@pytest.mark.parametrize(("n", "m"), [(400, 400), (400, 60), (60, 400)])
def test_the_floor_is_what_new_cases_of_the_source_give(n: int, m: int, card: bool) -> None:
    clean, floors = [], []
    for seed in range(60):
        old, new = cases(n, 4, 2 * seed), cases(m, 4, 2 * seed + 1)
        found = judge(Arm(draws=8), old, new, card, seed=seed)
        clean.append(found.value)
        floors.append(found.floor)
    assert np.mean(floors) == pytest.approx(np.mean(clean), rel=0.1)
    assert judge(Arm(draws=0), old, new, card).floor is None


# ------------------------------------------------------------------------------- digits, and cards


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Any, Any]:
    """A trained network with the source's digits, and others."""
    split = Digits(0, 1, test_share=0.5).split(0)
    model = Cnn((8, 16)).build(64, 10, 0)
    Training(8, 32, 0.05).fit(model, split.training.features, split.training.labels, 0)
    return model, split.training, split.held_out


def test_arm_grows_with_noise_on_a_trained_network(digits: tuple[nn.Module, Any, Any]) -> None:
    model, old, new = digits
    card = Profile.of(model, old.features, old.labels, rng())
    for source in (Source(card, old.features), Source(card)):
        said = [
            Arm().score(
                model, source, Target(Noise(v).apply(new.features, new.ids, 1, 2, 0)), rng()
            )
            for v in (0.0, 0.1, 0.2, 0.4, 0.8)
        ]
        values = [s.value for s in said]
        assert values == sorted(values)
        assert said[0].floor is not None
        assert values[0] == pytest.approx(said[0].floor, rel=0.35)
        assert values[1] > 1.2 * said[0].floor


def test_a_card_of_nine_quantiles_gives_arm_within_two_percent(
    digits: tuple[nn.Module, Any, Any],
) -> None:
    model, old, new = digits
    card = Profile.of(model, old.features, old.labels, rng())
    for shift in (Noise(0.2), Noise(0.5), Rotation(15.0), Rotation(45.0), Rotation(90.0)):
        target = Target(shift.apply(new.features, new.ids, 1, 2, 0))
        for measure in (Arm(), Arm("raw")):
            exact = measure.score(model, Source(card, old.features), target, rng())
            told = measure.score(model, Source(card), target, rng())
            assert told.value == pytest.approx(exact.value, rel=0.02)
            assert list(told.layers) == list(exact.layers)


def test_a_card_comes_back_as_it_was_with_its_layers_in_order(tmp_path: Path) -> None:
    model = nn.Sequential()
    for name, layer in (("z", nn.Linear(5, 4)), ("b", nn.Linear(4, 3)), ("a", nn.Linear(3, 2))):
        model.add_module(name, layer)
    card = Profile.of(model, cases(30, 5), rng().integers(0, 2, 30), rng())
    card.save(tmp_path / "card.safetensors")
    again = Profile.load(tmp_path / "card.safetensors")
    assert list(again.quantiles) == list(again.deviations) == ["z", "b"]
    assert (again.cases, again.size) == (30, (tmp_path / "card.safetensors").stat().st_size)
    for name, array in card.to_arrays().items():
        np.testing.assert_array_equal(again.to_arrays()[name], array)


def test_a_card_tells_what_the_last_hidden_layer_does_and_no_extreme_case() -> None:
    data, labels = cases(400, 3), rng(2).integers(0, 3, 400)
    card = Profile.of(plain(3), data, labels, rng())
    assert card.mean is not None
    assert card.class_sums is not None
    np.testing.assert_allclose(card.mean, data.mean(0), atol=1e-6)
    np.testing.assert_allclose(card.covariance, np.cov(data, rowvar=False), atol=1e-5)
    np.testing.assert_allclose(card.class_sums[1], data[labels == 1].sum(0), atol=1e-4)
    np.testing.assert_allclose(card.deviations["0"], data.std(0), rtol=1e-5)
    told = np.quantile(data.astype(float), LEVELS, axis=0, method="hazen")
    np.testing.assert_allclose(card.quantiles["0"], told, atol=1e-5)
    assert np.all(card.quantiles["0"][-1] < np.sort(data, axis=0)[-3])
    assert SHARES.sum() == pytest.approx(1)


def changed(**arrays: Any) -> dict[str, Array]:
    """A sound card's arrays with some replaced, or left out where None."""
    sound = Profile.of(plain(3), cases(20, 3), np.arange(20) % 3, rng()).to_arrays()
    return {k: v for k, v in {**sound, **arrays}.items() if v is not None}


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"cases": None}, "lacks `cases`"),
        ({"cases": np.array([0])}, "cases is 0"),
        ({"cases": np.array([1.5])}, "one whole number"),
        ({"levels": LEVELS[::-1].copy()}, "other levels"),
        ({"extra": np.zeros(1)}, "'extra', which no card has"),
        ({"quantiles/000/0": None}, r"quantiles are of \[\]|there is no layer"),
        ({"quantiles/000/0": np.zeros((8, 3), np.float32)}, r"legal is \(9, filters\)"),
        ({"quantiles/000/0": np.full((9, 3), np.nan, np.float32)}, "not finite"),
        ({"quantiles/000/0": np.zeros((9, 3), np.int64)}, "floats"),
        ({"quantiles/000/0": -np.arange(27.0).reshape(9, 3)}, "decrease"),
        ({"deviations/000/0": np.zeros(4, np.float32)}, r"of the shape \(3,\)"),
        ({"deviations/000/0": -np.ones(3, np.float32)}, "below 0"),
        ({"mean": np.zeros(4)}, r"mean is not .* \(3,\)"),
        ({"covariance": np.zeros((3, 4))}, r"covariance is not .* \(3, 3\)"),
        ({"class_sums": np.zeros((2, 4))}, r"mean is not .* \(4,\)"),
        ({"class_sums": np.array(3.0)}, "mean is not"),
    ],
)
def test_a_card_that_does_not_fit_together_is_refused(arrays: dict[str, Any], problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        Profile.from_bytes(save({k: np.ascontiguousarray(v) for k, v in changed(**arrays).items()}))


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"quantiles/000/0": np.array(1.0, np.float32)}, r"have the shape \(\); legal is"),
        ({"deviations/000/0": np.array(1.0)}, r"deviations of '0' is not .* \(3,\)"),
        ({"class_sums": np.array(1.0), "mean": None, "covariance": None}, "class_sums is not"),
        ({"covariance": np.array(1.0), "mean": None, "class_sums": None}, "covariance is not"),
        ({"levels": LEVELS.astype("S4")}, "other levels"),
        ({"quantiles/000/0": np.full((9, 3), 1e31)}, r"beyond 1e\+30"),
    ],
)
def test_a_card_of_no_dimension_of_words_or_of_huge_numbers_is_refused(
    arrays: dict[str, Any], problem: str
) -> None:
    with pytest.raises(FedpactError, match=problem):
        Profile.from_arrays(changed(**arrays))


def test_a_card_that_makes_its_deviations_up_cannot_drive_arm_beyond_all_bounds() -> None:
    nothing = {"quantiles/000/0": np.zeros((9, 3), np.float32)}
    nothing["deviations/000/0"] = np.full(3, 1e-30, np.float32)
    card = Profile.from_arrays(changed(**nothing, cases=np.array([2**62])))
    found = Arm().score(plain(3), Source(card), Target(cases(20, 3)), rng())
    assert 1 < found.value <= 2e6
    assert found.floor == 0


def test_bytes_that_are_no_card_are_refused(tmp_path: Path) -> None:
    sound = Profile.from_arrays(changed()).to_bytes()
    for content in (b"", b"no card", sound[:-3], sound[5:]):
        with pytest.raises(FedpactError, match="no profile card"):
            Profile.from_bytes(content)
    with pytest.raises(FedpactError, match="cannot be read"):
        Profile.load(tmp_path / "absent")


# ---------------------------------------------------------------------------------- brute force


def embedding(count: int = 60, width: int = 4, classes: int = 3) -> tuple[Array, Array]:
    labels = rng(1).integers(0, classes, count)
    return rng(2).normal(size=(count, width)) + np.eye(classes, width)[labels], labels


def test_leep_is_the_mean_log_likelihood_of_its_definition() -> None:
    probs = rng().dirichlet(np.ones(5), 30)
    labels = rng(1).integers(0, 3, 30)
    total = 0.0
    for i in range(30):
        likelihood = 0.0
        for z in range(5):
            mine = probs[labels == labels[i], z].sum()
            likelihood += probs[i, z] * mine / probs[:, z].sum()
        total += np.log(likelihood)
    assert leep(probs, labels) == pytest.approx(total / 30)
    assert leep(probs, 7 * labels + 2) == pytest.approx(total / 30)


@pytest.mark.parametrize(("count", "width"), [(40, 3), (12, 20)])
def test_logme_is_the_greatest_evidence_of_a_linear_model(count: int, width: int) -> None:
    features, labels = embedding(count, width)
    found = []
    for c in range(3):
        y = (labels == c).astype(float)

        def minus(logs: Array, y: Array = y) -> float:
            alpha, beta = np.exp(np.clip(logs, -15, 15))
            covariance = features @ features.T / alpha + np.eye(count) / beta
            return -float(multivariate_normal(np.zeros(count), covariance).logpdf(y))

        starts = [np.array([a, b]) for a in (0.0, 3.0) for b in (0.0, 3.0)]
        found.append(-min(minimize(minus, s, method="Nelder-Mead").fun for s in starts) / count)
    assert logme(features, labels) == pytest.approx(np.mean(found), abs=2e-3)


@pytest.mark.parametrize(("count", "width"), [(60, 4), (8, 12)])
def test_hscore_is_the_trace_of_its_definition(count: int, width: int) -> None:
    features, labels = embedding(count, width)
    means = np.stack([features[labels == c].mean(0) for c in labels])
    inverse = np.linalg.pinv(np.cov(features, rowvar=False), rcond=1e-10, hermitian=True)
    expected = np.trace(inverse @ np.cov(means, rowvar=False))
    assert hscore(features, labels) == pytest.approx(expected)
    turned = features @ rng(9).normal(size=(width, width)) + 3
    assert hscore(turned, labels) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("count", "width"), [(60, 4), (8, 12)])
def test_transrate_is_the_difference_of_log_determinants(count: int, width: int) -> None:
    features, labels = embedding(count, width)
    centred = features - features.mean(0)

    def rate(z: Array) -> float:
        matrix = np.eye(width) + z.T @ z / (len(z) * 1e-4)
        return float(np.linalg.slogdet(matrix)[1] / 2)

    expected = rate(centred) - np.mean([rate(centred[labels == c]) for c in range(3)])
    assert transrate(features, labels, 1e-4) == pytest.approx(expected)


def test_frechet_is_that_of_the_square_root_of_a_product() -> None:
    one, two = embedding()[0], 2 * embedding(50)[0] + 1
    a, b = (np.cov(x, rowvar=False) for x in (one, two))
    root = np.real(sqrtm(a @ b))
    expected = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)
    assert frechet(one.mean(0), a, two.mean(0), b) == pytest.approx(expected)
    assert frechet(one.mean(0), a, one.mean(0), a) == pytest.approx(0, abs=1e-9)
    data = cases(50, 3)
    assert judge(Frechet(), data, data).value == pytest.approx(0, abs=1e-5)
    assert judge(Frechet(), data, data + 2).value == pytest.approx(12, abs=1e-4)


def test_cka_is_that_of_centred_gram_matrices() -> None:
    features, labels = embedding()
    hot = np.eye(3)[labels]
    centre = np.eye(60) - 1 / 60
    k, m = (centre @ x @ x.T @ centre for x in (features, hot))
    expected = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert cka(features, hot) == pytest.approx(expected)
    assert cka(hot, hot) == pytest.approx(1)


def test_the_linear_probe_leaves_out_one_example_after_the_other() -> None:
    features, labels = embedding(25, 3)
    wrong = 0
    scaled = (features - features.mean(0)) / features.std(0)
    design = np.column_stack([np.ones(25), scaled])
    penalty = 0.01 * 25 * np.diag([0.0, 1, 1, 1])
    for i in range(25):
        rest = np.arange(25) != i
        weights = np.linalg.solve(
            design[rest].T @ design[rest] + penalty, design[rest].T @ np.eye(3)[labels[rest]]
        )
        wrong += (design[i] @ weights).argmax() != labels[i]
    assert 0 < wrong < 25
    assert probe_error(features, labels, 0.01) == pytest.approx(wrong / 25)


def test_a_linear_probe_of_columns_that_never_vary_answers_the_commonest_class() -> None:
    labels = np.arange(20) % 2
    assert probe_error(np.ones((20, 4)), labels, 0.01) == 0.5
    assert probe_error(np.zeros((20, 4)), np.where(np.arange(20) < 5, 1, 0), 0.01) == 0.25


def test_resque_is_the_angle_between_the_sums_of_a_class() -> None:
    old = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    new = np.array([[1, 1], [0, 1]], np.float32)
    model = plain(2, 2)
    source = Source(Profile.of(model, old, np.array([0, 0, 1]), rng()))
    found = Resque().score(model, source, Target(new, np.array([0, 1])), rng())
    assert found.value == pytest.approx((0.25 + 0.0) / 2, abs=1e-7)
    only = Resque().score(model, source, Target(new[:1], np.array([0])), rng())
    assert only.value == pytest.approx(0.25, abs=1e-7)


def test_zero_shot_counts_wrong_answers_and_their_surprise() -> None:
    model, logits = plain(3), cases(40, 3)
    labels = rng(4).integers(0, 3, 40)
    source = Source(Profile.of(model, logits, labels, rng()))
    error, surprise = (
        ZeroShot(loss).score(model, source, Target(logits, labels), rng()).value
        for loss in ("error", "cross_entropy")
    )
    assert error == np.mean(logits.argmax(1) != labels)
    expected = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert surprise == pytest.approx(float(expected), rel=1e-6)


def test_preindex_is_the_literal_distance_of_each_example_and_one_minus_ari() -> None:
    old, labels = cases(12, 9), np.arange(12) % 3
    new = (1.2 * old**2).astype(np.float32)
    model = plain(9)
    source = Source(Profile.of(model, old, labels, rng()), old, labels)
    target = Target(new, labels)
    expected = np.mean(
        [
            wasserstein_distance(*(np.histogram(x.astype(float), 8)[0] / 9 for x in pair))
            for pair in zip(old, new, strict=True)
        ]
    )
    p = PreIndex(combined=False, bins=8).score(model, source, target, rng()).value
    assert p == pytest.approx(expected)
    apart = inv_ari(new.astype(float), labels)
    assert apart > 0
    both = PreIndex(bins=8).score(model, source, target, rng()).value
    assert both == pytest.approx(p + apart)
    bent = PreIndex(bins=8, s=0.5, s_bar=0.1).score(model, source, target, rng()).value
    assert bent == pytest.approx((p + apart) / (1 + (p + apart) / 2) - 0.1)
    told, _ = embedding(30)
    clear = 100 * np.eye(3, 4)[np.arange(30) % 3] + told
    assert inv_ari(clear, np.arange(30) % 3) == 0


# --------------------------------------------------------------------------- degenerate data


AWKWARD: dict[str, tuple[Array, Array]] = {
    "fewer cases than filters": (cases(4, 6), np.array([0, 1, 2, 0])),
    "one case": (cases(1, 6), np.array([1])),
    "one class": (cases(20, 6), np.full(20, 2)),
    "an absent class": (cases(20, 6), np.arange(20) % 2 * 2),
    "lower rank": (np.repeat(cases(20, 3), 2, axis=1), np.arange(20) % 3),
    "constant filters": (np.tile(np.float32([1, 0, 2, 0, 5, 1]), (20, 1)), np.arange(20) % 3),
    "zero": (np.zeros((20, 6), np.float32), np.arange(20) % 3),
    "huge": (np.float32(1e6) * cases(20, 6), np.arange(20) % 3),
}


@every
@pytest.mark.parametrize("kind", AWKWARD)
def test_degenerate_data_give_a_finite_number(measure: ReuseMeasure, kind: str) -> None:
    features, labels = AWKWARD[kind]
    model, old, told = plain(6), cases(30, 6, 3), np.arange(30) % 3
    known = (features * 0.9, labels) if isinstance(measure, PreIndex) else (old, told)
    source = Source(Profile.of(model, old, told, rng()), *known)
    found = measure.score(model, source, Target(features, labels), rng())
    assert np.isfinite(found.value)
    if isinstance(measure, HScore | Cka | LinearProbe | Resque):
        assert -1e-9 <= found.value <= 3


@every
def test_a_source_of_one_case_or_class_gives_a_finite_number(measure: ReuseMeasure) -> None:
    model, new = plain(6), cases(20, 6)
    old = new * np.float32(1.1)
    source = Source(Profile.of(model, old, np.ones(20, int), rng()), old)
    assert np.isfinite(measure.score(model, source, Target(new, np.arange(20) % 3), rng()).value)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_that_puts_out_no_numbers_is_refused(measure: ReuseMeasure, bad: float) -> None:
    model, old, labels = plain(6), cases(20, 6), np.arange(20) % 3
    source = Source(Profile.of(model, old, labels, rng()), old, labels)
    with torch.no_grad():
        model[0].weight[0, 0] = bad  # type: ignore[index, operator]
    with pytest.raises(FedpactError, match=r"is not finite in 20 of 20 cases; legal are numbers"):
        measure.score(model, source, Target(old, labels), rng())


def test_a_measure_that_is_no_finite_number_is_refused() -> None:
    told = source_of(DATA, mean=np.array([1e30, 0, 0]), covariance=1e30 * np.eye(3))
    assert np.isfinite(Frechet().score(plain(3), told, LABELLED, rng()).value)
    data = np.float32(3e38) * np.sign(DATA)
    refused = pytest.raises(FedpactError, match=r"arm_raw is inf for this model; legal is a finite")
    with refused, np.errstate(over="ignore"):
        Arm("raw").score(plain(3), Source(source_of(DATA).profile, data), Target(-data), rng())


# ------------------------------------------------------------------------------------ looking


class Recurrent(nn.Module):
    """One linear layer that is used twice, then a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(torch.tanh(self.turn(torch.tanh(self.turn(x))))))


class Flattened(nn.Module):
    """Tokens (n, length, 3) in one long row, so that its layer cannot tell the cases apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x.reshape(-1, 3)).reshape(len(x), -1, 5)
        return torch.as_tensor(self.head(tokens.mean(1)))


class Sequence(nn.Module):
    """Tokens (n, length, 3), a linear layer on each, their mean, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(torch.relu(self.embed(x)).mean(1)))


def convolutions(kind: type[nn.Module], flat: int) -> nn.Module:
    return nn.Sequential(
        kind(2, 3, 3),
        nn.BatchNorm1d(3) if kind is nn.Conv1d else nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(flat, 2),
    )


MODELS: dict[str, tuple[nn.Module, tuple[int, ...], dict[str, int]]] = {
    "linear": (Mlp((6, 3)).build(4, 2, 0), (4,), {"0": 6, "2": 3}),
    "one dimension": (convolutions(nn.Conv1d, 12), (2, 6), {"0": 3}),
    "two dimensions": (convolutions(nn.Conv2d, 48), (2, 6, 6), {"0": 3}),
    "used twice": (Recurrent(), (4,), {"turn": 4, "turn#2": 4}),
    "sequence": (Sequence(), (7, 3), {"embed": 5}),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_layer_gives_a_number_a_filter_and_case(kind: str) -> None:
    model, shape, layers = MODELS[kind]
    features = rng().normal(size=(23, *shape)).astype(np.float32)
    model.train()
    seen = look(model, features, rng(), batch=256)
    assert {k: v.shape for k, v in seen.layers.items()} == {k: (23, w) for k, w in layers.items()}
    assert model.training
    for batch in (1, 7, 23):
        again = look(model, features, rng(), batch=batch)
        np.testing.assert_allclose(again.logits, seen.logits, atol=1e-5)
        for layer, values in seen.layers.items():
            np.testing.assert_allclose(again.layers[layer], values, atol=1e-6)


def test_places_are_averaged_before_normalization_and_activation() -> None:
    model, _, _ = MODELS["two dimensions"]
    images = rng().normal(size=(9, 2, 6, 6)).astype(np.float32)
    with torch.no_grad():
        expected = model[0](torch.from_numpy(images)).mean((2, 3)).numpy()  # type: ignore[index]
    np.testing.assert_allclose(look(model, images, rng()).layers["0"], expected, atol=1e-6)
    tokens, (sequence, _, _) = cases(10, 21).reshape(10, 7, 3), MODELS["sequence"]
    with torch.no_grad():
        expected = sequence.embed(torch.from_numpy(tokens)).mean(1).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(look(sequence, tokens, rng()).layers["embed"], expected, atol=1e-6)


def test_the_embedding_is_what_the_classifier_takes_in() -> None:
    for kind, (model, shape, _) in MODELS.items():
        features = rng().normal(size=(23, *shape)).astype(np.float32)
        seen = look(model, features, rng(), batch=5)
        head = model.head if hasattr(model, "head") else model[-1]  # type: ignore[index]
        logits = seen.embedding @ head.weight.detach().numpy().T + head.bias.detach().numpy()
        np.testing.assert_allclose(logits, seen.logits, atol=1e-5, err_msg=kind)
    assert look(plain(3), cases(5, 3), rng(), hidden=False).embedding.shape == (5, 0)


def test_of_many_cases_some_are_drawn_and_their_labels_go_with_them() -> None:
    data, labels = cases(100, 3), np.arange(100)
    seen = look(plain(3), data, rng(), most=30)
    np.testing.assert_allclose(seen.layers["0"], data[seen.rows], atol=1e-6)
    assert len(np.unique(seen.rows)) == 30
    assert labels[seen.rows].tolist() == sorted(seen.rows.tolist())


# ---------------------------------------------------------------------------- what is refused


def source_of(features: Array, **without: Any) -> Source:
    labels = np.arange(len(features)) % 3
    return Source(replace(Profile.of(plain(3), features, labels, rng()), **without))


DATA = cases(20, 3)
LABELLED = Target(DATA, np.arange(20) % 3)


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda: Arm("excat"), r"measure.variant is 'excat'; legal are exact, raw.* Set"),
        (lambda: Arm(bins=1), r"measure.bins is 1; .* Set"),
        (lambda: Arm(draws=-1), r"measure.draws is -1; .* Set"),
        (lambda: ZeroShot("brier"), r"measure.loss is 'brier'; legal are error, cross_entropy"),
        (lambda: TransRate(0.0), r"measure.eps is 0.0; legal is a number > 0"),
        (lambda: LinearProbe(float("nan")), "measure.ridge is nan"),
        (lambda: PreIndex(combined=1), "legal are true and false"),  # type: ignore[arg-type]
        (lambda: PreIndex(s=-1.0), r"measure.s is -1.0; legal is a number >= 0"),
        (lambda: PreIndex(bins=True), "measure.bins is True"),
        (
            lambda: Arm("hist").score(plain(3), source_of(DATA), LABELLED, rng()),
            r"variant=hist compares samples.* Use variant=exact",
        ),
        (
            lambda: PreIndex().score(plain(3), source_of(DATA), LABELLED, rng()),
            r"gives none for the target's 20\. Give paired ones, or use arm",
        ),
        (
            lambda: Arm().score(plain(2, 2), source_of(DATA), Target(cases(5, 2)), rng()),
            "The profile card is of layers",
        ),
        (
            lambda: Resque().score(plain(3), source_of(DATA, class_sums=None), LABELLED, rng()),
            "card withholds",
        ),
        (
            lambda: Frechet().score(plain(3), source_of(DATA, covariance=None), LABELLED, rng()),
            "card withholds",
        ),
        (
            lambda: Resque().score(plain(3), source_of(DATA), Target(DATA, np.full(20, 9)), rng()),
            "no class in common",
        ),
        (
            lambda: ZeroShot().score(
                plain(3), source_of(DATA), Target(DATA, np.full(20, 3)), rng()
            ),
            r"Labels run from 3 to 3; legal are 0 to 2",
        ),
        (
            lambda: Resque().score(plain(3), source_of(DATA), Target(DATA), rng()),
            r"resque needs labels, and the target has none\. Give labels",
        ),
        (
            lambda: Arm().score(nn.Linear(3, 3), source_of(DATA), LABELLED, rng()),
            "no Conv or Linear layer before its classifier",
        ),
        (
            lambda: look(Flattened(), DATA.reshape(20, 1, 3).repeat(4, 1), rng()),
            r"The layer 'embed' puts out 80 rows for 20 cases; legal is one a case\. Keep",
        ),
        (lambda: Source(source_of(DATA).profile, None, np.arange(3)), "3 labels for 0 examples"),
        (lambda: Target(np.zeros((0, 3), np.float32)), "at least one example"),
        (lambda: Target(DATA, np.arange(4)), "4 labels for 20 examples"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_what_can(ask: Any, problem: str) -> None:
    with pytest.raises(FedpactError, match=problem):
        ask()


def test_a_model_without_hidden_layers_is_judged_by_its_answers() -> None:
    model = nn.Linear(3, 3)
    for measure in (ZeroShot(), Leep()):
        assert np.isfinite(measure.score(model, source_of(DATA), LABELLED, rng()).value)
