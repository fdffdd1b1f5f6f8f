"""Canonicalization: what is exact is equal over whole orbits, and what is learnt serves."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from parties.canonicalize import Canonicalizer, Placed, margin
from parties.canonicalize.abstain import threshold_for_accuracy, threshold_for_share
from parties.canonicalize.backbone import CanonicalBackbone
from parties.canonicalize.classifier import Classifier
from parties.canonicalize.cosine import Cosine
from parties.canonicalize.groups import PADDINGS, Group
from parties.canonicalize.neighbours import Body, Mahalanobis, Neighbours
from parties.canonicalize.recipe import Canonicalization, Poses
from parties.canonicalize.scalar import Scalar
from parties.canonicalize.scales import Scales
from parties.canonicalize.scorers import Recipe
from parties.canonicalize.tabular import ORDERS, hilbert_index, ordered, signed
from parties.datasets.digits import Digits
from parties.exchange import FedpactError
from parties.reuse.gdei import StepRecord
from parties.stopping.relative_gain import RelativeGain
from parties.training import Training, weights_of

EXACT = (Group(4), Group(4, mirrors=True), Group(2), Group(2, mirrors=True), Group(1))
INTERPOLATED = (Group(8), Group(8, mirrors=True), Group(12), Group(6), Group(3))
SCORERS: tuple[Recipe, ...] = (Scalar((4, 8)), Cosine((4, 8), 16))
SIZES = ((1, 9), (3, 12), (1, 8), (3, 13))


def name(value: object) -> str:
    if isinstance(value, Group):
        return f"{'D' if value.mirrors else 'C'}{value.turns}"
    return type(value).__name__ if isinstance(value, Recipe) else str(value)


def some_images(channels: int, side: int, count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def a_canonicalizer(group: Group, recipe: Recipe, channels: int, side: int) -> Canonicalizer:
    return Canonicalizer(group, recipe.build(channels, side, group, 0)).eval()


# ------------------------------------------------------------------------------- the groups


@pytest.mark.parametrize("group", [*EXACT, *INTERPOLATED], ids=name)
def test_elements_compose_and_invert_as_their_matrices_do(group: Group) -> None:
    pairs = list(itertools.product(range(group.order), repeat=2))
    first, second = (torch.tensor([p[i] for p in pairs]) for i in (0, 1))
    both = group.matrix(group.compose(first, second))
    torch.testing.assert_close(both, group.matrix(first) @ group.matrix(second))
    every = torch.arange(group.order)
    undone = group.compose(group.inverse(every), every)
    assert undone.tolist() == [0] * group.order
    assert len({tuple(m.flatten().round(decimals=6).tolist()) for m in group.matrix(every)}) == (
        group.order
    )


@pytest.mark.parametrize(("channels", "side"), SIZES)
@pytest.mark.parametrize("group", EXACT, ids=name)
def test_quarters_and_mirrorings_act_as_a_group_on_pixels(
    group: Group, channels: int, side: int
) -> None:
    images = some_images(channels, side, 1)
    for a, b in itertools.product(range(group.order), repeat=2):
        one, two = torch.tensor([a]), torch.tensor([b])
        moved = group.act(group.act(images, two), one)
        assert torch.equal(moved, group.act(images, group.compose(one, two)))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("group", [*EXACT, *INTERPOLATED], ids=name)
def test_an_orbit_is_every_image_undone_by_every_element(group: Group, padding: str) -> None:
    group = Group(group.turns, group.mirrors, padding)
    images = some_images(2, 11, 3)
    for k, undone in enumerate(group.orbit(images)):
        element = torch.full((3,), k)
        torch.testing.assert_close(undone, group.act(images, group.inverse(element)))


@pytest.mark.parametrize("side", [9, 12])
@pytest.mark.parametrize("group", [*EXACT, *INTERPOLATED], ids=name)
def test_points_vectors_and_boxes_move_with_the_pixels(group: Group, side: int) -> None:
    image = torch.zeros(1, 1, side, side)
    image[0, 0, 2, 5] = 1.0  # its centre lies at x = 5.5, y = 2.5
    for k in range(group.order):
        element = torch.tensor([k])
        moved = group.act(image, element)[0, 0]
        at = torch.arange(side) + 0.5
        centre = torch.stack([(moved.sum(0) * at).sum(), (moved.sum(1) * at).sum()]) / moved.sum()
        told = group.act_on_points(torch.tensor([[[5.5, 2.5]]]), element, side)[0, 0]
        torch.testing.assert_close(told, centre, atol=0.3, rtol=0)
        box = group.act_on_boxes(torch.tensor([[[5.0, 2.0, 6.0, 3.0]]]), element, side)[0, 0]
        torch.testing.assert_close((box[:2] + box[2:]) / 2, told)
        assert (box[2:] - box[:2] >= 1 - 1e-5).all()
        # A direction is the difference of two points; y points up there, and down in pixels.
        ahead = group.act_on_points(torch.tensor([[[6.5, 2.5]]]), element, side)[0, 0] - told
        vector = group.act_on_vectors(torch.tensor([[[1.0, 0.0]]]), element)[0, 0]
        torch.testing.assert_close(vector * torch.tensor([1.0, -1.0]), ahead, atol=1e-5, rtol=0)


@pytest.mark.parametrize("group", EXACT, ids=name)
def test_masks_keep_their_labels_and_come_back_whole(group: Group) -> None:
    masks = torch.randint(0, 7, (group.order, 9, 9), generator=torch.Generator().manual_seed(0))
    element = torch.arange(group.order)
    moved = group.act_on_masks(masks, element)
    assert moved.dtype == masks.dtype
    assert torch.equal(group.act_on_masks(moved, group.inverse(element)), masks)
    eighths = Group(8, group.mirrors).act_on_masks(masks[:1], torch.tensor([1]))
    assert set(eighths.unique().tolist()) <= set(range(7))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("turns", 0, "legal are 1 to 360"),
        ("turns", 4.0, "legal is a whole number"),
        ("mirrors", 1, "legal are true and false"),
        ("padding", "wrap", "legal are zeros, border, reflection"),
    ],
)
def test_a_group_that_is_none_is_refused(field: str, value: object, says: str) -> None:
    with pytest.raises(FedpactError, match=says):
        Group(**{field: value})  # type: ignore[arg-type]


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(FedpactError, match="Pad the shorter side"):
        Group(4).orbit(torch.zeros(1, 1, 8, 9))


# ------------------------------------------------------------------------- the canonical image


@pytest.mark.parametrize(("channels", "side"), SIZES)
@pytest.mark.parametrize("recipe", SCORERS, ids=name)
@pytest.mark.parametrize("group", EXACT, ids=name)
def test_the_canonical_image_is_one_over_the_whole_orbit(
    group: Group, recipe: Recipe, channels: int, side: int
) -> None:
    canonicalizer = a_canonicalizer(group, recipe, channels, side)
    images = some_images(channels, side, 32)
    with torch.inference_mode():
        first = canonicalizer(images)
        for k in range(group.order):
            by = torch.full((len(images),), k)
            again = canonicalizer(group.act(images, by))
            torch.testing.assert_close(again.images, first.images, atol=1e-4, rtol=0)
            # The pose moves with the image.
            assert torch.equal(again.element, group.compose(by, first.element))
    # And it is the image itself, moved.
    torch.testing.assert_close(group.act(first.images, first.element), images, atol=1e-6, rtol=0)


@given(seed=st.integers(0, 2**31), k=st.integers(0, 7), mirrors=st.booleans())
def test_an_image_and_the_image_moved_share_a_canonical_image(
    seed: int, k: int, mirrors: bool
) -> None:
    group = Group(4, mirrors)
    canonicalizer = a_canonicalizer(group, Scalar((4,)), 1, 8)
    images = some_images(1, 8, 4, seed)
    moved = group.act(images, torch.full((4,), k % group.order))
    with torch.inference_mode():
        one, two = canonicalizer(images), canonicalizer(moved)
    clear = one.margin > 1e-4  # two poses that tie may be told apart by rounding alone
    torch.testing.assert_close(one.images[clear], two.images[clear], atol=1e-4, rtol=0)


@pytest.mark.parametrize("group", [Group(8), Group(8, mirrors=True), Group(6)], ids=name)
def test_other_turns_are_the_same_as_far_as_interpolation_lets_them(group: Group) -> None:
    at = torch.linspace(-1, 1, 33)
    x, y = at[None, :], at[:, None]
    blobs = [torch.exp(-8 * ((x - a) ** 2 + (y - b) ** 2)) for a, b in ((0.3, 0.1), (-0.2, 0.4))]
    images = (blobs[0] + 0.5 * blobs[1])[None, None]
    canonicalizer = a_canonicalizer(group, Scalar((8,)), 1, 33)
    with torch.inference_mode():
        first = canonicalizer(images).images
        for k in range(group.order):
            again = canonicalizer(group.act(images, torch.tensor([k]))).images
            assert (again - first).abs().max() < 0.05


def test_what_was_found_in_the_canonical_frame_comes_back_into_the_images() -> None:
    group, side = Group(4, mirrors=True), 9
    canonicalizer = a_canonicalizer(group, Scalar((4,)), 1, side)
    images = some_images(1, side)
    with torch.inference_mode():
        found = canonicalizer(images)
    placed = Placed(group, found)
    torch.testing.assert_close(placed.images(found.images), images)
    masks = (images[:, 0] > 0.5).long()
    assert torch.equal(placed.masks((found.images[:, 0] > 0.5).long()), masks)
    corners = torch.tensor([1.0, 2.0, 4.0, 6.0]).expand(len(images), 1, 4)
    there = group.act_on_boxes(corners, group.inverse(found.element), side)
    torch.testing.assert_close(placed.boxes(there), corners, atol=1e-4, rtol=0)
    points = torch.rand(len(images), 3, 2) * side
    there = group.act_on_points(points, group.inverse(found.element), side)
    torch.testing.assert_close(placed.points(there), points, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        placed.vectors(points),
        group.act_on_vectors(points, found.element),
    )


def test_two_calls_that_interleave_do_not_disturb_each_other() -> None:
    canonicalizer = a_canonicalizer(Group(4), Scalar((4,)), 1, 8)
    one, two = some_images(1, 8, 5, 1), some_images(1, 8, 7, 2)
    with torch.inference_mode():
        expected = canonicalizer(one)
        canonicalizer(two)
        again = canonicalizer(one)
    for a, b in zip(expected, again, strict=True):
        if a is not None:
            assert torch.equal(a, b)
    assert not [v for v in vars(canonicalizer).values() if isinstance(v, Tensor)]


@pytest.mark.parametrize("group", [Group(4), Group(8), Group(4, mirrors=True)], ids=name)
@pytest.mark.parametrize("top", [1, 3])
def test_a_backbone_serves_no_image_and_one(group: Group, top: int) -> None:
    canonicalizer = a_canonicalizer(group, Scalar((4,)), 1, 9)
    model = CanonicalBackbone(nn.Linear(81, 5), canonicalizer, 1, top).eval()
    for count in (0, 1):
        assert model(some_images(1, 9, count).flatten(1)).shape == (count, 5)


@pytest.mark.parametrize("group", [Group(4), Group(8), Group(4, mirrors=True)], ids=name)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_empty_and_odd_batches_and_half_precision_are_served(group: Group, count: int) -> None:
    for recipe in (*SCORERS, Classifier((4, 8))):
        canonicalizer = a_canonicalizer(group, recipe, 1, 9)
        with torch.inference_mode():
            found = canonicalizer(some_images(1, 9, count))
            halved = canonicalizer.bfloat16()(some_images(1, 9, count).bfloat16())
        assert found.images.shape == halved.images.shape == (count, 1, 9, 9)
        assert halved.images.dtype == torch.bfloat16
        assert found.scores.shape == (count, group.order)


@pytest.mark.parametrize("group", [Group(4), Group(8), Group(4, mirrors=True)], ids=name)
@pytest.mark.parametrize("top", [1, 2])
def test_an_exported_canonical_backbone_says_the_same(group: Group, top: int) -> None:
    canonicalizer = a_canonicalizer(group, Scalar((4,)), 1, 8)
    model = CanonicalBackbone(nn.Sequential(nn.Linear(64, 10)), canonicalizer, 1, top).eval()
    inputs = some_images(1, 8, 6).flatten(1)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (inputs,), dynamic_shapes=({0: batch},)).module()
    with torch.inference_mode():
        for count in (2, 6, 17):
            given_ = some_images(1, 8, count, count).flatten(1)
            torch.testing.assert_close(program(given_), model(given_))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_canonical_backbone_is_one_graph_and_says_the_same() -> None:
    canonicalizer = a_canonicalizer(Group(8), Scalar((4,)), 1, 8)
    model = CanonicalBackbone(nn.Sequential(nn.Linear(64, 10)), canonicalizer, 1).eval()
    # The graph is captured whole; it is not turned into machine code, which takes a minute.
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    inputs = some_images(1, 8, 6).flatten(1)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(inputs), model(inputs))


def test_a_group_of_one_leaves_everything_as_it_is() -> None:
    canonicalizer = a_canonicalizer(Group(1), Scalar((4,)), 1, 8)
    images = some_images(1, 8)
    with torch.inference_mode():
        found = canonicalizer(images)
    assert torch.equal(found.images, images)
    assert torch.isinf(found.margin).all()


def test_a_gate_leaves_images_alone_until_another_pose_is_clearly_better() -> None:
    group = Group(4)
    scorer = Scalar((4,)).build(1, 8, group, 0)
    images = some_images(1, 8, 64)
    with torch.inference_mode():
        free = Canonicalizer(group, scorer).eval()(images)
        ahead = free.scores.amax(1) - free.scores[:, 0]
        gate = float(ahead.median())
        gated = Canonicalizer(group, scorer, gate=gate).eval()(images)
    assert torch.equal(gated.element == 0, (free.element == 0) | (ahead <= gate))
    assert torch.equal(gated.element[ahead > gate], free.element[ahead > gate])
    assert torch.equal(gated.scores, free.scores)


def test_weighted_frames_are_the_mean_of_the_best_poses() -> None:
    group = Group(4)
    canonicalizer = a_canonicalizer(group, Scalar((4,)), 1, 8)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    images = some_images(1, 8)
    with torch.inference_mode():
        scores = canonicalizer.scores(images)
        orbit = torch.stack([backbone(o).softmax(-1) for o in group.orbit(images)])
        weights = scores.softmax(1).T[..., None]
        every = CanonicalBackbone(backbone, canonicalizer, top=4)(images)
        one = CanonicalBackbone(backbone, canonicalizer)(images)
    torch.testing.assert_close(every.exp(), (weights * orbit).sum(0))
    torch.testing.assert_close(one.softmax(-1), orbit[scores.argmax(1), torch.arange(6)])
    for top in (0, 5):
        with pytest.raises(FedpactError, match="legal are 1 to 4"):
            CanonicalBackbone(backbone, canonicalizer, top=top)


def test_the_margin_is_the_lead_of_the_best_pose() -> None:
    assert margin(torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, 0.0]])).tolist() == [2.0, 0.0]


# ------------------------------------------------------------------------------- abstention


def test_a_share_of_the_least_certain_is_left_out() -> None:
    margins = np.random.default_rng(0).random(200)
    threshold = threshold_for_share(margins, 0.2)
    assert np.mean(margins < threshold) == 0.2
    assert threshold_for_share(margins, 0.0) == margins.min()
    with pytest.raises(FedpactError, match="legal is a share"):
        threshold_for_share(margins, 1.0)


def test_a_threshold_for_an_accuracy_errs_as_seldom_as_it_says() -> None:
    rng = np.random.default_rng(0)
    # The chance to be right grows with the margin from .5 to 1: it is .9 above a margin of .6.
    failures = 0
    for _ in range(300):
        margins = rng.random(400)
        right = rng.random(400) < 0.5 + margins / 2
        threshold = threshold_for_accuracy(margins, right, 0.9, 0.9)
        if threshold is not None:
            failures += (0.5 + (1 + threshold) / 4) < 0.9
    assert failures / 300 <= 0.1 + 0.04
    assert threshold_for_accuracy(np.arange(50.0), np.zeros(50, bool), 0.5) is None
    assert threshold_for_accuracy(np.arange(5.0), np.ones(5, bool), 0.9) is None
    assert threshold_for_accuracy(np.empty(0), np.empty(0, bool), 0.9) is None
    # Margins that say nothing, and a model that is good enough for all: few errors end nothing.
    found = [
        threshold_for_accuracy(rng.random(2000), rng.random(2000) < 0.97, 0.9) for _ in range(50)
    ]
    assert np.mean([t is not None and t < 0.1 for t in found]) > 0.9


@pytest.mark.parametrize(
    ("margins", "required", "confidence"),
    [
        ([1.0], 0.9, 0.95),
        ([1.0, np.nan], 0.9, 0.95),
        ([1.0, 2.0], 1.5, 0.95),
        ([1.0, 2.0], 0.9, 1.0),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(
    margins: list[float], required: float, confidence: float
) -> None:
    with pytest.raises(FedpactError, match="legal"):
        threshold_for_accuracy(np.array(margins), np.ones(2, bool), required, confidence)


# ------------------------------------------------------------------------------ what is learnt


TRAINING = Training(epochs=12, batch_size=64, learning_rate=0.05, momentum=0.9)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    split = Digits(0, 1, test_share=0.3).split(0)
    held_out = split.held_out
    assert held_out is not None
    return (
        split.training.features,
        split.training.labels,
        held_out.features,
        held_out.labels,
    )


@pytest.fixture(scope="module")
def frozen(digits: tuple[np.ndarray, ...]) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    Training(epochs=20, batch_size=32).fit(model, digits[0], digits[1], 0)
    return model.eval()


def turned(features: np.ndarray, group: Group) -> list[np.ndarray]:
    orbit = group.orbit(torch.from_numpy(features).view(-1, 1, 8, 8))
    return [part.flatten(1).numpy() for part in orbit]


def hits(model: nn.Module, features: np.ndarray, labels: np.ndarray) -> float:
    with torch.inference_mode():
        told = model.eval()(torch.from_numpy(features)).argmax(1).numpy()
    return float(np.mean(told == labels))


@pytest.mark.parametrize(
    ("recipe", "least"),
    [
        (Scalar((16, 32)), 0.85),
        (Cosine((16, 32), 32), 0.8),
        (Classifier((16, 32)), 0.75),
        (Neighbours(), 0.7),
        (Mahalanobis(), 0.7),
    ],
    ids=name,
)
def test_a_frozen_model_reads_turned_digits_again(
    digits: tuple[np.ndarray, ...], frozen: nn.Module, recipe: Recipe, least: float
) -> None:
    fit_x, fit_y, x, y = digits
    group = Group(4)
    how = Canonicalization(group, recipe, TRAINING)
    canonicalizer = how.build(64, 0)
    before = weights_of(frozen)
    losses = how.fit(canonicalizer, fit_x, 0, model=frozen, labels=fit_y)
    seen = how.behind(frozen, canonicalizer)
    accuracies = [hits(seen, part, y) for part in turned(x, group)]
    bare = np.mean([hits(frozen, part, y) for part in turned(x, group)])
    assert bare < 0.5
    assert min(accuracies) > least
    if not isinstance(recipe, Classifier):  # one look is not exact
        assert max(accuracies) - min(accuracies) < 1e-9
    for key, value in weights_of(frozen).items():
        np.testing.assert_array_equal(value, before[key])
    trained = not isinstance(recipe, Neighbours | Mahalanobis)
    assert len(losses) == (12 if trained else 0)
    assert not trained or losses[-1] < 0.5 * losses[0]


def test_refinement_finds_angles_between_the_poses(
    digits: tuple[np.ndarray, ...], frozen: nn.Module
) -> None:
    fit_x, _, x, _ = digits
    how = Canonicalization(Group(8), Scalar((16, 32)), TRAINING, refine=3)
    canonicalizer = how.build(64, 0).eval()
    how.fit(canonicalizer, fit_x, 0)
    images = torch.from_numpy(x).view(-1, 1, 8, 8)
    turn = Group(24)
    by = torch.full((len(images),), 1)  # 15 degrees: between 0 and 45
    with torch.inference_mode():
        plain = canonicalizer(images)
        moved = canonicalizer(turn.act(images, by))
    assert plain.extra is not None
    assert moved.extra is not None
    group = canonicalizer.group

    def angle(found: object) -> Tensor:
        assert isinstance(found, tuple)
        return group.degrees(found[1]) + found[2]

    apart = (angle(moved) - angle(plain) + 180) % 360 - 180
    assert abs(float(apart.median()) - 15) < 8
    assert moved.extra.abs().max() <= 45


def test_training_tells_its_steps_and_a_stopping_rule_ends_it(
    digits: tuple[np.ndarray, ...],
) -> None:
    record = StepRecord()
    stopping = RelativeGain(0.5, 1)
    training = Training(epochs=12, batch_size=64, learning_rate=0.05, stopping=stopping)
    how = Canonicalization(Group(4), Scalar((8,)), training)
    losses = how.fit(how.build(64, 0), digits[0], 0, watch=record)
    assert len(losses) < 12
    assert len(record.losses) == len(losses) * -(-len(digits[0]) // 64)
    assert record.course == "learning"


def test_images_that_were_not_upright_are_aligned_by_a_frozen_model_and_labels(
    digits: tuple[np.ndarray, ...], frozen: nn.Module
) -> None:
    fit_x, fit_y, x, y = digits
    group = Group(4)
    rng = np.random.default_rng(0)
    by = torch.from_numpy(rng.integers(0, 4, len(fit_x)))
    seen = group.act(torch.from_numpy(fit_x).view(-1, 1, 8, 8), by).flatten(1).numpy()
    how = Canonicalization(group, Scalar((16, 32)), TRAINING)
    element = how.surprise(frozen, seen, fit_y).argmin(0)
    assert np.mean(element == by.numpy()) > 0.8
    aligned = how.undone(seen, element)
    right = np.isclose(aligned, fit_x).all(1)
    assert right.mean() > 0.8
    canonicalizer = how.build(64, 0)
    how.fit(canonicalizer, aligned, 0)
    behind = how.behind(frozen, canonicalizer)
    assert min(hits(behind, part, y) for part in turned(x, group)) > 0.8


def test_realignment_repairs_data_of_which_some_are_turned(
    digits: tuple[np.ndarray, ...], frozen: nn.Module
) -> None:
    fit_x, _, x, y = digits
    group = Group(4)
    rng = np.random.default_rng(1)
    by = torch.from_numpy(np.where(rng.random(len(fit_x)) < 0.5, rng.integers(0, 4, len(fit_x)), 0))
    seen = group.act(torch.from_numpy(fit_x).view(-1, 1, 8, 8), by).flatten(1).numpy()
    found = []
    for realign in (0, 3):
        how = Canonicalization(group, Scalar((16, 32)), TRAINING, realign=realign)
        canonicalizer = how.build(64, 0)
        losses = how.fit(canonicalizer, seen, 0)
        assert len(losses) == 12 * (1 + realign)
        found.append((losses[-1], hits(how.behind(frozen, canonicalizer), x, y)))
    assert found[1][0] < 0.5 * found[0][0]
    assert found[1][1] >= found[0][1] - 0.02


@pytest.mark.parametrize("batch", [1, 3])
def test_one_look_learns_every_pose_however_small_the_batches(
    batch: int, digits: tuple[np.ndarray, ...]
) -> None:
    group = Group(8)
    training = Training(epochs=3, batch_size=batch, learning_rate=0.01, momentum=0.9)
    how = Canonicalization(group, Classifier((16, 32)), training)
    canonicalizer = how.build(64, 0)
    how.fit(canonicalizer, digits[0][:600], 0)
    images = torch.from_numpy(digits[2]).view(-1, 1, 8, 8)
    canonicalizer.eval()
    for k in range(group.order):
        by = torch.full((len(images),), k)
        with torch.inference_mode():
            told = canonicalizer.scores(group.act(images, by)).argmax(1)
        assert (told == by).float().mean() > 0.4


def test_only_the_scorer_has_tensors_to_share() -> None:
    how = Canonicalization(Group(4), Scalar((4,)), TRAINING)
    poses = Poses(how.build(64, 0), 1)
    assert all(key.startswith("canonicalizer.scorer.") for key in poses.state_dict())
    remembered = Canonicalization(Group(4), Neighbours(), TRAINING).build(64, 0)
    assert not remembered.state_dict()


def test_a_training_free_scorer_without_a_model_is_refused() -> None:
    how = Canonicalization(Group(4), Neighbours(), TRAINING)
    with pytest.raises(FedpactError, match="given none"):
        how.fit(how.build(64, 0), np.zeros((3, 64), np.float32), 0)
    with pytest.raises(FedpactError, match="no linear layer"):
        Body(nn.Conv2d(1, 1, 1), flat=False)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"channels": 0}, "canonicalizer.channels is 0"),
        ({"refine": -1}, "canonicalizer.refine is -1"),
        ({"top": 5}, "canonicalizer.top is 5; legal are 1 to 4"),
        ({"top": 2, "refine": 1}, "are both set"),
        ({"gate": float("inf")}, "canonicalizer.gate is inf"),
        ({"gate": 1.0, "refine": 1}, "no angle to refine"),
        ({"gate": 1.0, "top": 2}, "has one pose"),
        ({"scorer": Classifier(), "refine": 1}, "tells poses at one look"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_training(
    settings: dict[str, object], says: str
) -> None:
    given_ = {"group": Group(4), "scorer": Scalar(), "training": TRAINING} | settings
    with pytest.raises(FedpactError, match=says):
        Canonicalization(**given_)  # type: ignore[arg-type]


def test_features_that_are_no_square_images_are_refused() -> None:
    how = Canonicalization(Group(4), Scalar(), TRAINING)
    with pytest.raises(FedpactError, match="65 features are no square images"):
        how.build(65, 0)


# --------------------------------------------------------------------- sizes, tables and signs


SCALES = Scales(1.25, 2)


def test_sizes_undo_each_other_and_move_points_boxes_and_masks_with_the_pixels() -> None:
    every = torch.arange(SCALES.order)
    assert SCALES.sizes(every)[0] == 1
    torch.testing.assert_close(
        SCALES.sizes(every) * SCALES.sizes(SCALES.inverse(every)), torch.ones(5)
    )
    at = torch.linspace(-1, 1, 33)
    blob = torch.exp(-12 * ((at[None, :] - 0.2) ** 2 + (at[:, None] + 0.1) ** 2))
    images = blob[None, None].repeat(5, 1, 1, 1)
    moved = SCALES.act(images, every)
    assert torch.equal(moved[0], images[0])
    for k, undone in enumerate(SCALES.orbit(images)):
        torch.testing.assert_close(undone, SCALES.act(images, SCALES.inverse(every * 0 + k)))
    back = SCALES.act(moved, SCALES.inverse(every))
    assert (back - images).abs().max() < 0.1
    middle = (torch.arange(33) + 0.5).expand(5, 33)
    weight = moved[:, 0].sum(1)
    centre = (weight * middle).sum(1) / weight.sum(1)
    start = (blob.sum(0) * middle[0]).sum() / blob.sum()
    points = torch.tensor([[[float(start), 16.5]]]).repeat(5, 1, 1)
    told = SCALES.act_on_points(points, every, 33)[:, 0, 0]
    torch.testing.assert_close(told, centre, atol=0.3, rtol=0)
    masks = torch.zeros(5, 33, 33, dtype=torch.int64)
    masks[:, 10:20, 10:20] = 3
    assert set(SCALES.act_on_masks(masks, every).unique().tolist()) == {0, 3}
    area = (SCALES.act_on_masks(masks, every) > 0).sum((1, 2)) / 100
    torch.testing.assert_close(area, SCALES.sizes(every) ** 2, atol=0.1, rtol=0.1)


def test_a_frozen_model_reads_enlarged_digits_again(
    digits: tuple[np.ndarray, ...], frozen: nn.Module
) -> None:
    fit_x, _, x, y = digits
    scales = Scales(1.4, 1)
    how = Canonicalization(scales, Scalar((16, 32)), TRAINING)
    canonicalizer = how.build(64, 0)
    how.fit(canonicalizer, fit_x, 0)
    images = torch.from_numpy(x).view(-1, 1, 8, 8)
    small = scales.act(images, torch.full((len(x),), 2)).flatten(1).numpy()
    assert hits(how.behind(frozen, canonicalizer), small, y) > hits(frozen, small, y) + 0.1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Scales(1.0), "canonicalizer.group.factor is 1.0; legal is a number above 1"),
        (lambda: Scales(steps=0), "canonicalizer.group.steps is 0"),
        (lambda: Scales(padding="wrap"), "canonicalizer.group.padding is 'wrap'"),
        (lambda: Canonicalization(SCALES, Scalar(), TRAINING, refine=1), "has no angles"),
        (lambda: ordered(torch.zeros(2, 3)), "2 dimensions"),
        (lambda: ordered(torch.zeros(1, 2, 3), "random"), "legal are hilbert, lexicographic"),
        (lambda: ordered(torch.zeros(1, 2, 3), bits=21), "legal are 1 to 17"),
        (lambda: signed(torch.zeros(3)), "legal is"),
    ],
)
def test_sizes_and_orders_that_are_none_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(FedpactError, match=says):
        make()


@pytest.mark.parametrize(("columns", "bits"), [(1, 5), (2, 1), (2, 4), (3, 3), (4, 2)])
def test_a_hilbert_curve_visits_every_cell_once_in_steps_of_one(columns: int, bits: int) -> None:
    grid = torch.cartesian_prod(*[torch.arange(2**bits)] * columns).view(-1, columns)
    index = hilbert_index(grid, bits)
    assert sorted(index.tolist()) == list(range(2 ** (bits * columns)))
    steps = grid[index.argsort()].diff(dim=0).abs()
    assert (steps.sum(1) == 1).all()


@given(seed=st.integers(0, 2**31), rows=st.integers(0, 12), order=st.sampled_from(ORDERS))
def test_a_set_has_one_order_whatever_the_order_of_its_rows(
    seed: int, rows: int, order: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few values, so that rows and cells tie.
    sets = torch.randint(-3, 3, (4, rows, 3), generator=generator).float()
    shuffled = torch.stack([s[torch.randperm(rows, generator=generator)] for s in sets])
    one, two = ordered(sets, order, 2), ordered(shuffled, order, 2)
    assert torch.equal(one.sets, two.sets)
    assert torch.equal(one.restore(one.sets), sets)
    assert torch.equal(two.restore(two.sets), shuffled)
    assert torch.equal(one.restore(one.sets.sum(-1)), sets.sum(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_rows_on_a_line_are_ordered_along_it_in_any_precision(dtype: torch.dtype) -> None:
    line = torch.arange(1, 9, dtype=dtype)[None, :, None]
    for bits in (3, 10, 40):
        assert torch.equal(ordered(line, bits=bits).sets, line)


@given(seed=st.integers(0, 2**31))
def test_a_vector_and_its_negative_become_one(seed: int) -> None:
    vectors = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0])
    one, two = signed(vectors), signed(vectors * signs[:, None])
    assert torch.equal(one.vectors, two.vectors)
    assert torch.equal(two.restore(two.vectors), vectors * signs[:, None])
