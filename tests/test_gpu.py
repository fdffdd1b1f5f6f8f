"""On a real GPU (`make test-gpu`): its results beside a CPU's, what stays on it, who shares it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from parties import resident
from parties.backbones import Backbone
from parties.backbones.cnn import Cnn
from parties.backbones.mlp import Mlp
from parties.batched import fit_together
from parties.exchange import FedpactError
from parties.fitting import Fit, Fitted, fit_one
from parties.resident import on_device
from parties.training import Training, weights_of
from tests.checks import SMALL_HEART, SMALL_LOANS
from tests.test_engines import hold, models, sessions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]
GPU = torch.device("cuda", 0)
MLP, CNN = Mlp((32,)), Cnn()


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    resident.forget_all()


def made(
    backbone: Backbone, count: int, seed: int = 0, device: str = "cuda", **training: Any
) -> Fit:
    """A fit on random pictures of 8 by 8 pixels that can be told apart."""
    rng = np.random.default_rng([seed, count])
    labels = rng.integers(0, 10, count)
    patterns = np.random.default_rng(0).normal(size=(10, 64))
    features = (patterns[labels] + rng.normal(size=(count, 64))).astype(np.float32)
    start = weights_of(backbone.build(64, 10, 3))
    how = {"batch_size": 16, "learning_rate": 0.05, "device": device, **training}
    return Fit(Training(**how), backbone, 10, 0, start, features, labels, seed, 3, proximal=0.1)


def check_near(one: Fitted, other: Fitted, weights: float = 2e-4, losses: float = 2e-5) -> None:
    assert one[1] == pytest.approx(other[1], abs=losses)
    assert one[0].keys() == other[0].keys()
    for name, array in one[0].items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, other[0][name], rtol=0, atol=weights)


@pytest.mark.parametrize("backbone", [MLP, CNN], ids=["written out", "by autograd"])
def test_a_training_comes_to_what_a_cpu_comes_to(backbone: Backbone) -> None:
    check_near(fit_one(made(backbone, 100)), fit_one(made(backbone, 100, device="cpu")))


@pytest.mark.parametrize("backbone", [MLP, CNN], ids=["mlp", "cnn"])
def test_a_training_is_the_same_again(backbone: Backbone) -> None:
    check_near(fit_one(made(backbone, 100)), fit_one(made(backbone, 100)), weights=0, losses=0)


@pytest.mark.parametrize("backbone", [MLP, CNN], ids=["mlp", "cnn"])
def test_bfloat16_trains_about_as_well_and_leaves_weights_in_float32(backbone: Backbone) -> None:
    full, half = fit_one(made(backbone, 400)), fit_one(made(backbone, 400, mixed_precision="bf16"))
    check_near(full, half, weights=0.3, losses=0.15)
    assert full[1] != half[1]
    assert half[1][-1] < 0.5 * half[1][0]


@pytest.mark.parametrize("backbone", [MLP, CNN], ids=["bmm", "vmap"])
def test_a_batch_comes_to_what_each_comes_to_alone_whoever_is_in_it(backbone: Backbone) -> None:
    # More than a batch; a third without momentum.
    fits = [
        made(backbone, 40 + seed % 3, seed, momentum=0.9 * (seed % 3 > 0)) for seed in range(70)
    ]
    together = fit_together(fits)
    for fit, fitted in zip(fits[::9], together[::9], strict=True):
        check_near(fitted, fit_one(fit))
    few = fit_together(fits[9:0:-4])
    for fitted, again in zip(few, together[9:0:-4], strict=True):
        check_near(fitted, again, weights=0, losses=0)


def test_what_a_firm_trains_on_is_sent_once_and_goes_with_it() -> None:
    fit = made(MLP, 5000)
    fit_one(fit)
    before = torch.cuda.memory_allocated()
    copy = on_device(fit.features, GPU)
    for _ in range(3):
        fit_one(fit)
    assert on_device(fit.features, GPU) is copy
    assert torch.cuda.memory_allocated() == before
    fit_together([fit, made(MLP, 5000, 1)])
    assert on_device(fit.features, GPU) is copy
    del fit, copy
    gc.collect()
    assert torch.cuda.memory_allocated() < before - 5000 * 64 * 4 + 10_000


def test_a_batch_that_finds_no_room_is_halved(caplog: pytest.LogCaptureFixture) -> None:
    wide = Mlp((2048, 2048))  # 4.3 million parameters: 17 MB, four times in training
    fits = [made(wide, 20, seed) for seed in range(24)]
    due = fit_together(fits)
    resident.forget_all()
    whole = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 1e9) / whole)
    try:
        found = fit_together(fits)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "has no room for" in caplog.text
    for one, other in zip(found, due, strict=True):
        check_near(one, other)


@pytest.mark.parametrize("words", [SMALL_LOANS, SMALL_HEART], ids=["loans", "heart"])
@pytest.mark.parametrize("engine", ["inline", "batched"])
def test_a_study_comes_to_what_it_comes_to_on_a_cpu(
    words: tuple[str, ...], engine: str, tmp_path: Path
) -> None:
    words = (*words, f"engine={engine}")
    due = hold(tmp_path / "cpu", *words, "training.device=cpu")
    before = torch.cuda.memory_stats(GPU)["allocation.all.allocated"]
    found = hold(tmp_path / "auto", *words, "training.device=auto")
    assert torch.cuda.memory_stats(GPU)["allocation.all.allocated"] > before
    kept = sorted(p.relative_to(due) for p in due.rglob("*.safetensors"))
    assert kept
    for path in kept:
        one, other = load_file(found / path), load_file(due / path)
        assert one.keys() == other.keys()
        for name, array in one.items():
            # A case that lies on the edge of two classes may come to lie on the other side.
            apart = np.abs(array.astype(float) - other[name].astype(float)) > 2e-3
            assert np.mean(apart) < 0.01, (path, name)


@pytest.mark.ray
def test_actors_share_a_gpu_and_come_to_the_bytes_of_one_process(tmp_path: Path) -> None:
    from simulations.engines.ray_actors import RayActors

    due = hold(tmp_path / "inline", *SMALL_HEART, "training.device=cuda")
    try:
        for workers in (1, 2, 4):
            found = hold(
                tmp_path / f"ray{workers}",
                *SMALL_HEART,
                "training.device=cuda",
                "engine=ray",
                f"engine.workers={workers}",
                "engine.num_cpus=0.5",
                f"engine.num_gpus={1 / workers}",
            )
            assert sessions(found) == sessions(due)
            assert models(found) == models(due)
    finally:
        RayActors().close()


@pytest.mark.ray
def test_more_actors_than_the_gpus_have_room_for_are_refused(tmp_path: Path) -> None:
    count = torch.cuda.device_count()
    with pytest.raises(FedpactError, match=f"legal are {count} such actors or fewer"):
        hold(
            tmp_path / "x",
            *SMALL_LOANS,
            "training.device=cuda",
            "engine=ray",
            f"engine.workers={count + 1}",
            "engine.num_cpus=0.1",
            "engine.num_gpus=1",
        )
