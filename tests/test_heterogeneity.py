"""Who holds which images and how they look to whom: partitions, shifts, pools, and their CNN."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from parties.backbones.cnn import Cnn
from parties.backbones.mlp import Mlp
from parties.datasets.digits import Digits
from parties.datasets.fashion_mnist import FILES, FOLDER, FashionMnist
from parties.datasets.kept import SPLITS
from parties.datasets.pool import PoolPart
from parties.exchange import Array, FedpactError, Weights
from parties.firm import Firm
from parties.partitions import Partition, divide_alike
from parties.partitions.classes_each import ClassesEach
from parties.partitions.dirichlet import Dirichlet
from parties.partitions.iid import Iid
from parties.partitions.quantity import Quantity
from parties.shifts import Shift
from parties.shifts.blur import Blur
from parties.shifts.contrast import Contrast
from parties.shifts.noise import Noise
from parties.shifts.none import NoShift
from parties.shifts.rotation import Rotation
from parties.shifts.style import Style
from parties.training import Training, load_weights, weights_of
from server.strategies import State
from server.strategies.fedavg import FedAvg
from simulations.build import build
from tests.checks import check_dataset, plain, write_fashion

PARTITIONS = (Iid(), Dirichlet(0.1), Quantity(), ClassesEach(2))
SHIFTS = (NoShift(), Rotation(), Noise(), Style(inverted=0.3), Blur(), Contrast())
by_name = pytest.mark.parametrize("partition", PARTITIONS, ids=lambda p: type(p).__name__)


def mixes(labels: Array, parts: tuple[Array, ...], classes: int = 10) -> Array:
    """Class counts (firms, classes)."""
    return np.stack([np.bincount(labels[p], minlength=classes) for p in parts])


def entropy(counts: Array) -> float:
    """Mean entropy of the firms' mixes of classes, in nats; log(classes) for firms alike."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1).mean())


LABELS = np.repeat(np.arange(10), 140)

# ------------------------------------------------------------------------------------ partitions


@st.composite
def divisions(draw: st.DrawFn) -> tuple[Partition, Array, int, int]:
    classes, clients = draw(st.integers(2, 10)), draw(st.integers(1, 8))
    sizes = draw(st.lists(st.integers(30, 90), min_size=classes, max_size=classes))
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(classes), sizes))
    few = -(-classes // clients)
    partition = draw(
        st.one_of(
            st.just(Iid(1)),
            st.builds(Dirichlet, st.floats(0.2, 1e4), st.just(1)),
            st.builds(Quantity, st.floats(0, 1.5), st.just(1)),
            st.builds(ClassesEach, st.integers(few, classes), st.just(1)),
        )
    )
    return partition, labels, clients, draw(st.integers(0, 2**31))


@given(divisions())
@settings(max_examples=60, deadline=None)
def test_every_example_is_given_exactly_once_and_the_seed_decides_to_whom(
    division: tuple[Partition, Array, int, int],
) -> None:
    partition, labels, clients, seed = division
    parts = partition.divide(labels, clients, seed)
    assert len(parts) == clients
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert min(map(len, parts)) >= partition.least
    for part, again in zip(parts, partition.divide(labels, clients, seed), strict=True):
        np.testing.assert_array_equal(part, again)
    if clients > 1:
        # Two firms with one class each have two divisions only: some other seed gives the other.
        others = (partition.divide(labels, clients, seed + n) for n in range(1, 40))
        assert any(
            not np.array_equal(a, b) for other in others for a, b in zip(parts, other, strict=True)
        )


@given(divisions(), st.integers(20, 300))
@settings(max_examples=60, deadline=None)
def test_other_examples_are_divided_in_the_same_proportions(
    division: tuple[Partition, Array, int, int], count: int
) -> None:
    partition, labels, clients, seed = division
    others = np.random.default_rng(1).choice(labels, count)
    classes = int(labels.max()) + 1
    parts = partition.divide(labels, clients, seed)
    alike = divide_alike(labels, parts, others, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(alike)), np.arange(count))
    given_, held = mixes(others, alike, classes), mixes(labels, parts, classes)
    exact = held / held.sum(axis=0) * np.bincount(others, minlength=classes)
    # Rounding is carried from class to class, and nobody gets a class it has not.
    assert np.all(np.abs(given_ - exact) < 2.5)
    assert np.all(np.abs((given_ - exact).sum(axis=1)) < 2.5)
    assert not np.any(given_[held == 0])


