"""`simulations/bench/peers`: what others do with firms, against federated averaging in numpy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parties.backbones import Backbone
from parties.backbones.cnn import Cnn
from parties.backbones.mlp import Mlp
from parties.exchange import Array
from parties.training import weights_of
from simulations.bench.peers import centralised, plain_loop
from simulations.bench.peers.workload import Workload, layers
from simulations.bench.row import AGREE

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".venv-peers" / "bin" / "python"
SIZES, ROUNDS, BATCH, RATE, MOMENTUM, WIDTH = (7, 5, 9), 4, 3, 0.1, 0.9, 6
State = dict[str, Array]


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    """Three firms of unlike size with random examples, in a file."""
    rng, total = np.random.default_rng(0), sum(SIZES)
    ends = np.cumsum(SIZES)
    start = {
        name: rng.normal(size=value.shape, scale=0.3).astype(np.float32)
        for name, value in layers(f"mlp:{WIDTH}", 16).state_dict().items()
    }
    path = tmp_path / "workload.npz"
    np.savez(
        path,
        features=rng.normal(size=(total, 16)).astype(np.float32),
        labels=rng.integers(0, 10, total),
        firm=np.repeat(np.arange(len(SIZES)), SIZES),
        order=[
            np.concatenate([e - s + rng.permutation(s) for e, s in zip(ends, SIZES, strict=True)])
            for _ in range(ROUNDS)
        ],
        batch=BATCH,
        learning_rate=RATE,
        momentum=MOMENTUM,
        rounds=ROUNDS,
        model=f"mlp:{WIDTH}",
        **{f"start.{name}": array for name, array in start.items()},
    )
    return path


def told(
    main: Any,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *more: str,
) -> dict[str, Any]:
    """The last line of a peer that runs in this process."""
    monkeypatch.setattr(sys, "argv", ["peer", str(path), *more])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def probabilities(state: State, x: Array) -> tuple[Array, Array]:
    """Hidden units and class probabilities of the MLP, float64."""
    hidden = np.maximum(x @ state["0.weight"].T + state["0.bias"], 0)
    scores = hidden @ state["2.weight"].T + state["2.bias"]
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return hidden, shares / shares.sum(1, keepdims=True)


def step(state: State, speed: State, x: Array, y: Array) -> None:
    """One step of SGD with momentum, in place."""
    hidden, found = probabilities(state, x)
    error = (found - np.eye(10)[y]) / len(y)
    inner = (error @ state["2.weight"]) * (hidden > 0)
    slopes = {
        "0.weight": inner.T @ x,
        "0.bias": inner.sum(0),
        "2.weight": error.T @ hidden,
        "2.bias": error.sum(0),
    }
    for name, slope in slopes.items():
        speed[name] = MOMENTUM * speed[name] + slope
        state[name] = state[name] - RATE * speed[name]


def loss(state: State, work: Workload) -> float:
    _, found = probabilities(state, work.features.double().numpy())
    return float(-np.log(found[np.arange(len(found)), work.labels.numpy()]).mean())


def zeros(state: State) -> State:
    return {name: np.zeros_like(value) for name, value in state.items()}


def averaged(path: Path) -> float:
    """The loss of federated averaging by its definition, float64."""
    work = Workload.read(path)
    x, y = work.features.double().numpy(), work.labels.numpy()
    common = {name: value.double().numpy() for name, value in work.start.items()}
    for round_ in range(ROUNDS):
        total = zeros(common)
        for rows in work.rows(round_):
            state, speed = dict(common), zeros(common)
            for batch in np.split(rows.numpy(), range(BATCH, len(rows), BATCH)):
                step(state, speed, x[batch], y[batch])
            total = {name: total[name] + len(rows) * state[name] for name in total}
        common = {name: value / len(y) for name, value in total.items()}
    return loss(common, work)


def test_the_plain_loop_is_federated_averaging(
    workload: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(plain_loop.main, workload, monkeypatch, capsys)
    work = Workload.read(workload)
    assert found["loss"] == pytest.approx(averaged(workload), abs=AGREE)
    assert abs(found["loss"] - work.loss(work.build())) > 0.1  # it has learnt
    assert len(found["cpu_s"]) == len(found["wall_s"]) == ROUNDS - 1
    assert found["trainings"] == len(SIZES)
    assert found["versions"] == {"torch": torch.__version__}


def test_the_plain_loop_comes_to_the_same_with_our_layers(
    workload: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(workload) as found:
        arrays = {k: v for k, v in found.items() if not k.startswith("start.")}
    start = weights_of(Cnn().build(16, 10, 0))
    images = workload.with_name("images.npz")
    np.savez(images, **{**arrays, "model": "cnn"}, **{f"start.{k}": v for k, v in start.items()})
    losses = [
        told(plain_loop.main, images, monkeypatch, capsys, *more)["loss"]
        for more in ((), ("cpu", "cnn:channels_last"))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=AGREE / 10)
    assert losses[0] < Workload.read(images).loss(Workload.read(images).build()) - 0.05


def test_the_bound_is_one_model_on_the_examples_of_all_firms(
    workload: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(centralised.main, workload, monkeypatch, capsys)
    work = Workload.read(workload)
    state = {name: value.double().numpy() for name, value in work.start.items()}
    speed = zeros(state)
    for _ in range(ROUNDS):  # the cache holds all of them, so that a round is one step
        step(state, speed, work.features.double().numpy(), work.labels.numpy())
    assert found["loss"] == pytest.approx(loss(state, work), abs=AGREE)
    assert abs(found["loss"] - averaged(workload)) > AGREE


@pytest.mark.parametrize(
    ("model", "inputs", "backbone"),
    [("mlp:32", 64, Mlp((32,))), ("cnn", 784, Cnn()), ("cnn:channels_last", 784, Cnn())],
)
def test_a_peer_has_the_very_model_of_the_firms(
    model: str, inputs: int, backbone: Backbone
) -> None:
    ours, theirs = backbone.build(inputs, 10, 0), layers(model, inputs)
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, inputs, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-6)
    if model != "cnn":  # whose images lie in another order, and are summed up in it
        assert torch.equal(ours(images), theirs(images))


def test_a_peer_with_our_layers_has_images_laid_out_as_ours() -> None:
    images = torch.rand(2, 784)
    laid = [layers(model, 784)[0](images) for model in ("cnn", "cnn:channels_last")]
    ours = next(Cnn().build(784, 10, 0).children())(images)
    assert [one.stride() == ours.stride() for one in laid] == [False, True]


def test_a_model_that_no_peer_knows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'resnet'; legal are mlp:WIDTH, cnn and cnn:chan"):
        layers("resnet", 64)


def test_a_batch_of_the_bound_fills_the_cache() -> None:
    image = torch.zeros(1, 784)
    assert centralised.cached_batch(layers("cnn", 784), image) == 128
    assert centralised.cached_batch(layers("mlp:128", 784), image) == 1024
    assert centralised.cached_batch(layers("mlp:32", 64), torch.zeros(1, 64)) == 1024


def by_itself(python: Path, name: str, workload: Path) -> dict[str, Any]:
    """The last line of a peer in an interpreter of its own."""
    assert python.is_file(), f"{python} is not there; `make bench-peers` makes it"
    done = subprocess.run(
        [python, "-m", f"simulations.bench.peers.{name}", workload],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.long
@pytest.mark.flower
def test_flowers_own_simulation_is_federated_averaging(workload: Path) -> None:
    found = by_itself(Path(sys.executable), "flower_tutorial", workload)
    assert found["loss"] == pytest.approx(averaged(workload), abs=AGREE)
    assert len(found["cpu_s"]) == ROUNDS - 1
    assert min(found["cpu_s"]) > 0
    assert {"flwr", "ray", "torch"} <= set(found["versions"])


@pytest.mark.long
def test_pfl_is_federated_averaging(workload: Path) -> None:
    found = by_itself(PEER, "pfl_loop", workload)
    assert found["loss"] == pytest.approx(averaged(workload), abs=AGREE)
    assert len(found["cpu_s"]) == ROUNDS - 1
    assert {"pfl", "torch"} <= set(found["versions"])
