"""Many trainings as one batch: what each comes to, alone and in company."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final
from unittest.mock import patch
from weakref import ref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from parties import batched, examples, kinds, resident
from parties.backbones import Backbone
from parties.backbones.cnn import Cnn
from parties.backbones.logistic import Logistic
from parties.backbones.mlp import Mlp
from parties.batched import _rates, fit_together
from parties.descent import cross_entropy
from parties.examples import Examples
from parties.exchange import FedpactError
from parties.fitting import Fit, Fitted, fit_each, fit_one
from parties.kinds import Designs, kind_of
from parties.products import one_dnn
from parties.resident import Resident
from parties.stacks import Dense, Mapped, Stack
from parties.stopping.patience import Patience
from parties.training import Training, weights_of
from tests.checks import large_from


def made(
    count: int,
    seed: int = 0,
    backbone: Backbone = Mlp((7,)),  # noqa: B008
    inputs: int = 5,
    classes: int = 3,
    epochs: int = 2,
    proximal: float = 0.0,
    started: bool = False,
    **training: Any,
) -> Fit:
    """A fit on so many made-up examples."""
    rng = np.random.default_rng([seed, count])
    start = None
    if started:
        start = weights_of(backbone.build(inputs, classes, seed + 100))
    return Fit(
        Training(**{"batch_size": 8, "learning_rate": 0.1, **training}),
        backbone,
        classes,
        seed % 3,
        start,
        rng.normal(size=(count, inputs)).astype(np.float32),
        rng.integers(0, classes, count),
        seed,
        epochs,
        proximal,
    )


def check_alike(one: Sequence[Fitted], other: Sequence[Fitted], weights: float = 1e-4) -> None:
    for (arrays, losses), (others, told) in zip(one, other, strict=True):
        np.testing.assert_allclose(losses, told, rtol=0, atol=1e-5)
        assert list(arrays) == list(others)
        for name, array in arrays.items():
            assert array.dtype == others[name].dtype
            np.testing.assert_allclose(array, others[name], rtol=0, atol=weights)


def check_same(one: Fitted, other: Fitted) -> None:
    assert one[1] == other[1]
    for name, array in one[0].items():
        assert array.tobytes() == other[0][name].tobytes()


SETTINGS: dict[str, dict[str, Any]] = {
    "as a firm trains": {},
    "no momentum": {"momentum": 0.0},
    "weight decay": {"weight_decay": 0.1},
    "a constant rate": {"schedule": "constant"},
    "a pull to a start": {"proximal": 0.5, "started": True},
    "a start": {"started": True},
    "the training's epochs": {"epochs": 0, "learning_rate": 0.01},
    "batches of odd size": {"batch_size": 7},
    "batches of one": {"batch_size": 1},
    "one batch": {"batch_size": 256},
    "logistic": {"backbone": Logistic()},
    "three layers": {"backbone": Mlp((6, 5)), "inputs": 8, "classes": 4},
    "one column": {"inputs": 1, "classes": 2},
}


@pytest.mark.parametrize("least", [0, 150, None])
@pytest.mark.parametrize("setting", SETTINGS)
def test_fits_come_to_what_the_plain_loop_comes_to(setting: str, least: int | None) -> None:
    fits = [made(count, seed, **SETTINGS[setting]) for seed, count in enumerate((21, 1, 23, 8, 20))]
    with large_from(least):
        together, alone = fit_together(fits), fit_each(fits)
    check_alike(together, alone)
    assert differ(together, alone)


def differ(some: Sequence[Fitted], others: Sequence[Fitted]) -> bool:
    """In a bit somewhere; or else it would prove nothing about batches that they are alike."""
    return any(
        one[1] != other[1] or array.tobytes() != other[0][name].tobytes()
        for one, other in zip(some, others, strict=True)
        for name, array in one[0].items()
    )


@st.composite
def companies(draw: st.DrawFn) -> list[Fit]:
    shapes = [(Mlp((7,)), 5, 3), (Logistic(), 6, 2), (Mlp((32,)), 64, 10), (Mlp((9, 3)), 2, 2)]
    shape = draw(st.sampled_from(shapes))
    return [
        made(
            draw(st.integers(1, 40)),
            seed,
            *draw(st.sampled_from([shape, shape, shape, shapes[0]])),
            epochs=draw(st.integers(1, 2)),
            proximal=draw(st.sampled_from([0.0, 0.0, 0.3])),
            started=draw(st.booleans()),
            batch_size=draw(st.sampled_from([5, 16, 16])),
            learning_rate=draw(st.sampled_from([0.1, 0.1, 0.037])),
            momentum=draw(st.sampled_from([0.9, 0.9, 0.0])),
            weight_decay=draw(st.sampled_from([1e-4, 1e-4, 0.0])),
            schedule=draw(st.sampled_from(["linear", "linear", "constant"])),
        )
        for seed in range(draw(st.integers(2, 9)))
    ]


@settings(max_examples=60, deadline=None)
@given(
    companies(),
    st.randoms(use_true_random=False),
    st.sampled_from([None, 0.2, 0.05]),
    st.sampled_from([0, 500, None]),
    st.sampled_from([kinds.DATA_MB, 0.05, 0.01]),
    st.sampled_from([examples.WIDE, 0]),
)
def test_a_fit_comes_to_the_same_bits_in_any_company_and_order_and_alone(
    fits: list[Fit],
    random: Any,
    room_mb: float | None,
    least: int | None,
    data_mb: float,
    wide: int,
) -> None:
    """Nor do they hang on how many examples there is room for, or where they lie."""
    with (
        large_from(least),
        patch.object(kinds, "DATA_MB", data_mb),
        patch.object(examples, "WIDE", wide),
    ):
        found = fit_together(fits, room_mb)
        order = random.sample(range(len(fits)), random.randint(1, len(fits)))
        again = fit_together([fits[place] for place in order], room_mb)
        for place, fitted in zip(order, again, strict=True):
            check_same(found[place], fitted)
        some = random.randrange(len(fits))
        check_same(found[some], fit_together([fits[some]], room_mb)[0])


@pytest.mark.parametrize("least", [2_000_000, None])
@pytest.mark.parametrize(
    ("threads", "inputs", "pulled"), [(1, 785, False), (2, 785, True), (1, 784, True)]
)
def test_large_fits_come_to_the_same_bits_in_any_company_and_alone(
    threads: int, inputs: int, pulled: bool, least: int | None
) -> None:
    """Of sizes that the library does not do by its code for small matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        wide: dict[str, Any] = {
            "backbone": Mlp((90,)),
            "inputs": inputs,
            "batch_size": 32,
            "classes": 10,
            "epochs": 1,
        }
        # Neighbours in a batch descend each at rates of its own, and some stand where they begin.
        fits = [
            made(
                90 + seed % 3,
                seed,
                weight_decay=0.1 * (seed % 3 == 2),
                learning_rate=(0.1, 0.03)[seed % 2],
                momentum=(0.9, 0.0, 0.5)[seed % 3],
                proximal=pulled * (0.1, 0.5)[seed % 2],
                **wide,
            )
            for seed in range(11)
        ]
        with large_from(least):
            found = fit_together(fits)
            check_alike(found, fit_each(fits))
            for place in (0, 4, 10):
                check_same(found[place], fit_together([fits[place]])[0])
            for fitted, told in zip(found[::-1], fit_together(fits[::-1]), strict=True):
                check_same(fitted, told)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("processor", "swifter"),
    [
        ({"cpu_name": "AMD EPYC 9J14", "avx512_f": True}, True),
        ({"cpu_name": "AMD EPYC 7B13", "avx512_f": False}, False),
        ({"cpu_name": "Intel(R) Xeon(R) Platinum 8481C", "avx512_f": True}, False),
        ({}, False),
    ],
)
def test_one_dnn_is_asked_where_mkl_uses_half_of_the_processor(
    processor: dict[str, Any], swifter: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor, raising=False)
    found = one_dnn.__wrapped__()
    assert (found is not None) == (swifter and torch._C._has_mkldnn)
    if found is not None:
        x, w, b = torch.rand(5, 7), torch.rand(7, 3).t(), torch.rand(3)
        torch.testing.assert_close(found(x, w, b), x @ w.t() + b)
        torch.testing.assert_close(found(x, w, None), x @ w.t())
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as of older torch
    assert one_dnn.__wrapped__() is None