def test_a_great_alpha_is_iid_and_a_small_one_is_skewed() -> None:
    found = [
        np.mean([entropy(mixes(LABELS, Dirichlet(a).divide(LABELS, 10, s))) for s in range(5)])
        for a in (0.05, 0.3, 1.0, 10.0, 1e7)
    ]
    assert found == sorted(found)
    assert found[0] < 0.8
    assert found[-1] == pytest.approx(np.log(10), abs=1e-3)
    alike = mixes(LABELS, Dirichlet(1e7).divide(LABELS, 10, 0))
    assert np.all(np.abs(alike - 14) <= 1)


def test_shares_of_a_class_have_the_moments_of_their_dirichlet() -> None:
    """A share of Dir(alpha) over m firms has mean 1/m and variance (m-1) / (m^2 (m alpha + 1))."""
    alpha, firms = 0.5, 5
    rng = np.random.default_rng(0)
    available = np.full(2000, 1_000_000)
    shares = Dirichlet(alpha).counts(available, firms, rng) / 1e6
    np.testing.assert_allclose(shares.mean(axis=1), 1 / firms, atol=0.02)
    variance = (firms - 1) / (firms**2 * (firms * alpha + 1))
    np.testing.assert_allclose(shares.var(axis=1), variance, rtol=0.1)


def test_iid_firms_are_of_equal_size() -> None:
    sizes = [len(p) for p in Iid().divide(LABELS[:-3], 10, 0)]
    assert max(sizes) - min(sizes) <= 1
    assert entropy(mixes(LABELS, Iid().divide(LABELS, 10, 0))) > np.log(10) - 0.1


def test_quantities_are_log_normal_and_their_mixes_alike() -> None:
    assert {len(p) for p in Quantity(0.0).divide(LABELS, 10, 0)} == {140}
    many = np.tile(LABELS, 50)
    parts = Quantity(1.0).divide(many, 200, 0)
    assert np.log([len(p) for p in parts]).std() == pytest.approx(1.0, abs=0.15)
    large = mixes(many, tuple(p for p in parts if len(p) > 500))
    assert entropy(large) > np.log(10) - 0.02


@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_each_firm_has_its_few_classes_and_classes_have_as_many_firms(classes: int) -> None:
    counts = mixes(LABELS, ClassesEach(classes).divide(LABELS, 10, 0))
    assert np.all(np.count_nonzero(counts, axis=1) == classes)
    assert np.all(np.count_nonzero(counts, axis=0) == classes)
    assert np.all(np.abs(counts.sum(axis=1) - 140) <= classes)


# ---------------------------------------------------------------------------------------- shifts


def some_images(side: int = 8, count: int = 6) -> Array:
    return np.random.default_rng(0).random((count, side * side), dtype=np.float32)


