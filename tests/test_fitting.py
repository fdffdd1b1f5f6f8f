"""The seam: a training as a value, and who does it."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from parties.backbones.mlp import Mlp
from parties.datasets.digits import Digits
from parties.fitting import (
    _DIGESTS,
    Fit,
    Fitted,
    digest,
    fit_each,
    fit_one,
    fitter,
    lasting_digest,
)
from parties.models import Models
from parties.training import Training, load_weights, random_seed, weights_of

TRAINING = Training(epochs=2, batch_size=16)
RNG = np.random.default_rng(0)
START = weights_of(Mlp((4,)).build(3, 2, 9))
FIT = Fit(
    TRAINING,
    Mlp((4,)),
    classes=2,
    draw=1,
    start=None,
    features=RNG.normal(size=(20, 3)).astype(np.float32),
    targets=RNG.integers(0, 2, 20),
    shuffle=2,
    epochs=0,
)


@pytest.mark.parametrize("started", [False, True])
def test_a_firm_fits_to_the_bit_what_the_plain_loop_fits(started: bool) -> None:
    models = Models("firm_0", Digits(client=0), Mlp((8,)), TRAINING, kept_back=0.1)
    training, back = models.parts(3)
    module = models.module(training.features, 3)
    start = None
    if started:
        start = {k: v + 0.1 for k, v in weights_of(module).items()}
        load_weights(module, start)
    assert back is not None
    losses = TRAINING.fit(
        module,
        training.features,
        training.labels,
        random_seed(3, 5, "firm_0"),
        2,
        0.3,
        validation=(back.features, back.labels),
    )
    arrays, told = models.fit(3, 5, 2, start, proximal=0.3)
    assert told == losses
    for name, array in weights_of(module).items():
        np.testing.assert_array_equal(arrays[name], array)


def test_whoever_is_named_does_a_firms_fits() -> None:
    asked: list[Fit] = []

    def note(fits: Any) -> list[Fitted]:
        asked.extend(fits)
        return fit_each(fits)

    named = fitter.set(note)
    try:
        Models("firm_0", Digits(client=0), Mlp((8,)), TRAINING, kept_back=0.0).fit(0, 1, 1, None)
    finally:
        fitter.reset(named)
    assert [fit.passes for fit in asked] == [1]


@pytest.mark.parametrize(
    "changed",
    [
        {"training": replace(TRAINING, momentum=0.5)},
        {"training": replace(TRAINING, mixed_precision="bf16")},
        {"backbone": Mlp((5,))},
        {"classes": 3},
        {"draw": 2},
        {"start": START},
        {"features": FIT.features + 1},
        {"targets": 1 - FIT.targets},
        {"targets": FIT.targets.astype(np.int32)},
        {"shuffle": 3},
        {"epochs": 3},
        {"proximal": 0.1},
        {"validation": (FIT.features, FIT.targets)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_key_changes_with_all_that_a_fit_depends_on(changed: dict[str, Any]) -> None:
    assert replace(FIT, **changed).key({}) != FIT.key({})


def test_a_key_is_of_the_content_and_not_of_the_objects() -> None:
    again = replace(
        FIT, training=Training(epochs=2, batch_size=16), features=FIT.features.copy(), epochs=2
    )
    assert again.key({}) == FIT.key({})
    started = replace(FIT, start=START)
    assert replace(started, draw=7, start=dict(reversed(START.items()))).key({}) == started.key({})


def test_a_fit_leaves_its_start_as_it_was() -> None:
    before = {name: array.copy() for name, array in START.items()}
    fit_one(replace(FIT, start=START))
    for name, array in before.items():
        np.testing.assert_array_equal(START[name], array)


def test_bf16_comes_near_the_losses_of_float32_and_its_weights_are_float32() -> None:
    """Within 2 % a loss: bfloat16 keeps 8 bits of a number, .4 %."""
    split = Digits(client=0).split(0)
    seen = set[torch.dtype]()

    def noting(module: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
        logits = module(features)
        loss = functional.cross_entropy(logits, labels)
        seen.update((logits.dtype, loss.dtype))
        return loss

    whole, mixed = Mlp((32,)).build(64, 10, 0), Mlp((32,)).build(64, 10, 0)
    training = Training(epochs=5, batch_size=16)
    examples = split.training.features, split.training.labels, 0
    losses = training.fit(whole, *examples, objective=noting)
    assert seen == {torch.float32}
    told = replace(training, mixed_precision="bf16").fit(mixed, *examples, objective=noting)
    assert seen == {torch.float32, torch.bfloat16}
    np.testing.assert_allclose(told, losses, rtol=0.02)
    assert told != losses
    for array in weights_of(mixed).values():
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert training.loss(mixed, *examples[:2]) == pytest.approx(
        training.loss(whole, *examples[:2]), rel=0.02
    )


def test_what_is_trained_on_is_read_once_and_forgotten_with_its_array() -> None:
    known = len(_DIGESTS)
    array = np.arange(12.0).reshape(3, 4)
    before = lasting_digest(array)
    array[0] = 7.0  # nobody may; and so it is seen that nobody looks again
    assert lasting_digest(array) == before != digest(array)
    assert lasting_digest(array.copy()) == digest(array)
    assert digest(array.T) != digest(array)
    assert digest(array.astype(np.float32)) != digest(array)
    del array
    gc.collect()
    assert len(_DIGESTS) == known


def test_what_is_kept_back_is_the_same_arrays_every_round() -> None:
    models = Models("firm_0", Digits(client=0), Mlp((8,)), TRAINING, kept_back=0.2)
    fit, back = models.parts(0)
    again, other = models.parts(0)
    assert back is not None
    assert again is fit
    assert other is back
    assert len(fit.ids) + len(back.ids) == len(models.dataset.split(0).training.ids)
    assert not set(fit.ids) & set(back.ids)
    assert models.parts(1)[0] is not fit
    assert np.array_equal(models.parts(0)[0].ids, fit.ids)


def test_weights_that_several_start_from_are_read_once() -> None:
    seen: dict[int, str] = {}
    one, other = replace(FIT, start=START), replace(FIT, start=START, shuffle=FIT.shuffle + 1)
    assert one.key(seen) == one.key({})
    read = dict(seen)
    assert other.key(seen) == other.key({}) != one.key({})
    assert seen == read == {id(array): digest(array) for array in START.values()}