def test_a_class_that_never_occurs_and_one_example_change_nothing() -> None:
    fits = [replace(made(1, seed), targets=np.zeros(1, np.int64)) for seed in range(3)]
    check_alike(fit_together(fits), fit_each(fits))


def test_a_training_that_diverges_spoils_no_other() -> None:
    fits = [made(12, seed) for seed in range(3)]
    wild = replace(fits[1], features=fits[1].features * np.float32(1e30))
    found = fit_together([fits[0], wild, fits[2]])
    assert not np.isfinite(found[1][1][-1])
    assert not np.isfinite(fit_one(wild)[1][-1])
    for place in (0, 2):
        check_same(found[place], fit_together([fits[place]])[0])


def test_fits_of_any_number_of_steps_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who have a step take it together: firms have unlike numbers of examples."""
    fits = [made(count, seed, started=True) for seed, count in enumerate((40, 22, 25, 33, 23, 40))]
    taken = list[int]()
    real = Dense.step

    def step(stack: Stack, lanes: slice, *looked: Any) -> Tensor:
        taken.append(lanes.stop - lanes.start)
        return real(stack, lanes, *looked)

    monkeypatch.setattr(Dense, "step", step)
    found = fit_together(fits)
    # Of 5, 3, 4, 5, 3 and 5 steps an epoch; whose last step has fewer rows, takes it by itself.
    assert taken == 2 * [6, 6, 6, 3, 1, 2, 1]
    monkeypatch.undo()
    check_alike(found, fit_each(fits))
    for fit, fitted in zip(fits, found, strict=True):
        check_same(fitted, fit_together([fit])[0])


def test_a_firm_with_very_many_examples_makes_no_room_for_as_many_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = list[tuple[int, int]]()
    real = Examples.begin

    def begin(held: Examples, fits: Sequence[Fit]) -> None:
        real(held, fits)
        rows.append((len(fits), held.rows))

    monkeypatch.setattr(Examples, "begin", begin)
    fit_together([made(count, epochs=1) for count in (2000, 24, 40, 17, 40, 9)])
    assert rows == [(3, 2000), (3, 24)]


WIDE: dict[str, Any] = {"backbone": Mlp((90,)), "inputs": 785, "batch_size": 32, "classes": 10}


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    ("sizes", "way", "shorter"),
    [({}, "bmm", 0), ({}, "bmm", 1), (WIDE, "bmm", 0), (WIDE, "bmm", 1), ({}, "vmap", 0)],
    ids=["narrow", "narrow, shorter", "wide", "wide, shorter", "vmap"],
)
def test_nothing_of_a_training_is_left_to_the_next_in_its_place(
    sizes: dict[str, Any], way: str, shorter: int, started: bool
) -> None:
    size = sizes.get("batch_size", 8)
    count = 3 * size + size // 2  # the last step has a room of its own
    wild = made(count, started=started, **sizes)
    wild.features[:] = np.nan
    counts = [count - seed - shorter * size for seed in range(1, 4)]
    fits = [made(count, seed, started=started, **sizes) for seed, count in enumerate(counts, 1)]
    design = Designs().of(wild)
    found_kinds = {room: kind_of(wild, design, room, way) for room in np.geomspace(1e-3, 8, 200)}
    room, kind = next(
        (r, kind) for r, kind in found_kinds.items() if kind is not None and kind.lanes < 4
    )
    assert {kind_of(fit, design, room, way) for fit in fits} == {kind}
    fits = fits[: kind.lanes]
    found = fit_together([*[wild] * kind.lanes, *fits], room, way)
    for fit, fitted in zip(fits, fit_together([wild, *fits], way=way)[1:], strict=True):
        check_same(fitted, fit_together([fit], way=way)[0])  # nor to who has company of it
    for fit, fitted in zip(fits, found[kind.lanes :], strict=True):
        assert np.isfinite(fitted[1]).all()
        check_same(fitted, fit_together([fit], room, way)[0])


@pytest.mark.parametrize("starts", ["aabcce", "aabbaa", "aaabbb", "aaaaaa", "abcaaa"])
def test_each_starts_from_its_own_weights_whoever_was_in_its_place(starts: str) -> None:
    base = made(20, started=True, proximal=0.3)
    drawn = {name: made(20, seed, started=True).start for seed, name in enumerate("abce")}
    fits = [replace(base, start=drawn[name], shuffle=seed) for seed, name in enumerate(starts)]
    design = Designs().of(base)
    kinds = {room: kind_of(base, design, room, "bmm") for room in np.geomspace(1e-3, 1, 200)}
    room = next(r for r, kind in kinds.items() if kind is not None and kind.lanes == 3)
    for fit, fitted in zip(fits, fit_together(fits, room, "bmm"), strict=True):
        check_same(fitted, fit_together([fit], room, "bmm")[0])


# --------------------------------------------------------------------------- what is not batched


@final
@dataclass(frozen=True)
class Doubled(Backbone):
    """Has an objective of its own."""

    def layers(self, inputs: int, classes: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, classes))

    def objective(self, module: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
        return 2 * cross_entropy(module, features, targets)


@final
@dataclass(frozen=True)
class Odd(Backbone):
    """Layers that no stack knows."""

    kind: str

    def layers(self, inputs: int, classes: int) -> nn.Module:
        twice = nn.Linear(inputs, inputs)
        head = nn.Linear(inputs, classes)
        return {
            "tanh": nn.Sequential(twice, nn.Tanh(), head),
            "no bias": nn.Sequential(twice, nn.Linear(inputs, classes, bias=False)),
            "shared": nn.Sequential(twice, nn.ReLU(), twice, head),
            "frozen": nn.Sequential(
                nn.Linear(inputs, 3).requires_grad_(False), nn.Linear(3, classes)
            ),
            "relu last": nn.Sequential(head, nn.ReLU()),
            "one layer": head,
        }[self.kind]


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone": Cnn((2,)), "inputs": 16},
        {"backbone": Cnn((2,), "batch"), "inputs": 16},
        {"backbone": Doubled()},
        {"stopping": Patience(1)},
        {"mixed_precision": "bf16"},
        *[
            {"backbone": Odd(kind)}
            for kind in ("tanh", "no bias", "shared", "frozen", "relu last", "one layer")
        ],
    ],
    ids=str,
)
def test_what_cannot_be_batched_is_trained_by_itself(changed: dict[str, Any]) -> None:
    fits = [made(12, seed, **changed) for seed in range(3)]
    fits = [replace(fit, validation=(fit.features, fit.targets)) for fit in fits]
    fits.insert(1, made(12))
    found = fit_together(fits)
    for place in (0, 2, 3):
        check_same(found[place], fit_one(fits[place]))


def test_a_model_too_large_to_gain_from_company_is_trained_by_itself() -> None:
    fits = [made(12, seed) for seed in range(3)]
    for fitted, fit in zip(fit_together(fits, room_mb=1e-3), fits, strict=True):
        check_same(fitted, fit_one(fit))


def test_a_start_of_another_shape_is_refused_as_the_plain_loop_refuses_it() -> None:
    fit = replace(made(12), start=weights_of(Mlp((4,)).build(5, 3, 0)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        fit_together([made(12), fit])


def test_a_class_that_is_not_there_is_refused() -> None:
    fit = made(12)
    with pytest.raises(FedpactError, match="targets go from 0 to 3; legal are classes from 0 to 2"):
        fit_together([replace(fit, targets=np.arange(12) % 4)])


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(FedpactError, match="way is 'loop'; legal are bmm, vmap"):
        fit_together([], way="loop")


# ----------------------------------------------------------------------- a device that is full


class Full:
    """A device with room for so many models at a time, which fails late, as a real one does."""

    def __init__(self, patch: pytest.MonkeyPatch, kind: type[Stack], most: int) -> None:
        self.most, self.tried, self.failed = most, list[int](), list[ref[Stack]]()
        self.real = kind.step
        patch.setattr(kind, "step", lambda stack, *looked: self.step(stack, *looked))

    def step(self, stack: Stack, *looked: Any) -> Tensor:
        *_, epoch, step = looked
        lanes = len(next(iter(stack.weights.values())))
        if (epoch, step) != (0, 0):
            if lanes > self.most:
                self.failed.append(ref(stack))
                raise torch.OutOfMemoryError(f"{lanes} models")
            # What did not fit is gone before anything else is tried.
            assert not any(failed() for failed in self.failed)
        else:
            self.tried.append(lanes)
        return self.real(stack, *looked)


def test_a_batch_for_which_there_is_no_room_is_halved_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fits = [made(18 + seed % 3, seed) for seed in range(11)]
    found = fit_together(fits)
    full = Full(monkeypatch, Dense, 3)
    left = list[bool]()
    monkeypatch.setattr(batched, "forget_all", lambda: left.append(any(s() for s in full.failed)))
    for one, other in zip(found, fit_together(fits), strict=True):
        check_same(one, other)
    assert full.tried == [11, 5, 2, 2, 2, 2, 2, 1]
    assert left == [False, False]  # of what failed, when the device is asked for its memory
    assert [place for place in caplog.messages if "cpu has no room for 11 models" in place]


def test_a_device_without_room_for_one_model_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Full(monkeypatch, Dense, 0)
    with pytest.raises(torch.OutOfMemoryError, match="1 models"):
        fit_together([made(12, seed) for seed in range(4)])
    assert full.tried == [4, 2, 1]


# ----------------------------------------------------------------------------- another device


@pytest.mark.parametrize("way", ["bmm", "vmap"])
def test_on_another_device_nothing_of_a_step_lies_elsewhere(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is torch's "meta": it has no memory, and refuses to work with the CPU's."""
    meta = torch.device("meta")

    def there(*lists: Any, **rates: Any) -> None:
        """What no meta tensor can do; where they are is what is looked at."""
        assert all(tensor.device == meta for tensors in lists for tensor in tensors)

    monkeypatch.setattr(torch, "_fused_sgd_", there)
    monkeypatch.setitem(resident._RESIDENT, meta, Resident(meta, lambda _: 10**9))
    counts = (30, 29, 17) if way == "bmm" else (13, 13, 13)
    fits = [made(count, i, proximal=0.1, started=True) for i, count in enumerate(counts)]
    designs = Designs()
    design = designs.of(fits[0])
    kind = kind_of(fits[0], design, None, way)
    assert kind is not None
    starts = [designs.start(fit) for fit in fits]
    stacks: dict[str, Callable[..., Stack]] = {"bmm": partial(Dense, rows=13), "vmap": Mapped}
    stack = stacks[way](design.module, 3, True, meta)
    held = Examples(replace(kind, device=meta), 3)
    for _ in range(2):
        stack.begin(starts, [_rates(fit) for fit in fits])
        held.begin(fits)
        assert len(resident._RESIDENT[meta]) == 3  # sent once
        for part, looked in held.shuffled():
            assert stack.step(part.lanes, *looked, 0, part.step).device == meta


# ------------------------------------------------------------------------------------- vmap


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone": Cnn((3, 2)), "inputs": 64, "learning_rate": 0.05},
        {"backbone": Odd("no bias"), "proximal": 0.1},
    ],
    ids=["cnn", "no bias"],
)
def test_other_layers_are_batched_by_vmap(changed: dict[str, Any]) -> None:
    fits = [made(count, seed, **changed) for seed, count in enumerate((13, 12, 9, 14, 15))]
    found = fit_together(fits, room_mb=0.2, way="vmap")
    check_alike(found, fit_each(fits))
    for place, fit in enumerate(fits):
        check_same(found[place], fit_together([fit], room_mb=0.2, way="vmap")[0])
    assert differ(found, fit_each(fits))


def test_a_batch_that_is_filled_up_is_halved_with_its_filling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits = [made(13, seed, backbone=Odd("no bias")) for seed in range(5)]
    found = fit_together(fits, room_mb=0.009, way="vmap")
    full = Full(monkeypatch, Mapped, 3)
    check_alike(fit_together(fits, room_mb=0.009, way="vmap"), found)
    assert full.tried == [7, 3, 3]  # the last with one that is only filling