@pytest.mark.parametrize("shift", SHIFTS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("side", [8, 28])
def test_a_shift_is_the_same_in_every_call_and_leaves_its_input_alone(
    shift: Shift, side: int
) -> None:
    images = some_images(side)
    before, ids = images.copy(), np.arange(6) + 100
    seen = shift.apply(images, ids, 7, 10, 3)
    assert (seen.shape, seen.dtype) == (images.shape, np.float32)
    np.testing.assert_array_equal(images, before)
    # An example looks the same whatever it is shown with: a part or in another order.
    np.testing.assert_array_equal(seen[[4, 1]], shift.apply(images[[4, 1]], ids[[4, 1]], 7, 10, 3))
    if not isinstance(shift, NoShift):
        assert not np.allclose(seen, shift.apply(images, ids, 6, 10, 3))
        assert not np.allclose(seen, images)


def test_a_quarter_turn_is_anticlockwise_and_a_whole_one_is_none() -> None:
    images, ids = some_images(), np.arange(6)
    quarter = Rotation(30.0).apply(images, ids, 3, 10, 0)
    expected = np.rot90(images.reshape(-1, 8, 8), axes=(1, 2)).reshape(6, -1)
    np.testing.assert_allclose(quarter, expected, atol=1e-5)
    np.testing.assert_array_equal(Rotation(40.0).apply(images, ids, 9, 10, 0), images)
    np.testing.assert_array_equal(Rotation().apply(images, ids, 0, 10, 0), images)


def test_only_square_images_can_be_turned() -> None:
    with pytest.raises(FedpactError, match=r"shift=rotation was given 65 features.*shift=noise"):
        Rotation().apply(np.zeros((2, 65), np.float32), np.arange(2), 1, 2, 0)


def test_noise_grows_from_none_to_its_level() -> None:
    blank, ids = np.zeros((200, 64), np.float32), np.arange(200)
    spreads = [Noise(0.4).apply(blank, ids, i, 5, 0).std() for i in range(5)]
    np.testing.assert_allclose(spreads, [0.0, 0.1, 0.2, 0.3, 0.4], rtol=0.03)
    assert not np.array_equal(*(Noise().apply(blank, ids, 4, 5, seed) for seed in (0, 1)))
    np.testing.assert_array_equal(Noise().apply(blank, ids, 0, 1, 0), blank)


def test_a_style_is_one_gain_and_one_bias_a_firm() -> None:
    images, ids = some_images(), np.arange(6)
    gains = []
    for firm in range(4):
        seen = Style(inverted=0.5).apply(images, ids, firm, 4, 0)
        gain, bias = np.polyfit(images.ravel(), seen.ravel(), 1)
        np.testing.assert_allclose(gain * images + bias, seen, atol=1e-5)
        gains.append(gain)
    assert [g > 0 for g in gains] == [True, True, False, False]
    assert len(set(np.round(np.abs(gains), 6))) == 4
    plain_style = Style(contrast=0, brightness=0, inverted=1).apply(images, ids, 0, 4, 0)
    np.testing.assert_allclose(plain_style, 1 - images, atol=1e-6)


# ----------------------------------------------------------------------------------------- pools


@by_name
def test_ten_firms_hold_all_digits_once_and_are_judged_on_their_own_mix(
    partition: Partition,
) -> None:
    splits = [Digits(i, 10, partition).split(1) for i in range(10)]
    held_out = [s.held_out for s in splits if s.held_out is not None]
    everyone = [e.ids for s in splits for e in (s.training, s.held_out) if e is not None]
    np.testing.assert_array_equal(np.sort(np.concatenate(everyone)), np.arange(1797))
    assert sum(len(h.ids) for h in held_out) == pytest.approx(0.2 * 1797, abs=2)
    for split, judged in zip(splits, held_out, strict=True):
        assert split.training.features.shape[1] == 64
        assert (split.training.features.min(), split.training.features.max()) == (0, 1)
        assert {a.dtype for a in (judged.ids, judged.labels)} == {np.dtype(np.int64)}
        fitted, own = (np.bincount(e.labels, minlength=10) for e in (split.training, judged))
        assert not np.any(own[fitted == 0])
        assert np.all(np.abs(own - fitted / 4) < 2.5)
        assert abs(own.sum() - fitted.sum() / 4) < 2.5


@by_name
def test_a_part_of_the_pool_is_a_sound_data_set(partition: Partition) -> None:
    check_dataset(Digits(3, 7, partition, Noise()))


def test_the_test_part_of_digits_does_not_depend_on_the_partition() -> None:
    tests = [
        np.sort(np.concatenate([held_out_ids(Digits(i, 10, p), 4) for i in range(10)]))
        for p in (Iid(), Dirichlet(0.1))
    ]
    np.testing.assert_array_equal(*tests)


def held_out_ids(dataset: PoolPart, seed: int) -> Array:
    held_out = dataset.split(seed).held_out
    assert held_out is not None
    return held_out.ids


def test_a_blur_spreads_a_dot_as_a_bell_and_keeps_its_light() -> None:
    dot = np.zeros((1, 15, 15), np.float32)
    dot[0, 7, 7] = 1
    seen = Blur(1.5).apply(dot.reshape(1, -1), np.arange(1), 1, 2, 0).reshape(15, 15)
    places = np.arange(15) - 7
    assert seen.sum() == pytest.approx(1, abs=1e-3)
    assert (seen.sum(axis=0) @ places**2) == pytest.approx(1.5**2, rel=0.02)
    np.testing.assert_array_equal(Blur().apply(some_images(), np.arange(6), 0, 9, 0), some_images())


def test_contrast_and_brightness_grow_to_the_last_firms() -> None:
    images, ids = some_images(), np.arange(6)
    shift = Contrast(0.25, 0.4)
    for firm, gain, bias in ((0, 1, 0), (1, 0.5, 0.2), (2, 0.25, 0.4)):
        seen = shift.apply(images, ids, firm, 3, 0)
        np.testing.assert_allclose(seen, 0.5 + gain * (images - 0.5) + bias, atol=1e-6)


def test_training_and_held_out_images_of_a_firm_are_shifted_alike() -> None:
    for shift in (Rotation(), Style(), Noise()):
        seen, straight = (Digits(6, shift=s).split(0) for s in (shift, NoShift()))
        for part in ("training", "held_out"):
            one, other = getattr(seen, part), getattr(straight, part)
            np.testing.assert_array_equal(one.ids, other.ids)
            expected = shift.apply(other.features, other.ids, 6, 10, 0)
            np.testing.assert_array_equal(one.features, expected)


# crc32 of ids and features, training and held out.
GOLDEN = [2311213099, 2975124226, 7738908, 3738834936]


def test_the_parts_are_those_of_every_other_process_and_machine() -> None:
    split = Digits(4, 10, Dirichlet(0.2), Noise()).split(3)
    assert split.held_out is not None
    parts = [a for e in (split.training, split.held_out) for a in (e.ids, e.features)]
    assert [crc32(a.tobytes()) for a in parts] == GOLDEN


def test_a_process_keeps_the_last_division_whole_and_no_copy_of_the_pool_a_firm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SPLITS, "room_mb", 0.1)
    firms = [Digits(i, 10, Dirichlet(0.3)) for i in range(10)]
    splits = [f.split(0) for f in firms]
    assert all(f.split(0) is s for f, s in zip(firms, splits, strict=True))
    again = firms[0].split(1)  # another seed takes the place of the last
    assert firms[0].split(1) is again
    assert firms[0].split(0) is not splits[0]
    monkeypatch.setattr(SPLITS, "room_mb", 64)
    kept = [firms[0].split(seed) for seed in range(3)]
    assert [firms[0].split(seed) for seed in range(3)] == kept
    assert all(s.training.features.base is None for s in splits)
    assert sum(s.training.features.nbytes for s in splits) < 4 * 64 * 1797
    assert len({id(f.pool()) for f in firms}) == 1


# --------------------------------------------------------------------------------- Fashion-MNIST


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_fashion(tmp_path_factory.mktemp("fashion")))


def test_firms_divide_photographs_that_keep_their_own_test_part(fashion: str) -> None:
    firms = [FashionMnist(i, 4, Dirichlet(0.5), folder=fashion) for i in range(4)]
    training = np.concatenate([f.split(0).training.ids for f in firms])
    held_out = np.concatenate([held_out_ids(f, 0) for f in firms])
    np.testing.assert_array_equal(np.sort(training), np.arange(400))
    np.testing.assert_array_equal(np.sort(held_out), np.arange(400, 500))
    check_dataset(firms[1])
    part = firms[2].split(0).training
    assert part.features.shape[1] == 784
    raw = np.frombuffer(firms[2].pool().pixels[part.ids[5]].tobytes(), np.uint8)
    np.testing.assert_allclose(part.features[5], raw / 255, atol=1e-7)


def test_a_limit_uses_the_same_few_photographs_under_every_seed(fashion: str) -> None:
    def ids(seed: int) -> tuple[Array, Array]:
        firms = [FashionMnist(i, 3, folder=fashion, limit=80) for i in range(3)]
        training = np.concatenate([f.split(seed).training.ids for f in firms])
        return np.sort(training), np.sort(np.concatenate([held_out_ids(f, seed) for f in firms]))

    (training, test), (again, test_again) = ids(0), ids(1)
    assert (len(training), len(test)) == (80, 20)
    np.testing.assert_array_equal(training, again)
    np.testing.assert_array_equal(test, test_again)
    with pytest.raises(FedpactError, match=r"limit is 401.*holds 400.*Lower"):
        FashionMnist(0, folder=fashion, limit=401).split(0)


def test_files_may_be_unpacked_and_are_named_with_their_hashes(
    fashion: str, tmp_path: Path
) -> None:
    unpacked = FashionMnist(0, folder=str(write_fashion(tmp_path, packed=False)))
    np.testing.assert_array_equal(
        unpacked.split(0).training.features,
        FashionMnist(0, folder=fashion).split(0).training.features,
    )
    assert set(unpacked.hashes()) == set(FILES)
    assert set(FashionMnist(0, folder=fashion).hashes()) == {f"{name}.gz" for name in FILES}
    assert all(len(h) == 64 for h in unpacked.hashes().values())


def test_absent_files_name_the_package_that_brings_them(tmp_path: Path) -> None:
    dataset = FashionMnist(0, folder=str(tmp_path / "nowhere"))
    assert not dataset.installed
    for ask in (dataset.hashes, lambda: dataset.split(0)):
        with pytest.raises(FedpactError, match=r"nowhere.*apt install dataset-fashion-mnist"):
            ask()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train-images-idx3-ubyte", b"\0\0\x08\x01\0\0\0\x01\0"),  # labels, not images
        ("train-images-idx3-ubyte", b"\0\0\x08\x03\0\0\x01\x90\0\0\0\x1c\0\0\0\x1c\0"),  # cut off
        ("t10k-images-idx3-ubyte", b""),
        ("t10k-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12),  # more than any memory
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\x01" + b"\xff" * 4),
        ("train-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x02\0\x01"),  # too few
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x64" + b"\x0a" * 100),  # an 11th class
    ],
)
def test_a_damaged_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    write_fashion(tmp_path, packed=False)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FedpactError, match=rf"{name}.*legal is.*--reinstall"):
        FashionMnist(0, folder=str(tmp_path)).split(0)


REAL = os.environ.get("FASHION_MNIST", FOLDER)


@pytest.mark.skipif(not FashionMnist(0, folder=REAL).installed, reason="apt package not installed")
def test_the_real_photographs_are_those_of_the_debian_package() -> None:
    firms = [FashionMnist(i, 10, Dirichlet(0.3), folder=REAL, limit=6000) for i in range(10)]
    sizes = [(len(f.split(0).training.ids), len(held_out_ids(f, 0))) for f in firms]
    assert np.sum(sizes, axis=0).tolist() == [6000, 1000]
    assert firms[0].hashes()["t10k-images-idx3-ubyte.gz"].startswith("cc1d090a38ace84d")
    assert np.bincount(firms[0].pool().labels).tolist() == [7000] * 10


# ------------------------------------------------------------------------------------- backbones


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_networks_have_the_published_sizes() -> None:
    assert parameters(Mlp((64,)).build(64, 10, 0)) == 64 * 64 + 64 + 640 + 10
    assert parameters(Mlp((64, 64)).build(64, 10, 0)) == 8970
    assert parameters(Mlp((128,)).build(784, 10, 0)) == 101_770
    assert parameters(Cnn().build(784, 10, 0)) == 4594
    assert parameters(Cnn().build(64, 10, 0)) == 994


def test_batch_statistics_travel_with_the_weights_and_keep_their_type() -> None:
    features = np.concatenate([some_images(8, 40), some_images(8, 40) / 2])
    labels = np.repeat([0, 1], 40)
    module = Cnn(normalization="batch").build(64, 2, 0)
    start = weights_of(module)
    Training(epochs=2, batch_size=16, learning_rate=0.05).fit(module, features, labels, 0)
    end = weights_of(module)
    moved = [k for k in end if "running" in k]
    assert len(moved) == 4
    assert all(not np.array_equal(start[k], end[k]) for k in moved)
    batches = [k for k in end if k.endswith("num_batches_tracked")]
    assert [(int(end[k]), end[k].dtype) for k in batches] == [(10, np.int64)] * 2

    published = FedAvg().combine({"a": Weights(end, 1), "b": Weights(end, 3)}, State()).published
    assert published is not None
    assert {k: v.dtype for k, v in published.arrays.items()} == {k: v.dtype for k, v in end.items()}
    copy = load_weights(Cnn(normalization="batch").build(64, 2, 1), published.arrays)
    training = Training()
    np.testing.assert_allclose(
        training.probabilities(copy, features), training.probabilities(module, features), atol=1e-6
    )


def test_a_convolutional_network_learns_digits_better_than_chance() -> None:
    split = Digits(0, 2).split(0)
    assert split.held_out is not None
    module = Cnn(normalization="batch").build(64, 10, 0)
    training = Training(epochs=5, batch_size=32)
    training.fit(module, split.training.features, split.training.labels, 0)
    probs = training.probabilities(module, split.held_out.features)
    assert np.mean(probs.argmax(1) == split.held_out.labels) > 0.8


# ------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module", params=["ten_digits", "ten_fashion"])
def cast(request: pytest.FixtureRequest) -> dict[str, Any]:
    chosen = ["partition=dirichlet", "partition.alpha=0.1", "shift=rotation"]
    if request.param == "ten_digits":
        chosen += ["parties.firm_0.dataset.test_share=0.3"]
    else:
        chosen += [f"parties.firm_0.dataset.{setting}" for setting in ("limit=600", "folder=/x")]
    found: dict[str, Any] = plain(f"parties={request.param}", *chosen)["parties"]
    return found


def test_partition_shift_and_pool_are_chosen_once_for_all_firms(cast: dict[str, Any]) -> None:
    firms = [build(cast[name]).dataset for name in sorted(cast)]
    shared = {"partition": Dirichlet(0.1), "shift": Rotation()}
    expected: list[PoolPart] = [Digits(i, **shared, test_share=0.3) for i in range(10)]
    if isinstance(firms[0], FashionMnist):
        expected = [FashionMnist(i, **shared, folder="/x", limit=600) for i in range(10)]
    assert firms == expected


def test_the_firms_of_a_cast_differ_by_name_and_place_only(cast: dict[str, Any]) -> None:
    assert list(cast) == [f"firm_{place}" for place in range(10)]
    for place, (name, firm) in enumerate(cast.items()):
        # Where secrets come from is no matter of a study: a desk says so.
        assert set(firm) == {"_target_", *(f.name for f in fields(Firm))} - {"secrets"}
        dataset = {**firm["dataset"], "client": 0}
        assert firm["dataset"]["client"] == place
        assert {**firm, "name": "firm_0", "dataset": dataset} == cast["firm_0"]
        assert firm["name"] == name


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Iid(0), r"partition.least is 0; legal .* Set"),
        (lambda: Dirichlet(0.0), r"partition.alpha is 0.0; legal .* partition=iid"),
        (lambda: Dirichlet(float("nan")), r"partition.alpha is nan"),
        (lambda: Quantity(-1.0), r"partition.spread is -1.0; legal .* Set"),
        (lambda: ClassesEach(0), r"partition.classes is 0; legal .* Set"),
        (lambda: ClassesEach(11).divide(LABELS, 10, 0), "are 1 to 10, .* Change"),
        (lambda: ClassesEach(2).divide(LABELS, 4, 0), "are 3 to 10, .* Change"),
        (lambda: Iid(10).divide(LABELS[:99], 10, 0), r"least is 10, but 99 .* at most 9\. Lower"),
        (lambda: Dirichlet(1e-3, 60).divide(LABELS, 20, 0), r"none of 1,000 draws .* milder"),
        (lambda: Rotation(400.0), r"shift.degrees_step is 400.0; legal .* Set"),
        (lambda: Noise(-0.1), r"shift.level is -0.1; legal .* shift=none"),
        (lambda: Style(inverted=1.5), r"shift.inverted is 1.5; legal .* from 0 to 1\. For"),
        (lambda: Style(contrast="much"), r"shift.contrast is 'much'"),  # type: ignore[arg-type]
        (lambda: Blur(-1.0), r"shift.sigma is -1.0; legal .* shift=none"),
        (lambda: Blur().apply(np.zeros((2, 65), np.float32), np.arange(2), 1, 2, 0), "given 65"),
        (lambda: Contrast(0), r"shift.gain is 0; legal .* from 0.001 .* shift.gain=1"),
        (lambda: Contrast(brightness=9), r"shift.brightness is 9; legal .* shift.brightness=0"),
        (lambda: Digits(10), r"dataset.client is 10; legal is a whole number from 0 to 9"),
        (lambda: Digits(0, 0), r"dataset.client is 0|dataset.clients is 0"),
        (lambda: Digits(True), r"dataset.client is True"),
        (lambda: Digits(0, test_share=1.0), r"dataset.test_share is 1.0; legal .* Set"),
        (
            lambda: Digits(0, 40, Quantity(2.0, 1)).split(0),
            r"no held-out one: .* Raise partition.least",
        ),
        (lambda: FashionMnist(0, limit=-1), r"dataset.limit is -1; legal .* Set"),
        (lambda: Cnn(()), r"backbone.channels is \[\]; .* backbone=logistic"),
        (lambda: Cnn((8, 0)), r"backbone.channels is \[8, 0\]"),
        (lambda: Cnn(normalization="layer"), r"'layer'; legal are none, batch\. Set"),
        (lambda: Cnn().build(65, 10, 0), r"given 65 features; legal .* backbone=mlp"),
        (lambda: Cnn((4, 4, 4, 4)).build(64, 10, 0), r"16x16 pixels or more\. Use"),
    ],
)
def test_an_impossible_heterogeneity_is_refused_with_what_is_legal(
    make: Callable[[], object], problem: str
) -> None:
    with pytest.raises(FedpactError, match=problem):
        make()


def test_firms_of_one_pool_are_equal_but_for_their_place() -> None:
    assert replace(Digits(3), client=0) == Digits(0)
    assert Digits(0) != Digits(0, partition=Dirichlet())


def test_the_digits_are_those_of_scikit_learn() -> None:
    pixels, labels = load_digits(return_X_y=True)
    pool = Digits(client=0, clients=2).pool()
    np.testing.assert_array_equal(pool.pixels, pixels)
    np.testing.assert_array_equal(pool.labels, labels)
